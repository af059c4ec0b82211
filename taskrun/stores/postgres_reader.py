"""Reading a journal in Postgres beside everybody: each query one function run whole, in a transaction that only reads."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from typing import TypeVar

import psycopg

from taskrun.model.errors import JournalUnavailable
from taskrun.stores.base import Tx
from taskrun.stores.postgres_batch import Batch, Beside
from taskrun.stores.postgres_open import SCHEMA, is_absent, open_journal, reconnect, said, shown
from taskrun.stores.postgres_session import Session
from taskrun.stores.postgres_tx import PostgresTx
from taskrun.stores.row_cache import RowCache

T = TypeVar("T")


class PostgresReader:
    """Reads one journal, on a standby too; it is opened with the first read, and migrated if it is of an older taskrun."""

    def __init__(self, dsn: str, schema: str = SCHEMA) -> None:
        self._dsn = dsn
        self._schema = schema
        self._session: Session | None = None
        self._lock = threading.Lock()

    async def read(self, fn: Callable[[Tx], T]) -> T | None:
        """Returns what `fn` reads, all of it in one state of the journal; None where there is no journal.

        Raises:
            JournalNewer, JournalUnavailable, JournalError: each says what helps.
        """
        return await asyncio.to_thread(self._read, fn)

    async def close(self) -> None:
        """Ends the connection."""
        if self._session is not None:
            self._session.close()
            self._session = None

    def _read(self, fn: Callable[[Tx], T]) -> T | None:
        with self._lock:
            if self._session is None:
                connection = reconnect(self._dsn, self._schema, writes=False)
                absent = is_absent(connection, self._schema)
                connection.close()
                if absent:
                    return None
                self._session = Session(open_journal(self._dsn, self._schema, writes=False))
            session = self._session
            try:
                return fn(PostgresTx(Batch(session, self._schema, Beside.READING, RowCache(), {}, {}, set()), _no_seq))
            except psycopg.Error as error:
                self._session = None
                raise JournalUnavailable(f"journal {shown(self._dsn)}: it cannot be read ({said(error)})") from error
            finally:
                session.roll_back()


def _no_seq() -> int:
    raise AssertionError("a reader writes nothing")
