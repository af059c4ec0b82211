"""Errors of steps in the handler: the original where it can be rebuilt, the same live and on replay."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from taskrun import Fatal, RetryAfter, RunFailed, StepFailed, StepTimeout, job, run, sleep, thread
from taskrun.stores.base import Store
from taskrun.testing import TestQueue


class Refused(Exception):
    """Can be rebuilt: its arguments are kept."""

    def __init__(self, code: int, text: str) -> None:
        super().__init__(code, text)
        self.code = code


class Stubborn(Exception):
    """Cannot be rebuilt from its arguments."""

    def __init__(self, *, code: int) -> None:
        super().__init__(f"code {code}")


def raising(error: Callable[[], BaseException]) -> Callable[[], None]:
    def body() -> None:
        raise error()

    return body


async def live_and_replayed(error: Callable[[], BaseException], storage: Store | None = None) -> list[BaseException]:
    """Returns what a failed step raised when it was executed, and what it raised on replay."""
    seen: list[BaseException] = []

    @job
    async def handler() -> None:
        try:
            await run("failing", raising(error), retry=0)
        except Exception as caught:
            seen.append(caught)
        await sleep("1d")

    async with TestQueue(jobs=[handler], storage=storage, replay=True) as queue:
        handle = await queue.jobs.handler.start()
        await queue.advance("1d")
        await handle.result()
    assert len(seen) == 2
    return seen


@pytest.mark.parametrize(
    "error",
    [
        lambda: ValueError("no"),
        lambda: Refused(404, "gone"),
        lambda: FileNotFoundError(2, "No such file", "song.mp3"),
        lambda: Fatal("stop"),
    ],
    ids=["builtin", "own", "os", "fatal"],
)
async def test_the_original_type_comes_back_live_and_on_replay(error: Callable[[], Exception], storage: Store) -> None:
    live, replayed = await live_and_replayed(error, storage)
    assert type(live) is type(replayed) is type(error())
    assert str(live) == str(replayed) == str(error())


async def test_an_own_error_keeps_its_attributes() -> None:
    live, replayed = await live_and_replayed(lambda: Refused(404, "gone"))
    assert isinstance(live, Refused) and isinstance(replayed, Refused)
    assert live.code == replayed.code == 404


def local_error() -> Exception:
    class Local(Exception): ...

    return Local("hidden")


@pytest.mark.parametrize("error", [lambda: Stubborn(code=3), local_error], ids=["constructor", "local"])
async def test_what_cannot_be_rebuilt_is_step_failed_live_and_on_replay(error: Callable[[], Exception]) -> None:
    live, replayed = await live_and_replayed(error)
    assert isinstance(live, StepFailed) and isinstance(replayed, StepFailed)
    assert (live.step, live.error_type, live.message) == (replayed.step, replayed.error_type, replayed.message)
    assert live.step == "failing"
    assert live.error_type.endswith(type(error()).__name__)


class Unspeakable(Exception):
    def __str__(self) -> str:
        raise RuntimeError("no text")


@pytest.mark.parametrize(
    "error",
    [
        Unspeakable,
        lambda: StopIteration(5),
        lambda: StopAsyncIteration(),
        lambda: SystemExit(3),
        lambda: KeyboardInterrupt(),
        lambda: GeneratorExit(),
        lambda: BaseException("base"),
        lambda: ExceptionGroup("many", [ValueError("a"), OSError("b")]),
        lambda: BaseExceptionGroup("worse", [KeyboardInterrupt()]),
    ],
    ids=["str", "stop", "async-stop", "exit", "interrupt", "generator", "base", "group", "base-group"],
)
async def test_odd_errors_of_a_step_are_its_failure_and_nothing_else(error: Callable[[], BaseException]) -> None:
    live, replayed = await live_and_replayed(error)
    assert type(live) is type(replayed)
    assert isinstance(live, Exception)


@pytest.mark.parametrize(
    "error",
    [
        Unspeakable,
        lambda: SystemExit(3),
        lambda: KeyboardInterrupt(),
        lambda: BaseException("base"),
        lambda: ExceptionGroup("many", [ValueError("a")]),
    ],
    ids=["str", "exit", "interrupt", "base", "group"],
)
@pytest.mark.parametrize("sync", [False, True], ids=["async", "sync"])
async def test_odd_errors_of_a_handler_fail_its_run_and_nothing_else(error: Any, sync: bool) -> None:
    @job(name="handler", retry=0)
    async def asynchronous() -> None:
        raise error()

    @job(name="handler", retry=0)
    def synchronous() -> None:
        raise error()

    @job
    async def other() -> str:
        return "fine"

    async with TestQueue(jobs=[synchronous if sync else asynchronous, other]) as queue:
        with pytest.raises(RunFailed) as caught:
            await queue.jobs.handler.run()
        assert caught.value.error_type.endswith(type(error()).__name__)
        assert await queue.jobs.other.run() == "fine"


async def test_except_exception_cannot_eat_the_engines_control_flow(storage: Store) -> None:
    eaten: list[BaseException] = []

    @job
    async def handler() -> str:
        try:
            await sleep("1d")
        except Exception as caught:
            eaten.append(caught)
        return "slept"

    async with TestQueue(jobs=[handler], storage=storage, replay=True) as queue:
        handle = await queue.jobs.handler.start()
        await queue.advance("1d")
        assert await handle.result() == "slept"
        assert eaten == []


async def test_a_step_that_takes_too_long_is_a_timeout_error() -> None:
    tries: list[int] = []

    @job
    async def handler() -> str:
        async def slow() -> None:
            tries.append(1)
            await queue.clock.sleep(3600)

        try:
            await run("slow", slow, timeout="10s", retry=1, backoff=0)
        except TimeoutError as caught:
            return f"{type(caught) is StepTimeout} {caught}"
        return "in time"

    async with TestQueue(jobs=[handler]) as queue:
        handle = await queue.jobs.handler.start()
        await queue.advance("20s")
        assert await handle.result() == 'True step "slow" took longer than its timeout of 10 s'
        assert len(tries) == 2, "the timeout is of each try"


async def test_a_timeout_error_of_the_body_itself_stays_itself() -> None:
    live, replayed = await live_and_replayed(lambda: TimeoutError("socket"))
    assert type(live) is type(replayed) is TimeoutError


async def test_fatal_stops_retrying_at_both_levels() -> None:
    calls: list[str] = []

    def fatal() -> None:
        calls.append("step")
        raise Fatal("hopeless")

    @job(retry=5)
    async def in_step() -> None:
        await run("fatal", fatal, retry=5)

    @job(retry=5)
    async def in_handler() -> None:
        calls.append("handler")
        raise Fatal("hopeless")

    async with TestQueue(jobs=[in_step, in_handler]) as queue:
        for name in ("in_step", "in_handler"):
            handle = await queue.jobs[name].start()
            await queue.advance("1d")
            with pytest.raises(RunFailed, match="hopeless"):
                await handle.result()
            assert (await handle.info()).attempt == 1
    assert calls == ["step", "handler"]


async def test_fatal_inside_a_task_group_stops_retrying_too() -> None:
    import asyncio

    calls: list[int] = []

    @job(retry=5)
    async def handler() -> None:
        async def branch() -> None:
            calls.append(1)
            raise Fatal("hopeless")

        async with asyncio.TaskGroup() as group:
            group.create_task(branch())

    async with TestQueue(jobs=[handler]) as queue:
        handle = await queue.jobs.handler.start()
        await queue.advance("1d")
        assert await handle.status() == "failed"
        assert len(calls) == 1


async def test_retry_after_sets_the_next_wait_of_a_step_and_of_a_run() -> None:
    tries: list[float] = []

    def limited() -> str:
        tries.append(queue.clock.now())
        if len(tries) == 1:
            raise RetryAfter("30s")
        return "at last"

    @job
    async def in_step() -> str:
        return await run("limited", limited, backoff="1h")

    @job(backoff="1h")
    async def in_handler() -> str:
        return limited()

    async with TestQueue(jobs=[in_step, in_handler]) as queue:
        for name in ("in_step", "in_handler"):
            tries.clear()
            handle = await queue.jobs[name].start()
            await queue.advance("1d")
            assert await handle.result() == "at last"
            assert tries[1] - tries[0] == 30


async def test_a_wrong_retry_after_is_said_and_ends_the_run() -> None:
    @job
    async def handler() -> None:
        raise RetryAfter("soon")

    async with TestQueue(jobs=[handler]) as queue:
        handle = await queue.jobs.handler.start()
        await queue.advance("1d")
        with pytest.raises(RunFailed, match="RetryAfter"):
            await handle.result()


async def test_a_backoff_that_fails_ends_the_step_with_what_is_wrong() -> None:
    def backoff(attempt: int) -> float:
        raise LookupError("no such wait")

    @job(retry=0)
    async def handler() -> None:
        await run("failing", raising(lambda: ValueError("no")), backoff=backoff)

    async with TestQueue(jobs=[handler]) as queue:
        handle = await queue.jobs.handler.start()
        with pytest.raises(RunFailed, match="the backoff function backoff failed: LookupError"):
            await handle.result()
        assert [entry.status for entry in await handle.steps()] == ["failed"]


async def test_an_error_of_a_worker_process_is_rebuilt_too() -> None:
    seen: list[BaseException] = []

    def refuse() -> None:
        raise Refused(403, "no entry")

    @job
    async def handler() -> None:
        try:
            await thread("refused", refuse, retry=0)
        except Refused as caught:
            seen.append(caught)

    async with TestQueue(jobs=[handler]) as queue:
        await queue.jobs.handler.run()
    assert str(seen[0]) == str(Refused(403, "no entry"))
