"""What one transaction of an engine writes, and gathers to be followed up after the commit.

A `Book` may be filled on the journal's thread, so it touches nothing but its transaction. `lanes`, `waits` and `ledger` say what
is written; `ledgers` opens a book for each entry of the journal.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from msgspec.structs import replace

from taskrun.model.errors import EngineLost
from taskrun.model.records import ErrorRecord, PipeEvent, Run, Status, Step
from taskrun.rules import transitions
from taskrun.stores.base import Tx

TICK = 1e-6  # seconds between an event and a trigger that came after it at the same instant
STANDS_STILL = 0.01  # seconds: more than that and the clock was set back
PARKED = frozenset({Status.WAITING, Status.SCHEDULED})


class Moments:
    """Moments of events and triggers, in the order in which they came though the clock stood still between them.

    A run sees the events sent since it was triggered: one sent before it at the same instant must have an earlier moment.
    """

    def __init__(self) -> None:
        self._sent = self._triggered = 0.0

    def send(self, now: float) -> float:
        """Returns the moment of an event."""
        self._sent = max(now, self._triggered) if self._triggered - now < STANDS_STILL else now
        return self._sent

    def trigger(self, now: float) -> float:
        """Returns the moment of a trigger."""
        self._triggered = self._sent + TICK if 0 <= self._sent - now < STANDS_STILL else now
        return self._triggered


@dataclass(slots=True)
class Book:
    """One transaction.

    Parameters:
        engine: id of the engine whose transaction it is.
        number: gives the next position among finished steps.
        routed: for each topic, the jobs that it triggers.
        again: the same was executed before, and what became of it is not known.
        jobs: those that executors of this engine have.
        moments: gives events and triggers their moments.
    """

    tx: Tx
    engine: str
    now: float
    number: Callable[[float], int]
    routed: Mapping[str, list[str]] = field(default_factory=dict)
    jobs: Sequence[str] = ()
    moments: Moments = field(default_factory=Moments)
    again: bool = False
    changed: dict[str, Run] = field(default_factory=dict)  # runs as they are now
    fresh: list[Run] = field(default_factory=list)  # runs that are new
    begun: dict[str, Run] = field(default_factory=dict)  # runs at their very first start
    ended: list[Run] = field(default_factory=list)
    failed: list[tuple[Run, ErrorRecord]] = field(default_factory=list)  # attempts that failed
    steps: list[Step] = field(default_factory=list)  # steps that changed
    over: list[Step] = field(default_factory=list)  # waits that are over, of attempts that this engine holds
    cancels: list[Run] = field(default_factory=list)  # runs of this engine that were asked to cancel
    pauses: list[Run] = field(default_factory=list)  # runs of this engine that were asked to pause, or no longer are
    routes: list[tuple[str, PipeEvent]] = field(default_factory=list)  # jobs that events are to start
    freed: set[str] = field(default_factory=set)  # ids of steps' places that have become free
    granted: list[Run] = field(default_factory=list)  # new runs that were started with a place kept for them
    claimable: bool = False  # a run may have become ready
    left: bool = False  # a place of this engine may have become free

    def order(self) -> int:
        """Returns the next position among finished steps."""
        return self.number(self.now)

    def mine(self, run_id: str) -> Run | None:
        """Returns an unfinished run that this engine holds, or None."""
        run = self.tx.run(run_id)
        return run if run is not None and run.engine == self.engine and not run.ended else None

    def must_hold(self, run_id: str) -> None:
        """Lets nothing be written for a run that is not this engine's any more, or has ended.

        Raises:
            EngineLost: so it is; the attempt that asked is taken down by it.
        """
        if not self.tx.holds(self.engine, run_id):
            raise EngineLost(f"run {run_id} has ended, or another engine has it")

    def save(self, run: Run) -> Run:
        """Writes a changed run."""
        self.tx.save_run(run)
        self.changed[run.id] = run
        if run.status is Status.QUEUED:
            self.claimable = True
        return run

    def save_step(self, step: Step) -> Step:
        """Writes a step."""
        self.tx.put_step(step)
        self.steps.append(step)
        if step.finished and step.topic is not None:
            self.free(step)
        return step

    def free(self, step: Step) -> None:
        """Notes that a step has its place, or its turn for one, no longer."""
        kind, _, place = (step.topic or "").partition(":")
        if kind in ("place", "placed"):
            self.freed.add(place)

    def wake(self, run: Run) -> Run:
        """Makes a parked run ready for a place; any other state stays as it is."""
        return self.save(transitions.wake(run)) if run.status in PARKED else run

    def deliver(self, step: Step) -> None:
        """Hands a step that changed to the attempt that waits for it, and wakes its run."""
        run = self.tx.run(step.run)
        if run is None or run.ended:
            return
        if run.engine == self.engine:
            self.over.append(step)
        self.wake(run)

    def record(self, step: Step, suspect: bool) -> None:
        """Keeps the end of a step that an attempt executed; its run is no longer suspected of killing workers."""
        self.must_hold(step.run)
        self.save_step(replace(step, order=self.order()))
        if suspect and (run := self.mine(step.run)) is not None:
            self.save(replace(run, crashes=0))
