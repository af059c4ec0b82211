"""Watches runs of schedules that may start late or take long: each is told at the moment when that is so, once.

What is to be watched is a fact for each run, removed once nothing is left to tell. Part of the core; `notify_runs` calls it.
"""

from __future__ import annotations

import asyncio
import logging
import math
from collections.abc import Callable

from msgspec.structs import replace

from taskrun.engine.core import notices
from taskrun.engine.core.facts import LIMITS, SlotLimits
from taskrun.engine.core.journal import Journal
from taskrun.engine.core.outbox import LimitsSet, RunStarted
from taskrun.engine.core.transaction import Transaction
from taskrun.model.clock import Clock
from taskrun.model.errors import EngineLost, JournalUnavailable
from taskrun.model.records import Run

logger = logging.getLogger("taskrun.engine.core.schedule_watch")
AGAIN = 1.0  # seconds until what could not be written is tried again
LATER = 60.0  # the same after a fault of taskrun, which may well come again


class SlotWatch:
    """Looks at each run when it may be late or slow.

    Parameters:
        wake: called with a moment that the timers may not know of.
    """

    def __init__(self, journal: Journal, clock: Clock, wake: Callable[[float], None]) -> None:
        self._journal = journal
        self._clock = clock
        self._wake = wake
        self._moments: dict[str, float] = {}  # when each run is looked at next; never, until it starts
        self.looking: asyncio.Task[None] | None = None  # looks at runs now
        journal.follow(LimitsSet, lambda event: self._soon(event.run))
        journal.follow(RunStarted, lambda event: self._started(event.run))

    def learn(self, runs: list[str]) -> None:
        """Looks at the runs that the journal knows to be watched: another engine may have changed them."""
        self._moments = dict.fromkeys(runs, -math.inf)

    def next(self) -> float:
        """Returns when it is to be called next."""
        return math.inf if self.looking is not None else min(self._moments.values(), default=math.inf)

    def fire(self, now: float) -> None:
        """Looks at what is due."""
        due = [run for run, at in self._moments.items() if at <= now]
        if due and self.looking is None:
            self.looking = asyncio.get_running_loop().create_task(self._look(due))

    def _soon(self, run: str) -> None:
        self._moments[run] = -math.inf
        self._wake(self._clock.now())

    def _started(self, run: Run) -> None:
        if run.slot is not None and run.id in self._moments:
            self._soon(run.id)

    async def _look(self, due: list[str]) -> None:
        for run in due:
            self._moments[run] = math.inf
        try:
            found = await self._journal.do(lambda t: {run: look(t, run) for run in due})
        except (EngineLost, JournalUnavailable):
            found = dict.fromkeys(due, self._clock.now() + AGAIN)
        except Exception:
            logger.exception("runs of schedules could not be looked at, whether they are late or slow")
            found = dict.fromkeys(due, self._clock.now() + LATER)
        finally:
            self.looking = None
        for run, at in found.items():
            if at is None:
                self._moments.pop(run, None)
            elif self._moments.get(run) == math.inf:  # else it was started meanwhile
                self._moments[run] = at
        self._wake(self.next())


def watch(t: Transaction, run: Run, late: float | None, slow: float | None) -> None:
    """Has a new run of a schedule watched."""
    if run.slot is not None and (late is not None or slow is not None):
        LIMITS.put(t.tx, run.id, SlotLimits(None if late is None else run.slot + late, slow))
        t.outbox.append(LimitsSet(run.id))


def look(t: Transaction, run_id: str) -> float | None:
    """Tells what is so by now; returns when to look again, infinity for when the run starts, None for no more."""
    limits, run = LIMITS.get(t.tx, run_id), t.run(run_id)
    if limits is None:
        return None
    left, moment = limits, None
    if run is not None:
        left = _late(t, run, left)
        left = _slow(t, run, left)
        moment = None if run.ended else _next(run, left)
    if moment is None:
        LIMITS.drop(t.tx, run_id)
    elif left != limits:
        LIMITS.put(t.tx, run_id, left)
    return moment


def _late(t: Transaction, run: Run, limits: SlotLimits) -> SlotLimits:
    """Returns what is left to be told once it was judged whether the run is late."""
    if limits.late_at is None or (run.started_at is None and (run.ended or t.now <= limits.late_at)):
        return limits
    if (t.now if run.started_at is None else run.started_at) > limits.late_at:
        notices.late(t, run)
    return replace(limits, late_at=None)


def _slow(t: Transaction, run: Run, limits: SlotLimits) -> SlotLimits:
    """Returns what is left to be told once it was judged whether the run is slow."""
    if limits.slow is None or run.started_at is None:
        return limits
    if (t.now if run.ended_at is None else run.ended_at) - run.started_at < limits.slow:
        return limits
    notices.slow(t, run, limits.slow)
    return replace(limits, slow=None)


def _next(run: Run, limits: SlotLimits) -> float | None:
    """Returns when a run that has not ended is to be looked at next."""
    if run.started_at is not None:
        return None if limits.slow is None else run.started_at + limits.slow
    if limits.late_at is not None:
        return math.nextafter(limits.late_at, math.inf)
    return None if limits.slow is None else math.inf
