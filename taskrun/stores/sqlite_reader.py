"""Reading a SQLite journal beside whoever writes to it: on a read-only connection of aiosqlite, which keeps nobody out.

A journal without a write-ahead log is opened as a file that does not change, so that nothing is made beside it, not even in a
folder that cannot be written to; that it did not change is looked at afterwards. One with a log is read through SQLite's own
locks. What only a connection that writes can read, an older journal or a log on a full disk, is left to `SqliteStorage`.
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Final, TypeVar

import aiosqlite

from taskrun.model.errors import JournalError
from taskrun.stores.base import Tx
from taskrun.stores.highwater import HighWater
from taskrun.stores.sqlite_backup import PAGES, PAUSE, Progress, counting, new_copy
from taskrun.stores.sqlite_open import JournalFile, OlderJournal, primary
from taskrun.stores.sqlite_tx import SQL, SqliteTx

T = TypeVar("T")
TRIES = 5  # of a journal that changes while it is read
_HELP: Final = "whoever may write there has to open it once (`taskrun daemon start`)"
_NEEDS_A_WRITER: Final = frozenset({sqlite3.SQLITE_READONLY, sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_IOERR})


class NeedsWriter(Exception):
    """A journal that only a connection that writes can open: an older one, or one whose log cannot be read beside others."""


class _Connection(aiosqlite.Connection):
    """Runs a function whole on the connection's thread: several awaits would each see another state of the journal."""

    def __init__(self, journal: JournalFile, still: bool) -> None:
        super().__init__(self._open, 64)
        self._journal = journal
        self._still = still
        self.refused: Exception | None = None

    def _open(self) -> sqlite3.Connection:
        """Keeps why the journal cannot be opened: aiosqlite itself, when this raises, ends its thread unawaited."""
        try:
            return self._journal.open_to_read(self._still)
        except Exception as error:
            self.refused = error
            return sqlite3.connect(":memory:", check_same_thread=False)

    async def read(self, fn: Callable[[Tx], T]) -> T:
        answer: T = await self._execute(self._read, fn)  # type: ignore[no-untyped-call]
        return answer

    def _read(self, fn: Callable[[Tx], T]) -> T:
        self._conn.execute("BEGIN")
        try:
            return fn(SqliteTx(self._conn))
        finally:
            self._conn.execute("ROLLBACK")


class JournalReader:
    """Reads one journal; it is opened with the first read."""

    def __init__(self, path: str | os.PathLike[str]) -> None:
        file = Path(path).resolve()
        self._journal = JournalFile(file, "full", True, HighWater(str(file)))
        self._connection: _Connection | None = None
        # what the file was known by, where it is read as one that does not change
        self._still: tuple[int, ...] | None = None

    async def read(self, fn: Callable[[Tx], T]) -> T:
        """Returns what `fn` reads, all of it in one state of the journal.

        Raises:
            NeedsWriter: `SqliteStorage` has to open it.
            JournalNewer, JournalDamaged, JournalLocked, JournalError: each says what helps.
        """
        return await self._undisturbed(lambda source: source.read(fn))

    async def backup(self, path: str | os.PathLike[str], progress: Progress | None = None) -> None:
        """Copies the journal, as it is now, into a new file, while others go on writing to it.

        Raises:
            JournalError: the file is there already, or cannot be written.
            NeedsWriter, JournalNewer, JournalDamaged, JournalLocked: as `read`.
        """
        await self._undisturbed(lambda source: self._copy(source, path, progress))

    async def _copy(self, source: _Connection, path: str | os.PathLike[str], progress: Progress | None) -> None:
        await source.execute("BEGIN")  # one state of it to the end, whatever others write meanwhile
        try:
            ((commits,),) = await source.execute_fetchall(SQL["commits"])
            with new_copy(path, commits) as target:
                await source.backup(target, pages=PAGES, progress=counting(progress), sleep=PAUSE)
                if self._differs():  # the copy may have pages of two states, and is not kept
                    raise JournalError(f"journal {self._journal.path} changed while it was copied")
        finally:
            await source.execute("ROLLBACK")

    async def _undisturbed(self, act: Callable[[_Connection], Awaitable[T]]) -> T:
        """Returns what is read; begins anew where a file that was taken not to change has changed meanwhile."""
        for _ in range(TRIES):
            try:
                value = await act(await self._open())
            except (sqlite3.Error, OlderJournal, JournalError) as error:
                if not await self._has_changed():
                    raise (error if isinstance(error, JournalError) else self._refused(error)) from error
            else:
                if not await self._has_changed():
                    return value
        raise JournalError(f"journal {self._journal.path}: it keeps changing while it is read; try again")

    async def close(self) -> None:
        """Ends the connection."""
        connection, self._connection = self._connection, None
        if connection is not None:
            await connection.close()

    async def _open(self) -> _Connection:
        if self._connection is None:
            self._still = self._journal.standing_still()
            still = self._still is not None
            connection = _Connection(self._journal, still)
            await connection
            if connection.refused is not None:
                await connection.close()
                raise connection.refused
            self._connection = connection
        return self._connection

    async def _has_changed(self) -> bool:
        """Tells whether a file that was taken not to change has changed; the next read opens it anew."""
        changed = self._differs()
        if changed:
            await self.close()
        return changed

    def _differs(self) -> bool:
        return self._still is not None and self._still != self._journal.standing_still()

    def _refused(self, error: sqlite3.Error | OlderJournal) -> Exception:
        """Returns the error that says in our words why the journal cannot be read like this."""
        if isinstance(error, sqlite3.Error) and primary(error) not in _NEEDS_A_WRITER:
            return self._journal.explained(error)
        if os.access(self._journal.path.parent, os.W_OK):
            return NeedsWriter(self._journal.path)
        why = "is of an older taskrun" if isinstance(error, OlderJournal) else "was not closed in order"
        return JournalError(f"journal {self._journal.path} {why}, and its folder cannot be written to: {_HELP}")
