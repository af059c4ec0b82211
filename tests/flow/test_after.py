"""Runs that start after others: `scheduled`, reason `after`; given up when one of those does not succeed."""

from __future__ import annotations

import asyncio
import json

import pytest

from taskrun import Concurrency, Debounce, Run, RunCancelled, RunFailed, RunNotFound, job, sleep
from taskrun.engine.core.admit import Trigger, new_id
from taskrun.model.records import Awaited
from taskrun.stores.base import Store
from taskrun.testing import TestQueue

ran: list[str] = []


@job(retry=0)
async def works(name: str = "", seconds: float = 10, fail: bool = False) -> None:
    await sleep(seconds)
    ran.append(name)
    if fail:
        raise ValueError("no")


@job(concurrency=Concurrency("one", 1))
async def alone(name: str = "") -> None:
    await asyncio.sleep(0)
    ran.append(name)


@job(debounce=Debounce("burst", "5s"))
async def bursts(name: str = "") -> None:
    ran.append(name)


JOBS = [works, alone, bursts]


@pytest.fixture(autouse=True)
def _nothing_ran() -> None:
    ran.clear()


async def after(queue: TestQueue, *runs: Run | str, any: bool = False, job: str = "works", **fields: object) -> Run:
    """Starts a run that waits for others."""
    delay = fields.pop("delay", None)
    prepared = await queue.core.prepare(job, json.dumps(fields))
    wanted = [Awaited(one if isinstance(one, str) else one.id, any) for one in runs]
    until = None if delay is None else queue.core.clock.now() + float(str(delay))
    trigger = Trigger(prepared=prepared, id=new_id(), after=wanted, delay_until=until)
    run = await queue.core.trigger(trigger)
    return queue.handle(run)


async def state(run: Run) -> tuple[str, str | None]:
    info = await run.info()
    return info["status"], info["reason"]


WAITS = ("scheduled", "after")
DROPPED = ("cancelled", "dependency")


async def test_it_waits_for_all_and_then_starts(storage: Store) -> None:
    async with TestQueue(jobs=JOBS, storage=storage) as queue:
        short = await queue.jobs.works.start(name="short")
        long = await queue.jobs.works.start(name="long", seconds=100)
        last = await after(queue, short, long, short, name="last", seconds=0)
        twin = await after(queue, short, long, name="twin", seconds=0)
        await queue.advance(50)
        assert ran == ["short"]
        assert await state(last) == await state(twin) == WAITS
        [cause] = (await queue.core.why(last.id))["causes"]
        assert (cause["kind"], cause["runs"]) == ("after", [long.id])
        assert f"it starts once {long.id[:6]} works (waiting" in cause["text"] and "has succeeded" in cause["text"]
        awaited = (await last.info())["after"]
        assert [(one["run"], one["status"]) for one in awaited] == [(short.id, "succeeded"), (long.id, None)]
        await queue.advance(51)
        assert ran == ["short", "long", "last", "twin"]


async def test_one_that_fails_cancels_a_whole_chain_however_long(storage: Store) -> None:
    async with TestQueue(jobs=JOBS, storage=storage) as queue:
        chain = [await queue.jobs.works.start(fail=True)]
        for _ in range(1_200):
            chain.append(await after(queue, chain[-1]))
        indifferent = await after(queue, chain[600], any=True, name="indifferent", seconds=0)
        await queue.advance(11)
        assert {await state(run) for run in chain[1:]} == {DROPPED}
        assert await state(indifferent) == ("succeeded", None)
        with pytest.raises(RunCancelled, match="dependency"):
            await chain[-1].result()
        assert queue.core.rescuer.found == 0
        assert await queue.core.read(lambda tx: tx.facts("after:")) == {}


async def test_one_that_has_ended_already_decides_at_once(storage: Store) -> None:
    async with TestQueue(jobs=JOBS, storage=storage) as queue:
        good, bad = await queue.jobs.works.start(), await queue.jobs.works.start(fail=True)
        await queue.advance(11)
        with pytest.raises(RunFailed):
            await bad.result()
        assert await state(await after(queue, good, bad)) == DROPPED
        assert await state(await after(queue, good, bad, any=True, seconds=0)) in (
            ("running", None),
            ("succeeded", None),
        )
        given_up = await after(queue, good, bad)
        [cause] = (await queue.core.why(given_up.id))["causes"]
        assert cause["runs"] == [bad.id]
        assert cause["text"].endswith(f"ago: it was to start after {bad.id[:6]}, which failed")
        with pytest.raises(RunNotFound, match="no run"):
            await after(queue, good, "nobodyatall")


async def test_a_run_that_is_awaited_both_ways_has_to_succeed(storage: Store) -> None:
    async with TestQueue(jobs=JOBS, storage=storage) as queue:
        bad = await queue.jobs.works.start(fail=True)
        prepared = await queue.core.prepare("works", "{}")
        wanted = [Awaited(bad.id, True), Awaited(bad.id), Awaited(bad.id, True)]
        run = await queue.core.trigger(Trigger(prepared=prepared, id=new_id(), after=wanted))
        await queue.advance(11)
        assert await state(queue.handle(run)) == DROPPED


@pytest.mark.parametrize(("first", "delay"), [(10, 60), (60, 10)])
async def test_a_delay_and_the_end_of_another_are_both_waited_for(storage: Store, first: float, delay: float) -> None:
    async with TestQueue(jobs=JOBS, storage=storage) as queue:
        run = await after(queue, await queue.jobs.works.start(seconds=first), name="late", seconds=0, delay=delay)
        await queue.advance(30)
        assert await state(run) == (WAITS if first > delay else ("scheduled", "delay"))
        await queue.advance(31)
        assert ran == ["", "late"]


async def test_a_burst_waits_for_its_moment_and_then_for_others(storage: Store) -> None:
    async with TestQueue(jobs=JOBS, storage=storage) as queue:
        other = await queue.jobs.works.start(seconds=20)
        first = await after(queue, other, job="bursts", name="first")
        second = await after(queue, other, job="bursts", name="second")
        assert await state(first) == ("cancelled", "debounce")
        await queue.advance(10)
        assert await state(second) == WAITS
        await queue.advance(11)
        assert ran == ["", "second"]


@pytest.mark.parametrize("any", [True, False])
async def test_one_that_takes_the_place_of_what_it_waits_for(storage: Store, any: bool) -> None:
    async with TestQueue(jobs=JOBS, storage=storage) as queue:
        first = await queue.jobs.bursts.start(name="first")
        second = await after(queue, first, any=any, job="bursts", name="second")
        await queue.advance(6)
        assert await state(first) == ("cancelled", "debounce")
        assert await state(second) == (("succeeded", None) if any else DROPPED)


async def test_it_can_be_cancelled_paused_and_resumed_meanwhile(storage: Store) -> None:
    async with TestQueue(jobs=JOBS, storage=storage) as queue:
        other = await queue.jobs.works.start(seconds=20)
        gone, held, freed = [await after(queue, other, name=name, seconds=0) for name in ("gone", "held", "freed")]
        hangs = await after(queue, gone)
        await gone.cancel()
        await held.pause()
        await freed.pause()
        await freed.resume()
        assert (await state(gone), await state(hangs)) == (("cancelled", "explicit"), DROPPED)
        assert await state(freed) == WAITS
        await queue.advance(21)
        assert ran == ["", "freed"]
        assert (await state(held))[0] == "paused"
        await held.resume()
        await held.result()
        assert await queue.core.read(lambda tx: tx.facts("after:")) == {}


async def test_a_paused_run_that_can_never_start_is_cancelled(storage: Store) -> None:
    async with TestQueue(jobs=JOBS, storage=storage) as queue:
        run = await after(queue, await queue.jobs.works.start(fail=True))
        await run.pause()
        await queue.advance(11)
        assert await state(run) == DROPPED


async def test_a_paused_job_holds_it_once_it_could_start(storage: Store) -> None:
    async with TestQueue(jobs=JOBS, storage=storage) as queue:
        run = await after(queue, await queue.jobs.works.start(), job="alone")
        await queue.core.jobs.pause("alone")
        assert await state(run) == WAITS
        await queue.advance(11)
        assert await state(run) == ("paused", "job")
        await queue.core.jobs.resume("alone")
        await run.result()


async def test_limits_count_it_only_once_it_is_ready(storage: Store) -> None:
    async with TestQueue(jobs=JOBS, storage=storage) as queue:
        other = await queue.jobs.works.start()
        waiting = [await after(queue, other, job="alone", name=str(n)) for n in range(3)]
        await queue.jobs.alone.run(name="before")
        await queue.advance(11)
        for run in waiting:
            await run.result()
        assert ran == ["before", "", "0", "1", "2"]


async def test_a_restart_another_engine_and_pruning_forget_nothing(storage: Store) -> None:
    async with TestQueue(jobs=JOBS, storage=storage) as queue:
        other = await queue.jobs.works.start(seconds=50)
        run = await after(queue, other, await queue.jobs.works.start(seconds=1), name="last", seconds=0)
        await queue.advance(2)
        await queue.core.retention.prune(0)
    async with TestQueue(jobs=JOBS, storage=storage, start=queue.now) as again:
        await again.advance(100)
        await (await again.get(run.id)).result()
        assert ran[-1] == "last"


async def test_an_end_that_nobody_told_is_found_and_reported(storage: Store) -> None:
    async with TestQueue(jobs=JOBS, storage=storage) as queue:
        other = await queue.jobs.works.start()
        run = await after(queue, other, name="last", seconds=0)
        await queue.core.journal.do(lambda t: t.tx.put(f"after:{other.id}:{run.id}", None))
        await queue.advance(20)
        assert await state(run) == WAITS
        [finding] = await queue.core.rescuer.look()
        assert finding == (run.id, "a run that it starts after has ended")
        await run.result()


async def test_a_retry_waits_for_nobody(storage: Store) -> None:
    async with TestQueue(jobs=JOBS, storage=storage) as queue:
        run = await after(queue, await queue.jobs.works.start(fail=True), name="again", seconds=0)
        await queue.advance(11)
        assert await state(run) == DROPPED
        await (await run.retry()).result()
        assert ran == ["", "again"]
