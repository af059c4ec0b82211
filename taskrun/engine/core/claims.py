"""Claims: one transaction that gives ready runs their slots. With a free slot and a ready run, one is under way.

Whether ready runs may be waiting is derived, not guessed: it is what the last claim has left in the journal, or what a
transaction behind it has made ready. Only one claim is under way at a time, and its slots are reserved before it begins.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import Any, NamedTuple, TypeVar

from taskrun.engine import messages as m
from taskrun.engine.core import run_lifecycle, run_queue, waits
from taskrun.engine.core.attempts import Attempts
from taskrun.engine.core.executors import Executors
from taskrun.engine.core.facts import NEWS
from taskrun.engine.core.journal import Journal
from taskrun.engine.core.outbox import RunChanged, SlotUsed
from taskrun.engine.core.slots import Reservation, Slots
from taskrun.engine.core.subscriptions import EndWaiters
from taskrun.engine.core.transaction import Transaction
from taskrun.model.errors import EngineLost, JournalUnavailable
from taskrun.model.records import Run, Status, Step

logger = logging.getLogger("taskrun.engine.claims")
T = TypeVar("T")
CLAIM = 256  # runs that one transaction starts at most
NO_SUSPECTS = Slots(0, lambda: None).reserve(0)  # the slots of suspects that a new run needs
AGAIN = 1.0  # seconds until a claim that failed through a fault of taskrun is tried again


class Start(NamedTuple):
    """A run that was started, with what it needs to go on.

    `alive`: its coroutine is there, so that `steps` are only waits that another engine has ended; else all, for a replay.
    """

    run: Run
    steps: list[Step]
    log_seq: int = 0
    fresh: bool = False
    alive: bool = False


class _WithSlot:
    """A trigger for which a slot is reserved, on its way into the journal."""

    __slots__ = ("_act", "_claims", "_ends", "future", "slots")

    def __init__(self, claims: Claims, act: Callable[..., Any], slots: Reservation, ends: EndWaiters | None) -> None:
        self.slots = slots
        self.future: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self._claims = claims
        self._act = act
        self._ends = ends

    def act(self, t: Transaction) -> tuple[Any, list[Start]]:
        value = self._act(t, reserved=True)
        return value, [Start(event.run, [], fresh=True) for event in t.outbox if type(event) is SlotUsed]

    def committed(self, result: tuple[Any, list[Start]]) -> None:
        value, starts = result
        under_way = self._claims.settle(self, starts)
        if self.future.done():
            return  # whoever asked was cancelled
        if under_way and self._ends is not None:
            self._ends.add(starts[0].run.id, self.future)
        else:
            self.future.set_result(value)

    def failed(self, error: Exception) -> None:
        self._claims.settle(self, [])
        if not self.future.done():
            self.future.set_exception(error)


class Claims:
    """Starts ready runs of one engine."""

    def __init__(self, journal: Journal, slots: Slots, attempts: Attempts, executors: Executors) -> None:
        self.open = False  # whether runs are started
        self.slots = slots
        self.suspects = Slots(1, lambda: None)
        self._journal = journal
        self._attempts = attempts
        self._executors = executors
        self._ready = True  # whether the journal may hold ready runs
        self._urgent = True  # whether one of those needs no slot, since a cancel was requested
        # whether something has happened since the claim under way began, which it may not have seen
        self._heard = False
        self.under_way = False
        journal.follow(RunChanged, self._follow)
        attempts.on_suspect_gone = self.look_again
        attempts.on_place_free = self.look_ahead

    def look_again(self) -> None:
        """Looks in the journal, where something may have become ready through another engine, or by a suspect that is gone.

        A claim that is under way may have looked before, so its answer does not say that there is nothing.
        """
        self._ready = self._urgent = True
        self._heard = self.under_way
        self.look()

    def look_ahead(self) -> None:
        """Looks again, in a claim behind the entry that was just put in: that one may make a run ready."""
        self._ready = True
        self.look()

    def look(self) -> None:
        """Begins a claim if there is something to start."""
        if self.under_way or not self._ready or not self.open or not self._journal.state.jobs:
            return
        if not (self.slots.free() or self._urgent):
            return
        slots, suspects = self.slots.reserve(CLAIM), self.suspects.reserve(1)
        count, suspect = len(slots), len(suspects) > 0
        self.under_way, self._urgent, self._heard = True, False, False

        def act(t: Transaction) -> tuple[list[Start], bool]:
            claim = run_queue.claim(t, count, suspect)
            return [self._prepare(t, started) for started in claim.started], claim.left

        def committed(result: tuple[list[Start], bool]) -> None:
            starts, left = result
            self.under_way = False
            if left and count and not starts:  # another engine is at them, and may leave some
                left = False
                asyncio.get_running_loop().call_later(run_lifecycle.BUSY, self.look_ahead)
            self._ready = left or self._heard
            self._begin(starts, slots, suspects)

        def failed(error: Exception) -> None:
            if isinstance(error, EngineLost | JournalUnavailable):
                self.under_way = False
            else:
                logger.error("ready runs could not be started", exc_info=error)
                asyncio.get_running_loop().call_later(AGAIN, self._try_again)
            self._begin([], slots, suspects)

        self._journal.claim(act, committed, failed)

    def with_slot(self, act: Callable[..., T], ends: EndWaiters | None = None) -> asyncio.Future[T]:
        """Executes `act`, which triggers a run, in the next commit; with `reserved=True` if one is free and no ready run waits.

        Such a run needs no claim. The future resolves with the value of `act`.

        Parameters:
            ends: get the future of a run that has begun at once: it then resolves when that has ended, with the run.
        """
        if not self.open or self._ready or self.under_way or not self.slots.free():
            return self._journal.do(act)
        entry = _WithSlot(self, act, self.slots.reserve(1), ends)
        self._journal.post(entry.act, entry.committed, entry.failed)
        return entry.future

    def settle(self, entry: _WithSlot, starts: list[Start]) -> bool:
        """Begins what a trigger has started with its slot; returns whether that is under way."""
        self._begin(starts, entry.slots, NO_SUSPECTS)
        return bool(starts) and self._attempts.get(starts[0].run.id) is not None

    def _begin(self, starts: list[Start], slots: Reservation, suspects: Reservation) -> None:
        """Uses the slots that were reserved for an entry, and gives back the rest; called in either of its sides."""
        for start in starts:
            try:
                self._start(start, slots, suspects)
            except Exception as error:
                logger.exception("run %s could not be started", start.run.id)
                self._attempts.fail(start.run.id, error)
        suspects.release()
        slots.release()
        self.look()

    def _start(self, start: Start, slots: Reservation, suspects: Reservation) -> None:
        if start.alive:
            self._attempts.go_on(start.run, start.steps, slots, suspects)
            return
        peer = self._executors.with_job(start.run.job)
        if peer is None or not self.open:  # the executor has gone meanwhile
            self._let_go(start.run.id)
            return
        message = m.Execute(run=start.run, steps=start.steps, log_seq=start.log_seq, fresh=start.fresh)
        self._attempts.begin(message, peer, slots, suspects)

    def _let_go(self, run_id: str) -> None:
        def act(t: Transaction) -> None:
            if t.mine(run_id) is not None:
                run_lifecycle.let_go(t, [run_id], blame=False)

        self._journal.post(act)

    def _prepare(self, t: Transaction, started: run_queue.Started) -> Start:
        """Reads what an attempt needs: all for a replay, of a coroutine that is alive only what it has not heard."""
        run = started.run
        if started.alive:
            return Start(run, waits.take_news(t, run.id), alive=True)
        if started.first and run.inherited is None:  # it begins without steps
            return Start(run, [], fresh=True)
        NEWS.drop_if_any(t.tx, run.id)  # it is in what is read now
        return Start(run, t.tx.steps(run.id), t.tx.last_log(run.id), fresh=started.first)

    def _try_again(self) -> None:
        self.under_way = False
        self.look()

    def _follow(self, event: Any) -> None:
        run: Run = event.run
        ours = run.engine is None or run.engine == self._journal.state.id
        if run.status is Status.QUEUED and run.blocked is None and ours:
            self._ready = True
            self._urgent = self._urgent or run.cancel is not None
            self.look()
