"""What goes with the end of a run, and what does not."""

from __future__ import annotations

import asyncio

import pytest

from taskrun import RunCancelled, job, pipe, run, sleep
from taskrun.testing import TestQueue

news = pipe("news")
left: list[asyncio.Task[object]] = []


@job
async def leaver() -> str:
    left.append(asyncio.ensure_future(run("held", asyncio.sleep, 1000, concurrency=1)))
    left.append(asyncio.ensure_future(news.wait_for()))
    await sleep("1s")
    return "left"


@job
async def holder() -> str:
    return await run("held", lambda: "held", concurrency=1)


@job(key=lambda value: "one")
async def keyed() -> str:
    await sleep("1h")
    return "keyed"


@job
async def waits_for_keyed() -> str:
    return str(await keyed.run())


async def test_a_step_that_a_handler_leaves_in_flight_ends_with_the_run() -> None:
    async with TestQueue(jobs=[leaver, holder], pipes=[news]) as queue:
        entry = await queue.jobs.leaver.start()
        await queue.advance("2s")
        assert await entry.result() == "left"
        await queue.pipes.news.send({"late": True})
        assert {step.key: step.status for step in await entry.steps()} == {
            "held": "cancelled",
            "news": "cancelled",
            "sleep": "succeeded",
        }
        assert await queue.jobs.holder.run() == "held"


async def test_somebody_elses_run_found_by_its_key_is_not_cancelled_with_who_waits_for_it() -> None:
    async with TestQueue(jobs=[keyed, waits_for_keyed]) as queue:
        own = await queue.jobs.keyed.start()
        other = await queue.jobs.waits_for_keyed.start()
        await queue.settle()
        await other.cancel()
        with pytest.raises(RunCancelled):
            await other.result()
        await queue.advance("2h")
        assert await own.result() == "keyed"
