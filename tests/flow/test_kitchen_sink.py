"""The kitchen sink: pipes, triggers, a throttle in queue mode, a wait, two queues on one journal, and a step that fails."""

from __future__ import annotations

import asyncio
from typing import Any

from taskrun import Queue, Throttle, job, pipe, thread
from taskrun.stores.base import Store
from taskrun.testing import TestQueue
from tests.flow.look import counted

p = pipe("p")


def explode() -> None:
    raise ZeroDivisionError("on purpose")


def sink(caught: list[str]) -> list[Any]:
    @job
    async def baz() -> None:
        await p.send({"value": 42})

    @job(trigger=[p.into(lambda event: {"value": event["value"]})], throttle=Throttle(duration=1, mode="queue"))
    async def foo(value: int) -> dict[str, int]:
        return {"value": value}

    @job(trigger=[foo.into(lambda out: {"value": out["value"]} if out["value"] == 42 else None)])
    async def bar(value: int) -> dict[str, int]:
        try:
            await thread("explode", explode, retry=0)
        except ZeroDivisionError as error:
            caught.append(str(error))
        event = await p.wait_for({"value": 55})
        return {"first": value, "second": event["value"]}

    return [baz, foo, bar]


async def test_the_kitchen_sink_on_virtual_time(storage: Store) -> None:
    caught: list[str] = []
    async with TestQueue(sink(caught), storage=storage) as queue:
        await queue.jobs.baz.run()
        await queue.settle()
        [bar] = [run async for run in queue.runs(job="bar")]
        assert await bar.status() == "waiting"
        await queue.pipes.p.send(value=7)
        await queue.pipes.p.send(value=55)
        assert await bar.result() == {"first": 42, "second": 55}
        assert await counted(queue, job="foo") == {"succeeded": 1, "queued": 1, "scheduled": 1}
        await queue.advance(2)
        foos = [await queue.core.get(run.id) async for run in queue.runs(job="foo")]
        begun = [foo.started_at or 0.0 for foo in reversed(foos)]
        assert [at - begun[0] for at in begun] == [0.0, 1.0, 2.0]
        assert await counted(queue) == {"succeeded": 5}  # baz, bar, and foo for 42, 7 and 55
    assert caught == ["on purpose"]


async def test_the_kitchen_sink_over_two_queues_on_one_journal(storage: Store) -> None:
    """`baz` and `foo` are in one queue, `bar` in the other; each event and each trigger crosses over."""
    caught: list[str] = []
    baz, foo, bar = sink(caught)
    async with Queue([baz, foo], storage=storage) as one, Queue([bar], [p], storage=storage) as two:
        await one.jobs.baz.run()
        await _until(lambda: _status(two, "bar", "waiting"))
        await two.pipes.p.send(value=55)
        await _until(lambda: _status(two, "bar", "succeeded"))
        [run] = [run async for run in two.runs(job="bar")]
        assert await run.result(timeout=10) == {"first": 42, "second": 55}
        await _until(lambda: _foos(one, 2))
        foos = [(await one.core.get(run.id)).started_at or 0.0 async for run in one.runs(job="foo")]
        assert max(foos) - min(foos) >= 1.0
    assert caught == ["on purpose"]


async def _status(queue: Queue, job: str, status: str) -> bool:
    return (await counted(queue, job=job)).get(status) == 1


async def _foos(queue: Queue, count: int) -> bool:
    return await counted(queue, job="foo") == {"succeeded": count}


async def _until(holds: Any) -> None:
    async with asyncio.timeout(20):
        while not await holds():
            await asyncio.sleep(0.02)
