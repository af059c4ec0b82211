"""A journal on a real Postgres server in the simulation: one schema for each seed, a connection for each process.

The server takes none of the virtual time, so a batch is one moment, as on any disk. But within the transaction of one process, at
its round trips, batches of others are executed whole: they meet its locks, wait for them in vain, or commit what it has read.
So all of it stays one thread, and a seed replays exactly.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from random import Random
from typing import Any, Final

import psycopg

from taskrun.model.records import Run, RunFilter
from taskrun.stores import postgres_batch, postgres_session
from taskrun.stores.base import Store, Tx
from taskrun.stores.postgres import PostgresStorage
from taskrun.stores.postgres_batch import Batch, Beside, InTheWay
from taskrun.stores.postgres_listener import Listener
from taskrun.stores.postgres_open import Connection, open_journal
from taskrun.stores.postgres_session import Session
from taskrun.stores.postgres_tx import PostgresTx
from taskrun.stores.row_cache import RowCache
from tests import postgres_server
from tests.simulation.disk import BaseDisk, Waits
from tests.simulation.timeline import SimClock, Timeline

BETWEEN: Final = 0.3  # the share of round trips within a transaction at which another process has its turn
DEADLOCK: Final = 0.02  # the share of those that the server refuses, since somebody else is in the way
IN_VAIN: Final = 0.005  # seconds that are waited for a lock: its holder goes on only after that


def install() -> None:
    """Has nobody wait long for a lock, for the life of this process."""
    postgres_session.SETTINGS["lock_timeout"] = f"{IN_VAIN * 1e3:g}ms"
    setattr(postgres_batch, "STANDSTILL", IN_VAIN)  # noqa: B010 - it is a constant


class PostgresDisk(BaseDisk):
    """A schema of its own."""

    def __init__(self, timeline: Timeline, rng: Random, latencies: tuple[float, ...]) -> None:
        super().__init__(timeline, rng, latencies)
        self.server_clock = self.clock = SimClock(timeline, jumping=False)
        self.dsn, self.schema = postgres_server.shared_dsn(), postgres_server.new_schema()
        self.committed = 0
        self._session = Session(open_journal(self.dsn, self.schema))
        self._runs: tuple[int, dict[str, Run]] = (0, {})  # when so many batches were committed
        self.between = False
        self._handles: list[_Postgres] = []

    def peek(self) -> Tx:
        """Returns the journal as it is, to look at only."""
        batch = Batch(self._session, self.schema, Beside.READING, RowCache(), {}, {}, set())
        batch._begun = True  # each query sees what is committed by then
        return PostgresTx(batch, lambda: 0)

    def runs(self) -> dict[str, Run]:
        """Returns all runs."""
        if self._runs[0] != self.committed:
            self._runs = self.committed, {run.id: run for run in reversed(self.peek().runs(RunFilter()))}
        return self._runs[1]

    def handle(self) -> Store:
        """Returns the store of one process."""
        self._handles.append(_Postgres(self))
        return self._handles[-1]

    def dirty(self, tx: Any) -> bool:
        """Whether a transaction has written: each store asks for itself."""
        return False

    def drop(self, store: Store) -> None:
        """Its connection is gone as it stood."""
        assert isinstance(store, _Postgres)
        if store._session is not None:
            store._session.close()

    def close(self) -> None:
        """Removes the schema."""
        for store in self._handles:
            self.drop(store)
        self._session.close()
        postgres_server.drop_schema(self.schema, self.dsn)

    def lets_others(self, store: Store) -> None:
        """Lets a batch of another process be executed, while one is within its transaction."""
        others = [writer for writer in self.on_the_way if writer.may_arrive and writer.store.inner is not store]
        if not self.between and others and self.rng.random() < BETWEEN:
            self.between = True
            others[int(self.rng.random() * len(others))].arrive()
            self.between = False


class _Postgres(PostgresStorage):
    """The store of one process, whose server fails at its COMMIT."""

    def __init__(self, disk: PostgresDisk) -> None:
        super().__init__(disk.dsn, disk.schema)
        self.clock = disk.server_clock
        self._disk = disk
        self._beside = Beside.TRUSTING
        self._listener = _Silence(disk.dsn, disk.schema, self._writer)

    def now(self) -> float:
        """Returns the server's time."""
        return self._disk.server_clock.now()

    def outside(self) -> object:
        """Returns a token that differs once another connection has written."""
        return self._disk.committed - self.written

    def _use(self, connection: Connection) -> None:
        super()._use(connection)
        assert self._session is not None
        session, ask, send = self._session, self._session.ask, self._session.send

        def between(trip: Callable[..., Any]) -> Callable[..., Any]:
            def go(*args: Any) -> Any:
                if session.connection.info.transaction_status == psycopg.pq.TransactionStatus.INTRANS:
                    self._disk.lets_others(self)
                    if self._beside is not Beside.ALONE and self._disk.rng.random() < DEADLOCK:
                        raise psycopg.errors.DeadlockDetected("deadlock detected")
                return trip(*args)

            return go

        session.ask, session.send = between(ask), between(send)  # type: ignore[method-assign]

    def _written(self, session: Session, fns: Sequence[Any], guard: Any, beside: Beside) -> list[Any]:
        self._beside = beside
        try:
            return super()._written(session, fns, guard, beside)
        except InTheWay:
            if self._disk.between and beside is Beside.ALONE:
                raise Waits("until the transaction has ended that this one is executed within") from None
            raise

    def _commit(self, session: Session, batch: Batch, fns: Sequence[Any], answers: list[Any]) -> None:
        batch.seal()
        if batch.writes and self._disk.refusing:
            raise psycopg.errors.DiskFull("could not extend file: No space left on device")
        if batch.writes and self._disk.unknown:
            self._disk.unknown -= 1
            self._lose_the_answer(batch)
        super()._commit(session, batch, fns, answers)
        self._disk.committed += batch.changed > 0

    def _lose_the_answer(self, batch: Batch) -> None:
        """Has the connection break at the COMMIT: before the server has read it, or after."""
        commit, read = batch.commit, self._disk.rng.random() < 0.7

        def lost(*args: Any) -> None:
            if read:
                commit(*args)
                self._disk.committed += 1
            raise psycopg.OperationalError("server closed the connection unexpectedly")

        batch.commit = lost  # type: ignore[method-assign, assignment]

    def _cut_off(self, session: Session) -> None:
        """Who stands in the way is within its transaction for no time."""


class _Silence(Listener):
    """Hears of nothing, without a thread."""

    def start(self) -> None:
        """Has nothing to begin."""

    def follow(self, *args: Any) -> None:
        """Has nothing to listen to."""

    def unfollow(self, call: Callable[[], None]) -> None:
        """Has nothing to forget."""
