"""The journal's disk in the simulation: a real store behind latency, refusals, and commits of which nobody hears."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from random import Random
from typing import Any

from taskrun.model.errors import JournalUnavailable
from taskrun.stores.base import Tx
from taskrun.stores.memory import MemoryStorage
from tests.simulation.timeline import Process, Timeline

Fn = Callable[[Tx], Any]
Guard = Callable[[Tx], None]
Answer = tuple[Any, Exception | None]


class Refused(BaseException):
    """Rolls a batch back that would have written."""


class Disk:
    """What all engines of a simulation write to.

    Parameters:
        latencies: seconds of one way to the disk or back; drawn for each.
    """

    def __init__(self, timeline: Timeline, rng: Random, latencies: tuple[float, ...]) -> None:
        self.timeline = timeline
        self.refusing = False  # whether every write fails
        self.unknown = 0  # commits to come that are written and reported as failed
        self.commits = 0
        self.watch: Callable[[], None] = lambda: None  # called after each commit
        self.memory = MemoryStorage()
        self._rng = rng
        self._latencies = latencies

    def latency(self) -> float:
        """Returns the seconds that the next way takes."""
        return self._latencies[int(self._rng.random() * len(self._latencies))]

    def peek(self) -> Tx:
        """Returns the journal as it is, to look at only."""
        return self.memory._tx


class SimStore:
    """One process's handle on the disk: the contract of every store.

    Parameters:
        shared: another process may write to it: leases, polls, and a lock file beside it.
    """

    def __init__(self, disk: Disk, *, instant: bool, shared: bool, place: str | None) -> None:
        self.disk = disk
        self.instant = instant
        self.shared = shared
        self.place = place
        self.written = 0
        self._answered: dict[Fn, Answer] = {}  # a batch that was written and reported as failed

    def open(self) -> None:
        """Has nothing to do."""

    def close(self) -> None:
        """Has nothing to do."""

    def outside(self) -> object:
        """Returns a token that differs once another handle has written."""
        return self.disk.memory.written - self.written if self.shared else None

    def apply(self, fns: Sequence[Fn], guard: Guard | None = None) -> list[Answer]:
        """Runs `fns` in one transaction, or fails as a disk does."""
        before = self.disk.memory.written
        try:
            answers = self.disk.memory.apply([self._once(fn) for fn in (*fns, self._refuse)], guard)[:-1]
        except Refused:
            raise JournalUnavailable("disk I/O error: nothing of this was written") from None
        wrote = self.disk.memory.written - before
        self.written += wrote
        self._answered = {}
        if wrote:
            self.disk.commits += 1
            self.disk.watch()
            if self.disk.unknown and not self.instant:
                self.disk.unknown -= 1
                self._answered = dict(zip(fns, answers, strict=True))
                raise JournalUnavailable("disk I/O error: whether this was written is not known")
        return answers

    def _once(self, fn: Fn) -> Fn:
        """A function that was applied already is answered again, as SQLite's store does after a failed COMMIT."""
        if fn not in self._answered:
            return fn
        value, error = self._answered[fn]

        def again(tx: Tx) -> Any:
            if error is not None:
                raise error
            return value

        return again

    def _refuse(self, tx: Any) -> None:
        if self.disk.refusing and not self.instant and tx.changes:
            raise Refused


class SimWriter:
    """Stands for the journal's writer thread: one batch at a time, each a way to the disk and a way back."""

    def __init__(self, store: SimStore, loop: Any) -> None:
        self._store = store
        self._process: Process = loop.process
        self._queue: deque[tuple[Any, Guard | None, Callable[..., None]]] = deque()
        self._busy = False

    def put(self, batch: Any, guard: Guard | None, settle: Callable[..., None]) -> None:
        """Takes a batch."""
        self._queue.append((batch, guard, settle))
        if not self._busy:
            self._begin()

    def close(self) -> None:
        """Has nothing to do."""

    def _begin(self) -> None:
        self._busy = True
        self._process.timeline.after(self._store.disk.latency(), self._apply, self._process)

    def _apply(self) -> None:
        batch, guard, settle = self._queue.popleft()
        results: list[Answer] = []
        error: Exception | None = None
        try:
            results = self._store.apply([entry.fn for entry in batch], guard)
        except Exception as caught:
            error = caught

        def report() -> None:
            self._busy = False
            if self._queue:
                self._begin()
            self._process.loop.call_soon_threadsafe(settle, batch, results, error)

        self._process.timeline.after(self._store.disk.latency(), report, self._process)
