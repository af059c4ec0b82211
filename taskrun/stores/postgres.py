"""The journal in Postgres: one connection and one writer for each process, any number of processes on any number of machines.

A batch is one transaction in the thread that calls. `postgres_batch` says how it goes beside those of others, `postgres_tx`
has the verbs, `postgres_open` opens, `postgres_listener` hears of what others write.
"""

from __future__ import annotations

import inspect
import logging
import os
import threading
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any, Final

import psycopg
from psycopg import sql

from taskrun.model.clock import Clock
from taskrun.model.errors import JournalError, JournalUnavailable
from taskrun.stores.base import Answer, Tx
from taskrun.stores.outcomes import Outcomes
from taskrun.stores.postgres_batch import Batch, Beside, InTheWay
from taskrun.stores.postgres_listener import Listener, ServerClock
from taskrun.stores.postgres_names import job_channel
from taskrun.stores.postgres_open import SCHEMA, Connection, open_journal, reconnect, said, shown
from taskrun.stores.postgres_session import APPLICATION, SQL, STANDSTILL, Session
from taskrun.stores.postgres_tx import PostgresTx
from taskrun.stores.row_cache import RowCache

logger = logging.getLogger("taskrun.stores.postgres")
Fn = Callable[[Tx], Any]
Guard = Callable[[Tx], None]

_TRIES: Final = (Beside.TRUSTING, Beside.ASKING, Beside.ALONE, Beside.ALONE, Beside.ALONE)
# Serialization failure, deadlock, a lock that was waited for too long, no room for locks; and by division a check that failed.
_IN_THE_WAY: Final = frozenset({"40001", "40P01", "55P03", "53200", "22012"})
_SPOILT: Final = ("22", "23")  # classes of what a statement's own values cause
MOST_VERSIONS: Final = 20_000
_TAG_BITS: Final = 10


class _Spoilt(Exception):
    """A function, or what it wrote, cannot stand: each is to be executed behind a savepoint."""


class PostgresStorage:
    """Keeps the journal in Postgres, which any number of machines may share.

    Parameters:
        dsn: such as `postgresql://user@host/database`.
        schema: in which its tables are; made where it is not there.
    """

    instant = False
    shared = True
    place = None
    pace = 1.0

    def __init__(self, dsn: str, schema: str = SCHEMA) -> None:
        self._dsn = dsn
        self.schema = schema
        self._lock = threading.Lock()
        self._users = 0
        self._session: Session | None = None
        self.written = 0
        self._number = 0  # of the last batch
        self._acknowledged = 0  # the number of the last one of which the server has said that it is durable
        self._writer = os.urandom(8).hex()
        self._outcomes = Outcomes()
        self._rows = RowCache()
        self._versions: dict[str, int] = {}
        self._facts: dict[str, str | None] = {}
        self._engines: set[str] = set()
        self._lost_engines: set[str] = set()  # that know more than the server does
        self._seq = 0
        self._tag = int.from_bytes(os.urandom(2), "big") % (1 << _TAG_BITS)
        self._listener = Listener(dsn, schema, self._writer)
        self.clock: Clock = ServerClock(self.now)

    # ---- life
    def open(self) -> None:
        """Opens it, migrating an older journal. Counted: the n-th `open` only adds a user.

        Raises:
            JournalNewer: a newer taskrun wrote it.
            JournalUnavailable: no server answers.
            JournalError: it cannot be made or opened.
        """
        with self._lock:
            if not self._users:
                self._use(open_journal(self._dsn, self.schema))
                self._listener.start()
            self._users += 1

    def close(self) -> None:
        """Closes it when its last user closes."""
        with self._lock:
            self._users = max(0, self._users - 1)
            if self._users:
                return
            self._listener.stop()
            if self._session is not None:
                with suppress(psycopg.Error):
                    if self._number:
                        self._session.ask(f"{SQL['drop_batch']} RETURNING n", (self._writer,))
                self._session.close()
            self._session = None
            self._acknowledged = 0
            self._forget_rows()

    def now(self) -> float:
        """Returns the server's time."""
        session = self._session
        return self._listener.now() if session is None else session.now()

    # ---- what others write
    def outside(self) -> object:
        """Returns a token that differs once another connection has written what concerns an engine, and now and then."""
        return self._listener.token()

    @property
    def address(self) -> str:
        """Where the journal is."""
        return f"{self} {self.schema}"

    def unfollow(self, call: Callable[[], None]) -> None:
        """Calls `call` no more."""
        self._listener.unfollow(call)

    def follow(self, engine: str, jobs: Sequence[str], call: Callable[[], None], ready: Callable[[], None]) -> None:
        """Calls `call` or `ready`, from a thread, when another connection has written what concerns an engine or its jobs."""
        self._listener.follow(engine, jobs, call, ready)

    async def enlist(self, connection: Any, key: str, value: str, job: str) -> None:
        """Writes a small fact in the transaction of a caller's psycopg connection, sync or async."""
        table = sql.Identifier(self.schema, "facts")
        statements = (
            sql.SQL("INSERT INTO {} (key, value) VALUES ({}, {})").format(table, key, value),
            sql.SQL("SELECT pg_notify({}, '')").format(job_channel(self.schema, job)),
        )
        for statement in statements:
            done = connection.execute(statement)
            if inspect.isawaitable(done):
                await done

    # ---- a batch
    def apply(self, fns: Sequence[Fn], guard: Guard | None = None) -> list[Answer]:
        """Runs `fns` in one durable transaction; returns for each its value, or the exception that it raised.

        `guard` runs first; if it raises, nothing of the batch is run and `apply` raises the same.

        Raises:
            JournalUnavailable: nothing is known of the outcome (a connection lost in a COMMIT), or nothing could be written.
                The same functions may be given again: what turns out to have been written is not run a second time.
        """
        with self._lock:
            for beside in _TRIES:
                session = self._connected()
                try:
                    self._find_out(session)
                    return self._written(session, fns, guard, beside)
                except InTheWay:
                    self._roll_back(session)
                    if beside is Beside.ALONE:
                        self._cut_off(session)
                except BaseException as error:
                    self._roll_back(session)
                    if not isinstance(error, JournalUnavailable):
                        self._outcomes.forget(fns)
                    raise
            raise JournalUnavailable(f"journal {self}: other transactions kept being in the way; nothing was written")

    def _written(self, session: Session, fns: Sequence[Fn], guard: Guard | None, beside: Beside) -> list[Answer]:
        try:
            try:
                answers, batch = self._straight_through(session, fns, guard, beside)
            except _Spoilt:
                self._roll_back(session)
                answers, batch = self._each_alone(session, fns, guard, beside)
                self._commit(session, batch, fns, answers)
        except psycopg.Error as error:
            self._judge(session, error)
        self.written += batch.changed > 0
        self._outcomes.forget(fns)
        if len(self._versions) + len(self._facts) > MOST_VERSIONS:
            self._forget_rows()
        return answers

    def _straight_through(
        self, session: Session, fns: Sequence[Fn], guard: Guard | None, beside: Beside
    ) -> tuple[list[Answer], Batch]:
        tx = self._begin(session, guard, beside)
        answers: list[Answer] = []
        for fn, done in zip(fns, self._outcomes.known(fns), strict=True):
            try:
                answers.append(done or (fn(tx), None))
            except InTheWay:
                raise
            except psycopg.Error as error:
                if _spoils(error):
                    raise _Spoilt from error
                raise
            except Exception as error:
                raise _Spoilt from error
        try:
            self._commit(session, tx.batch, fns, answers)
        except (psycopg.Error, ValueError) as error:
            if isinstance(error, psycopg.Error) and not _spoils(error):
                raise
            raise _Spoilt from error
        return answers, tx.batch

    def _each_alone(
        self, session: Session, fns: Sequence[Fn], guard: Guard | None, beside: Beside
    ) -> tuple[list[Answer], Batch]:
        tx = self._begin(session, guard, beside)
        tx.batch.flush()
        known = self._outcomes.known(fns)
        return [done or self._alone(tx, fn) for fn, done in zip(fns, known, strict=True)], tx.batch

    def _alone(self, tx: PostgresTx, fn: Fn) -> Answer:
        tx.batch.savepoint("SAVEPOINT one")
        tx.batch.flush()
        changed = tx.batch.changed
        try:
            answer: Answer = fn(tx), None
            tx.batch.seal()
            tx.batch.savepoint("RELEASE one")
            tx.batch.flush()
        except InTheWay:
            raise
        except psycopg.Error as error:
            if not _spoils(error):
                raise
            answer = None, error
        except Exception as error:
            answer = None, error
        if answer[1] is not None:
            tx.batch.undo()
            tx.batch.changed = changed
            tx.batch.session.roll_back("one")
        return answer

    def _begin(self, session: Session, guard: Guard | None, beside: Beside) -> PostgresTx:
        batch = Batch(
            session, self.schema, beside, self._rows, self._versions, self._facts, self._engines, self._lost_engines
        )
        tx = PostgresTx(batch, self._next_seq)
        if guard is not None:
            tx.guarding = beside is Beside.TRUSTING
            guard(tx)
            tx.guarding = False
        return tx

    def _commit(self, session: Session, batch: Batch, fns: Sequence[Fn], answers: list[Answer]) -> None:
        self._number += 1
        batch.seal()
        try:
            batch.commit(self._writer, self._number)
        except psycopg.Error as error:
            if _is_lost(error, session):
                if batch.writes:
                    self._outcomes.lost(self._number, fns, answers)
                session.close()
                raise self._unavailable(error, "whether this was written is not known") from error
            raise
        if batch.writes:
            self._acknowledged = self._number
        if batch.took:
            self._listener.took()

    def _judge(self, session: Session, error: psycopg.Error) -> None:
        """Says what an error of the server means for the batch."""
        if error.sqlstate in _IN_THE_WAY or error.diag.constraint_name == "runs_seq_key":
            raise InTheWay from error
        if _is_lost(error, session):
            session.close()
        raise self._unavailable(error, "nothing of this was written") from error

    def _find_out(self, session: Session) -> None:
        """Looks what became of a COMMIT whose answer was lost: a batch writes its number in its own transaction.

        The server may not even have read it yet. So this waits for that transaction, and writes a higher number where it has not
        written its own: from then on it cannot.
        """
        try:
            session.look_at_the_clock()
            if self._outcomes.unknown is None:
                return
            self._number += 1
            numbers = (str(self._outcomes.unknown), str(self._number))
            [(written,)] = session.ask(SQL["settle_batch"], (self._writer, *numbers))
            [(self._acknowledged,)] = session.ask(SQL["batch"], (self._writer,))
        except psycopg.Error as error:
            session.close()
            raise self._unavailable(error, "whether the last batch was written is not known") from error
        self._outcomes.found(written)

    def _next_seq(self) -> int:
        """Returns the order of triggering: microseconds of the server's clock, and who counts them."""
        self._seq = max(self._seq + 1, int(self.now() * 1e6))
        return self._seq << _TAG_BITS | self._tag

    # ---- the connection
    def _connected(self) -> Session:
        if not self._users:
            raise JournalError(f"journal {self} is not open")
        if self._session is None or not self._session.alive:
            if self._session is not None:
                self._session.close()
            self._session = None
            try:
                self._use(reconnect(self._dsn, self.schema))
            except JournalUnavailable:
                raise
            except JournalError as error:
                raise JournalUnavailable(str(error)) from error
        assert self._session is not None
        return self._session

    def _use(self, connection: Connection) -> None:
        self._forget_rows()
        try:
            session = Session(connection)
            self._notice_loss(session)
        except psycopg.Error as error:
            connection.close()
            raise self._unavailable(error, "the connection was lost") from error
        self._session = session

    def _notice_loss(self, session: Session) -> None:
        """Fences the engines of this store where the server has forgotten what it had acknowledged: they begin again.

        It may be a standby that was behind, or an older backup: what engines keep in memory is no longer true.
        """
        if not self._acknowledged:
            return
        [(there,)] = session.ask(SQL["batch"], (self._writer,))
        if there < self._acknowledged:
            logger.error(
                "journal %s: the server has lost %d acknowledged writes of this process; its runs begin again from what is there",
                self,
                self._acknowledged - there,
            )
            self._acknowledged = there
            self._lost_engines |= self._engines
            self._outcomes = Outcomes()

    def _roll_back(self, session: Session) -> None:
        self._forget_rows()
        session.roll_back()

    def _cut_off(self, session: Session) -> None:
        """Ends sessions of other engines that stand still within a transaction, such as that of a process that was stopped."""
        try:
            for done, pid in session.ask(SQL["cut_off"], (APPLICATION, str(STANDSTILL))):
                logger.warning(
                    "journal %s: session %s stood still within a transaction, and was ended: %s", self, pid, done
                )
        except psycopg.Error as error:  # such as that of another user
            logger.warning("journal %s: what is in the way cannot be ended: %s", self, said(error))

    def _forget_rows(self) -> None:
        self._rows.clear()
        self._versions.clear()
        self._facts.clear()

    def _unavailable(self, error: psycopg.Error, outcome: str) -> JournalUnavailable:
        return JournalUnavailable(f"journal {self}: {outcome} ({said(error)})")

    def __str__(self) -> str:
        return shown(self._dsn)


def _spoils(error: psycopg.Error) -> bool:
    """Whether an error is the fault of a statement's own values."""
    if error.sqlstate is None:
        return isinstance(error, psycopg.DataError | psycopg.ProgrammingError | psycopg.NotSupportedError)
    return (
        error.sqlstate.startswith(_SPOILT)
        and error.sqlstate not in _IN_THE_WAY
        and error.diag.constraint_name != "runs_seq_key"
    )


def _is_lost(error: psycopg.Error, session: Session) -> bool:
    """Whether the connection is lost, and with it the answer.

    An error without a code is not the server's: psycopg may take a connection that breaks for one that is alive. A session whose
    prepared statements are gone, such as by a pooler's `DISCARD ALL`, is of no use either.
    """
    if error.sqlstate is None:
        return not _spoils(error) or session.connection.closed or session.connection.broken
    return session.connection.closed or error.sqlstate.startswith(("08", "57P")) or error.sqlstate in ("25P03", "26000")
