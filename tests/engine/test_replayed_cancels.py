"""Tasks that a handler cancels: their waits end the same way live and on replay."""

from __future__ import annotations

import asyncio

import pytest

from taskrun import job, pipe, sleep
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
