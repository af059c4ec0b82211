"""Tasks that a handler cancels: their waits end the same way live and on replay."""

from __future__ import annotations

import asyncio

import pytest

from taskrun import MemoryStorage, RunFailed, job, pipe, sleep
from taskrun.engine.executor import attempt_state
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
