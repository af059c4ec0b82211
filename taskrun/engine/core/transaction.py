"""One transaction of an engine: what it reads and writes, and the outbox of what it changed.

May be filled on the journal's thread, so it touches nothing but its store's transaction and what belongs to it. A run is
changed by `change` alone, which reads it in the transaction that writes it: no record read before is ever written back.
`run_queue`, `waits`, `run_lifecycle` and others say what is written; `journal` opens a transaction for each of its entries.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator
from typing import Any, TypeVar

from msgspec.structs import replace

from taskrun.engine.core.facts import NEWS
from taskrun.engine.core.outbox import Outgoing, RunChanged, StepChanged, WaitOver
from taskrun.model.errors import EngineLost
from taskrun.model.notify_config import NotifyTable
from taskrun.model.records import PLACE, PLACED, Run, Step
from taskrun.rules import transitions
from taskrun.stores.base import Tx

T = TypeVar("T")
TICK = 1e-6  # seconds between an event and a trigger that came after it at the same instant
SET_BACK = 60.0  # seconds by which a clock is put right; by more, and what came before had a wrong moment


class Moments:
    """Moments of events and triggers, in the order in which they came even if the clock stood still or was set back between them.

    A run sees the events sent since it was triggered: one sent before it at the same instant must have an earlier moment.
    """

    def __init__(self) -> None:
        self._sent = self._triggered = 0.0

    def send(self, now: float) -> float:
        """Returns the moment of an event."""
        self._sent = max(now, self._triggered) if self._triggered - now < SET_BACK else now
        return self._sent

    def trigger(self, now: float) -> float:
        """Returns the moment of a trigger."""
        self._triggered = self._sent + TICK if 0 <= self._sent - now < SET_BACK else now
        return self._triggered


class Sequence:
    """Strictly increasing positions of finished steps: microseconds of the clock, pushed on where they would repeat."""

    def __init__(self) -> None:
        self._last = 0
        self._lock = threading.Lock()

    def next(self, now: float) -> int:
        """Returns the next position."""
        with self._lock:
            self._last = max(self._last + 1, int(now * 1e6))
            return self._last

    def beyond(self, order: int) -> None:
        """Makes every further position higher than one that another engine gave."""
        with self._lock:
            self._last = max(self._last, order)


class EngineState:
    """What all transactions of one engine share."""

    def __init__(self) -> None:
        self.id = ""  # new whenever it registers
        self.jobs: list[str] = []  # those that its executors have
        self.awaits_executors = True  # none is there that has said which jobs it has
        self.delivering: set[str] = set()  # runs whose attempts are about to be told that a wait is over
        self.triggered: tuple[str | None, dict[str, list[str]]] = (
            "",
            {},
        )  # the jobs of each topic, as of this SUBSCRIBED
        self.notify: tuple[NotifyTable, ...] = ()  # who is told of what
        self.project_option = ""  # what a command in such a text needs to mean this project, wherever it is typed
        self.observer: Callable[[Transaction, Run | None, Run], None] | None = None  # of runs in another state
        self.sequence = Sequence()
        self.moments = Moments()


class Transaction:
    """One entry of the journal on its way.

    Parameters:
        again: the same was executed before, and what became of it is not known.
    """

    __slots__ = ("_runs", "again", "engine", "freed", "now", "outbox", "state", "tx")

    def __init__(self, tx: Tx, state: EngineState, now: float, again: bool = False) -> None:
        self.tx = tx
        self.state = state
        self.engine = state.id
        self.now = now
        self.again = again
        self.outbox: list[Outgoing] = []
        self.freed: dict[str, None] = {}  # ids of steps' places that have become free
        self._runs: dict[str, Run] = {}  # as they are now

    def next_order(self) -> int:
        """Returns the next position among finished steps."""
        return self.state.sequence.next(self.now)

    # ---- runs

    def run(self, run_id: str | None) -> Run | None:
        """Returns a run as it is now."""
        if run_id is None:
            return None
        run = self._runs.get(run_id)
        if run is None and (run := self.tx.run(run_id)) is not None:
            self._runs[run_id] = run
        return run

    def each(self, rows: Iterable[Run]) -> Iterator[Run]:
        """Yields runs of a query as they are when their turn comes: an earlier turn may have changed them."""
        rows = list(rows)
        for row in rows:
            self._runs.setdefault(row.id, row)
        for row in rows:
            yield self._runs[row.id]

    def mine(self, run_id: str) -> Run | None:
        """Returns an unfinished run that this engine holds, or None."""
        run = self.run(run_id)
        return run if run is not None and run.engine == self.engine and not run.ended else None

    def must_hold(self, run_id: str) -> None:
        """Checks that this engine still holds a run, and that the run has not ended.

        Raises:
            EngineLost: otherwise; this takes down the attempt that asked.
        """
        if not self.tx.holds(self.engine, run_id):
            raise EngineLost(f"run {run_id} has ended, or another engine has it")

    def add(self, run: Run) -> Run:
        """Inserts a run, unless an outcome that was unknown turns out to have inserted it."""
        run = (self.tx.run(run.id) if self.again else None) or self.tx.add_run(run)
        self._runs[run.id] = run
        if run.ended and self.state.observer is not None:
            self.state.observer(self, None, run)
        return run

    def change(self, run_id: str, transition: Callable[..., Run], *args: Any, **options: Any) -> Run:
        """Applies a transition to a run as it is now, and writes it if that changes it."""
        before = self.run(run_id)
        assert before is not None, f"run {run_id} is not there"
        after = transition(before, *args, **options)
        if after is not before and after != before:
            self._runs[run_id] = after
            self.tx.save_run(after)
            self.outbox.append(RunChanged(after))
            if after.status is not before.status and self.state.observer is not None:
                self.state.observer(self, before, after)
        return after

    def set(self, run_id: str, **fields: Any) -> Run:
        """Changes fields of a run that are not of its state."""
        return self.change(run_id, replace, **fields)

    def wake(self, run_id: str) -> None:
        """Makes a waiting or scheduled run ready for a slot."""
        self.change(run_id, transitions.wake)

    # ---- steps

    def save_step(self, step: Step) -> Step:
        """Writes a step."""
        self.tx.put_step(step)
        self.outbox.append(StepChanged(step))
        if step.topic is not None and step.finished:
            self.free(step)
        return step

    def free(self, step: Step) -> None:
        """Notes that a step no longer has its place, or its turn for one."""
        topic = step.topic or ""
        if topic.startswith((PLACE, PLACED)):
            self.freed[topic.partition(":")[2]] = None

    def record(self, step: Step, suspect: bool) -> None:
        """Keeps the end of a step that an attempt executed; its run is no longer suspected of killing workers."""
        self.must_hold(step.run)
        self.save_step(replace(step, order=self.next_order()))
        if suspect:
            self.set(step.run, crashes=0)

    def deliver(self, step: Step) -> None:
        """Hands a changed step to the attempt that waits for it, even in another engine, and wakes its run."""
        run = self.run(step.run)
        if run is None or run.ended:
            return
        if run.engine == self.engine:
            self.outbox.append(WaitOver(step))
            self.state.delivering.add(run.id)
        elif run.engine is not None:
            NEWS.put(self.tx, run.id, [*(NEWS.get(self.tx, run.id) or ()), step.key])
        self.wake(run.id)


def executed_before(act: Callable[..., T]) -> Callable[..., T]:
    """Returns `act` for a transaction that finds what it may have written before, with an unknown outcome."""

    def act_again(t: Transaction, **options: Any) -> T:
        t.again = True
        return act(t, **options)

    return act_again
