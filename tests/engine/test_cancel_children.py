"""Children of a cancelled run: those that it waits for go with it, those that it only started do not."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from taskrun import RunCancelled, RunFailed, job, run, sleep
from taskrun.stores.base import Store
from taskrun.testing import TestQueue


@job
async def child(number: int = 0) -> int:
    await sleep("1d")
    return number


async def children(queue: TestQueue) -> list[tuple[str, str]]:
    found: list[Any] = [await entry.info() async for entry in queue.runs(job="child")]
    return [(info.status, info.reason) for info in found]


async def test_a_child_that_is_waited_for_is_cancelled_with_its_parent(storage: Store) -> None:
    @job
    async def parent() -> None:
        await child.run()

    async with TestQueue(jobs=[parent, child], storage=storage) as queue:
        handle = await queue.jobs.parent.start()
        await queue.settle()
        await handle.cancel()
        await queue.settle()
        assert await handle.status() == "cancelled"
        assert await children(queue) == [("cancelled", "parent")]


async def test_a_child_that_is_only_started_goes_on(storage: Store) -> None:
    @job
    async def parent() -> None:
        await child.start()
        await sleep("1h")

    async with TestQueue(jobs=[parent, child], storage=storage) as queue:
        handle = await queue.jobs.parent.start()
        await queue.settle()
        await handle.cancel()
        await queue.settle()
        assert await handle.status() == "cancelled"
        await queue.advance("1d")
        assert [status for status, _ in await children(queue)] == ["succeeded"]


async def test_children_in_branches_are_all_cancelled(storage: Store) -> None:
    @job
    async def parent() -> None:
        await asyncio.gather(*(child.run(number=number) for number in range(3)))

    async with TestQueue(jobs=[parent, child], storage=storage) as queue:
        handle = await queue.jobs.parent.start()
        await queue.settle()
        await handle.cancel()
        await queue.settle()
        assert await children(queue) == [("cancelled", "parent")] * 3


async def test_a_grandchild_is_cancelled_too_right_after_a_restart(storage: Store) -> None:
    @job
    async def middle() -> None:
        await child.run()

    @job
    async def parent() -> None:
        await middle.run()

    jobs = [parent, middle, child]
    async with TestQueue(jobs=jobs, storage=storage) as queue:
        handle = await queue.jobs.parent.start()
        await queue.settle()
    async with TestQueue(jobs=jobs, storage=storage) as queue:
        await (await queue.get(handle.id)).cancel()
        await queue.settle()
        assert {await entry.status() async for entry in queue.runs()} == {"cancelled"}


async def test_a_child_that_the_handler_stops_waiting_for_is_cancelled() -> None:
    @job
    async def parent() -> str:
        waiting = asyncio.ensure_future(child.run())
        await run("something else", asyncio.sleep, 0)
        await sleep("1s")
        waiting.cancel()
        await asyncio.wait([waiting])
        await sleep("1s")
        return "went on"

    async with TestQueue(jobs=[parent, child]) as queue:
        handle = await queue.jobs.parent.start()
        await queue.advance("1m")
        assert await handle.result() == "went on"
        assert await children(queue) == [("cancelled", "parent")]


async def test_a_failing_parent_takes_the_children_that_it_waits_for_with_it() -> None:
    @job(retry=0)
    async def parent() -> None:
        async with asyncio.TaskGroup() as group:
            group.create_task(child.run())
            await sleep("1s")
            raise ValueError("no")

    async with TestQueue(jobs=[parent, child]) as queue:
        handle = await queue.jobs.parent.start()
        await queue.advance("1m")
        with pytest.raises(RunFailed):
            await handle.result()
        assert [status for status, _ in await children(queue)] == ["cancelled"]


async def test_a_cancelled_child_is_an_error_that_its_parent_can_catch(storage: Store) -> None:
    @job
    async def parent() -> str:
        try:
            await child.run()
        except RunCancelled as error:
            return error.reason
        return "fine"

    async with TestQueue(jobs=[parent, child], storage=storage) as queue:
        handle = await queue.jobs.parent.start()
        await queue.settle()
        [its] = [entry async for entry in queue.runs(job="child")]
        await its.cancel("by hand")
        assert await handle.result() == "by hand"


async def test_a_cancelled_started_child_is_an_error_of_its_result(storage: Store) -> None:
    @job
    async def parent() -> str:
        started = await child.start()
        await started.cancel("changed my mind")
        try:
            await started.result()
        except RunCancelled as error:
            return error.reason
        return "fine"

    async with TestQueue(jobs=[parent, child], storage=storage) as queue:
        assert await queue.jobs.parent.run() == "changed my mind"
