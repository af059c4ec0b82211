"""Concurrency of jobs: at no instant more than the limit, in order, without a lost place."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from taskrun import Concurrency, job, run, sleep
from taskrun.engine.api.queue import Queue
from taskrun.engine.core.outbox import RunChanged
from taskrun.stores.base import Store
from taskrun.testing import TestQueue
from tests.flow.look import Log, counted, outcomes


class Gauge:
    """How many are inside now, and were at most."""

    def __init__(self) -> None:
        self.inside = 0
        self.most = 0
        self.order: list[Any] = []

    async def visit(self, what: Any = None, turns: int = 3) -> None:
        self.order.append(what)
        self.inside += 1
        self.most = max(self.most, self.inside)
        try:
            for _ in range(turns):
                await asyncio.sleep(0)
        finally:
            self.inside -= 1


async def test_no_more_than_the_limit_run_at_once_and_in_order(storage: Store) -> None:
    @job(concurrency=3)
    async def work(n: int) -> None:
        await gauge.visit(n)

    gauge = Gauge()
    async with TestQueue([work], storage=storage) as queue:
        await asyncio.gather(*(queue.jobs.work.start(n=n) for n in range(200)))
        await queue.settle()
        assert await counted(queue) == {"succeeded": 200}
    assert gauge.most == 3
    assert gauge.order == list(range(200))


async def test_two_queues_on_one_journal_keep_to_one_limit(storage: Store) -> None:
    @job(concurrency=2)
    async def work(n: int) -> None:
        await gauge.visit(n, turns=5)

    gauge = Gauge()
    async with Queue([work], storage=storage) as one, Queue([work], storage=storage) as two:
        runs = await asyncio.gather(*((one, two)[n % 2].jobs.work.start(n=n) for n in range(60)))
        await asyncio.wait_for(asyncio.gather(*(run.result() for run in runs)), 30)
    assert gauge.most == 2


async def test_a_waiting_run_holds_no_place(storage: Store) -> None:
    @job(concurrency=1)
    async def nap(n: int) -> None:
        done(f"in {n}")
        await sleep(10)
        done(f"out {n}")

    async with TestQueue([nap], storage=storage) as queue:
        done = Log(queue)
        for n in range(3):
            await queue.jobs.nap.start(n=n)
        await queue.advance(10)
        assert done.entries == [(0.0, f"in {n}") for n in range(3)] + [(10.0, f"out {n}") for n in range(3)]


async def test_a_parent_gives_its_place_to_its_child(storage: Store) -> None:
    one = Concurrency("one", 1)

    @job(concurrency=one)
    async def child() -> int:
        return 7

    @job(concurrency=one)
    async def parent() -> int:
        return int(await child.run())

    async with TestQueue([child, parent], storage=storage, concurrency=1) as queue:
        assert await asyncio.gather(*(queue.jobs.parent.run() for _ in range(5))) == [7] * 5


async def test_jobs_that_share_an_id_count_together_each_by_its_own_limit(storage: Store) -> None:
    @job(concurrency=Concurrency("disk", 3))
    async def many(n: int) -> None:
        await go(f"many {n}")

    @job(concurrency=Concurrency("disk", 1))
    async def alone(n: int) -> None:
        await go(f"alone {n}")

    async def go(name: str) -> None:
        begun.append(name)
        await run("hold", gates.setdefault(name, asyncio.Event()).wait)

    begun: list[str] = []
    gates: dict[str, asyncio.Event] = {}
    async with TestQueue([many, alone], storage=storage) as queue:
        for n in range(2):
            await queue.jobs.alone.start(n=n)
        for n in range(4):
            await queue.jobs.many.start(n=n)
        await queue.settle()
        assert begun == ["alone 0", "many 0", "many 1"]
        for name in ("alone 0", "many 0"):
            gates[name].set()
            await queue.settle()
        assert begun == ["alone 0", "many 0", "many 1", "many 2", "many 3"]
        for name in ("many 1", "many 2", "many 3"):
            gates[name].set()
            await queue.settle()
        assert begun[-1] == "alone 1"
        gates["alone 1"].set()
        await queue.settle()
        assert await counted(queue) == {"succeeded": 6}


@pytest.mark.parametrize("how", ["cancel", "pause"])
async def test_a_place_offered_to_a_run_that_is_held_goes_to_the_next(storage: Store, how: str) -> None:
    @job(concurrency=Concurrency("one", 1))
    async def work(n: int) -> None:
        begun.append(n)
        await run("hold", free.wait)

    begun: list[int] = []
    free = asyncio.Event()
    async with TestQueue([work], storage=storage) as queue:
        runs = [await queue.jobs.work.start(n=n) for n in range(3)]
        await queue.settle()
        queue.core.slots.limit = 0  # the engine is full when the place becomes free
        free.set()
        await queue.settle()
        await getattr(runs[1], how)()
        queue.core.slots.limit = 10
        queue.core.claims.look_again()
        await queue.settle()
        assert begun == [0, 2]


async def test_runs_that_end_in_one_commit_offer_their_places_once(storage: Store) -> None:
    @job(concurrency=4)
    async def waits(n: int) -> None:
        await gates[n // 4].wait()

    gates = [asyncio.Event() for _ in range(3)]
    offered: list[str] = []

    def follow(event: RunChanged) -> None:
        if event.run.status == "queued" and event.run.blocked is None:
            offered.append(event.run.id)

    async with TestQueue([waits], storage=storage) as queue:
        started = [await queue.jobs.waits.start(n=n) for n in range(12)]
        await queue.settle()
        queue.core.journal.follow(RunChanged, follow)
        gates[0].set()
        await queue.settle()
        assert [await one.status() for one in started] == ["succeeded"] * 4 + ["running"] * 4 + ["queued"] * 4
        assert offered == [one.id for one in started[4:8]]
        for gate in gates:
            gate.set()
        await queue.settle()
        assert await outcomes(started) == ["succeeded"] * 12


async def test_the_places_of_a_job_that_is_gone_go_to_others(storage: Store) -> None:
    one = Concurrency("one", 1)

    @job(concurrency=one)
    async def old(n: int) -> None: ...

    @job(concurrency=one)
    async def new(n: int) -> None: ...

    async with TestQueue([old, new], storage=storage, concurrency=1) as queue:
        queue.core.slots.limit = 0
        for n in range(3):
            await queue.jobs.old.start(n=n)
        runs = [await queue.jobs.new.start(n=n) for n in range(3)]
    async with TestQueue([new], storage=storage) as queue:
        await queue.settle()
        assert await outcomes([await queue.get(run.id) for run in runs]) == ["succeeded"] * 3
        runs = [await queue.jobs.new.start(n=n) for n in range(3)]
        await queue.settle()
        assert await outcomes(runs) == ["succeeded"] * 3


async def test_a_frequency_lets_no_more_start_in_any_sliding_period(storage: Store) -> None:
    @job(concurrency="3/10s")
    async def work(n: int) -> None:
        done(n)

    async with TestQueue([work], storage=storage) as queue:
        done = Log(queue)
        await queue.jobs.work.start(n=0)
        await queue.advance(6)
        for n in range(1, 8):
            await queue.jobs.work.start(n=n)
        await queue.advance(60)
        assert done.what == list(range(8))
        assert done.when == [0.0, 6.0, 6.0, 10.0, 16.0, 16.0, 20.0, 26.0]


async def test_rates_that_share_an_id_count_together_each_by_its_own_limit(storage: Store) -> None:
    @job(concurrency=Concurrency("api", "1/10s"))
    async def rare() -> None:
        done("rare")

    @job(concurrency=Concurrency("api", "3/10s"))
    async def often() -> None:
        done("often")

    async with TestQueue([rare, often], storage=storage) as queue:
        done = Log(queue)
        for _ in range(2):
            await queue.jobs.rare.start()
        for _ in range(3):
            await queue.jobs.often.start()
        await queue.advance(60)
        assert done.entries == [(0.0, "rare"), (0.0, "often"), (0.0, "often"), (10.0, "rare"), (10.0, "often")]


async def test_a_function_of_the_input_gives_each_its_own_lane(storage: Store) -> None:
    @job(concurrency=lambda work: Concurrency(work["disk"], work["limit"]))
    async def work(disk: str, limit: int) -> None:
        await gauges[disk].visit()

    gauges = {"a": Gauge(), "b": Gauge()}
    async with TestQueue([work], storage=storage) as queue:
        wanted = (("a", 1), ("b", 4)) * 10
        await asyncio.gather(*(queue.jobs.work.start(disk=disk, limit=limit) for disk, limit in wanted))
        await queue.settle()
    assert (gauges["a"].most, gauges["b"].most) == (1, 4)


async def test_a_restart_neither_forgets_nor_doubles_places(storage: Store) -> None:
    @job(concurrency=2)
    async def work(n: int) -> None:
        await run("visit", gauge.visit, n, 20)

    gauge = Gauge()
    async with TestQueue([work], storage=storage) as queue:
        await asyncio.gather(*(queue.jobs.work.start(n=n) for n in range(20)))
        for _ in range(10):
            await asyncio.sleep(0)
    async with TestQueue([work], storage=storage) as queue:
        await queue.settle()
        assert await counted(queue) == {"succeeded": 20}
    assert gauge.most == 2


async def test_a_thousand_behind_a_busy_id_do_not_delay_another(storage: Store) -> None:
    @job(concurrency=Concurrency("busy", 1))
    async def busy(n: int) -> None:
        if n == 0:
            await run("hold", free.wait)

    @job
    async def other() -> int:
        return 1

    free = asyncio.Event()
    async with TestQueue([busy, other], storage=storage) as queue:
        await asyncio.gather(*(queue.jobs.busy.start(n=n) for n in range(1_000)))
        await queue.settle()
        changes = 0

        def count(_: RunChanged) -> None:
            nonlocal changes
            changes += 1

        queue.core.journal.follow(RunChanged, count)
        assert await queue.jobs.other.run() == 1
        assert changes == 2  # triggered and started, ended: nothing of the busy id was looked at
        free.set()


async def test_higher_priority_first_and_equal_ones_in_order(storage: Store) -> None:
    @job(priority=lambda work: work["p"])
    async def work(n: int, p: int) -> None:
        order.append(n)

    order: list[int] = []
    async with TestQueue([work], storage=storage, concurrency=1) as queue:
        queue.core.slots.limit = 0
        for n, p in enumerate((0, 5, 0, 5, -1, 9)):
            await queue.jobs.work.start(n=n, p=p)
        queue.core.slots.limit = 1
        queue.core.claims.look_again()
        await queue.settle()
    assert order == [5, 1, 3, 0, 2, 4]
