"""The journal's disk in the simulation: a real store behind latency, refusals, and commits of which nobody hears."""

from __future__ import annotations

import shutil
import sqlite3
import tempfile
from collections import deque
from collections.abc import Callable, Sequence
from pathlib import Path
from random import Random
from typing import Any, Protocol

from taskrun.model.clock import Clock
from taskrun.model.errors import JournalUnavailable
from taskrun.model.records import Run, RunFilter
from taskrun.stores.base import Store, Tx
from taskrun.stores.memory import MemoryStorage
from taskrun.stores.sqlite import SqliteStorage
from taskrun.stores.sqlite_tx import SqliteTx
from tests.simulation.timeline import Process, Timeline

Fn = Callable[[Tx], Any]
Guard = Callable[[Tx], None]
Answer = tuple[Any, Exception | None]
Settle = Callable[[list[Answer], Exception | None], None]


class Refused(BaseException):
    """Rolls a batch back that would have written."""


class Waits(JournalUnavailable):
    """A batch that has arrived early waits for another one, and is to come again."""


class Disk(Protocol):
    """What all engines of a simulation write to."""

    timeline: Timeline
    refusing: bool  # whether every write fails
    unknown: int  # commits to come that are written and reported as failed
    watch: Callable[[], None]  # called after each commit
    clock: Clock | None  # of the server, if it has one
    on_the_way: list[SimWriter]  # whose batches have not arrived yet

    def latency(self) -> float:
        """Returns the seconds that the next way to it or back takes."""
        ...

    def peek(self) -> Tx:
        """Returns the journal as it is, to look at only."""
        ...

    def runs(self) -> dict[str, Run]:
        """Returns all runs."""
        ...

    def handle(self) -> Store:
        """Returns a store of one process."""
        ...

    def dirty(self, tx: Any) -> bool:
        """Whether a transaction has written."""
        ...

    def drop(self, store: Store) -> None:
        """The process of a store is gone."""
        ...

    def close(self) -> None:
        """Nobody needs it any more."""
        ...


class BaseDisk:
    """What all kinds share."""

    clock: Clock | None = None

    def __init__(self, timeline: Timeline, rng: Random, latencies: tuple[float, ...]) -> None:
        self.timeline = timeline
        self.refusing = False
        self.unknown = 0
        self.watch: Callable[[], None] = lambda: None
        self.latencies = latencies
        self.rng = rng
        self.on_the_way: list[SimWriter] = []

    def latency(self) -> float:
        """Returns the seconds that the next way to it or back takes."""
        return self.latencies[int(self.rng.random() * len(self.latencies))]


class MemoryDisk(BaseDisk):
    """A journal in memory that outlives the processes."""

    def __init__(self, timeline: Timeline, rng: Random, latencies: tuple[float, ...]) -> None:
        super().__init__(timeline, rng, latencies)
        self._store = MemoryStorage()

    def peek(self) -> Tx:
        """Returns the journal as it is, to look at only."""
        return self._store._tx

    def runs(self) -> dict[str, Run]:
        """Returns all runs."""
        return self._store._tx._runs.by_id

    def handle(self) -> Store:
        """Returns the store: all processes have the same."""
        return self._store

    def dirty(self, tx: Any) -> bool:
        """Whether a transaction has written."""
        return bool(tx.changes)

    def drop(self, store: Store) -> None:
        """Has nothing to do."""

    def close(self) -> None:
        """Has nothing to do."""


class SqliteDisk(BaseDisk):
    """A journal in a file, which each process opens for itself."""

    def __init__(self, timeline: Timeline, rng: Random, latencies: tuple[float, ...]) -> None:
        super().__init__(timeline, rng, latencies)
        memory = Path("/dev/shm")
        self.folder = Path(tempfile.mkdtemp(prefix="taskrun-sim-", dir=memory if memory.is_dir() else None))
        self._connection: sqlite3.Connection | None = None
        self._version: int | None = None  # of the journal when its runs were read last
        self._runs: dict[str, Run] = {}

    def peek(self) -> Tx:
        """Returns the journal as it is, to look at only."""
        if self._connection is None:
            self._connection = sqlite3.connect(
                self.folder / "journal.db", check_same_thread=False, isolation_level=None
            )
        return SqliteTx(self._connection)

    def runs(self) -> dict[str, Run]:
        """Returns all runs."""
        if self._connection is None and not (self.folder / "journal.db").exists():
            return {}
        tx = self.peek()
        assert self._connection is not None
        [(version,)] = self._connection.execute("PRAGMA data_version")
        if version != self._version:
            self._version, self._runs = version, {run.id: run for run in reversed(tx.runs(RunFilter()))}
        return self._runs

    def handle(self) -> Store:
        """Returns the store of one process."""
        return _Sqlite(self)

    def dirty(self, tx: Any) -> bool:
        """Whether a transaction has written: each store asks for itself."""
        return False

    def drop(self, store: Store) -> None:
        """Its connection is gone as it stood."""
        assert isinstance(store, _Sqlite)
        store._drop_connection()

    def close(self) -> None:
        """Removes the file."""
        if self._connection is not None:
            self._connection.close()
        shutil.rmtree(self.folder, ignore_errors=True)


class _Sqlite(SqliteStorage):
    """SQLite's store with a disk that fails at its COMMIT."""

    def __init__(self, disk: SqliteDisk) -> None:
        super().__init__(disk.folder / "journal.db", synchronous="normal")
        self._disk = disk

    def _commit(self, connection: sqlite3.Connection, fns: Any, answers: Any) -> None:
        wrote = connection.total_changes != self._changes
        if wrote and self._disk.refusing:
            connection.execute("ROLLBACK")
        elif wrote and self._disk.unknown:
            self._disk.unknown -= 1
            connection.execute("COMMIT")
        else:
            super()._commit(connection, fns, answers)
            return
        super()._commit(_Broken(connection), fns, answers)  # type: ignore[arg-type]


class _Broken:
    """A connection whose disk fails."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection

    def __getattr__(self, name: str) -> Any:
        return getattr(self._connection, name)

    def execute(self, *args: Any) -> Any:
        raise sqlite3.OperationalError("disk I/O error")


class SimStore:
    """One process's handle on the disk: the contract of every store.

    Parameters:
        instant: it never blocks, and its disk never fails.
        shared: another process may write to it: leases, polls, and a lock file beside it.
        place: beside which lock files are, by which a death is seen.
    """

    def __init__(self, disk: Disk, *, instant: bool, shared: bool, place: str | None) -> None:
        self.disk = disk
        self.instant = instant
        self.shared = shared
        self.place = place
        self.clock = disk.clock
        self.written = 0
        self.inner = disk.handle()
        self._answered: dict[Fn, Answer] = {}  # a batch that was written and reported as failed

    pace = 0.1
    address = None

    def open(self) -> None:
        """Opens it."""
        self.inner.open()

    def close(self) -> None:
        """Closes it."""
        self.inner.close()

    def follow(self, engine: str, jobs: Sequence[str], call: Callable[[], None], ready: Callable[[], None]) -> None:
        """Hears of nothing."""

    def unfollow(self, call: Callable[[], None]) -> None:
        """Has nothing to forget."""

    async def enlist(self, connection: Any, key: str, value: str, job: str) -> None:
        """Shares no transactions."""
        raise NotImplementedError

    def outside(self) -> object:
        """Returns a token that differs once another handle has written."""
        if not self.shared:
            return None
        return self.inner.written - self.written if self.inner.instant else self.inner.outside()

    def apply(self, fns: Sequence[Fn], guard: Guard | None = None) -> list[Answer]:
        """Runs `fns` in one transaction, or fails as a disk does."""
        before = self.inner.written
        try:
            answers = self.inner.apply([self._once(fn) for fn in (*fns, self._refuse)], guard)[:-1]
        except Refused:
            raise JournalUnavailable("disk I/O error: nothing of this was written") from None
        finally:
            wrote = self.inner.written - before
            self.written += wrote
            if wrote:
                self.disk.watch()
        for fn in fns:
            self._answered.pop(fn, None)
        if wrote and self.disk.unknown and not self.instant:
            self.disk.unknown -= 1
            self._answered.update(zip(fns, answers, strict=True))
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
        if self.disk.refusing and not self.instant and self.disk.dirty(tx):
            raise Refused


class SimWriter:
    """Stands for the journal's writer thread: one batch at a time, each a way to the disk and a way back."""

    def __init__(self, store: SimStore, loop: Any) -> None:
        self.store = store
        self._process: Process = loop.process
        self._queue: deque[tuple[Sequence[Fn], Guard | None, Settle]] = deque()
        self._busy = False

    def put(self, fns: Sequence[Fn], guard: Guard | None, settle: Settle) -> None:
        """Takes a batch."""
        self._queue.append((fns, guard, settle))
        if not self._busy:
            self._begin()

    def close(self) -> None:
        """Has nothing to do."""

    @property
    def may_arrive(self) -> bool:
        """Whether its process lives and goes on."""
        return self._process.alive and not self._process.stopped

    def _begin(self) -> None:
        self._busy = True
        disk = self.store.disk
        disk.on_the_way.append(self)
        self._process.timeline.after(disk.latency(), self.arrive, self._process)

    def arrive(self) -> None:
        """Has the batch applied that is on its way, if it has not arrived before."""
        if self not in self.store.disk.on_the_way:
            return
        self.store.disk.on_the_way.remove(self)
        fns, guard, settle = self._queue.popleft()
        answers: list[Answer] = []
        error: Exception | None = None
        try:
            answers = self.store.apply(fns, guard)
        except Waits:
            self._queue.appendleft((fns, guard, settle))
            self.store.disk.on_the_way.append(self)
            return
        except Exception as caught:
            error = caught

        def report() -> None:
            self._busy = False
            if self._queue:
                self._begin()
            self._process.loop.call_soon_threadsafe(settle, answers, error)

        self._process.timeline.after(self.store.disk.latency(), report, self._process)
