"""Pause and resume: the step in flight finishes, the next one is held; timeouts go on."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from taskrun import RunEnded, job, now, pipe, run, sleep
from taskrun.stores.base import Store
from taskrun.testing import TestQueue

news = pipe("news")


class Flow:
    """Steps that are under way until they are let go."""

    def __init__(self) -> None:
        self.begun: list[str] = []
        self.go = asyncio.Event()

    async def __call__(self, name: str) -> str:
        self.begun.append(name)
        await self.go.wait()
        return name


async def test_the_step_in_flight_finishes_and_the_next_is_held(storage: Store) -> None:
    flow = Flow()

    @job
    async def handler() -> list[str]:
        return [await run("one", flow, "one"), await run("two", flow, "two")]

    async with TestQueue(jobs=[handler], storage=storage) as queue:
        handle = await queue.jobs.handler.start()
        await queue.settle()
        await handle.pause()
        await queue.settle()
        assert await handle.status() == "running"
        flow.go.set()
        await queue.settle()
        assert await handle.status() == "paused"
        assert flow.begun == ["one"]
        await handle.resume()
        assert await handle.result() == ["one", "two"]
        assert flow.begun == ["one", "two"]


async def test_a_pause_that_is_taken_back_in_time_changes_nothing() -> None:
    flow = Flow()

    @job
    async def handler() -> list[str]:
        return [await run("one", flow, "one"), await run("two", flow, "two")]

    async with TestQueue(jobs=[handler]) as queue:
        handle = await queue.jobs.handler.start()
        await queue.settle()
        await handle.pause()
        await handle.resume()
        flow.go.set()
        assert await handle.result() == ["one", "two"]
        assert flow.begun == ["one", "two"]


@pytest.mark.parametrize("duration", ["30s", "1h"], ids=["resident", "evicted"])
async def test_a_sleep_goes_on_in_a_paused_run_which_wakes_at_its_resume(storage: Store, duration: str) -> None:
    woke: list[str] = []

    @job
    async def handler() -> None:
        await sleep(duration)
        await run("woke", woke.append, "woke")

    async with TestQueue(jobs=[handler], storage=storage) as queue:
        handle = await queue.jobs.handler.start()
        await queue.settle()
        await handle.pause()
        await queue.settle()
        assert await handle.status() == "paused"
        await queue.advance("1d")
        assert await handle.status() == "paused"
        assert woke == []
        await handle.resume()
        await handle.result()
        assert woke == ["woke"]


async def test_a_run_resumed_before_its_sleep_is_over_sleeps_on(storage: Store) -> None:
    @job
    async def handler() -> str:
        await sleep("1h")
        return now().isoformat()

    async with TestQueue(jobs=[handler], storage=storage) as queue:
        handle = await queue.jobs.handler.start()
        await queue.advance("10m")
        await handle.pause()
        await queue.advance("10m")
        await handle.resume()
        await queue.advance("39m")
        assert await handle.status() == "waiting"
        await queue.advance("1m")
        assert await handle.result() == "2026-01-01T01:00:00+00:00"


async def test_an_event_that_comes_while_a_run_is_paused_is_not_lost(storage: Store) -> None:
    @job
    async def handler() -> Any:
        return await news.wait_for()

    async with TestQueue(jobs=[handler], pipes=[news], storage=storage) as queue:
        handle = await queue.jobs.handler.start()
        await queue.settle()
        await handle.pause()
        await queue.settle()
        await queue.pipes.news.send(about="songs")
        await queue.settle()
        assert await handle.status() == "paused"
        await handle.resume()
        assert await handle.result() == {"about": "songs"}


async def test_a_queued_run_is_held_and_lets_others_pass(storage: Store) -> None:
    flow = Flow()

    @job(concurrency=1)
    async def handler(name: str) -> str:
        return await run("work", flow, name)

    async with TestQueue(jobs=[handler], storage=storage) as queue:
        first, second, third = [await queue.jobs.handler.start(name=name) for name in "abc"]
        await queue.settle()
        await second.pause()
        assert await second.status() == "paused"
        flow.go.set()
        await queue.settle()
        assert [await first.status(), await third.status()] == ["succeeded", "succeeded"]
        assert await second.status() == "paused"
        await second.resume()
        assert await second.result() == "b"


async def test_a_backoff_is_held_too(storage: Store) -> None:
    tries: list[int] = []

    @job(backoff="1h")
    async def handler() -> str:
        tries.append(1)
        if len(tries) < 2:
            raise ValueError("no")
        return "at last"

    async with TestQueue(jobs=[handler], storage=storage) as queue:
        handle = await queue.jobs.handler.start()
        await queue.settle()
        await handle.pause()
        await queue.advance("1d")
        assert (await handle.status(), len(tries)) == ("paused", 1)
        await handle.resume()
        assert await handle.result() == "at last"


async def test_a_paused_run_stays_paused_over_a_restart(storage: Store) -> None:
    done: list[str] = []

    @job
    async def handler() -> None:
        await run("one", done.append, "one")
        await sleep("1s")
        await run("two", done.append, "two")

    async with TestQueue(jobs=[handler], storage=storage) as queue:
        handle = await queue.jobs.handler.start()
        await queue.settle()
        await handle.pause()
    async with TestQueue(jobs=[handler], storage=storage) as queue:
        handle = await queue.get(handle.id)
        await queue.advance("1d")
        assert await handle.status() == "paused"
        await handle.resume()
        await handle.result()
        assert done == ["one", "two"]


async def test_timeouts_go_on_in_a_paused_run(storage: Store) -> None:
    @job(timeout="10m")
    async def handler() -> None:
        await sleep("1h")

    async with TestQueue(jobs=[handler], storage=storage) as queue:
        handle = await queue.jobs.handler.start()
        await queue.settle()
        await handle.pause()
        await queue.advance("10m")
        info = await handle.info()
        assert (info.status, info.reason) == ("failed", "timeout")


async def test_a_paused_run_can_be_cancelled(storage: Store) -> None:
    seen: list[str] = []

    @job
    async def handler() -> None:
        try:
            await sleep("1h")
        finally:
            await run("after", seen.append, "after")

    async with TestQueue(jobs=[handler], storage=storage) as queue:
        handle = await queue.jobs.handler.start()
        await queue.settle()
        await handle.pause()
        await queue.settle()
        await handle.cancel()
        await queue.settle()
        assert await handle.status() == "cancelled"
        assert seen == ["after"]


async def test_branches_of_a_paused_run_are_all_held() -> None:
    flow = Flow()

    async def branch(name: str) -> list[str]:
        return [await run("first", flow, f"{name}1"), await run("second", flow, f"{name}2")]

    @job
    async def handler() -> tuple[list[str], list[str]]:
        return await asyncio.gather(branch("a"), branch("b"))

    async with TestQueue(jobs=[handler]) as queue:
        handle = await queue.jobs.handler.start()
        await queue.settle()
        await handle.pause()
        flow.go.set()
        await queue.settle()
        assert await handle.status() == "paused"
        assert flow.begun == ["a1", "b1"]
        await handle.resume()
        assert await handle.result() == (["a1", "a2"], ["b1", "b2"])


async def test_pause_and_resume_of_an_ended_run_are_refused(storage: Store) -> None:
    @job
    async def handler() -> None: ...

    async with TestQueue(jobs=[handler], storage=storage) as queue:
        handle = await queue.jobs.handler.start()
        await handle.result()
        with pytest.raises(RunEnded):
            await handle.pause()
        with pytest.raises(RunEnded):
            await handle.resume()


async def test_pausing_twice_and_resuming_what_is_not_paused_change_nothing() -> None:
    @job
    async def handler() -> str:
        await sleep("1s")
        return "done"

    async with TestQueue(jobs=[handler]) as queue:
        handle = await queue.jobs.handler.start()
        await handle.resume()
        await queue.settle()
        await handle.pause()
        await handle.pause()
        await queue.settle()
        await handle.resume()
        await queue.advance("1s")
        assert await handle.result() == "done"
