"""Who starts when: priorities, and how many runs a queue executes at once."""

from __future__ import annotations

import asyncio

from taskrun import job, run, sleep
from taskrun.stores.base import Store
from taskrun.testing import TestQueue


async def test_a_queue_executes_at_most_so_many_runs_at_once(storage: Store) -> None:
    active: list[int] = []
    most: list[int] = []
    full = asyncio.Event()

    async def work(number: int) -> None:
        active.append(number)
        most.append(len(active))
        if len(active) == 3:
            full.set()
        await full.wait()  # the first ones, until there are as many as may be
        await asyncio.sleep(0.001)
        active.remove(number)

    @job
    async def handler(number: int) -> None:
        await run("work", work, number)

    async with TestQueue(jobs=[handler], storage=storage, concurrency=3) as queue:
        handles = [await queue.jobs.handler.start(number=number) for number in range(12)]
        await asyncio.gather(*(handle.result() for handle in handles))
        assert max(most) == 3


async def test_ready_runs_start_by_priority_then_in_order(storage: Store) -> None:
    started: list[str] = []
    hold = asyncio.Event()

    @job(priority=lambda input: input["priority"])
    async def handler(name: str, priority: int = 0) -> None:
        started.append(name)
        await run("hold", hold.wait)

    async with TestQueue(jobs=[handler], storage=storage, concurrency=1) as queue:
        handles = [await queue.jobs.handler.start(name="first")]
        await queue.settle()
        for name, priority in [("low", -1), ("a", 0), ("high", 5), ("b", 0)]:
            handles.append(await queue.jobs.handler.start(name=name, priority=priority))
        hold.set()
        await asyncio.gather(*(handle.result() for handle in handles))
        assert started == ["first", "high", "a", "b", "low"]


async def test_a_waiting_run_holds_no_place_so_a_parent_cannot_deadlock_on_its_child(storage: Store) -> None:
    @job
    async def child() -> str:
        await sleep("1s")
        return "child"

    @job
    async def parent() -> str:
        return str(await child.run())

    async with TestQueue(jobs=[parent, child], storage=storage, concurrency=1) as queue:
        handles = [await queue.jobs.parent.start() for _ in range(3)]
        await queue.advance("1m")
        assert [await handle.result() for handle in handles] == ["child"] * 3


async def test_a_run_that_wakes_needs_a_place_again() -> None:
    woke: list[str] = []
    hold = asyncio.Event()

    @job
    async def sleeper() -> None:
        await sleep("1s")
        woke.append("woke")

    @job
    async def busy() -> None:
        await run("hold", hold.wait)

    async with TestQueue(jobs=[sleeper, busy], concurrency=1) as queue:
        sleeping = await queue.jobs.sleeper.start()
        await queue.settle()
        working = await queue.jobs.busy.start()
        await queue.advance("1m")
        assert (await sleeping.status(), woke) == ("queued", [])
        hold.set()
        await asyncio.gather(sleeping.result(), working.result())
        assert woke == ["woke"]


async def test_a_plain_await_beside_a_long_sleep_is_not_lost() -> None:
    """While a branch sleeps for days the handler may still be about something that no step knows of."""
    seen: list[str] = []
    answer = asyncio.Event()

    @job
    async def handler() -> str:
        async with asyncio.TaskGroup() as group:
            sleeping = group.create_task(sleep("2d"))
            await answer.wait()
            await run("note", seen.append, "answered")
            sleeping.cancel()
        return "done"

    async with TestQueue(jobs=[handler]) as queue:
        handle = await queue.jobs.handler.start()
        await queue.settle()
        answer.set()
        assert await handle.result(timeout=5) == "done"
        assert seen == ["answered"]
