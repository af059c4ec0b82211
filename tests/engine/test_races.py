"""Requests that come at any moment: after any number of turns of the event loop they do what they always do."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from taskrun import MemoryStorage, job, pipe, run, sleep
from taskrun.stores.base import Store
from taskrun.testing import TestQueue

MOMENTS = range(45)
news = pipe("news")


@job
async def child() -> str:
    await sleep("1h")
    return "child"


@job
async def sleeper() -> str:
    await run("before", asyncio.sleep, 0)
    await sleep("1h")
    await asyncio.gather(run("a", asyncio.sleep, 0), run("b", asyncio.sleep, 0))
    return "done"


@job
async def parent() -> str:
    return str((await asyncio.gather(child.run(), sleep("2h")))[0])


@job
async def reader() -> Any:
    return (await news.wait_for())["number"]


async def pass_turns(turns: int) -> None:
    for _ in range(turns):
        await asyncio.sleep(0)


def opened(storage: Store | None = None) -> TestQueue:
    return TestQueue(jobs=[child, sleeper, parent, reader], pipes=[news], storage=storage)


@pytest.mark.parametrize("name", ["sleeper", "parent", "reader"])
async def test_a_cancel_at_any_moment_ends_the_run(name: str) -> None:
    async with opened() as queue:
        for turns in MOMENTS:
            handle = await queue.jobs[name].start()
            await pass_turns(turns)
            assert await handle.cancel() is True
            await queue.settle()
            assert await handle.status() == "cancelled", f"after {turns} turns"
        unfinished = [entry async for entry in queue.runs(status=["queued", "running", "waiting", "scheduled"])]
        assert unfinished == []


@pytest.mark.parametrize("name", ["sleeper", "parent"])
async def test_a_pause_at_any_moment_holds_the_run_until_it_is_resumed(name: str) -> None:
    for turns in MOMENTS:
        async with opened() as queue:
            handle = await queue.jobs[name].start()
            await pass_turns(turns)
            await handle.pause()
            await queue.advance("5h")
            assert await handle.status() == "paused", f"after {turns} turns"
            await handle.resume()
            await queue.advance("5h")
            assert await handle.status() == "succeeded", f"after {turns} turns"


@pytest.mark.parametrize("name", ["sleeper", "parent"])
async def test_a_close_at_any_moment_lets_the_run_go_on_at_the_next_start(name: str, storage: Store) -> None:
    for turns in MOMENTS[::3]:
        async with opened(storage) as queue:
            handle = await queue.jobs[name].start()
            await pass_turns(turns)
        async with opened(storage) as queue:
            await queue.advance("5h")
            assert await (await queue.get(handle.id)).status() == "succeeded", f"after {turns} turns"


async def test_an_event_at_any_moment_reaches_the_run_that_was_there_before_it() -> None:
    async with opened() as queue:
        for turns in MOMENTS:
            handle = await queue.jobs.reader.start()
            await pass_turns(turns)
            await queue.pipes.news.send(number=turns)
            await queue.settle()
            assert await handle.status() == "succeeded", f"after {turns} turns"
            assert await handle.result() == turns


@pytest.mark.parametrize("name", ["sleeper", "parent"])
async def test_a_cancel_at_any_moment_after_a_pause_or_a_resume_ends_the_run(name: str) -> None:
    async with opened() as queue:
        for turns in MOMENTS:
            handle = await queue.jobs[name].start()
            await pass_turns(turns // 2)
            await handle.pause()
            await pass_turns(turns)
            if turns % 2:
                await handle.resume()
                await pass_turns(turns // 3)
            await handle.cancel()
            await queue.settle()
            assert await handle.status() == "cancelled", f"after {turns} turns"


async def test_a_sleep_that_is_over_before_a_replay_waits_for_it_is_not_missed() -> None:
    storage, gate, executions = MemoryStorage(), asyncio.Event(), 0

    @job
    async def late() -> str:
        nonlocal executions
        executions += 1
        nap = sleep("1m")  # its identity is taken here, its end is awaited below
        if executions > 1:
            await gate.wait()
            await nap
            return "woke"
        await asyncio.gather(nap, run("hang", asyncio.sleep, 1000))  # it is executing when the queue is closed
        return "never"

    async with TestQueue(jobs=[late], storage=storage) as queue:
        begun = await queue.jobs.late.start()
        await queue.settle()
    async with TestQueue(jobs=[late], storage=storage, start=queue.now) as queue:
        await queue.settle()
        await queue.advance("2m")  # the sleep ends while the replay stands at the gate
        gate.set()
        await queue.settle()
        assert await (await queue.get(begun.id)).status() == "succeeded"
    assert executions == 2
