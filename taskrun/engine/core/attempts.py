"""The attempts whose coroutines are alive in executors, each a small state machine around its slot.

    executing ──Park──▸ parking ──written──▸ parked ──Evict──▸ evicting
        ▴                  │ refused           │ slot  ◂─Activate, Stay─┘
        └──────────────────┴───────────────────┘

The core alone decides: an executor that has asked to park begins nothing until it is answered, `Parked` or `Resume`, and a
parked one begins nothing until `Resume`. So a step body begins only while the slot is held.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from enum import Enum, auto
from functools import partial

from taskrun.engine import messages as m
from taskrun.engine.core import run_lifecycle, step_queue, waits
from taskrun.engine.core.executors import Executors
from taskrun.engine.core.facts import NEWS
from taskrun.engine.core.journal import Journal
from taskrun.engine.core.outbox import CancelAsked, PauseAsked, WaitOver
from taskrun.engine.core.slots import Reservation, Slot
from taskrun.engine.core.transaction import Transaction
from taskrun.model.clock import Clock
from taskrun.model.codec import encode_error
from taskrun.model.records import Cause, Run, Status, Step

logger = logging.getLogger("taskrun.engine.attempts")
PROGRESS = 0.25  # seconds that progress may be late in the journal
OVERDUE = 1.0  # seconds beyond the grace after which an executor that has not ended a cancelled attempt is given up


class Phase(Enum):
    """Where an attempt is."""

    EXECUTING = auto()  # it holds a slot, or is being cancelled, which needs none
    PARKING = auto()  # it asked to park, and that is on its way into the journal
    PARKED = auto()  # all it does is wait; it holds no slot
    EVICTING = auto()  # its coroutine is being taken down, to go on by replay


@dataclass(slots=True, eq=False)
class Attempt:
    """One attempt in an executor."""

    run: str
    job: str
    peer: m.Peer
    suspect: bool = False  # was executing when a worker died
    limited: bool = False  # others may wait for the place that its run holds
    cancelled: bool = False  # the executor was told to cancel
    overdue: bool = False  # it was cancelled, and has not ended within its grace
    activating: bool = False  # it is parked, and has asked for a slot
    started: bool = False  # its run has started again while its coroutine was being taken down
    ended: bool = False  # its end is on its way into the journal
    phase: Phase = Phase.EXECUTING
    slot: Slot | None = None
    suspect_slot: Slot | None = None  # one suspect executes at a time
    told: int = 0  # messages about waits that are over; `Park` says how many of them the executor had heard
    over: Sequence[Step] = ()  # waits that are over, to be told with the next slot
    progress: str | None = None
    progressing: bool = False  # the progress is about to be written


class Attempts:
    """The attempts of one engine.

    Parameters:
        grace: seconds that handlers get to end after a cancel.
        resident: parked coroutines that are kept at most; the longest parked are taken down first.
        stuck: called with an executor that does not end an attempt within its grace, and the id of the run.
    """

    def __init__(
        self,
        journal: Journal,
        executors: Executors,
        clock: Clock,
        grace: float,
        resident: int,
        stuck: Callable[[m.Peer, str], None],
    ) -> None:
        self.resident = resident
        self.blocking: dict[str, str] = {}  # runs that block their executor's event loop, and where
        self.on_suspect_gone: Callable[[], None] = lambda: None
        self.on_place_free: Callable[[], None] = lambda: None  # when an end that may free a place is on its way
        self._stuck = stuck
        self._journal = journal
        self._executors = executors
        self._clock = clock
        self._grace = grace
        self._by_run: dict[str, Attempt] = {}
        self._parked: dict[str, Attempt] = {}  # those that may be evicted, the longest parked first
        journal.follow(WaitOver, self._deliver)
        journal.follow(CancelAsked, lambda event: self._cancel(event.run))
        journal.follow(PauseAsked, lambda event: self._pause(event.run))

    def get(self, run_id: str, peer: m.Peer | None = None) -> Attempt | None:
        """Returns the attempt of a run; with `peer` only if that executor has it."""
        attempt = self._by_run.get(run_id)
        return attempt if attempt is None or peer is None or attempt.peer is peer else None

    def all(self) -> list[Attempt]:
        """Returns all of them."""
        return list(self._by_run.values())

    # ---- beginning and going on

    def executing(self, peer: m.Peer) -> bool:
        """Whether an executor has an attempt that does more than wait."""
        return any(attempt.peer is peer and attempt.slot is not None for attempt in self.all())

    def begin(self, message: m.Execute, peer: m.Peer, slots: Reservation, suspects: Reservation) -> None:
        """Has an executor begin, or replay, an attempt."""
        run = message.run
        assert run.id not in self._by_run, f"run {run.id} is being executed already"
        attempt = Attempt(
            run.id,
            run.job,
            peer,
            suspect=run.crashes > 0,
            limited=run.lane is not None,
            cancelled=run.cancel is not None,
            progress=run.progress,
        )
        self._take_slot(attempt, run, slots, suspects)
        self._by_run[run.id] = attempt
        for step in message.steps:
            self._journal.state.sequence.beyond(step.order or 0)
        peer.tell(message)
        if attempt.cancelled:
            self._watch_grace(attempt, self._grace)

    def go_on(self, run: Run, over: list[Step], slots: Reservation, suspects: Reservation) -> None:
        """Lets a parked attempt go on, with the waits that are over.

        Without an attempt its executor has just gone, and its run is let go in the next transaction.
        """
        attempt = self._by_run.get(run.id)
        if attempt is None:
            return
        self._take_slot(attempt, run, slots, suspects)
        attempt.over = [*attempt.over, *over]
        if attempt.phase is Phase.EVICTING:
            attempt.started = True  # it goes on by replay, once its coroutine is gone; at once if that wants to go on
        else:
            self._resume(attempt)

    def _take_slot(self, attempt: Attempt, run: Run, slots: Reservation, suspects: Reservation) -> None:
        if not run.placed:
            return
        assert attempt.slot is None, f"run {run.id} has a slot already"
        attempt.suspect = run.crashes > 0  # as the claim saw it: a step may have ended since it began
        attempt.suspect_slot = suspects.take() if attempt.suspect else None
        attempt.slot = slots.take()
        self._executors.load[attempt.peer] += 1

    def _give_back(self, attempt: Attempt) -> None:
        """Gives back the slots of an attempt; nothing else does."""
        slot, suspect, attempt.slot, attempt.suspect_slot = attempt.slot, attempt.suspect_slot, None, None
        if slot is not None:
            self._executors.gave_back(attempt.peer)
        if suspect is not None:
            suspect.release()
            self.on_suspect_gone()
        if slot is not None:
            slot.release()

    def _resume(self, attempt: Attempt) -> None:
        attempt.phase, attempt.activating, attempt.started = Phase.EXECUTING, False, False
        self._parked.pop(attempt.run, None)
        self._tell(attempt, m.Resume)

    def _tell(self, attempt: Attempt, kind: type[m.Resume] | type[m.Over]) -> None:
        over, attempt.over = attempt.over, ()
        attempt.told += 1
        attempt.peer.tell(kind(run=attempt.run, steps=[*over]))

    # ---- waits

    def _deliver(self, event: WaitOver) -> None:
        attempt = self._by_run.get(event.step.run)
        if attempt is None:
            return
        attempt.over = [*attempt.over, event.step]
        if attempt.phase is not Phase.PARKED or attempt.cancelled:
            self._tell(attempt, m.Over)

    def take_news(self) -> None:
        """Tells attempts of those of their waits that another engine has ended."""

        def act(t: Transaction) -> list[Step]:
            return [step for run_id in NEWS.all(t.tx) if run_id in self._by_run for step in waits.take_news(t, run_id)]

        def committed(steps: list[Step]) -> None:
            for step in steps:
                self._deliver(WaitOver(step))

        self._journal.post(act, committed)

    # ---- parking

    def park(self, peer: m.Peer, message: m.Park) -> None:
        """Takes back the slot of an attempt that only waits, unless one of its waits is over and it is told, or about to be.

        For a run that is written as waiting must have a wait to wake it, even if everything dies right after the commit.
        """
        attempt = self.get(message.run, peer)
        if attempt is None or attempt.phase is not Phase.EXECUTING:
            return
        attempt.phase = Phase.PARKING

        def act(t: Transaction) -> list[Step] | None:
            run = t.mine(message.run)
            if run is None or run.status is not Status.RUNNING:
                return []
            if run.cancel is not None or run.pause is not None:
                # Another engine may have asked for it just now; untold, the executor would ask to park again at once.
                t.outbox.append(CancelAsked(run) if run.cancel is not None else PauseAsked(run))
                return []
            step_queue.give_up(t, run, message.given_up)
            if message.heard != attempt.told or run.id in t.state.delivering:
                return []  # it asked before it had heard what it was told, or is about to be told
            if news := waits.take_news(t, run.id):
                return news
            run_lifecycle.park(t, run, message.backoff)
            return None

        self._journal.post(act, lambda over: self._after_park(attempt, over), lambda _: self._refuse(attempt))

    def _after_park(self, attempt: Attempt, over: list[Step] | None) -> None:
        if over is not None:
            attempt.over = [*attempt.over, *over]
            self._refuse(attempt)
            return
        if attempt.phase is not Phase.PARKING:
            return
        attempt.phase = Phase.PARKED
        attempt.peer.tell(m.Parked(run=attempt.run))
        if not attempt.activating:
            self._parked[attempt.run] = attempt
        self._give_back(attempt)
        while len(self._parked) > self.resident:
            self._evict(next(iter(self._parked.values())))

    def _refuse(self, attempt: Attempt) -> None:
        if attempt.phase is Phase.PARKING and self._by_run.get(attempt.run) is attempt:
            self._resume(attempt)

    def _evict(self, attempt: Attempt) -> None:
        del self._parked[attempt.run]
        if not attempt.cancelled:
            attempt.phase = Phase.EVICTING
            attempt.peer.tell(m.Evict(run=attempt.run))

    def activate(self, peer: m.Peer, run_id: str) -> None:
        """Makes a parked run ready whose code wants to go on before a wait is over: it is resumed once it has a slot."""
        attempt = self.get(run_id, peer)
        if attempt is None or attempt.phase not in (Phase.PARKED, Phase.EVICTING):
            return
        attempt.activating = True
        self._parked.pop(run_id, None)
        if self._stays(attempt):
            return

        def act(t: Transaction) -> None:
            run = t.mine(run_id)
            if run is not None:
                t.wake(run.id)

        self._journal.post(act)

    def stay(self, peer: m.Peer, run_id: str) -> None:
        """Cancels the eviction of an attempt whose coroutine waits for something besides its steps."""
        attempt = self.get(run_id, peer)
        if attempt is not None and attempt.phase is Phase.EVICTING:
            self._stays(attempt)

    def _stays(self, attempt: Attempt) -> bool:
        """Cancels an eviction; returns whether the attempt goes on at once, since its run has started meanwhile."""
        attempt.phase = Phase.PARKED
        if attempt.started:
            self._resume(attempt)
        return attempt.phase is Phase.EXECUTING

    # ---- requests

    def _cancel(self, run: Run) -> None:
        attempt = self._by_run.get(run.id)
        if attempt is not None and not attempt.cancelled:
            attempt.cancelled = True
            self._tell_cancel(attempt, run.cancel or Cause.USER.value, self._grace)
            if attempt.over:
                self._tell(attempt, m.Over)

    def change_grace(self, run_id: str, reason: str, grace: float) -> None:
        """Gives an attempt that is being cancelled a new grace."""
        attempt = self._by_run.get(run_id)
        if attempt is not None and attempt.cancelled:
            self._tell_cancel(attempt, reason, grace)

    def _tell_cancel(self, attempt: Attempt, reason: str, grace: float) -> None:
        attempt.peer.tell(m.Cancel(run=attempt.run, reason=reason, grace=grace))
        self._watch_grace(attempt, grace)

    def _watch_grace(self, attempt: Attempt, grace: float) -> None:
        self._clock.alarm(grace + OVERDUE, lambda: self._check_grace(attempt))

    def _check_grace(self, attempt: Attempt) -> None:
        if self._by_run.get(attempt.run) is attempt and not attempt.overdue:
            attempt.overdue = True
            self._stuck(attempt.peer, attempt.run)

    def _pause(self, run: Run) -> None:
        attempt = self._by_run.get(run.id)
        if attempt is not None:
            attempt.peer.tell(m.Pause(run=run.id) if run.pause is not None else m.Unpause(run=run.id))

    def follow_requests(self, runs: list[Run]) -> None:
        """Acts on requests that another engine wrote on runs of this one."""
        for run in runs:
            if run.cancel is not None:
                self._cancel(run)
            if run.pause is not None:
                self._pause(run)

    # ---- ends

    def finished(self, peer: m.Peer, message: m.Finished) -> None:
        """Writes how an attempt ended."""
        attempt = self.get(message.run, peer)
        if attempt is None:
            return
        attempt.ended = True
        end = partial(run_lifecycle.finished, run_id=message.run, outcome=message.outcome, progress=attempt.progress)
        drop = partial(self.drop, attempt)
        self._journal.post(end, drop, drop)
        if attempt.limited:
            self.on_place_free()

    def fail(self, run_id: str, error: Exception) -> None:
        """Ends a run whose attempt could not begin or go on, with that error as its failure."""
        attempt = self._by_run.get(run_id)
        if attempt is not None:
            attempt.ended = True
        outcome = m.Failed(error=encode_error(error), retry_in=None)

        def settled(_: object) -> None:
            if attempt is not None:
                self.drop(attempt)
                attempt.peer.tell(m.Evict(run=run_id, anyway=True))

        self._journal.post(lambda t: run_lifecycle.finished(t, run_id, outcome, None), settled, settled)

    def drop(self, attempt: Attempt, _: object = None) -> None:
        """Lets an attempt go, with its slots: this one, not another that its run may have by now."""
        if self._by_run.get(attempt.run) is attempt:
            del self._by_run[attempt.run]
            self._parked.pop(attempt.run, None)
            self.blocking.pop(attempt.run, None)
        self._give_back(attempt)

    def drop_all(self, attempts: Iterable[Attempt], _: object = None) -> None:
        """Lets several go."""
        for attempt in attempts:
            self.drop(attempt)

    # ---- reports of executors

    def progressed(self, peer: m.Peer, message: m.Progressed) -> None:
        """Keeps the progress of an attempt; it is written from time to time, and with the attempt's end."""
        attempt = self.get(message.run, peer)
        if attempt is None:
            return
        attempt.progress = message.progress
        if not attempt.progressing:
            attempt.progressing = True
            self._clock.alarm(PROGRESS, lambda: self._write_progress(attempt))

    def _write_progress(self, attempt: Attempt) -> None:
        attempt.progressing = False

        def act(t: Transaction) -> None:
            if t.mine(attempt.run) is not None:
                t.set(attempt.run, progress=attempt.progress)

        if self._by_run.get(attempt.run) is attempt:
            self._journal.defer(act)

    def hear_blocked(self, message: m.Blocked) -> None:
        """Keeps which run blocks its executor's event loop, and where."""
        self.blocking.pop(message.run, None)
        if message.where:
            self.blocking[message.run] = message.where
