"""A journal in Postgres as one side of a copy: one transaction, alone."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from typing import Final

import psycopg

from taskrun.model.errors import JournalError, JournalUnavailable
from taskrun.stores.journal_copy import BATCH, COLUMNS, ORDER, InUse, Row
from taskrun.stores.postgres_names import lock_number
from taskrun.stores.postgres_open import SCHEMA, is_absent, open_journal, reconnect, said, shown

SEQUENCES: Final = {"steps": "n", "events": "seq"}


class PostgresSide:
    """A schema on a server, on which no engine is alive meanwhile."""

    def __init__(self, dsn: str, source: bool, schema: str = SCHEMA) -> None:
        self.name = shown(dsn)
        if source:
            with reconnect(dsn, schema) as looking:
                if is_absent(looking, schema):
                    raise JournalError(f"there is no journal at {self.name}")
        self._connection = open_journal(dsn, schema)
        try:
            # Before the transaction begins, whose state of the journal is that of its first query.
            self._connection.execute("SELECT pg_advisory_lock($1::bigint)", (str(lock_number(schema, "all")),))
            # It is no engine, which others may cut off.
            self._connection.execute("SET application_name = 'taskrun journal copy'")
            self._connection.execute("BEGIN ISOLATION LEVEL REPEATABLE READ")
            self._connection.execute("SET LOCAL idle_in_transaction_session_timeout = 0")
            alive = self._connection.execute(
                "SELECT host, pid FROM engines WHERE lease_until > extract(epoch FROM clock_timestamp())"
            )
            if (engine := alive.fetchone()) is not None:
                raise InUse(f"{self.name} is in use by pid {engine[1]} on {engine[0]}; stop it, or wait for its lease")
        except psycopg.errors.LockNotAvailable:
            self.close()
            raise InUse(f"{self.name} is in use") from None
        except BaseException:
            self.close()
            raise

    def count(self, table: str) -> int:
        with self._faults_said():
            return int(self._connection.execute(f"SELECT count(*) FROM {table}").fetchall()[0][0])  # noqa: S608

    def rows(self, table: str) -> Iterator[Row]:
        names = ", ".join(f'"{name}"' for name in COLUMNS[table])
        with self._faults_said(), psycopg.RawServerCursor(self._connection, f"copy_{table}") as cursor:
            cursor.itersize = BATCH
            cursor.execute(f"SELECT {names} FROM {table} ORDER BY {ORDER[table]}")  # noqa: S608
            yield from cursor

    def fill(self, table: str, rows: Iterable[Row]) -> None:
        names = ", ".join(f'"{name}"' for name in COLUMNS[table])
        with self._faults_said(), self._connection.cursor().copy(f"COPY {table} ({names}) FROM STDIN") as copying:
            for row in rows:
                copying.write_row(row)

    def finish(self) -> None:
        with self._faults_said():
            for table, column in SEQUENCES.items():
                self._connection.execute(
                    f"SELECT setval(pg_get_serial_sequence('{table}', '{column}'),"  # noqa: S608
                    f" (SELECT greatest(1, coalesce(max({column}), 1)) FROM {table}))"
                )
            self._connection.execute("COMMIT")
        with suppress(psycopg.Error):  # it is copied
            self._connection.execute("ANALYZE")

    @contextmanager
    def _faults_said(self) -> Iterator[None]:
        try:
            yield
        except psycopg.Error as error:
            raise JournalUnavailable(f"{self.name} could not be copied ({said(error)}); begin again") from error

    def close(self) -> None:
        self._connection.close()
