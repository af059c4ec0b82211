"""The core: the half of an engine that owns the journal and the clock and never runs user code.

It admits triggers, gives places to ready runs, hands them to executors, and answers for the runs of its journal. It is driven by
a `Queue` or by the daemon's server; what executors say to it comes through its `Reception`.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from functools import partial
from typing import Any, TypeVar

from msgspec.structs import replace

from taskrun.engine import messages as m
from taskrun.engine.core import run_lifecycle as ledger
from taskrun.engine.core import waits
from taskrun.engine.core.admit import Trigger, admit, new_id, start_again
from taskrun.engine.core.end_waiters import Waiters
from taskrun.engine.core.event_triggers import Routing
from taskrun.engine.core.executors import Dispatch
from taskrun.engine.core.hook_notifier import Hooks
from taskrun.engine.core.journal import Journal
from taskrun.engine.core.lease import Lease
from taskrun.engine.core.logs import Logs
from taskrun.engine.core.pause_job import Jobs
from taskrun.engine.core.queries import views
from taskrun.engine.core.queries.why import why
from taskrun.engine.core.retention import Retention
from taskrun.engine.core.schedules import Schedules
from taskrun.engine.core.subscriptions import Bus, Change, Lagged, LogAdded, RunChanged, StepChanged
from taskrun.engine.core.timers import Timers
from taskrun.engine.core.transaction import Book
from taskrun.engine.core.transactions import Ledgers
from taskrun.model.clock import Clock, SystemClock
from taskrun.model.errors import EngineLost, JobNotFound, PipeNotFound, RunEnded, RunNotEnded, RunNotFound
from taskrun.model.records import UNFINISHED, LogLine, Run, RunFilter
from taskrun.rules.policies import Prepared
from taskrun.stores.base import Store, Tx

T = TypeVar("T")


class Core:
    """One engine's core; all of it belongs to one event loop.

    Parameters:
        concurrency: runs that execute at once, None for no limit.
        grace: seconds that handlers get to end after a cancel or at close.
        lease: seconds after which a silent engine's runs are taken over.
        alone: nobody else can be on this journal: what is registered there is dead.
        heartbeat: False with virtual time.
        max_log: bytes of one run's log; of more, head and tail are kept.
        keep: seconds that ended runs are kept, None for ever.
        timezone: of schedules that name none; the machine's own by default.
        blame: whether the death of an engine is held against the runs it executed (not in the daemon, which runs no user code).
    """

    def __init__(
        self,
        store: Store,
        *,
        clock: Clock | None = None,
        concurrency: int | None = None,
        grace: float = 10.0,
        lease: float = 15.0,
        name: str = "default",
        alone: bool = False,
        heartbeat: bool = True,
        timezone: str | None = None,
        blame: bool = True,
        max_log: int = 50_000_000,
        keep: float | None = None,
    ) -> None:
        self.clock = clock or SystemClock()
        self.grace = grace
        self.bus = Bus()
        self.lease = Lease(store, name, lease, alone=alone, heartbeat=heartbeat and not alone)
        self.journal = Journal(store, None if alone else self.lease.guard)
        self.ledgers = Ledgers(self.journal, self.clock, lambda: self.lease.id)
        self.dispatch = Dispatch(self.ledgers, self.clock, concurrency, grace)
        self.log = Logs(self.journal, self.bus, max_log)
        self._routing = Routing(self.ledgers, self.dispatch)
        self.retention = Retention(self.ledgers, self.clock, keep)
        self._waiters = Waiters()
        self._timers = Timers(self.clock, self._fire)
        self.schedules = Schedules(self.ledgers, self.dispatch, self.clock, timezone, self._timers.at)
        self.jobs = Jobs(self.ledgers, self.dispatch)
        self._blame = blame
        self.on_stuck: Callable[[m.Peer, str], None] | None = (
            None  # told of an executor that does not end a cancelled run
        )
        self._duties: list[asyncio.Task[None]] = []
        self._closed = True  # not started yet, or closed
        self._anew: asyncio.Task[None] | None = None  # going on under a new id
        self.ledgers.followers += [
            self._publish,
            Hooks(self.dispatch).follow,
            self._waiters.follow,
            self.dispatch.follow,
            self._routing.follow,
            self.log.follow,
            self._follow_times,
        ]

    # ---- life

    async def start(self) -> None:
        """Opens the journal, takes over what a dead engine left, and starts the clock.

        Raises:
            JournalError: the journal cannot be used.
        """
        self.journal.open()
        self.journal.on_nudge = self._nudged
        self.journal.on_lost = self._lost
        self.journal.patient = False
        await self.lease.acquire(self.journal)
        await self._bury_the_dead()
        self.journal.patient = True
        self._closed = False
        self.dispatch.open = True
        self._timers.start()
        duties = (self.lease.watch(self._nudged, self._bury_the_dead), self.retention.run())
        self._duties = [asyncio.get_running_loop().create_task(duty) for duty in duties]

    async def close(self, grace: float | None = None) -> None:
        """Stops giving places, lets attempts end for `grace` seconds, and leaves the rest in the journal."""
        if self._closed:
            return
        self._closed = True
        self.dispatch.open = False
        if self._anew is not None:
            self._anew.cancel()
            await asyncio.wait([self._anew])
        await self._timers.stop()
        await self._routing.close()
        await self.schedules.close()
        seconds = self.grace if grace is None else grace
        await asyncio.gather(*(peer.ask(m.Drain(seconds)) for peer in self.dispatch.peers), return_exceptions=True)
        for duty in self._duties:
            duty.cancel()
        await asyncio.gather(*self._duties, return_exceptions=True)
        await self.lease.release(self.journal, self._let_go)
        await self.journal.close()
        self._waiters.close()
        self.bus.close()

    async def join(self, peer: m.Peer) -> m.Description:
        """Takes an executor on and gives it work."""
        description: m.Description = await peer.ask(m.Describe())
        self.dispatch.join(peer, description)
        await self._routing.join(description)
        await self.schedules.join(description)
        return description

    def retire(self, peer: m.Peer) -> None:
        """Gives an executor no more work; what it has goes on until it leaves."""
        self.dispatch.retire(peer)

    async def leave(self, peer: m.Peer, *, crashed: bool) -> None:
        """Lets an executor go; call it only when none of its processes is left."""
        gone = self.dispatch.leave(peer)

        def act(book: Book) -> None:
            ledger.let_go(book, [run for run_id in gone if (run := book.mine(run_id)) is not None], crashed)

        await self.ledgers.do(act)

    # ---- what users want

    async def prepare(self, job: str, data: str) -> Prepared:
        """Validates an input (JSON text) and evaluates the job's options for it.

        Raises:
            JobNotFound: no executor has the job.
            InputInvalid: naming every bad field.
        """
        peer = self.dispatch.peer_for(job)
        if peer is None:
            raise JobNotFound(f'no job "{job}"')
        prepared: Prepared = await peer.ask(m.Prepare(job=job, input=data))
        return prepared

    async def trigger(self, trigger: Trigger) -> tuple[Run, bool]:
        """Admits a trigger; returns once it is durable, with the run and whether it is new."""
        act, then = self.dispatch.keep_place(partial(admit, trigger=trigger))
        return await self.ledgers.do(act, then)

    async def send(self, pipe: str, data: str) -> str:
        """Sends an event (JSON text); returns its id once it is durable.

        Raises:
            PipeNotFound: no executor has the pipe.
            InputInvalid: naming every bad field.
        """
        peer = self.dispatch.peer_for_pipe(pipe)
        if peer is None:
            raise PipeNotFound(f'no pipe "{pipe}"')
        checked: str = await peer.ask(m.PrepareEvent(pipe=pipe, data=data))
        event = await self.ledgers.do(lambda book: waits.emit(book, f"pipe:{pipe}", new_id(), checked))
        return event.id

    async def get(self, run_id: str) -> Run:
        """Returns a run.

        Raises:
            RunNotFound: no run of this id.
        """
        run = await self.read(lambda tx: tx.run(run_id))
        if run is None:
            raise RunNotFound(f'no run "{run_id}"')
        resident = self.dispatch.residents.get(run_id)
        return run if resident is None or run.ended else replace(run, progress=resident.progress)

    async def wait(self, run_id: str) -> Run:
        """Returns a run once it has ended."""
        future = self._waiters.add(run_id)
        try:
            if run_id not in self.dispatch.residents:  # else its end is still to come
                run = await self.get(run_id)
                if run.ended:
                    return run
            return await future
        finally:
            self._waiters.drop(run_id, future)

    async def news(self, run_id: str) -> Run:
        """Returns a run once it, or its log, has changed; at once when it has ended."""
        async with self.bus.subscribe(lambda change: _concerns(change, run_id)) as changes:
            run = await self.get(run_id)
            if not run.ended:
                await anext(changes)
                run = await self.get(run_id)
            return run

    async def show(self, run_id: str) -> dict[str, Any]:
        """Returns everything about a run, as `taskrun show --json` does."""
        await self.get(run_id)
        return await self.read(lambda tx: views.show(tx, run_id))

    async def logs(self, run_id: str, after: int, limit: int = 1_000) -> list[LogLine]:
        """Returns log lines of a run after a position."""
        return await self.read(lambda tx: tx.logs(run_id, after, limit))

    async def order(self, run_id: str, verb: str, argument: str | None = None) -> m.Ordered:
        """Cancels, pauses, resumes or retries a run."""
        if verb == "cancel":
            changed = await self.cancel(run_id, argument or "explicit")
            return m.Ordered(await self.get(run_id), changed)
        if verb == "retry":
            return m.Ordered(await self.retry(run_id, argument), True)
        change = self.pause if verb == "pause" else self.resume
        return m.Ordered(await change(run_id), True)

    async def cancel_runs(self, job: str, data: str) -> int:
        """Cancels every unfinished run of a job with exactly this input (JSON text); returns how many."""
        prepared = await self.prepare(job, data)
        want = RunFilter(job=job, statuses=tuple(UNFINISHED))

        def act(book: Book) -> int:
            same = [run for run in book.tx.runs(want) if run.input == prepared.input]
            return sum(ledger.cancel(book, run.id, "explicit") for run in same)

        return await self.ledgers.do(act)

    async def read(self, fn: Callable[[Tx], T]) -> T:
        """Reads in a transaction, after everything that was written before; while the disk refuses, what is durable."""
        value: T = await self.journal.read(fn)
        return value

    async def cancel(self, run_id: str, reason: str = "explicit", grace: float | None = None) -> bool:
        """Cancels a run; returns False when it had ended already.

        Parameters:
            grace: seconds for its handler to end, instead of the engine's; also for a cancel that is under way.
        """
        await self.get(run_id)
        changed = await self.ledgers.do(lambda book: ledger.cancel(book, run_id, reason))
        if grace is not None:
            self.dispatch.hurry(run_id, reason, grace)
        return changed

    async def pause(self, run_id: str, by: str = "explicit") -> Run:
        """Holds a run before its next step.

        Raises:
            RunEnded: it has ended.
        """
        return await self._change(run_id, lambda book, run: ledger.pause(book, run, by))

    async def resume(self, run_id: str) -> Run:
        """Lets a paused run go on.

        Raises:
            RunEnded: it has ended.
        """
        return await self._change(run_id, lambda book, run: ledger.resume(book, run))

    async def why(self, run_id: str) -> dict[str, Any]:
        """Returns why a run is not running or not finished, as `taskrun why --json` does.

        Raises:
            RunNotFound: no run of this id.
        """
        known = self.dispatch.known(self.lease.id)
        return await self.read(lambda tx: why(tx, run_id, known))

    async def retry(self, run_id: str, from_step: str | None = None) -> Run:
        """Starts an ended run anew, keeping the finished steps before `from_step` (or all); returns the new run.

        Raises:
            RunNotEnded: it has not ended.
        """
        run = await self.get(run_id)
        if not run.ended:
            raise RunNotEnded(f"run {run.id} is {run.status}; cancel it first, or wait for its end")
        prepared = await self.prepare(run.job, run.input)
        return await self.ledgers.do(lambda book: start_again(book, run, prepared, from_step))

    async def _change(self, run_id: str, change: Callable[[Book, Run], Run]) -> Run:
        await self.get(run_id)

        def act(book: Book) -> Run | None:
            run = book.tx.run(run_id)
            return None if run is None or run.ended else change(book, run)

        changed = await self.ledgers.do(act)
        if changed is None:
            raise RunEnded(f"run {run_id} has ended already")
        return changed

    # ---- following transactions

    def _publish(self, book: Book) -> None:
        if self.bus.watched:
            for run in book.changed.values():
                self.bus.publish(RunChanged(run))
            for step in book.steps:
                self.bus.publish(StepChanged(step))

    def _follow_times(self, book: Book) -> None:
        for run in book.changed.values():
            if run.wake_at is not None:
                self._timers.at(run.wake_at)
            if run.deadline is not None:
                self._timers.at(run.deadline)
        for step in book.steps:
            if step.wake_at is not None and not step.finished:
                self._timers.at(step.wake_at)

    async def _fire(self) -> float | None:
        """Does what is due; returns the next due moment."""

        def act(book: Book) -> float | None:
            more = ledger.fire(book)
            return book.now if more else book.tx.next_due(self.lease.id)

        upcoming: float | None = None
        with contextlib.suppress(EngineLost):  # it will look again under its new id
            upcoming = await self.ledgers.do(act)
        self.schedules.fire()
        return min((moment for moment in (upcoming, self.schedules.next()) if moment is not None), default=None)

    # ---- other engines

    def _nudged(self) -> None:
        """Looks for what another engine may have changed: ready runs, requests, ends, due times."""
        self.dispatch.claim()
        self.dispatch.look()
        self._timers.at(0.0)
        self.bus.publish(Lagged())
        self._routing.look()
        waited = self._waiters.ids()

        def act(tx: Tx) -> tuple[list[Run], list[Run]]:
            mine = [run for run in tx.owned(self.lease.id) if run.cancel is not None or run.pause is not None]
            return mine, [run for run_id in waited if (run := tx.run(run_id)) is not None and run.ended]

        self.journal.post(act, self._heed)

    def _heed(self, found: tuple[list[Run], list[Run]]) -> None:
        mine, ended = found
        self.dispatch.heed(mine)
        for run in ended:
            self._waiters.tell(run)

    async def _bury_the_dead(self) -> None:
        with contextlib.suppress(EngineLost):  # it was taken for dead itself
            for engine in await self.read(lambda tx: tx.engines()):
                if self.lease.dead(engine):
                    await self.ledgers.do(lambda book, e=engine: ledger.take_over(book, e.id, self._blame))  # type: ignore[misc]
                    self.lease.bury(engine)

    def _lost(self) -> None:
        """Gives up everything it held, since another engine has it now, and goes on under a new id."""
        if self._closed or (self._anew is not None and not self._anew.done()):
            return
        self.dispatch.open = False
        self._anew = asyncio.get_running_loop().create_task(self._begin_again())
        self._anew.add_done_callback(_surface)

    async def _begin_again(self) -> None:
        await asyncio.gather(*(peer.ask(m.Drain(0.0)) for peer in self.dispatch.peers), return_exceptions=True)
        self.dispatch.forget()
        await self.lease.acquire(self.journal)
        self.dispatch.open = True
        self._nudged()

    async def _let_go(self) -> None:
        """Releases what is still held, for the next start or another engine."""
        await self.ledgers.do(lambda book: ledger.let_go(book, book.tx.owned(self.lease.id), blame=False))


def _surface(task: asyncio.Task[None]) -> None:
    """Says that a task nobody awaits has failed."""
    if not task.cancelled() and (error := task.exception()) is not None:
        context = {"message": "an engine could not go on after it had lost its lease", "exception": error, "task": task}
        task.get_loop().call_exception_handler(context)


def _concerns(change: Change, run_id: str) -> bool:
    """Whether a change may be news to whoever follows a run."""
    if isinstance(change, RunChanged):
        return change.run.id == run_id
    if isinstance(change, LogAdded):
        return change.lines[0].run == run_id
    return isinstance(change, Lagged)
