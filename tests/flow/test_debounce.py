"""Debounce: bursts of triggers become one run; what is superseded ends at once and says so."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from taskrun import Concurrency, Debounce, RunCancelled, Throttle, job
from taskrun.stores.base import Store
from taskrun.testing import TestQueue
from tests.flow.look import Log, counted, outcomes, record

SUPERSEDED = "cancelled/debounce"


async def test_the_newest_of_a_burst_runs_once_it_has_been_quiet(storage: Store) -> None:
    @job(debounce=10)
    async def save(n: int) -> int:
        done(n)
        return n

    async with TestQueue([save], storage=storage) as queue:
        done = Log(queue)
        runs = []
        for n in range(3):
            runs.append(await queue.jobs.save.start(n=n))
            await queue.advance(9)
        assert await outcomes(runs) == [SUPERSEDED, SUPERSEDED, "scheduled/debounce"]
        await queue.advance(1)
        assert await outcomes(runs) == [SUPERSEDED, SUPERSEDED, "succeeded"]
        assert done.entries == [(28.0, 2)]


async def test_who_waits_for_a_superseded_run_is_told_at_once(storage: Store) -> None:
    @job(debounce="1h")
    async def save(n: int) -> int:
        return n

    async with TestQueue([save], storage=storage) as queue:
        first = asyncio.create_task(queue.jobs.save.run(n=1))
        await queue.settle()
        await queue.jobs.save.start(n=2)
        with pytest.raises(RunCancelled) as told:
            await first
        assert told.value.reason == "debounce"


async def test_a_parent_whose_child_is_superseded_gets_the_error(storage: Store) -> None:
    @job(debounce="1h")
    async def save(n: int) -> int:
        return n

    @job
    async def parent() -> str:
        try:
            return str(await save.run(n=1))
        except RunCancelled as error:
            return error.reason

    async with TestQueue([save, parent], storage=storage) as queue:
        run = await queue.jobs.parent.start()
        await queue.settle()
        await queue.jobs.save.start(n=2)
        assert await run.result() == "debounce"


async def test_the_first_leads_and_the_rest_of_its_burst_trails(storage: Store) -> None:
    @job(debounce=Debounce(duration=10, mode="leading"))
    async def save(n: int) -> None:
        done(n)

    async with TestQueue([save], storage=storage) as queue:
        done = Log(queue)
        runs = []
        for n in range(3):
            runs.append(await queue.jobs.save.start(n=n))
            await queue.advance(4)
        await queue.advance(20)
        assert await outcomes(runs) == ["succeeded", SUPERSEDED, "succeeded"]
        assert done.entries == [(0.0, 0), (18.0, 2)]
        await queue.jobs.save.run(n=3)
        assert done.entries[-1] == (32.0, 3)


async def test_a_burst_without_end_runs_within_its_timeout(storage: Store) -> None:
    @job(debounce=Debounce(duration=10, timeout=25))
    async def save(n: int) -> None:
        done(n)

    async with TestQueue([save], storage=storage) as queue:
        done = Log(queue)
        for n in range(10):
            await queue.jobs.save.start(n=n)
            await queue.advance(8)
        await queue.advance(60)
        assert done.entries == [(25.0, 3), (57.0, 7), (82.0, 9)]


async def test_a_function_of_the_input_gives_each_its_own_burst(storage: Store) -> None:
    @job(debounce=lambda save: Debounce(f"save-{save['file']}", save["wait"]))
    async def save(file: str, wait: int) -> None:
        done(file)

    async with TestQueue([save], storage=storage) as queue:
        done = Log(queue)
        for file, wait in (("a", 10), ("b", 5), ("a", 20)):
            await queue.jobs.save.start(file=file, wait=wait)
        await queue.advance(60)
        assert done.entries == [(5.0, "b"), (20.0, "a")]


async def test_jobs_that_share_an_id_share_its_bursts(storage: Store) -> None:
    shared = Debounce("index", 10)

    @job(debounce=shared)
    async def add(n: int) -> None:
        done(("add", n))

    @job(debounce=shared)
    async def remove(n: int) -> None:
        done(("remove", n))

    async with TestQueue([add, remove], storage=storage) as queue:
        done = Log(queue)
        first = await queue.jobs.add.start(n=1)
        await queue.jobs.remove.start(n=2)
        await queue.advance(30)
        assert done.what == [("remove", 2)]
        assert await outcomes([first]) == [SUPERSEDED]


async def test_a_burst_goes_on_after_a_restart(storage: Store) -> None:
    @job(debounce=10)
    async def save(n: int) -> None:
        seen.append(n)

    seen: list[int] = []
    async with TestQueue([save], storage=storage) as queue:
        await queue.jobs.save.start(n=1)
        start = queue.now
    async with TestQueue([save], storage=storage, start=start) as queue:
        await queue.advance(5)
        await queue.jobs.save.start(n=2)
        await queue.advance(9)
        assert seen == []
        await queue.advance(1)
        assert seen == [2]


async def test_a_run_of_a_burst_that_was_cancelled_leaves_the_next_burst_alone(storage: Store) -> None:
    @job(debounce=Debounce(duration=10, timeout=15))
    async def save(n: int) -> None:
        done(n)

    async with TestQueue([save], storage=storage) as queue:
        done = Log(queue)
        run = await queue.jobs.save.start(n=1)
        await queue.advance(9)
        await run.cancel()
        await queue.jobs.save.start(n=2)
        await queue.advance(9)
        assert done.what == []
        await queue.advance(1)
        assert done.entries == [(19.0, 2)]


@pytest.mark.parametrize(
    "terms", [{"throttle": Throttle("x", 3600, "queue")}, {"concurrency": Concurrency("x", "1/h")}]
)
async def test_a_run_whose_burst_is_over_keeps_its_turn_at_a_limit(storage: Store, terms: Any) -> None:
    @job(debounce=Debounce(duration=1), **terms)
    async def save(n: int) -> None:
        done(n)

    async with TestQueue([save], storage=storage) as queue:
        done = Log(queue)
        for n in range(4):
            await queue.jobs.save.start(n=n)
            await queue.advance(60)  # each is a burst of its own
        await queue.advance("4h")
        assert done.what == [0, 1, 2, 3]
        assert await counted(queue) == {"succeeded": 4}


async def test_a_thousand_triggers_of_one_burst_are_one_run(storage: Store) -> None:
    @job(debounce=10)
    async def save(n: int) -> Any:
        return n

    async with TestQueue([save], storage=storage) as queue:
        runs = await asyncio.gather(*(queue.jobs.save.start(n=n) for n in range(1000)))
        await queue.advance(60)
        assert await counted(queue) == {"cancelled": 999, "succeeded": 1}
        assert (await record(queue, runs[-1])).output == "999"
