"""An engine that was taken for dead: what it does when it notices, and when it is closed or the disk refuses meanwhile."""

from __future__ import annotations

import asyncio

import pytest
from msgspec.structs import replace

from taskrun import MemoryStorage, Queue, job, sleep
from taskrun.engine.core import run_lifecycle as ledger
from taskrun.engine.core.core import Core
from taskrun.engine.core.journal import Journal
from taskrun.engine.core.lease import Lease
from taskrun.engine.core.transaction import EngineState
from taskrun.model.clock import SystemClock
from taskrun.model.errors import EngineLost, JournalUnavailable
from taskrun.model.records import Engine, Status
from taskrun.stores.base import Store
from taskrun.testing import TestQueue


async def take_over(by: Core, lost: str) -> None:
    await by.journal.do(lambda t: ledger.take_over(t, lost, blame=False))


async def write(core: Core) -> None:
    """Writes something, so that an engine notices that it is lost."""
    with pytest.raises(EngineLost):
        await core.journal.do(lambda t: t.tx.put("k", "v"))


def engines(storage: MemoryStorage) -> list[Engine]:
    [(found, _)] = storage.apply([lambda tx: tx.engines()])
    return list(found)


async def test_a_queue_that_is_closed_while_it_begins_again_is_closed() -> None:
    storage = MemoryStorage()
    async with Queue(storage=storage) as other:
        lost = Queue(storage=storage)
        await lost.start()
        await take_over(other.core, lost.core.state.id)
        core = lost.core
        await write(core)
        await lost.close()
        await asyncio.sleep(0.05)
        assert not core.claims.open
        assert [engine.id for engine in engines(storage)] == [other.core.state.id]


async def test_a_lost_queue_closes_though_it_did_not_know() -> None:
    storage = MemoryStorage()
    async with Queue(storage=storage) as other:
        async with Queue(storage=storage) as lost:
            await take_over(other.core, lost.core.state.id)
        assert [engine.id for engine in engines(storage)] == [other.core.state.id]


async def test_who_waits_for_a_run_at_a_lost_engine_is_told_of_the_end_that_another_gave_it() -> None:
    storage = MemoryStorage()

    @job
    async def handler() -> str:
        await sleep("1h")
        return "done"

    async with TestQueue(jobs=[handler], storage=storage) as lost, TestQueue(storage=storage) as other:
        handle = await lost.jobs.handler.start()
        await lost.settle()
        waiting = asyncio.ensure_future(lost.core.wait(handle.id))
        await lost.settle()
        lost.core.journal.on_nudge = None  # no other occasion to look than having begun again
        await take_over(other.core, lost.core.state.id)
        ended = replace(await other.core.get(handle.id), status=Status.SUCCEEDED, engine=None, ended_at=1.0)
        await other.core.journal.do(lambda t: t.tx.save_run(ended))
        await write(lost.core)
        async with asyncio.timeout(10):
            assert (await waiting).ended


async def test_an_engine_that_cannot_begin_again_says_so_and_tries_on(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    acquire, tries = Lease.acquire, 0

    async def refuse_once(self: Lease, journal: Journal) -> None:
        nonlocal tries
        tries += 1
        if tries == 1:
            raise JournalUnavailable("no")
        await acquire(self, journal)

    @job
    async def handler() -> int:
        return 1

    async with Queue(jobs=[handler], storage=MemoryStorage()) as queue:
        monkeypatch.setattr("taskrun.engine.core.core.AGAIN", 0.0)
        monkeypatch.setattr(Lease, "acquire", refuse_once)
        await take_over(queue.core, queue.core.state.id)
        await write(queue.core)
        assert await queue.jobs.handler.run() == 1
    assert tries == 2
    assert "could not register again" in caplog.text


async def test_nothing_is_written_without_an_id_but_the_registration(storage: Store) -> None:
    state = EngineState()
    lease = Lease(storage, state, "e", 15.0, alone=False, heartbeat=False)
    journal = Journal(storage, SystemClock(), state, lease.guard)
    journal.open()
    with pytest.raises(EngineLost):
        await journal.do(lambda t: t.tx.put("k", "too early"))
    await lease.acquire(journal)
    assert await journal.do(lambda t: t.engine) == state.id != ""
    await journal.close()


async def test_what_waits_for_a_disk_that_refuses_is_failed_by_the_close(
    storage: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise JournalUnavailable("full")

    journal = Journal(storage, SystemClock(), EngineState())
    journal.open()
    monkeypatch.setattr(storage, "apply", refuse)
    written = journal.do(lambda t: t.tx.put("k", "v"))
    async with asyncio.timeout(10):
        while journal.fault is None:
            await asyncio.sleep(0.001)
        await journal.close()
        with pytest.raises(JournalUnavailable):
            await written
    assert journal.pending == 0
