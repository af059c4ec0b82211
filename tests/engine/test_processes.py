"""`shell` and `thread`: real processes as steps."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from pathlib import Path

import pytest

from taskrun import CommandFailed, Completed, StepTimeout, WorkerCrashed, job, run, shell, sleep, thread
from taskrun.stores.base import Store
from taskrun.testing import TestQueue


async def outcome(call: object, **options: object) -> object:
    """Returns what one step gives, or raises what it raises."""
    found: list[object] = []

    @job(retry=0)
    async def handler() -> None:
        try:
            found.append(await call())  # type: ignore[operator]
        except Exception as error:
            found.append(error)

    async with TestQueue(jobs=[handler]) as queue:
        await queue.jobs.handler.run()
    if isinstance(found[0], Exception):
        raise found[0]
    return found[0]


async def test_a_command_gives_code_and_streams() -> None:
    done = await outcome(lambda: shell("echo out; echo err >&2; exit 3", check=False))
    assert done == Completed(code=3, stdout="out\n", stderr="err\n")


async def test_a_list_does_not_go_to_the_shell() -> None:
    done = await outcome(lambda: shell(["echo", "$HOME; ls"]))
    assert isinstance(done, Completed)
    assert done.stdout == "$HOME; ls\n"


async def test_a_command_gets_its_folder_environment_and_input(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KEPT", "kept")
    call = lambda: shell("pwd; echo $ADDED $KEPT; cat", cwd=tmp_path, env={"ADDED": "added"}, stdin="given")  # noqa: E731
    done = await outcome(call)
    assert isinstance(done, Completed)
    assert done.stdout.splitlines() == [str(tmp_path.resolve()), "added kept", "given"]


async def test_a_command_that_fails_is_command_failed() -> None:
    with pytest.raises(CommandFailed) as caught:
        await outcome(lambda: shell("echo why >&2; exit 7"))
    assert (caught.value.code, caught.value.stderr) == (7, "why\n")


async def test_a_command_is_not_retried_unless_it_is_said(tmp_path: Path) -> None:
    count = tmp_path / "count"
    with pytest.raises(CommandFailed):
        await outcome(lambda: shell(f"echo x >> {count}; false"))
    assert count.read_text() == "x\n"
    with pytest.raises(CommandFailed):
        await outcome(lambda: shell(f"echo x >> {count}; false", retry=2, backoff=0))
    assert count.read_text() == "x\n" * 4


async def test_a_command_runs_once_and_gives_the_same_on_replay(storage: Store, tmp_path: Path) -> None:
    seen: list[Completed] = []

    @job
    async def handler() -> None:
        seen.append(await shell(f"echo x >> {tmp_path}/count; cat {tmp_path}/count", name="count"))
        await sleep("1d")

    async with TestQueue(jobs=[handler], storage=storage, replay=True) as queue:
        handle = await queue.jobs.handler.start()
        await queue.advance("1d")
        await handle.result()
    assert seen == [Completed(code=0, stdout="x\n", stderr="")] * 2


async def test_a_timeout_ends_the_whole_process_group(tmp_path: Path) -> None:
    pids = tmp_path / "pids"

    @job
    async def handler() -> str:
        try:
            await shell(f"sleep 600 & echo $! $$ > {pids}; wait", timeout="10s")
        except StepTimeout:
            return "timeout"
        return "in time"

    async with TestQueue(jobs=[handler], grace=1) as queue:
        handle = await queue.jobs.handler.start()
        while not (pids.exists() and pids.read_text().strip()):
            await asyncio.sleep(0.01)
        queue.clock.ring(queue.clock.now() + 10)
        assert await handle.result(timeout=20) == "timeout"
        for pid in map(int, pids.read_text().split()):
            with pytest.raises(ProcessLookupError):
                os.kill(pid, 0)


async def test_a_function_runs_in_another_process_lambdas_and_closures_too() -> None:
    factor = 21
    assert await outcome(lambda: thread("pid", os.getpid)) != os.getpid()
    assert await outcome(lambda: thread("double", lambda number: number * factor, 2)) == 42


async def test_a_process_that_dies_fails_only_its_step() -> None:
    @job
    async def handler() -> list[object]:
        async def die() -> object:
            try:
                return await thread("die", lambda: os.kill(os.getpid(), signal.SIGKILL), retry=0)
            except WorkerCrashed as error:
                return type(error).__name__

        return list(await asyncio.gather(die(), thread("live", lambda: "alive"), run("beside", lambda: "beside")))

    async with TestQueue(jobs=[handler]) as queue:
        assert await queue.jobs.handler.run() == ["WorkerCrashed", "alive", "beside"]


async def test_memory_and_cpu_are_capped() -> None:
    with pytest.raises((WorkerCrashed, MemoryError)):
        await outcome(lambda: thread("greedy", lambda: len(bytearray(10**9)), memory="300MB", retry=0))

    def spin() -> None:
        while True:
            pass

    with pytest.raises(WorkerCrashed):
        await outcome(lambda: thread("spinning", spin, cpu_time=1, retry=0))


async def test_a_process_that_is_too_slow_is_killed() -> None:
    @job
    async def handler() -> str:
        try:
            await thread("slow", time.sleep, 600, timeout="10s", retry=0)
        except StepTimeout:
            return "timeout"
        return "in time"

    async with TestQueue(jobs=[handler], grace=0) as queue:
        handle = await queue.jobs.handler.start()
        while queue.executor.bodies.threads == 0:
            await asyncio.sleep(0.01)
        queue.clock.ring(queue.clock.now() + 10)
        assert await handle.result(timeout=20) == "timeout"
