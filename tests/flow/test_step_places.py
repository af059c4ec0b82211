"""Step-level concurrency: counted by step name across runs and engines, without a deadlock, through crashes."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from taskrun import Concurrency, Queue, RunCancelled, job, run, sleep, step
from taskrun.stores.base import Store
from taskrun.testing import TestQueue
from tests.flow.look import Log, counted
from tests.flow.test_concurrency import Gauge


async def test_steps_of_one_name_keep_to_their_limit_across_runs(storage: Store) -> None:
    @job
    async def work(n: int) -> None:
        await run("upload", gauge.visit, n, 5, concurrency=2)

    gauge = Gauge()
    async with TestQueue([work], storage=storage) as queue:
        await asyncio.gather(*(queue.jobs.work.start(n=n) for n in range(50)))
        await queue.settle()
        assert await counted(queue) == {"succeeded": 50}
    assert gauge.most == 2
    assert gauge.order == list(range(50))


async def test_branches_of_one_run_keep_to_the_limit(storage: Store) -> None:
    @step(concurrency=3)
    async def upload(n: int) -> int:
        await gauge.visit(n, 5)
        return n

    @job
    async def work() -> list[int]:
        return list(await asyncio.gather(*(upload(n) for n in range(20))))

    gauge = Gauge()
    async with TestQueue([work], storage=storage) as queue:
        assert await queue.jobs.work.run() == list(range(20))
    assert gauge.most == 3


async def test_two_queues_on_one_journal_keep_to_one_limit(storage: Store) -> None:
    @job
    async def work(n: int) -> None:
        await run("upload", gauge.visit, n, 5, concurrency=1)

    gauge = Gauge()
    async with Queue([work], storage=storage) as one, Queue([work], storage=storage) as two:
        runs = [await (one, two)[n % 2].jobs.work.start(n=n) for n in range(30)]
        await asyncio.wait_for(asyncio.gather(*(run.result() for run in runs)), 30)
    assert gauge.most == 1


async def test_a_step_that_waits_for_its_place_gives_up_the_place_of_its_run(storage: Store) -> None:
    @job
    async def hold() -> None:
        await run("disk", free.wait, concurrency=1)

    @job
    async def other() -> int:
        return 1

    free = asyncio.Event()
    async with TestQueue([hold, other], storage=storage, concurrency=2) as queue:
        runs = [await queue.jobs.hold.start() for _ in range(5)]
        await queue.settle()
        assert [await run.status() for run in runs] == ["running"] + ["waiting"] * 4
        assert await queue.jobs.other.run() == 1
        free.set()
        await queue.settle()
        assert await counted(queue) == {"succeeded": 6}


async def test_two_steps_that_wait_for_each_others_names_do_not_deadlock(storage: Store) -> None:
    @job(concurrency=1)
    async def work(n: int) -> None:
        first, second = ("a", "b") if n % 2 else ("b", "a")
        await run(first, gauge.visit, n, concurrency=1)
        await run(second, gauge.visit, n, concurrency=1)

    gauge = Gauge()
    async with TestQueue([work], storage=storage, concurrency=1) as queue:
        await asyncio.gather(*(queue.jobs.work.start(n=n) for n in range(20)))
        await queue.settle()
        assert await counted(queue) == {"succeeded": 20}


async def test_a_failed_try_gives_its_place_up_while_it_backs_off(storage: Store) -> None:
    @job
    async def work(n: int) -> None:
        await run("disk", body, n, retry=1, backoff=10, concurrency=1)

    def body(n: int) -> None:
        done(n)
        if n == 0 and done.what.count(0) == 1:
            raise ValueError

    async with TestQueue([work], storage=storage) as queue:
        done = Log(queue)
        for n in range(3):
            await queue.jobs.work.start(n=n)
        await queue.advance(20)
        assert done.entries == [(0.0, 0), (0.0, 1), (0.0, 2), (10.0, 0)]
        assert await counted(queue) == {"succeeded": 3}


async def test_a_rate_lets_steps_begin_one_after_the_other(storage: Store) -> None:
    @job
    async def work(n: int) -> None:
        await run("call", done, n, concurrency=Concurrency("api", "2/10s"))

    async with TestQueue([work], storage=storage) as queue:
        done = Log(queue)
        for n in range(6):
            await queue.jobs.work.start(n=n)
        await queue.advance(60)
        assert done.entries == [(0.0, 0), (0.0, 1), (10.0, 2), (10.0, 3), (20.0, 4), (20.0, 5)]


@pytest.mark.parametrize("cancelled", [0, 1])
async def test_the_place_of_a_cancelled_run_goes_to_the_next(storage: Store, cancelled: int) -> None:
    @job
    async def work(n: int) -> int:
        await run("disk", free.wait, concurrency=1)
        return n

    free = asyncio.Event()
    async with TestQueue([work], storage=storage) as queue:
        runs = [await queue.jobs.work.start(n=n) for n in range(3)]
        await queue.settle()
        await runs[cancelled].cancel()
        await queue.settle()
        free.set()
        await queue.settle()
        results = await asyncio.gather(*(run.result() for run in runs), return_exceptions=True)
        assert [result for result in results if not isinstance(result, RunCancelled)] == [
            n for n in range(3) if n != cancelled
        ]


async def test_a_paused_run_holds_no_place_and_has_not_lost_its_turn(storage: Store) -> None:
    @job
    async def work(n: int) -> None:
        await run("disk", body, n, concurrency=1)

    async def body(n: int) -> None:
        order.append(n)
        await gates[n].wait()

    order: list[int] = []
    gates = [asyncio.Event() for _ in range(4)]
    async with TestQueue([work], storage=storage) as queue:
        runs = [await queue.jobs.work.start(n=n) for n in range(4)]
        await queue.settle()
        await runs[1].pause()
        await queue.settle()
        gates[0].set()
        await queue.settle()
        assert order == [0, 2]
        await runs[1].resume()
        await queue.settle()
        for gate in gates:
            gate.set()
            await queue.settle()
        assert order == [0, 2, 1, 3]


async def test_a_restart_takes_back_the_places_of_steps_that_it_cut_off(storage: Store) -> None:
    @job
    async def work(n: int) -> None:
        await run("disk", body, n, concurrency=1)

    async def body(n: int) -> None:
        order.append(n)
        await free.wait()

    order: list[int] = []
    free = asyncio.Event()
    async with TestQueue([work], storage=storage) as queue:
        for n in range(3):
            await queue.jobs.work.start(n=n)
        await queue.settle()
    free.set()
    async with TestQueue([work], storage=storage) as queue:
        await queue.settle()
        assert sorted(order) == [0, 0, 1, 2]
        assert await counted(queue) == {"succeeded": 3}


async def test_an_evicted_run_is_called_back_for_its_place(storage: Store) -> None:
    @job
    async def work(n: int) -> None:
        await asyncio.gather(run("disk", body, n, concurrency=Concurrency("disk", "1/2h")), sleep("3h"))

    def body(n: int) -> Any:
        done(n)

    async with TestQueue([work], storage=storage) as queue:
        done = Log(queue)
        for n in range(3):
            await queue.jobs.work.start(n=n)
        await queue.advance("6h")
        assert done.entries == [(0.0, 0), (7200.0, 1), (14400.0, 2)]
        assert await counted(queue) == {"succeeded": 3}


LIMITS = [1, "1 per 10s"]  # a window, and a rate


@pytest.mark.parametrize("limit", LIMITS)
async def test_a_job_that_is_gone_holds_no_other_up(storage: Store, limit: Any) -> None:
    @job
    async def old(n: int) -> None:
        await run("call", free.wait, concurrency=Concurrency("api", limit))

    @job
    async def new() -> str:
        return await run("call", lambda: "answered", concurrency=Concurrency("api", limit))

    free = asyncio.Event()
    async with TestQueue([old, new], storage=storage) as queue:
        before = [await queue.jobs.old.start(n=n) for n in range(4)]
        await queue.settle()
    async with TestQueue([new], storage=storage, start=queue.now) as queue:
        runs = [await queue.jobs.new.start() for _ in range(2)]
        await queue.advance("1m")
        assert [await handle.status() for handle in runs] == ["succeeded"] * 2
    free.set()
    async with TestQueue([old, new], storage=storage, start=queue.now) as queue:
        await queue.advance("1h")
        assert [await (await queue.get(handle.id)).status() for handle in before] == ["succeeded"] * 4


@pytest.mark.parametrize("limit", LIMITS)
async def test_a_place_that_edited_code_does_not_ask_for_holds_nobody_up(storage: Store, limit: Any) -> None:
    @job(name="work")
    async def before(n: int) -> None:
        await run("early", free.wait, concurrency=Concurrency("api", limit))

    @job(name="work")
    async def after(n: int) -> None:
        await sleep("1m")
        await run("late", lambda: None, concurrency=Concurrency("api", limit))

    free = asyncio.Event()
    async with TestQueue([before], storage=storage) as queue:
        runs = [await queue.jobs.work.start(n=n) for n in range(4)]
        await queue.settle()
    async with TestQueue([after], storage=storage, start=queue.now) as queue:
        await queue.advance("1h")
        assert [await (await queue.get(handle.id)).status() for handle in runs] == ["succeeded"] * 4


@pytest.mark.parametrize("limit", [1, 2])
async def test_runs_without_a_coroutine_are_called_back_for_their_places(storage: Store, limit: int) -> None:
    @job
    async def work(n: int) -> None:
        await run("disk", gauge.visit, n, 5, concurrency=limit)

    gauge = Gauge()
    async with TestQueue([work], storage=storage, resident=0) as queue:
        await asyncio.gather(*(queue.jobs.work.start(n=n) for n in range(12)))
        await queue.settle()
        assert await counted(queue) == {"succeeded": 12}
    assert gauge.most <= limit
    assert sorted(gauge.order) == list(range(12))
