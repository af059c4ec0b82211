from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import threading
import time
import types
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

import taskrun
from taskrun.model.codec import RecordedError, encode_error
from taskrun.model.errors import CommandFailed, Fatal, RetryAfter, WorkerCrashed
from taskrun.processes.pool import ProcessPool, register_by_value

from .conftest import Census, Printed, open_fds

MB = 1_000_000


class Caller:
    """A pool, and what its processes printed."""

    def __init__(self, pool: ProcessPool) -> None:
        self.pool = pool
        self.printed_text = Printed()

    async def __call__(self, fn: Callable[..., Any], *args: Any, grace: float = 5, **limits: Any) -> Any:
        return await self.pool.call(fn, args, grace=grace, on_text=self.printed_text, **limits)

    @property
    def lines(self) -> list[tuple[str, str]]:
        return self.printed_text.lines

    async def printed(self, text: str) -> None:
        while ("stdout", text) not in self.lines:
            await asyncio.sleep(0.01)


@pytest.fixture
async def call(no_leak: None) -> AsyncIterator[Caller]:
    pool = ProcessPool()
    yield Caller(pool)
    await pool.close()


@dataclass
class Point:
    x: int


class Odd(Exception):
    """Cannot be rebuilt from its args."""

    def __init__(self, a: int, b: int) -> None:
        super().__init__(f"odd {a} {b}")


# ---- calls


async def test_closures_and_lambdas_run_elsewhere(call: Caller) -> None:
    base = 40
    assert await call(lambda x: x + base, 2) == 42
    assert await call(os.getpid) != os.getpid()


async def test_an_object_comes_back_as_the_same_type(call: Caller) -> None:
    assert await call(lambda point: Point(point.x + 1), Point(1)) == Point(2)


async def test_large_arguments_and_results_pass(call: Caller) -> None:
    assert await call(lambda data: data + data[:1], b"x" * 5 * MB) == b"x" * (5 * MB + 1)


async def test_a_process_is_used_again(call: Caller) -> None:
    assert await call(os.getpid) == await call(os.getpid)


async def test_calls_at_the_same_time_run_in_processes_of_their_own(call: Caller, tmp_path: Path) -> None:
    def meet(mine: str, other: str) -> int:
        Path(mine).touch()
        while not Path(other).exists():
            time.sleep(0.005)
        return os.getpid()

    a, b = str(tmp_path / "a"), str(tmp_path / "b")
    pids = await asyncio.gather(call(meet, a, b), call(meet, b, a))
    assert len(set(pids)) == 2


async def test_no_more_processes_than_it_may_have(census: Census) -> None:
    pool = ProcessPool(most=1)
    caller = Caller(pool)
    assert len(set(await asyncio.gather(*(caller(os.getpid) for _ in range(4))))) == 1
    await pool.close()


async def test_modules_import_by_name_from_the_path_of_the_parent(
    call: Caller, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "neighbour_of_jobs.py").write_text("def hello(): return __name__")
    monkeypatch.syspath_prepend(tmp_path)
    import neighbour_of_jobs  # type: ignore[import-not-found]

    assert await call(neighbour_of_jobs.hello) == "neighbour_of_jobs"


async def test_a_module_that_cannot_be_imported_by_name_goes_along_by_value(
    call: Caller, monkeypatch: pytest.MonkeyPatch
) -> None:
    module = types.ModuleType("loaded_from_nowhere")
    exec("def helper(): return 7\ndef work(): return helper()", module.__dict__)
    monkeypatch.setitem(sys.modules, module.__name__, module)
    with pytest.raises(ModuleNotFoundError):
        await call(module.work)
    register_by_value(module)
    assert await call(module.work) == 7


async def test_what_it_prints_arrives_before_its_result(call: Caller) -> None:
    def chatty() -> None:
        print("one")
        print("two é", file=sys.stderr)
        subprocess.run("echo three", shell=True)
        print("no end", end="")

    await call(chatty)
    assert [text for stream, text in call.lines if stream == "stdout"] == ["one", "three", "no end"]
    assert ("stderr", "two é") in call.lines


async def test_lines_come_while_it_runs(call: Caller, tmp_path: Path) -> None:
    def wait_for(path: Path) -> None:
        print("ready")
        while not path.exists():
            time.sleep(0.005)

    task = asyncio.create_task(call(wait_for, tmp_path / "go"))
    await call.printed("ready")
    (tmp_path / "go").touch()
    await task


# ---- errors


class NoWay(Fatal):
    """Cannot be rebuilt from its args."""

    def __init__(self, a: int, b: int) -> None:
        super().__init__(f"no way {a} {b}")


class Soon(RetryAfter):
    """Cannot be rebuilt from its args."""

    def __init__(self, a: int, b: int) -> None:
        super().__init__(a * b, f"in {a + b}")


def fail(error: BaseException) -> None:
    raise error


def wait_and_return(seconds: float) -> float:
    time.sleep(seconds)
    return seconds


of_taskrun = pytest.param(
    CommandFailed("ls", 2, "", "err"),
    marks=pytest.mark.skipif(not hasattr(taskrun, "CommandFailed"), reason="pickled by the name that users import"),
)


@pytest.mark.parametrize("error", [ValueError("no", 3), of_taskrun])
async def test_an_exception_comes_back_as_itself_with_its_traceback(call: Caller, error: Exception) -> None:
    with pytest.raises(type(error)) as caught:
        await call(fail, error)
    assert caught.value.args == error.args
    assert "in fail" in str(caught.value.__cause__)


@pytest.mark.parametrize(
    ("error", "type_name", "message"),
    [
        (Odd(1, 2), "Odd", "odd 1 2"),
        (ValueError(threading.Lock()), "ValueError", "lock"),
        (KeyboardInterrupt("stop"), "KeyboardInterrupt", "stop"),
        (SystemExit(4), "SystemExit", "4"),
        (SystemExit("no such file"), "SystemExit", "no such file"),
    ],
)
async def test_an_exception_that_cannot_be_rebuilt_comes_as_its_record(
    call: Caller, error: BaseException, type_name: str, message: str
) -> None:
    with pytest.raises(RecordedError) as caught:
        await call(lambda make: fail(make()), maker(error))
    record = caught.value.record
    assert record.type.rpartition(".")[2] == type_name
    assert message in record.message
    assert "test_pool.py" in record.where
    assert "in fail" in record.traceback


def maker(error: BaseException) -> Callable[[], BaseException]:
    """Makes an error where it is raised, since it cannot be pickled."""
    makers: dict[str, Callable[[], BaseException]] = {
        "Odd": lambda: Odd(1, 2),
        "ValueError": lambda: ValueError(threading.Lock()),
    }
    return makers.get(type(error).__name__, lambda: error)


@pytest.mark.parametrize("leave", [sys.exit, lambda: sys.exit(0), lambda: sys.exit(None)])
async def test_an_exit_without_a_fault_is_a_result(call: Caller, leave: Callable[[], None]) -> None:
    assert await call(leave) is None


@pytest.mark.parametrize(("kind", "base"), [(NoWay, Fatal), (Soon, RetryAfter)])
async def test_what_steers_retries_arrives_though_it_cannot_be_rebuilt(
    call: Caller, kind: type[Exception], base: type[Exception]
) -> None:
    with pytest.raises(base) as caught:
        await call(lambda: fail(kind(1, 2)))
    assert type(caught.value) is base
    assert encode_error(caught.value).type.endswith(kind.__name__)
    if isinstance(caught.value, RetryAfter):
        assert caught.value.delay == 2


async def test_a_result_that_cannot_be_pickled_is_an_error_of_the_call(call: Caller) -> None:
    with pytest.raises(TypeError, match="lock"):
        await call(threading.Lock)


@pytest.mark.parametrize(
    ("fn", "says"),
    [
        (lambda: os._exit(3), "exit code 3"),
        (lambda: os.kill(os.getpid(), signal.SIGSEGV), "SIGSEGV"),
    ],
)
async def test_a_death_fails_this_call_only(call: Caller, fn: Callable[[], None], says: str) -> None:
    beside = asyncio.create_task(call(wait_and_return, 0.2))
    with pytest.raises(WorkerCrashed, match=says):
        await call(fn)
    assert await beside == 0.2
    assert await call(lambda: 6) == 6


async def test_what_it_printed_before_its_death_is_not_lost(call: Caller) -> None:
    with pytest.raises(WorkerCrashed):
        await call(lambda: (os.write(1, b"last words"), os._exit(1)))
    assert call.lines == [("stdout", "last words")]


async def test_a_process_that_was_killed_by_a_signal_without_a_name_is_told_as_that(call: Caller) -> None:
    with pytest.raises(WorkerCrashed, match=r"killed by signal 40$"):
        await call(lambda: os.kill(os.getpid(), 40))


async def test_a_process_that_died_while_idle_is_not_asked(call: Caller, census: Census) -> None:
    os.kill(await call(os.getpid), signal.SIGKILL)
    while census.alive():
        await asyncio.sleep(0.01)
    assert await call(lambda: 1) == 1


async def test_a_process_whose_death_is_not_known_yet_begins_nothing(call: Caller) -> None:
    for number in range(10):
        os.kill(await call(os.getpid), signal.SIGKILL)
        assert await call(lambda: number) == number  # noqa: B023


# ---- what it tells


async def test_what_a_function_tells_arrives_in_order_before_its_result(call: Caller) -> None:
    def talk(tell: Callable[[object], None], count: int) -> int:
        for number in range(count):
            tell(("number", number))
        return count

    told: list[Any] = []
    assert await call(talk, 1000, on_told=told.append) == 1000
    assert told == [("number", number) for number in range(1000)]


async def test_whoever_has_enough_makes_the_process_wait(call: Caller) -> None:
    def talk(tell: Callable[[object], None]) -> None:
        while True:
            tell("x" * 100_000)

    told = 0

    def slowly(_message: object) -> bool:
        nonlocal told
        told += 1
        return True

    task = asyncio.create_task(call(talk, on_told=slowly))
    while not told:
        await asyncio.sleep(0.001)
    seen = told
    for _ in range(1000):  # turns of the loop, in each of which it could have read more
        await asyncio.sleep(0)
    assert told <= seen + 50
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_what_is_told_while_it_is_being_ended_is_heard(call: Caller) -> None:
    def talk(tell: Callable[[object], None]) -> None:
        try:
            tell("ready")
            time.sleep(600)
        finally:
            tell("tidied")

    told: list[Any] = []
    task = asyncio.create_task(call(talk, on_told=told.append))
    while "ready" not in told:
        await asyncio.sleep(0.01)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert told == ["ready", "tidied"]


# ---- files of a project


@pytest.mark.parametrize("name", ["queue", "select", "calendar", "logging", "asyncio", "json", "struct", "types"])
async def test_a_file_named_like_a_module_of_the_standard_library_breaks_nothing(
    call: Caller, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    (tmp_path / f"{name}.py").write_text("raise RuntimeError('this is not the one that was meant')")
    monkeypatch.syspath_prepend(tmp_path)
    assert await call(sum, [1, 2]) == 3
    with pytest.raises(ValueError, match="no"):
        await call(fail, ValueError("no"))


async def test_a_closed_stream_harms_no_later_call(call: Caller) -> None:
    def close() -> int:
        sys.stdout.close()
        sys.stderr = None
        return os.getpid()

    assert await call(close) == await call(os.getpid)


# ---- limits


@pytest.mark.skipif(sys.platform != "linux", reason="the kernel does not limit the address space")
async def test_over_its_memory_it_crashes_and_under_it_works(call: Caller) -> None:
    assert await call(lambda: len(bytearray(50 * MB)), memory=100 * MB) == 50 * MB
    with pytest.raises(WorkerCrashed, match="memory limit of 95"):
        await call(lambda: len(bytearray(150 * MB)), memory=100 * MB)


async def test_memory_that_is_watched_ends_the_process(call: Caller) -> None:
    def watched() -> None:
        from taskrun.processes import pool_program

        threading.Thread(target=pool_program.watch_memory, args=(pool_program.peak() + 50 * MB,), daemon=True).start()
        hoard = bytearray(os.urandom(100 * MB))
        time.sleep(60)
        print(len(hoard))

    with pytest.raises(WorkerCrashed, match="memory limit"):
        await call(watched, memory=4000 * MB)


def spin() -> None:
    print("spinning")
    while True:
        pass


def spin_in_c() -> None:
    print("spinning")
    sum(range(10**14))  # holds the GIL for hours


async def test_over_its_cpu_time_it_crashes(call: Caller) -> None:
    with pytest.raises(WorkerCrashed, match=r"CPU time of 0\.1 s"):
        await call(spin, cpu_time=0.1)


async def test_waiting_costs_no_cpu_time(call: Caller) -> None:
    assert await call(wait_and_return, 1.2, cpu_time=0.1) == 1.2


@pytest.mark.parametrize("limits", [{"memory": 500 * MB}, {"cpu_time": 60}])
async def test_a_process_with_limits_is_not_used_again(call: Caller, limits: dict[str, int]) -> None:
    assert await call(os.getpid, **limits) != await call(os.getpid)


async def test_a_process_that_left_something_running_is_not_used_again(call: Caller, census: Census) -> None:
    def leave_child() -> int:
        subprocess.Popen(["sleep", "600"])
        return os.getpid()

    def leave_thread() -> int:
        threading.Thread(target=time.sleep, args=(600,)).start()
        return os.getpid()

    pids = [await call(fn) for fn in (leave_child, leave_thread, os.getpid)]
    assert len(set(pids)) == 3
    assert not any("sleep" in line for line in census.alive().values())


# ---- killing


@pytest.mark.parametrize("fn", [spin, spin_in_c])
async def test_a_cancel_kills_whatever_it_does(call: Caller, census: Census, fn: Callable[[], None]) -> None:
    task = asyncio.create_task(call(fn))
    await call.printed("spinning")
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert not census.alive()


async def test_a_cancel_runs_its_finally_blocks(call: Caller) -> None:
    def tidy() -> None:
        try:
            print("ready")
            time.sleep(600)
        finally:
            print("tidied")

    task = asyncio.create_task(call(tidy))
    await call.printed("ready")
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert ("stdout", "tidied") in call.lines


async def test_what_a_cancelled_call_started_dies_with_it(call: Caller, census: Census) -> None:
    def start_more() -> None:
        subprocess.Popen(["sleep", "600"])
        subprocess.Popen(["sleep", "600"], start_new_session=True)
        spin()

    task = asyncio.create_task(call(start_more))
    await call.printed("spinning")
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert not census.alive()


async def test_cancels_at_any_instant_leak_nothing(call: Caller, census: Census) -> None:
    fds = open_fds()
    for instant in range(20):
        task = asyncio.create_task(call(spin))
        await asyncio.sleep(instant * 0.006)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert open_fds() == fds
    assert not census.alive()


async def test_close_ends_idle_and_busy_processes(census: Census) -> None:
    fds = open_fds()
    pool = ProcessPool()
    caller = Caller(pool)
    busy = asyncio.create_task(caller(spin))
    await caller(os.getpid)
    await caller.printed("spinning")
    await pool.close()
    with pytest.raises(WorkerCrashed):
        await busy
    assert not census.alive()
    assert open_fds() == fds
    with pytest.raises(RuntimeError, match="closed"):
        await caller(os.getpid)
