"""Tasks that a handler cancels: their waits end the same way live and on replay."""

from __future__ import annotations

import asyncio

import pytest

from taskrun import MemoryStorage, RunFailed, StepFailed, job, pipe, run, sleep
from taskrun.engine.executor import attempt_state
from taskrun.stores.base import Store
from taskrun.testing import TestQueue


@pytest.mark.parametrize("replay", [False, True])
async def test_a_wait_that_was_cancelled_takes_no_event_from_a_later_one(replay: bool) -> None:
    events = pipe("events")

    @job(retry=0)
    async def handler() -> int:
        waiting = asyncio.create_task(events.wait_for())
        await sleep(1)
        waiting.cancel()
        await asyncio.wait([waiting])
        await sleep(1)
        return int((await events.wait_for())["number"])

    async with TestQueue(jobs=[handler], pipes=[events], replay=replay) as queue:
        handle = await queue.jobs.handler.start()
        await queue.advance(1.5)
        await queue.pipes.events.send(number=1)
        await queue.advance(1)
        await queue.pipes.events.send(number=2)
        await queue.advance(1)
        assert await handle.result(timeout=5) == 1


async def test_a_retry_is_cancelled_where_it_stands_though_it_keeps_later_steps_of_the_run_before() -> None:
    @job(retry=0)
    async def handler() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            await run("clean", lambda: None)

    async with TestQueue(jobs=[handler]) as queue:
        first = await queue.jobs.handler.start()
        await queue.settle()
        await first.cancel()
        await queue.settle()
        again = await first.retry()
        await queue.settle()
        await again.cancel()
        await queue.settle()
        assert (await again.status(), (await again.info()).reason) == ("cancelled", "explicit")


async def test_a_cancel_ends_within_half_its_grace_what_only_it_had_ended_before(storage: Store) -> None:
    """A death within the `finally` block: the replay stands at what is no step, with a step behind it recorded."""
    done: list[str] = []
    blocked = asyncio.Event()

    @job(retry=0)
    async def handler() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            await run("first", lambda: done.append("first"))
            await blocked.wait()
            await run("second", lambda: done.append("second"))

    async with TestQueue(jobs=[handler], storage=storage) as queue:
        run_id = (await queue.jobs.handler.start()).id
        await queue.settle()
        await (await queue.get(run_id)).cancel("enough")
        await queue.settle()
    blocked.set()
    async with TestQueue(jobs=[handler], storage=storage, start=queue.now, grace=10) as queue:
        await queue.advance(5)
        info = await (await queue.get(run_id)).info()
        assert (info.status, info.reason, done) == ("cancelled", "enough", ["first", "second"])


@pytest.mark.parametrize("replay", [False, True])
async def test_a_step_that_awaits_a_cancelled_task_of_its_own_has_failed(replay: bool) -> None:
    tries: list[int] = []

    async def body() -> None:
        tries.append(1)
        own = asyncio.get_running_loop().create_future()
        own.cancel()
        await own

    @job(retry=0)
    async def handler() -> str:
        try:
            await run("body", body, retry=1, backoff=1)
        except StepFailed as failed:
            await sleep(1)
            return str(failed)
        return ""

    async with TestQueue(jobs=[handler], replay=replay) as queue:
        handle = await queue.jobs.handler.start()
        await queue.advance(5)
        assert "CancelledError" in await handle.result(timeout=5)
        assert len(tries) == 2


@pytest.mark.parametrize("replay", [False, True])
async def test_an_event_is_free_again_that_a_task_was_given_when_it_was_cancelled(replay: bool) -> None:
    """Both waits end in one commit, and the handler cancels the task before that has seen the event; so does a replay."""
    events = pipe("events")

    @job(retry=0)
    async def handler() -> list[int]:
        waiting = asyncio.create_task(events.wait_for({"to": "task"}))
        first = await events.wait_for({"to": "handler"})
        waiting.cancel()
        await asyncio.wait([waiting])
        return [first["n"], (await events.wait_for(timeout=1))["n"]]

    async with TestQueue(jobs=[handler], pipes=[events], replay=replay) as queue:
        handle = await queue.jobs.handler.start()
        await queue.settle()
        send = queue.pipes.events.send
        await asyncio.gather(send(to="handler", n=1), send(to="task", n=2))
        await queue.settle()
        assert await handle.result(timeout=5) == [1, 2]


@pytest.mark.parametrize("replay", [False, True])
async def test_a_cancelled_task_cleans_up_also_on_replay(replay: bool) -> None:
    events = pipe("events")

    async def branch() -> str:
        try:
            await events.wait_for()
        except asyncio.CancelledError:
            await sleep(1)
        return "cleaned"

    @job(retry=0)
    async def handler() -> str:
        waiting = asyncio.create_task(branch())
        await sleep(1)
        waiting.cancel()
        return await waiting

    async with TestQueue(jobs=[handler], pipes=[events], replay=replay) as queue:
        handle = await queue.jobs.handler.start()
        await queue.advance(5)
        assert await handle.result(timeout=5) == "cleaned"


async def test_code_that_no_longer_cuts_a_wait_off_fails_its_run_and_does_not_stand_still(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(attempt_state, "LATE", 0.0)
    events, storage = pipe("events"), MemoryStorage()

    @job(name="handler", retry=0)
    async def before() -> None:
        waiting = asyncio.create_task(events.wait_for())
        await sleep(0.01)
        waiting.cancel()
        await asyncio.wait([waiting])
        await sleep("1d")

    @job(name="handler", retry=0)
    async def edited() -> None:
        waiting = asyncio.create_task(events.wait_for())
        await sleep(0.01)
        await waiting

    async with TestQueue(jobs=[before], pipes=[events], storage=storage) as queue:
        handle = await queue.jobs.handler.start()
        await queue.advance(1.5)
        later = queue.now
    async with TestQueue(jobs=[edited], pipes=[events], storage=storage, start=later) as queue:
        await queue.advance(90_000)
        with pytest.raises(RunFailed, match="was cut off before, and nothing cuts it off now"):
            await (await queue.get(handle.id)).result(timeout=10)
