"""Executors that join and leave one core at once: none takes on what another has, or what its code had before."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from taskrun import MemoryStorage, job
from taskrun.engine import messages as m
from taskrun.engine.core import run_lifecycle
from taskrun.engine.core.core import Core
from taskrun.model import records
from taskrun.testing import TestQueue


class Worker:
    """A peer that keeps what it is told, and has one job.

    Parameters:
        cron: the schedule of its job.
    """

    def __init__(self, cron: str | None = None) -> None:
        self.told: list[m.Told] = []
        self.loaded = asyncio.Event()
        self.loaded.set()
        self._crons = [] if cron is None else [{"job": "work", "cron": cron}]

    async def ask(self, message: m.Asked) -> Any:
        if isinstance(message, m.Describe):
            await self.loaded.wait()
            jobs = [{"name": "work", "triggers": []}]
            return m.Description(jobs=jobs, pipes=[], problems=[], crons=self._crons)
        return None

    def tell(self, message: m.Told) -> None:
        self.told.append(message)

    @property
    def executed(self) -> list[str]:
        return [message.run.id for message in self.told if isinstance(message, m.Execute)]

    @property
    def hooks(self) -> list[str]:
        return [message.kind for message in self.told if isinstance(message, m.Notify)]


@asynccontextmanager
async def started() -> AsyncIterator[Core]:
    core = Core(MemoryStorage(), heartbeat=False)
    await core.start()
    try:
        yield core
    finally:
        await core.close(grace=0)


async def test_a_run_that_has_gone_on_elsewhere_is_not_let_go_with_its_old_executor() -> None:
    """Its unwinding, its next start and the farewell to its executor are one commit, as after a disk that refused."""
    old, new = Worker(), Worker()
    async with started() as core:
        await core.join(old)
        run = records.Run(id="r", job="work", created_at=1.0)
        await core.journal.do(lambda t: run_lifecycle.add(t, run))
        await core.journal.flush()
        await core.join(new)
        core.retire(old)
        core.attempts.finished(old, m.Finished(run="r", outcome=m.Unwound()))
        core.claims.look_again()
        await core.leave(old, crashed=False)
        await core.journal.flush()
        assert (old.executed, new.executed) == (["r"], ["r"])
        assert (await core.get("r")).engine == core.state.id


async def test_an_executor_that_retires_before_it_has_loaded_its_jobs_gets_no_work() -> None:
    slow = Worker("* * * * *")
    slow.loaded.clear()
    async with started() as core:
        joining = asyncio.create_task(core.join(slow))
        await asyncio.sleep(0)
        core.retire(slow)
        slow.loaded.set()
        await joining
        assert (core.executors.peers, core.schedules.next()) == ([], None)


async def test_schedules_are_those_of_the_executor_that_joined_last() -> None:
    async with started() as core:
        await asyncio.gather(core.join(Worker("* * * * *")), core.join(Worker()))
        assert (core.schedules.next(), await core.schedules.views()) == (None, [])


async def test_a_cancel_that_comes_before_the_executors_waits_for_one_that_has_the_job() -> None:
    """As one by the command that starts the daemon: the `finally` blocks of the run are to be executed."""
    worker = Worker()
    async with started() as core:
        ours = records.Run(id="ours", job="work", created_at=1.0, started_at=1.0, status=records.Status.WAITING)
        gone = records.Run(id="gone", job="gone", created_at=1.0, started_at=1.0, status=records.Status.WAITING)
        await core.journal.do(lambda t: [t.tx.add_run(run) for run in (ours, gone)])
        await core.cancel("ours")
        await core.cancel("gone")
        assert not (await core.get("ours")).ended
        await core.join(worker)
        await core.journal.flush()
        assert worker.executed == ["ours"]
        assert (await core.get("gone")).status == "cancelled"


async def test_a_retired_executor_hears_of_the_ends_of_its_runs_until_it_has_left() -> None:
    """As those in flight when the code was edited: it has their hooks; what ends later is told to one that is there."""
    old, new = Worker(), Worker()
    async with started() as core:
        await core.join(old)
        for id in ("first", "last"):
            run = records.Run(id=id, job="work", created_at=1.0)
            await core.journal.do(lambda t, run=run: run_lifecycle.add(t, run))  # type: ignore[misc]
        await core.journal.flush()
        await core.join(new)
        core.retire(old)
        old.told.clear()
        core.attempts.finished(old, m.Finished(run="first", outcome=m.Succeeded("1")))
        await core.journal.flush()
        assert (old.hooks, new.hooks) == (["success", "settled"], [])
        core.attempts.finished(old, m.Finished(run="last", outcome=m.Succeeded("1")))
        await core.leave(old, crashed=False)
        assert (old.hooks, new.hooks) == (["success", "settled"], ["success", "settled"])


async def test_nothing_is_kept_of_an_executor_that_holds_no_slot() -> None:
    @job
    async def quick() -> None: ...

    async with TestQueue(jobs=[quick]) as queue:
        await queue.jobs.quick.run()
        assert not queue.core.executors.load
