"""The core: the half of an engine that owns the journal and the clock and never runs user code.

It admits triggers, gives slots to ready runs, hands them to executors, and answers for the runs of its journal. It is
driven by a `Queue` or by the daemon's server; what executors say to it comes through its `ExecutorMessages`.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable
from functools import partial
from typing import Any, TypeVar

from msgspec.structs import replace

from taskrun.engine import messages as m
from taskrun.engine.core import run_lifecycle, waits
from taskrun.engine.core.admit import Trigger, admit, new_id, start_again
from taskrun.engine.core.attempts import Attempts
from taskrun.engine.core.claims import Claims
from taskrun.engine.core.enlisted import found
from taskrun.engine.core.event_triggers import EventTriggers
from taskrun.engine.core.executors import Executors
from taskrun.engine.core.facts import JOBS
from taskrun.engine.core.file_triggers import FileTriggers
from taskrun.engine.core.hook_calls import HookCalls
from taskrun.engine.core.journal import Journal
from taskrun.engine.core.lease import Lease, report_failure
from taskrun.engine.core.left_commands import LeftCommands
from taskrun.engine.core.logs import Logs
from taskrun.engine.core.notify_runs import NotifyRuns
from taskrun.engine.core.outbox import RunChanged, StepChanged
from taskrun.engine.core.pause_job import PauseJob
from taskrun.engine.core.queries import views
from taskrun.engine.core.queries.why import Known, why
from taskrun.engine.core.rescuer import Rescuer
from taskrun.engine.core.retention import Retention
from taskrun.engine.core.schedules import Schedules
from taskrun.engine.core.slots import Slots
from taskrun.engine.core.subscriptions import EndWaiters, Lagged, Subscriptions, concerns
from taskrun.engine.core.timers import Timers
from taskrun.engine.core.transaction import EngineState, Transaction, executed_before
from taskrun.model.clock import Clock, SystemClock
from taskrun.model.errors import (
    EngineLost,
    JobNotFound,
    JournalUnavailable,
    PipeNotFound,
    RunEnded,
    RunNotEnded,
    RunNotFound,
)
from taskrun.model.records import Cause, LogLine, Run
from taskrun.model.secrets import whole_input
from taskrun.model.stored_text import storable
from taskrun.rules.policies import Prepared
from taskrun.stores.base import Store, Tx

logger = logging.getLogger("taskrun.engine.core")
T = TypeVar("T")
Submit = Callable[..., asyncio.Future[T]]
Again = Callable[[Any], Any]
RESIDENT = 1_000
AGAIN = 1.0  # seconds between two tries to register


class Core:
    """One engine's core; all of it belongs to one event loop.

    Parameters:
        concurrency: runs that execute at once, None for no limit.
        grace: seconds that handlers get to end after a cancel or at close.
        lease: seconds after which a silent engine's runs are taken over.
        alone: no other engine can use this journal: whatever is registered there is dead.
        heartbeat: False with virtual time: the heartbeat, retention and the rescuer do not run by themselves.
        max_log: bytes of one run's log; of a longer one, head and tail are kept.
        keep: seconds that ended runs are kept, None for ever.
        timezone: of schedules that name none; the machine's own by default.
        blame: whether the death of an engine is held against the runs it executed (not in the daemon, which runs no user code).
        resident: coroutines of waiting runs that are kept at most.
        only: jobs whose runs it executes, None for all.
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
        resident: int = RESIDENT,
        only: frozenset[str] | None = None,
    ) -> None:
        self.clock = clock or store.clock or SystemClock()
        self.grace = grace
        # called when an executor does not end a cancelled run
        self.on_stuck: Callable[[m.Peer, str], None] = lambda peer, run: None
        self.state = EngineState()
        self.bus = Subscriptions()
        self.lease = Lease(store, self.state, name, lease, alone=alone, heartbeat=heartbeat and not alone)
        self.journal = Journal(store, self.clock, self.state, None if alone else self.lease.guard)
        self.executors = Executors(self.state, only)
        self.attempts = Attempts(
            self.journal, self.executors, self.clock, grace, resident, lambda peer, run: self.on_stuck(peer, run)
        )
        self.slots = Slots(concurrency, lambda: self.claims.look())
        self.lease.load = lambda: self.slots.used
        self.lease.watched = lambda: self.bus.watched or any(not self.attempts.get(run) for run in self._waiters.ids())
        self.log = Logs(self.journal, self.bus, max_log)
        self.retention = Retention(self.journal, self.clock, keep)
        self.commands = LeftCommands(self.journal, store.place, grace)
        self._timers = Timers(self.clock, self._fire)
        for changed in (RunChanged, StepChanged):
            self.journal.follow(changed, self.bus.publish)
            self.journal.follow(changed, self._timers.follow)
        self.hooks = HookCalls(self.journal, self.attempts, self.executors)
        self._waiters = EndWaiters(self.journal)
        self.claims = Claims(self.journal, self.slots, self.attempts, self.executors)
        self.triggers = EventTriggers(self.journal, self.executors)
        self.schedules = Schedules(self.journal, self.executors, self.clock, timezone, self._timers.at)
        self.notify_runs = NotifyRuns(self.journal, self.executors, self.clock, self._timers.at)
        self.files = FileTriggers(self.journal, self.executors, self.clock, store.place, heartbeat)
        self.starters = (self.triggers, self.schedules, self.notify_runs, self.files)
        self.jobs = PauseJob(self.journal, self.executors)
        self.rescuer = Rescuer(self.journal, self.claims, self.attempts, self.clock)
        self._blame = blame
        self._periodic = heartbeat
        self._duties: list[asyncio.Task[None]] = []
        self._closed = True  # not started yet, or closed
        self._registering: asyncio.Task[None] | None = None  # going on under a new id

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
        try:
            await self.lease.acquire(self.journal)
            await self._take_over_the_dead()
        except BaseException:
            self.lease.release()
            await self.journal.close()
            raise
        self.journal.patient = True
        self._closed = False
        self._open(True)
        self._timers.start()
        duties = [self.lease.watch(self._nudged, self.claims.look_again, self._take_over_the_dead), self.commands.run()]
        if self._periodic:
            duties += [self.retention.run(), self.rescuer.run()]
        self._duties = [asyncio.get_running_loop().create_task(duty) for duty in duties]

    def _open(self, open: bool) -> None:
        for starter in (self.claims, *self.starters):
            starter.open = open
        if open:
            self._timers.at(0.0)  # what became due meanwhile

    async def close(self, grace: float | None = None) -> None:
        """Starts no more runs, gives attempts `grace` seconds to end, and leaves the rest in the journal."""
        if self._closed:
            return
        self._closed = True
        self._open(False)
        if self._registering is not None:
            self._registering.cancel()
            await asyncio.wait([self._registering])
        await self._timers.stop()
        for starter in self.starters:
            await starter.close()
        for duty in self._duties:
            duty.cancel()
        await asyncio.gather(*self._duties, return_exceptions=True)
        seconds = self.grace if grace is None else grace
        patience = self.clock.alarm(seconds, self.journal.stop_waiting)  # the rest waits for the next start
        await asyncio.gather(*(self.hooks.drain(one, seconds) for one in self.executors.peers), return_exceptions=True)
        patience.cancel()
        self.journal.stop_waiting()
        with contextlib.suppress(EngineLost, JournalUnavailable):  # then it holds nothing, or is taken for dead
            # Releases what is still held, for the next start or another engine.
            await self.journal.do(lambda t: run_lifecycle.take_over(t, t.engine, blame=False))
        self.attempts.drop_all(self.attempts.all())  # of executors that had retired, or did not answer
        await self.commands.close()
        self.lease.release()
        await self.journal.close()
        self._waiters.close()
        self.bus.close()

    async def join(self, peer: m.Peer) -> m.Description:
        """Adds an executor and gives it work, unless it retires before it has said which jobs it has."""
        self.executors.expect(peer)
        description: m.Description = await peer.ask(m.Describe())
        if self.executors.join(peer, description):
            await self.journal.do(self._keep_jobs)
            self.lease.listen()
            self.claims.look_again()
            for starter in self.starters:
                await starter.join(description)
        return description

    def _keep_jobs(self, t: Transaction) -> None:
        """Writes down which jobs this engine has, and offers them what is free."""
        if JOBS.get(t.tx, t.engine) != t.state.jobs:
            JOBS.put(t.tx, t.engine, t.state.jobs)
        run_lifecycle.offer_all(t)
        run_lifecycle.end_abandoned(t)

    def retire(self, peer: m.Peer) -> None:
        """Gives an executor no more work; what it has goes on until it leaves."""
        self.executors.retire(peer)

    async def leave(self, peer: m.Peer, *, crashed: bool) -> None:
        """Removes an executor; call it only when none of its processes is left.

        An attempt that was to be cancelled and did not end within its grace ends with it; the others go on by replay.
        """
        self.executors.leave(peer)
        # Not those whose end is about to be written: when this entry is, their runs may have been started elsewhere.
        gone = [attempt for attempt in self.attempts.all() if attempt.peer is peer and not attempt.ended]

        def act(t: Transaction) -> None:
            for attempt in gone:
                run = t.mine(attempt.run)
                if attempt.overdue and run is not None and run.cancel is not None:
                    run_lifecycle.end_cancelled(t, run, run.cancel, run.cancel_cause)
            run_lifecycle.let_go(t, [attempt.run for attempt in gone if t.mine(attempt.run) is not None], crashed)
            self._keep_jobs(t)

        settled = partial(self.attempts.drop_all, gone)
        await self.journal.do(act, settled, settled)

    # ---- what users want

    async def prepare(self, job: str, data: str) -> Prepared:
        """Validates an input (JSON text) and evaluates the job's options for it.

        Raises:
            JobNotFound: no executor has the job.
            InputInvalid: naming every bad field.
        """
        peer = self.executors.with_job(job)
        if peer is None:
            raise JobNotFound(f'no job "{job}"')
        prepared: Prepared = await peer.ask(m.Prepare(job=job, input=data))
        return prepared

    async def trigger(self, trigger: Trigger) -> Run:
        """Admits a trigger; returns its run, or the one that it has found, once that is durable."""
        return await self._asked(self.claims.with_slot, partial(admit, trigger=trigger))

    async def run(self, trigger: Trigger) -> Run:
        """Admits a trigger; returns its run, or the one that it has found, once that has ended."""
        run = await self._asked(self.claims.with_slot, partial(admit, trigger=trigger), self._waiters)
        return run if run.ended else await self.wait(run.id)

    async def send(self, pipe: str, data: str) -> waits.Sent:
        """Sends an event (JSON text); returns once it is durable.

        Raises:
            PipeNotFound: no executor has the pipe.
            InputInvalid: naming every bad field.
        """
        peer = self.executors.with_pipe(pipe)
        if peer is None:
            raise PipeNotFound(f'no pipe "{pipe}"')
        checked: str = await peer.ask(m.PrepareEvent(pipe=pipe, data=data))
        event_id = new_id()
        return await self._do(lambda t: waits.emit(t, f"pipe:{pipe}", event_id, checked))

    async def get(self, run_id: str) -> Run:
        """Returns a run.

        Raises:
            RunNotFound: no run of this id.
        """
        run = await self.read(lambda tx: found(tx, run_id)) if run_id.isascii() else None
        if run is None:
            raise RunNotFound(f'no run "{run_id}"')
        attempt = self.attempts.get(run_id)
        return run if attempt is None or run.ended else replace(run, progress=attempt.progress)

    async def wait(self, run_id: str) -> Run:
        """Returns a run once it has ended."""
        future = self._waiters.add(run_id)
        try:
            # With an attempt its end is still to come.
            run = None if self.attempts.get(run_id) else await self.get(run_id)
            if run is None or (run.id == run_id and not run.ended):
                run = await future
        finally:
            self._waiters.drop(run_id, future)
        return run if run.ended else await self.wait(run.id)

    async def news(self, run_id: str, seen: Run | None, lines: int) -> Run:
        """Returns a run once it differs from `seen`, or its log has more than `lines` lines; at once when it has ended."""
        async with self.bus.subscribe(lambda change: concerns(change, run_id)) as changes:
            while True:
                run = await self.get(run_id)
                if run.ended or run != seen or await self.read(lambda tx: tx.last_log(run_id)) > lines:
                    return run
                await anext(changes)

    async def show(self, run_id: str) -> dict[str, Any]:
        """Returns everything about a run, as `taskrun show --json` does."""
        await self.get(run_id)
        return await self.read(lambda tx: views.whole(tx, run_id))

    async def logs(self, run_id: str, after: int, limit: int = 1_000) -> list[LogLine]:
        """Returns log lines of a run after a position."""
        return await self.read(lambda tx: tx.logs(run_id, after, limit))

    async def request(self, run_id: str, verb: str, argument: str | None = None) -> m.Ordered:
        """Cancels, pauses, resumes or retries a run."""
        if verb == "cancel":
            changed = await self.cancel(run_id, argument or Cause.USER.value)
            return m.Ordered(await self.get(run_id), changed)
        if verb == "retry":
            return m.Ordered(await self.retry(run_id, argument), True)
        change = self.pause if verb == "pause" else self.resume
        return m.Ordered(await change(run_id), True)

    async def cancel_runs(self, job: str, data: str) -> int:
        """Cancels every unfinished run of a job with exactly this input (JSON text); returns how many."""
        prepared = await self.prepare(job, data)
        return await self._do(lambda t: run_lifecycle.cancel_same(t, prepared))

    async def read(self, fn: Callable[[Tx], T], done: Callable[[T], None] | None = None) -> T:
        """Reads in a transaction, after everything that was written before; while the disk refuses, what is durable.

        `done` is called when all that was written before has been published, and nothing that was written after.
        """
        return await self._asked(self.journal.read, fn, done, again=lambda fn: fn)

    async def _do(self, act: Callable[[Transaction], T]) -> T:
        return await self._asked(self.journal.do, act)

    async def _asked(self, submit: Submit[T], act: Any, *rest: Any, again: Again = executed_before) -> T:
        """Submits what a user wants; once more, as `again` says, after this engine was taken for dead and has registered anew."""
        while True:
            try:
                return await submit(act, *rest)
            except EngineLost:
                act = again(act)
                if self._registering is None or self._closed:
                    raise JournalUnavailable("the queue was closed") from None
                await asyncio.wait([self._registering])

    async def cancel(self, run_id: str, reason: str = Cause.USER.value, grace: float | None = None) -> bool:
        """Cancels a run; returns False when it had ended already.

        Parameters:
            grace: seconds for its handler to end, instead of the engine's; also for a cancel that is under way.
        """
        await self.get(run_id)
        said = storable(reason)
        changed = await self._do(lambda t: run_lifecycle.cancel(t, run_id, said))
        if grace is not None:
            self.attempts.change_grace(run_id, reason, grace)
        return changed

    async def pause(self, run_id: str, by: str = Cause.USER.value) -> Run:
        """Holds a run before its next step.

        Raises:
            RunEnded: it has ended.
        """
        said = storable(by)
        return await self._change(run_id, lambda t, run: run_lifecycle.pause(t, run, said))

    async def resume(self, run_id: str) -> Run:
        """Lets a paused run go on.

        Raises:
            RunEnded: it has ended.
        """
        return await self._change(run_id, run_lifecycle.resume)

    async def why(self, run_id: str) -> dict[str, Any]:
        """Returns why a run is not running or not finished, as `taskrun why --json` does.

        Raises:
            RunNotFound: no run of this id.
        """
        executing = [attempt.run for attempt in self.attempts.all() if attempt.slot is not None]
        blocked = dict(self.attempts.blocking)
        commands = self.commands.under_way(run_id)
        known = Known(self.clock.now(), self.state.id, self.slots.limit, executing, self.state.jobs, blocked, commands)
        return await self.read(lambda tx: why(tx, run_id, known))

    async def retry(self, run_id: str, from_step: str | None = None) -> Run:
        """Starts an ended run anew, keeping the finished steps before `from_step` (or all); returns the new run.

        Raises:
            RunNotEnded: it has not ended.
        """
        run = await self.get(run_id)
        if not run.ended:
            raise RunNotEnded(f"run {run.id} is {run.status}; cancel it first, or wait for its end")
        prepared = await self.prepare(run.job, whole_input(run))
        return await self._do(lambda t: start_again(t, run, prepared, from_step))

    async def _change(self, run_id: str, change: Callable[[Transaction, Run], Run]) -> Run:
        await self.get(run_id)

        def act(t: Transaction) -> Run | None:
            run = t.run(run_id)
            return None if run is None or run.ended else change(t, run)

        changed = await self._do(act)
        if changed is None:
            raise RunEnded(f"run {run_id} has ended already")
        return changed

    async def _fire(self, set_back: bool) -> float | None:
        """Does what is due; returns the next due moment."""
        upcoming: float | None = None
        with contextlib.suppress(EngineLost):  # it will look again under its new id
            upcoming = await self.journal.do(partial(run_lifecycle.fire, set_back=set_back))
        self.schedules.fire()
        self.notify_runs.fire()
        moments = [upcoming, self.schedules.next(), self.notify_runs.next()]
        return min((moment for moment in moments if moment is not None), default=None)

    # ---- other engines

    def _nudged(self) -> None:
        """Looks for what another engine may have changed: ready runs, requests, ends, due times."""
        if self._closed:
            return
        self.claims.look_again()
        self.attempts.take_news()
        self._timers.at(0.0)
        self.bus.publish(Lagged())
        self.triggers.look()
        self.notify_runs.look()
        waited = self._waiters.ids()

        def act(t: Transaction) -> tuple[list[Run], list[tuple[str, Run]]]:
            runs = [(run_id, run) for run_id in waited if (run := found(t.tx, run_id)) is not None]
            return t.tx.asked(t.engine), [(run_id, run) for run_id, run in runs if run.ended or run.id != run_id]

        self.journal.post(act, self._act_on_news, lambda _: None)

    def _act_on_news(self, found: tuple[list[Run], list[tuple[str, Run]]]) -> None:
        asked, over = found
        self.attempts.follow_requests(asked)
        for run_id, run in over:
            self._waiters.tell(run_id, run)

    async def _take_over_the_dead(self) -> None:
        with contextlib.suppress(EngineLost):  # it was taken for dead itself
            for engine in await self.journal.read(self.lease.all_dead):
                act = partial(run_lifecycle.take_over_dead, engine=engine.id, dead=self.lease.dead, blame=self._blame)
                if await self.journal.do(act):
                    self.lease.remove_files(engine)
                    self._timers.at(0.0)  # from now on this engine fires what its runs wait for

    def _lost(self) -> None:
        """Gives up everything it held, since another engine has it now, and goes on under a new id."""
        if self._closed or (self._registering is not None and not self._registering.done()):
            return
        self._open(False)
        self._registering = asyncio.get_running_loop().create_task(self._begin_again())
        self._registering.add_done_callback(report_failure)

    async def _begin_again(self) -> None:
        await asyncio.gather(*(peer.ask(m.Drain(0.0)) for peer in self.executors.peers), return_exceptions=True)
        self.attempts.drop_all(self.attempts.all())
        while True:
            try:
                with contextlib.suppress(EngineLost):  # it was stopped again for longer than its lease
                    await self.lease.acquire(self.journal)
                    await self.journal.do(self._keep_jobs)
                    self.lease.listen()
                    break
            except Exception:  # such as too many open files: all that helps is to try again
                logger.exception("the engine could not register again yet")
                await self.clock.sleep(AGAIN)
        self._open(not self.lease.draining)
        self._nudged()
