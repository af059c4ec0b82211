"""What is pruned is what nobody can ask for any more."""

from __future__ import annotations

import asyncio

import pytest

from taskrun import Debounce, Throttle, job, pipe, sleep
from taskrun.engine.core import retention
from taskrun.engine.core.admit import Trigger, new_id
from taskrun.engine.core.facts import INTENTS, THROTTLES
from taskrun.engine.core.transaction import Transaction
from taskrun.stores.base import Store
from taskrun.testing import TestQueue

p = pipe("p")
DAY = 86_400.0


@job
async def child() -> int:
    return 1


@job
async def parent() -> int:
    started = await child.start()
    await sleep(10 * DAY)
    return int(await started.result())


async def test_a_child_outlives_its_parent(storage: Store) -> None:
    async with TestQueue([parent, child], storage=storage) as queue:
        started = await queue.jobs.parent.start()
        await queue.advance(5 * DAY)
        assert await queue.core.retention.prune(DAY) == []
        await queue.advance(6 * DAY)
        assert await started.result() == 1
        assert len(await queue.core.retention.prune(DAY, dry_run=True)) == 1, "the parent ended a day ago or less"
        await queue.advance(2 * DAY)
        assert len(await queue.core.retention.prune(DAY)) == 2


async def test_an_event_outlives_the_runs_that_may_wait_for_it(storage: Store) -> None:
    @job
    async def late() -> int:
        await sleep(5 * DAY)
        return int((await p.wait_for())["n"])

    async with TestQueue([late], [p], storage=storage) as queue:
        started = await queue.jobs.late.start()
        await queue.settle()
        await queue.pipes.p.send(n=7)
        await queue.advance(3 * DAY)
        await queue.core.retention.prune(DAY)
        await queue.advance(3 * DAY)
        assert await started.result() == 7
        await queue.advance(2 * DAY)
        await queue.core.retention.prune(DAY)
        assert await queue.core.journal.do(lambda t: t.tx.events("pipe:p", 0.0, 0, 9)) == []


async def test_what_is_kept_of_a_burst_goes_when_that_is_over(storage: Store) -> None:
    @job(debounce=Debounce(duration=3 * DAY, id="user-7"))
    async def burst() -> None:
        return None

    async with TestQueue([burst], storage=storage) as queue:
        await queue.jobs.burst.start()
        await queue.advance(2 * DAY)
        await queue.core.retention.prune(DAY)
        facts = await queue.core.journal.do(lambda t: t.tx.facts("debounce:"))
        assert len(facts) == 1, "the burst is under way"
        await queue.advance(3 * DAY)
        await queue.core.retention.prune(DAY)
        assert await queue.core.journal.do(lambda t: t.tx.facts("debounce:")) == {}


async def test_the_request_of_a_client_goes_with_its_run(storage: Store) -> None:
    async with TestQueue([child], storage=storage) as queue:
        prepared = await queue.core.prepare("child", "{}")
        for intent in ("old", "new"):
            await queue.core.trigger(Trigger(prepared=prepared, id=new_id(), intent=intent))
            await queue.advance(2 * DAY)
        await queue.core.retention.prune(3 * DAY)
        assert list(await queue.core.read(INTENTS.all)) == ["new"]


async def test_a_request_whose_run_went_before_a_death_goes_when_the_next_engine_begins(
    storage: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(retention, "BATCH", 2)
    async with TestQueue([child], storage=storage) as queue:
        run_id = (await queue.jobs.child.start()).id

        def leave(t: Transaction) -> None:
            for intent, run in [*((f"{n}", "gone") for n in range(5)), ("kept", run_id)]:
                INTENTS.put(t.tx, intent, run)

        await queue.core.journal.do(leave)
        looking = asyncio.create_task(queue.core.retention.run())
        await queue.settle()
        looking.cancel()
        assert list(await queue.core.read(INTENTS.all)) == ["kept"]


async def test_what_is_kept_of_a_throttle_goes_when_all_of_its_starts_are_over(storage: Store) -> None:
    @job(throttle=Throttle(duration=DAY, id="mail"))
    async def sends() -> None: ...

    async with TestQueue([sends], storage=storage) as queue:
        prepared = await queue.core.prepare("sends", "{}")
        later = queue.now.timestamp() + 5 * DAY
        await queue.core.trigger(Trigger(prepared=prepared, id=new_id(), delay_until=later))
        await queue.jobs.sends.run()
        for days, kept in [(4, 1), (4, 0)]:
            await queue.advance(days * DAY)
            await queue.core.retention.prune(DAY / 2)
            assert len(await queue.core.read(THROTTLES.all)) == kept
