"""Several queues on one storage: each run is executed by one of them, and a lost one writes nothing."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from taskrun import (
    Concurrency,
    Fatal,
    Job,
    MemoryStorage,
    PostgresStorage,
    Queue,
    RunCancelled,
    SqliteStorage,
    job,
    pipe,
    run,
    sleep,
)
from taskrun.engine.core import run_lifecycle as ledger
from taskrun.engine.core.admit import Trigger, new_id
from taskrun.model.records import Awaited
from taskrun.stores.base import Store
from taskrun.testing import TestQueue
from tests import postgres_server

Open = Callable[[], Store]


@pytest.fixture(params=["memory", "sqlite", "postgres"])
def shared(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Open]:
    """Gives each queue its own way to one journal: the same object in memory, another connection on disk or to a server."""
    memory = MemoryStorage()
    if request.param == "memory":
        yield lambda: memory
    elif request.param == "sqlite":
        yield lambda: SqliteStorage(tmp_path / "journal.db", synchronous="normal")
    else:
        schema = postgres_server.new_schema()
        yield lambda: PostgresStorage(postgres_server.shared_dsn(), schema)
        postgres_server.drop_schema(schema)


def pair(shared: Open, *jobs: Job) -> tuple[Queue, Queue]:
    return Queue(jobs=jobs, storage=shared()), Queue(jobs=jobs, storage=shared())


async def test_each_run_is_executed_by_one_of_two_queues(shared: Open) -> None:
    executed: list[int] = []

    @job
    async def handler(number: int) -> int:
        await run("work", executed.append, number)
        await run("again", asyncio.sleep, 0)
        return number

    one, two = pair(shared, handler)
    async with one, two:
        handles = [await (one, two)[number % 2].jobs.handler.start(number=number) for number in range(20)]
        assert [await handle.result(timeout=20) for handle in handles] == list(range(20))
    assert sorted(executed) == list(range(20))


async def test_a_queue_executes_what_another_without_the_job_has_triggered(shared: Open) -> None:
    @job
    async def handler() -> str:
        return "done"

    @job
    async def asks() -> str:
        return "asked"

    async with Queue(jobs=[asks], storage=shared()) as one, Queue(jobs=[handler], storage=shared()) as two:
        handle = await two.jobs.handler.start()
        assert await (await one.get(handle.id)).result(timeout=10) == "done"


async def test_a_run_is_cancelled_and_paused_through_any_of_the_queues(shared: Open) -> None:
    @job
    async def handler() -> None:
        await sleep("1h")

    async with Queue(jobs=[handler], storage=shared()) as one, Queue(storage=shared()) as two:
        first, second = await one.jobs.handler.start(), await one.jobs.handler.start()
        assert await (await two.get(first.id)).cancel("from afar") is True
        with pytest.raises(RunCancelled, match="from afar"):
            await first.result(timeout=10)
        await (await two.get(second.id)).pause()
        async with asyncio.timeout(10):
            while await second.status() != "paused":
                await asyncio.sleep(0.01)


async def test_an_event_starts_a_job_that_another_queue_has_just_brought(shared: Open) -> None:
    """Whoever sends it need not have looked yet for what the other has written."""
    p = pipe("p")

    @job(trigger=[p])
    async def taken(n: int) -> int:
        return n

    async with TestQueue(pipes=[p], storage=shared()) as sends:
        assert (await sends.core.send("p", '{"n": 1}')).jobs == ()
        async with TestQueue(jobs=[taken], storage=shared()) as takes:
            await takes.settle()
            assert (await sends.core.send("p", '{"n": 2}')).jobs == ("taken",)
            takes.core.triggers.look()
            await takes.settle()
            assert [await entry.result() async for entry in takes.runs()] == [2]


async def test_a_limit_holds_over_all_queues(shared: Open) -> None:
    active: list[int] = []
    most: list[int] = []

    async def work(number: int) -> None:
        active.append(number)
        most.append(len(active))
        await asyncio.sleep(0.05)  # longer than it takes to trigger the next
        active.remove(number)

    @job(concurrency=Concurrency("shared", 2))
    async def handler(number: int) -> None:
        await run("work", work, number)

    one, two = pair(shared, handler)
    async with one, two:
        handles = [await (one, two)[number % 2].jobs.handler.start(number=number) for number in range(12)]
        await asyncio.gather(*(handle.result(timeout=20) for handle in handles))
    assert max(most) == 2


async def test_a_run_left_by_close_is_taken_by_the_other_queue(shared: Open) -> None:
    where: list[str] = []
    go = asyncio.Event()

    async def work() -> None:
        where.append("begun")
        await go.wait()

    @job
    async def handler() -> str:
        await run("work", work)
        return "done"

    one, two = Queue(jobs=[handler], storage=shared()), Queue(jobs=[handler], storage=shared())
    await one.start()
    handle = await one.jobs.handler.start()
    async with asyncio.timeout(10):
        while not where:
            await asyncio.sleep(0.01)
    async with two:
        await one.close(grace=0)
        go.set()
        assert await (await two.get(handle.id)).result(timeout=10) == "done"
    assert where == ["begun", "begun"]


async def test_an_engine_that_lost_its_lease_writes_nothing_and_goes_on_under_a_new_id() -> None:
    storage, went_on = MemoryStorage(), asyncio.Event()
    by: list[str] = []

    def worker(name: str) -> Job:
        async def work() -> str:
            by.append(name)
            if name == "slow":
                await went_on.wait()
            return name

        @job(name="handler")
        async def handler() -> str:
            return await run("work", work)

        return handler

    @job
    async def rest() -> str:
        await sleep("1h")
        return "rested"

    async with TestQueue(jobs=[worker("slow"), rest], storage=storage) as slow:
        handle = await slow.jobs.handler.start()
        await slow.settle()
        lost = slow.core.state.id
        async with TestQueue(jobs=[worker("quick")], storage=storage) as quick:
            await quick.core.journal.do(lambda t: ledger.take_over(t, lost, blame=True))
            went_on.set()
            taken = await quick.get(handle.id)
            assert await taken.result(timeout=10) == "quick"
            [step] = await taken.steps()
            assert (step.output, by) == ("quick", ["slow", "quick"])
        await slow.settle()
        assert slow.core.state.id != lost
        assert await slow.jobs.handler.run() == "slow"
        resting = await slow.jobs.rest.start()
        await slow.advance("1h")
        assert await resting.status() == "succeeded"


async def test_a_handler_reaches_a_queue_on_another_journal() -> None:
    @job
    async def double(number: int) -> int:
        return number * 2

    async with Queue(jobs=[double]) as other:

        @job(retry=0)
        async def asks(number: int) -> list[int]:
            handle = await other.jobs.double.start(number=number)
            return [await other.jobs.double.run(number=number), await handle.result()]

        async with Queue(jobs=[asks]) as queue:
            assert await (await queue.jobs.asks.start(number=3)).result(timeout=10) == [6, 6]
            assert [handle.job async for handle in queue.runs()] == ["asks"]
        assert [handle.job async for handle in other.runs()] == ["double", "double"]


async def test_a_handler_calls_a_child_through_any_queue_on_its_journal(shared: Open) -> None:
    attempts: list[int] = []

    @job
    async def double(number: int) -> int:
        return number * 2

    @job(retry=1, backoff=0)
    async def asks() -> int:
        attempts.append(1)
        result = int(await one.jobs.double.run(number=3))
        if len(attempts) == 1:
            raise ValueError("once")
        return result

    one = Queue(storage=shared(), jobs=[double])
    async with one, Queue(storage=shared(), jobs=[asks]) as two:
        assert await (await two.jobs.asks.start()).result(timeout=10) == 6
        assert len([handle async for handle in one.runs(job="double")]) == 1


async def test_a_run_starts_after_one_of_another_queue(shared: Open) -> None:
    gates = [asyncio.Event(), asyncio.Event()]

    @job
    async def first(gate: int, fail: bool = False) -> None:
        await gates[gate].wait()
        if fail:
            raise Fatal("no")

    @job
    async def second(word: str) -> str:
        return word

    one, two = Queue(jobs=[first], storage=shared()), Queue(jobs=[second], storage=shared())
    async with one, two:
        good, bad = await one.jobs.first.start(gate=0), await one.jobs.first.start(gate=1, fail=True)
        waiting = []
        for awaited in (
            [Awaited(good.id)],
            [Awaited(good.id), Awaited(bad.id)],
            [Awaited(good.id), Awaited(bad.id, True)],
        ):
            prepared = await two.core.prepare("second", '{"word":"x"}')
            added = await two.core.trigger(Trigger(prepared=prepared, id=new_id(), after=awaited))
            waiting.append(two.handle(added))
        gates[0].set()
        assert await asyncio.wait_for(waiting[0].result(), 20) == "x"
        assert [await run.status() for run in waiting[1:]] == ["scheduled"] * 2
        gates[1].set()
        assert await asyncio.wait_for(waiting[2].result(), 20) == "x"
        with pytest.raises(RunCancelled, match="dependency"):
            await asyncio.wait_for(waiting[1].result(), 20)
