"""One connection to a Postgres journal, and the statements that wait for its next round trip.

Statements whose answer nobody needs yet are queued, and go out as one pipeline with the next one that is asked.
"""

from __future__ import annotations

import re
import select
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any, Final

import psycopg
from psycopg import errors, sql

from taskrun.stores.queries import named_queries

SQL: Final = named_queries("postgres.sql")
UNLOCKED: Final = {name: re.sub(r"\s+FOR (?:NO KEY UPDATE|KEY SHARE).*", "", text) for name, text in SQL.items()}
Result = Callable[["psycopg.Cursor[tuple[Any, ...]]"], None]
Statement = tuple[str, Sequence[Any], Result | None]

ONCE: Final = "force_generic_plan"
STANDSTILL: Final = 5.0  # seconds that others wait for one that does nothing within its transaction
APPLICATION: Final = "taskrun"
# An engine that is stopped within a transaction must not hold its locks for longer than others wait for its lease.
SETTINGS: Final = {
    "default_transaction_isolation": "read committed",
    "default_transaction_read_only": "off",
    "lock_timeout": "300ms",
    "idle_in_transaction_session_timeout": f"{STANDSTILL:g}s",
    "client_min_messages": "warning",
    "standard_conforming_strings": "on",
}
KEPT_ALIVE: Final = {
    "connect_timeout": "10",
    "keepalives_idle": "10",
    "keepalives_interval": "5",
    "keepalives_count": "3",
    "tcp_user_timeout": "15000",
    "application_name": APPLICATION,
}
_NOT_KNOWN: Final = (errors.UndefinedObject, errors.InvalidParameterValue, errors.FeatureNotSupported)
LOOK_AGAIN: Final = 10.0  # seconds between two comparisons of the clocks
LOOKS: Final = 3


def connect(dsn: str, schema: str) -> psycopg.Connection[tuple[Any, ...]]:
    """Returns a connection that sees the journal's schema alone.

    Raises:
        psycopg.Error: it cannot be had.
    """
    given = psycopg.conninfo.conninfo_to_dict(dsn)
    whole = psycopg.conninfo.make_conninfo(
        dsn, **{name: value for name, value in KEPT_ALIVE.items() if name not in given}
    )
    # With the first use: psycopg checks only then that the server, which skips what is behind a failure, has come to it.
    connection = psycopg.connect(whole, autocommit=True, prepare_threshold=0, cursor_factory=psycopg.RawCursor)
    try:
        connection.prepared_max = 200
        connection.execute(sql.SQL("SET search_path TO {}").format(sql.Identifier(schema)), prepare=False)
        for setting, value in SETTINGS.items():
            connection.execute("SELECT set_config($1, $2, false)", (setting, value))
        with suppress(*_NOT_KNOWN):
            connection.execute(SQL["plan_once"], (False,))
    except BaseException:
        connection.close()
        raise
    return connection


class Session:
    """A connection, what is queued for it, and what the server's clock says."""

    def __init__(self, connection: psycopg.Connection[tuple[Any, ...]]) -> None:
        self.connection = connection
        self._queue: list[Statement] = []
        self._cursor = connection.cursor()
        self._ahead = 0.0  # of the server's clock, to this process's monotonic one
        self._looked = -LOOK_AGAIN
        self._slept = 0.0  # by the machine, which the monotonic clock may not count
        self.look_at_the_clock()
        [(mode,)] = self.ask(SQL["plan_mode"], ())
        self._plans = mode == ONCE  # as asked for; not where the server is another one that does not know of it

    def now(self) -> float:
        """Returns the server's time."""
        return time.monotonic() + self._ahead

    def look_at_the_clock(self) -> None:
        """Compares the clocks now and then: the server answered somewhere between a question and its answer."""
        slept = time.time() - time.monotonic()
        if time.monotonic() - self._looked < LOOK_AGAIN and abs(slept - self._slept) < 1.0:
            return
        best = LOOK_AGAIN
        for _ in range(LOOKS):
            asked = time.monotonic()
            [(server,)] = self.ask(SQL["now"], ())
            answered = time.monotonic()
            if answered - asked < best:
                best = answered - asked
                self._ahead = server - (asked + answered) / 2
        self._looked, self._slept = answered, slept

    def put(self, query: str, values: Sequence[Any] = (), result: Result | None = None) -> None:
        """Queues a statement; `result` is called with its cursor."""
        self._queue.append((query, values, result))

    @property
    def queued(self) -> bool:
        """Whether statements are queued."""
        return bool(self._queue)

    def drop_queued(self) -> None:
        """Forgets what is queued."""
        self._queue.clear()

    def ask(self, query: str, values: Sequence[Any]) -> list[tuple[Any, ...]]:
        """Sends what is queued, then a query; returns its rows."""
        if not self._queue:
            return self._cursor.execute(query, values).fetchall()
        rows: list[tuple[Any, ...]] = []
        self.put(query, values, lambda cursor: rows.extend(cursor.fetchall()))
        self.send()
        return rows

    def ask_for_values(self, query: str, values: Sequence[Any]) -> list[tuple[Any, ...]]:
        """Like `ask`, within a transaction, for a query whose best plan depends on the values."""
        if not self._plans:
            return self.ask(query, values)
        self.put(SQL["plan_for_values"])
        rows = self.ask(query, values)
        self.put(SQL["plan_once"], (True,))
        return rows

    def send(self) -> None:
        """Sends what is queued in one round trip.

        Raises:
            psycopg.Error: of the first statement that failed; those behind it were not executed.
        """
        queue, self._queue = self._queue, []
        sent: list[tuple[psycopg.Cursor[tuple[Any, ...]], Result | None]] = []
        first: psycopg.Error | None = None  # kept out of the pipeline's end, which would log what follows from it
        try:
            with self.connection.pipeline():
                try:
                    for query, values, result in queue:
                        cursor = self.connection.cursor()
                        cursor.execute(query, values)
                        sent.append((cursor, result))
                except psycopg.Error as error:
                    first = error
        except psycopg.Error as error:
            raise first or error from None
        if first is not None:
            raise first
        if any(
            cursor.pgresult is None for cursor, _ in sent
        ):  # psycopg says nothing of it where the connection was lost
            self.connection.close()
            raise psycopg.OperationalError("the connection was lost before the server had answered all of it")
        for cursor, result in sent:
            if result is not None:
                result(cursor)

    def roll_back(self, savepoint: str | None = None) -> None:
        """Ends the transaction, or goes back to a savepoint; a connection that cannot even do that is closed.

        Past psycopg, which after a ROLLBACK has the server forget all prepared statements: those of a journal stay as they are.
        """
        self._queue.clear()
        try:
            if self.connection.info.transaction_status != psycopg.pq.TransactionStatus.IDLE:
                command = "ROLLBACK" if savepoint is None else f"ROLLBACK TO {savepoint}"
                done = self.connection.pgconn.exec_(command.encode())
                if done.status != psycopg.pq.ExecStatus.COMMAND_OK:
                    self.connection.close()
        except psycopg.Error:
            self.connection.close()

    @property
    def alive(self) -> bool:
        """Whether the connection is still there, as far as this side knows without asking."""
        if self.connection.closed:
            return False
        poll = select.poll()
        poll.register(self.connection.fileno(), select.POLLIN)
        return not poll.poll(0)

    def close(self) -> None:
        """Closes the connection."""
        self.connection.close()
