"""Which recorded step a call means: its name, its nth use, and the branch that it is called in."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from typing import Any

import pytest

from taskrun import RunFailed, job, pipe, run, sleep
from taskrun.stores.base import Store
from taskrun.testing import TestQueue


class Work:
    """Step bodies that count their calls, and that may be slow by turns of the event loop."""

    def __init__(self) -> None:
        self.calls: list[Any] = []

    async def __call__(self, value: Any, turns: int = 0) -> Any:
        self.calls.append(value)
        for _ in range(turns):
            await asyncio.sleep(0)
        return value


async def keys(handle: Any) -> list[str]:
    return sorted(entry.key for entry in await handle.steps() if entry.kind != "sleep")


async def test_uses_of_a_name_are_counted_in_a_loop(storage: Store) -> None:
    work = Work()

    @job
    async def handler() -> list[int]:
        found = [await run("add", work, number) for number in range(3)]
        await sleep("1d")
        return [*found, await run("add", work, 3)]

    async with TestQueue(jobs=[handler], storage=storage) as queue:
        handle = await queue.jobs.handler.start()
        await queue.advance("1d")
        assert await handle.result() == [0, 1, 2, 3]
        assert work.calls == [0, 1, 2, 3]
        assert await keys(handle) == ["add", "add#2", "add#3", "add#4"]


async def test_gather_takes_identities_in_source_order_whatever_finishes_first(storage: Store) -> None:
    work = Work()

    @job
    async def handler() -> list[list[Any]]:
        calls = [run("get", work, "slow", 20), run("get", work, "quick"), run("get", work, "middle", 8)]
        first = await asyncio.gather(*calls)
        await sleep("1d")
        return [first]

    async with TestQueue(jobs=[handler], storage=storage) as queue:
        handle = await queue.jobs.handler.start()
        await queue.advance("1d")
        assert await handle.result() == [["slow", "quick", "middle"]]
        outputs = {entry.key: entry.output for entry in await handle.steps()}
        assert outputs["get"] == "slow" and outputs["get#2"] == "quick" and outputs["get#3"] == "middle"
        assert len(work.calls) == 3


async def test_coroutines_with_several_steps_each_are_branches(storage: Store) -> None:
    work = Work()

    async def branch(name: str, turns: int) -> list[Any]:
        first = await run("first", work, f"{name}1", turns)
        return [first, await run("second", work, f"{name}2", turns)]

    @job
    async def handler() -> tuple[list[Any], list[Any]]:
        found = await asyncio.gather(branch("a", 20), branch("b", 0))
        await sleep("1d")
        return found

    async with TestQueue(jobs=[handler], storage=storage) as queue:
        handle = await queue.jobs.handler.start()
        await queue.advance("1d")
        assert await handle.result() == (["a1", "a2"], ["b1", "b2"])
        assert await keys(handle) == ["1/first", "1/second", "2/first", "2/second"]
        assert sorted(work.calls) == ["a1", "a2", "b1", "b2"]


async def test_task_groups_and_nested_branches_work_as_written(storage: Store) -> None:
    work = Work()
    results: list[dict[str, Any]] = []

    async def leaf(into: dict[str, Any], name: str) -> None:
        into[name] = await run("leaf", work, name, 5 if name.endswith("x") else 0)

    async def branch(into: dict[str, Any], name: str) -> None:
        await run("begin", work, name)
        async with asyncio.TaskGroup() as group:
            group.create_task(leaf(into, f"{name}x"))
            group.create_task(leaf(into, f"{name}y"))
        await run("end", work, name)

    @job
    async def handler() -> None:
        found: dict[str, Any] = {}
        async with asyncio.TaskGroup() as group:
            group.create_task(branch(found, "p"))
            group.create_task(branch(found, "q"))
        await sleep("1d")
        results.append(found)

    async with TestQueue(jobs=[handler], storage=storage) as queue:
        handle = await queue.jobs.handler.start()
        await queue.advance("1d")
        await handle.result()
        assert results == [{name: name for name in ("px", "py", "qx", "qy")}]
        assert "1/1/leaf" in await keys(handle) and "2/2/leaf" in await keys(handle)
        assert len(work.calls) == 8


async def test_branches_that_sleep_go_on_apart() -> None:
    work = Work()

    async def branch(name: str, hours: int) -> str:
        await run("before", work, f"{name} before")
        await sleep(f"{hours}h")
        return str(await run("after", work, f"{name} after"))

    @job
    async def handler() -> tuple[str, str]:
        return await asyncio.gather(branch("a", 3), branch("b", 1))

    async with TestQueue(jobs=[handler]) as queue:
        handle = await queue.jobs.handler.start()
        await queue.advance("2h")
        assert work.calls == ["a before", "b before", "b after"]
        await queue.advance("1h")
        assert await handle.result() == ("a after", "b after")
        assert len(work.calls) == 4


async def test_edits_of_other_code_leave_recorded_steps_alone(storage: Store) -> None:
    work = Work()

    @job(name="handler")
    async def old() -> str:
        await run("one", work, "old one")
        await run("gone", work, "gone")
        await sleep("1d")
        return "old"

    @job(name="handler")
    async def new() -> list[str]:
        await run("added before", work, "added")
        one = await run("one", work, "old one")
        await sleep("1d")
        return [one, await run("two", work, "two")]

    async with TestQueue(jobs=[old], storage=storage) as queue:
        handle = await queue.jobs.handler.start()
        await queue.settle()
        later = queue.now
    async with TestQueue(jobs=[new], storage=storage, start=later) as queue:
        await queue.advance("1d")
        assert await (await queue.get(handle.id)).result() == ["old one", "two"]
        assert work.calls == ["old one", "gone", "added", "two"]


async def test_another_kind_under_the_same_identity_names_both(storage: Store) -> None:
    work = Work()

    @job
    async def child() -> None: ...

    @job(name="handler")
    async def old() -> None:
        await run("child", work, 1)
        await sleep("1d")

    @job(name="handler", retry=5)
    async def new() -> None:
        await child.run()

    async with TestQueue(jobs=[old], storage=storage) as queue:
        handle = await queue.jobs.handler.start()
        await queue.settle()
        later = queue.now
    async with TestQueue(jobs=[new, child], storage=storage, start=later) as queue:
        await queue.advance("1d")
        with pytest.raises(RunFailed) as caught:
            await (await queue.get(handle.id)).result()
        assert caught.value.error_type == "taskrun.NonDeterminismError"
        assert '"child" is a child now, but the journal holds a run' in caught.value.message
        assert (await (await queue.get(handle.id)).info()).attempt == 1


@pytest.mark.parametrize("how", ["as_completed", "wait", "list"])
async def test_the_order_of_completion_is_kept_on_replay(storage: Store, how: str) -> None:
    work = Work()
    orders: list[list[str]] = []

    async def ordered(calls: list[Awaitable[str]]) -> list[str]:
        tasks = [asyncio.ensure_future(call) for call in calls]
        order: list[str] = []
        if how == "as_completed":
            for next_done in asyncio.as_completed(tasks):
                order.append(await next_done)
        elif how == "list":
            for task in tasks:
                task.add_done_callback(lambda done: order.append(done.result()))
            await asyncio.wait(tasks)
            await asyncio.sleep(0)
        else:
            pending = set(tasks)
            while pending:
                done, pending = await asyncio.wait(pending, return_when=asyncio.FIRST_COMPLETED)
                order += sorted(task.result() for task in done)
        return order

    @job
    async def handler() -> None:
        turns = {"slow": 60, "middle": 30, "quick": 0}
        orders.append(await ordered([run(name, work, name, turn) for name, turn in turns.items()]))
        await sleep("1d")

    async with TestQueue(jobs=[handler], storage=storage, replay=True) as queue:
        handle = await queue.jobs.handler.start()
        await queue.advance("1d")
        await handle.result()
    assert len(orders) == 2
    assert orders[0] == orders[1]
    assert sorted(work.calls) == ["middle", "quick", "slow"]


async def test_names_with_slashes_cannot_be_mistaken_for_branches() -> None:
    work = Work()

    @job
    async def handler() -> list[int]:
        return [await run("1/a", work, 1), await run("a#2", work, 2), await run("a", work, 3), await run("a", work, 4)]

    async with TestQueue(jobs=[handler]) as queue:
        handle = await queue.jobs.handler.start()
        assert await handle.result() == [1, 2, 3, 4]
        assert len(set(await keys(handle))) == 4


async def test_coroutines_given_to_as_completed_are_branches_in_that_order(storage: Store) -> None:
    """By itself asyncio makes their tasks in the order of a set, another one with each execution."""
    work = Work()

    async def branch(name: str) -> str:
        return str(await run("work", work, name))

    @job(retry=0)
    async def handler() -> list[str]:
        calls = [branch(f"{n}") for n in range(20)]
        results = [await done for done in asyncio.as_completed([*calls, calls[0]])]
        await sleep("1d")
        return results

    async with TestQueue(jobs=[handler], storage=storage, replay=True) as queue:
        handle = await queue.jobs.handler.start()
        await queue.advance("1d")
        assert sorted(await handle.result(timeout=5)) == sorted(f"{n}" for n in range(20))
        assert sorted(work.calls) == sorted(f"{n}" for n in range(20))


async def test_what_is_new_waits_on_replay_for_what_had_ended_before_it_in_other_branches(storage: Store) -> None:
    """A predicate judges at once what came while there was no coroutine, and a step that was cut off may be quick."""
    events = pipe("events")
    orders: list[list[str]] = []

    @job(retry=0)
    async def handler() -> None:
        order: list[str] = []
        orders.append(order)

        async def first() -> None:
            await sleep(1)
            for n in range(3):
                order.append(await run(f"step {n}", lambda: "first"))

        async def second() -> None:
            await events.wait_for(lambda event: True)
            order.append("second")

        async def third() -> None:
            await run("blocked", blocked.wait)
            order.append("third")

        await asyncio.gather(second(), third(), first())

    blocked = asyncio.Event()
    async with TestQueue(jobs=[handler], pipes=[events], storage=storage) as queue:
        run_id = (await queue.jobs.handler.start()).id
        await queue.advance(2)
        assert orders == [["first"] * 3]
        await queue.pipes.events.send(n=1)
    orders.clear()
    blocked.set()
    async with TestQueue(jobs=[handler], pipes=[events], storage=storage, start=queue.now) as queue:
        await queue.settle()
        assert await (await queue.get(run_id)).status() == "succeeded"
    assert orders[-1][:3] == ["first"] * 3
    assert sorted(orders[-1][3:]) == ["second", "third"]


async def test_a_branch_may_take_a_few_turns_to_end_before_another_gets_the_next_record(storage: Store) -> None:
    orders: list[list[str]] = []

    async def deep(depth: int) -> str:
        if depth:
            return (await asyncio.gather(deep(depth - 1)))[0]
        await sleep(1)
        return "deep"

    async def late() -> str:
        await sleep(2)
        return "late"

    @job(retry=0)
    async def handler() -> None:
        orders.append([await done for done in asyncio.as_completed([late(), deep(4)])])
        await sleep("1d")

    async with TestQueue(jobs=[handler], storage=storage, replay=True) as queue:
        handle = await queue.jobs.handler.start()
        await queue.advance("2d")
        await handle.result(timeout=5)
    assert orders == [["deep", "late"]] * len(orders)
