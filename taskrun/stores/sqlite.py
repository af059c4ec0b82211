"""The journal in a SQLite file: one connection, one lock, every batch one `BEGIN IMMEDIATE` … `COMMIT`.

A batch runs whole in the thread that calls. Verbs are in `sqlite_tx`, opening is in `sqlite_open`.
"""

from __future__ import annotations

import os
import sqlite3
import threading
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

from taskrun.model.errors import DefinitionError, JournalError, JournalUnavailable
from taskrun.stores.base import Answer, Tx
from taskrun.stores.highwater import HighWater
from taskrun.stores.outcomes import Outcomes
from taskrun.stores.sqlite_backup import PAGES, PAUSE, Progress, counting, new_copy
from taskrun.stores.sqlite_open import JournalFile, Synchronous, name, value
from taskrun.stores.sqlite_tx import SQL, SqliteTx

Fn = Callable[[Tx], Any]
Guard = Callable[[Tx], None]

# What SQLite says about a statement or its values, not about the disk: the fault of the fn alone.
_FAULTS_OF_FN: Final = (
    sqlite3.IntegrityError,
    sqlite3.DataError,
    sqlite3.ProgrammingError,
    sqlite3.InterfaceError,
    sqlite3.NotSupportedError,
)


class SqliteStorage:
    """Keeps the journal in a SQLite file.

    Parameters:
        path: the file; it and missing folders are made, for the owner alone.
        synchronous: `"full"`: what was acknowledged survives power loss; `"normal"`: it survives the process, and
            power loss may take the newest part.
        exclusive: no other process may open it while this one has it open.
    """

    instant = False
    clock = None
    pace = 0.1

    def __init__(
        self,
        path: str | os.PathLike[str],
        synchronous: Synchronous = "full",
        exclusive: bool = False,
    ) -> None:
        if synchronous not in ("full", "normal"):
            raise ValueError(f'synchronous must be "full" or "normal", not {synchronous!r}')
        file = Path(path).resolve()  # SQLite too puts its files beside the target of a link
        self._high = HighWater(str(file))
        self._journal = JournalFile(file, synchronous, exclusive, self._high)
        self._lock = threading.Lock()
        self._users = 0
        self._connections = 0
        self._connection: sqlite3.Connection | None = None
        self._tx: SqliteTx
        self.written = 0
        self._writer = os.urandom(8).hex()
        self._outcomes = Outcomes()
        self._version = 0  # of the journal as other connections have changed it
        self._changes = 0  # of the connection, when the transaction began
        self._wrote = False  # whether the batch that is to be committed changes anything
        self._token: tuple[int, int] = (0, 0)

    @property
    def shared(self) -> bool:
        """Whether another process may write to it at the same time."""
        return not self._journal.exclusive

    @property
    def place(self) -> str:
        """The path of the journal."""
        return str(self._journal.path)

    address = place

    def open(self) -> None:
        """Opens it, migrating an older journal. Counted: the n-th `open` only adds a user.

        Raises:
            JournalNewer: a newer taskrun wrote it.
            JournalDamaged: it is no journal, damaged, or shorter than it was.
            JournalLocked: another process has it open.
            JournalError: it cannot be made or opened.
        """
        with self._lock:
            if not self._users:
                self._use(self._journal.open())
            self._users += 1

    def close(self) -> None:
        """Closes it when its last user closes."""
        with self._lock:
            self._users = max(0, self._users - 1)
            if not self._users and self._connection is not None:
                self._last_mark(self._connection)
                self._sign_off(self._connection)
                self._drop_connection()
                self._high.seal()

    def check(self) -> None:
        """Reads the whole journal through, which opening does only where it was not closed in order.

        Raises:
            JournalDamaged: it is damaged.
        """
        with self._lock:
            try:
                self._journal.read_through(self._connected())
            except sqlite3.Error as error:
                raise self._journal.explained(error) from error

    def backup(self, path: str | os.PathLike[str], progress: Progress | None = None) -> None:
        """Copies the journal into a new file while it goes on being written to. Blocks: call it from a thread of its own.

        Raises:
            JournalError: the file is there already, or cannot be written.
            JournalUnavailable: the disk refuses; nothing is left of the copy.
        """
        with self._lock:
            source = self._connected()
            commits = int(value(source, SQL["commits"]))

        def copied(done: int, whole: int) -> None:
            if self._connection is not source:
                raise JournalUnavailable(f"journal {self.place}: the disk refused while it was copied")
            if progress is not None:
                progress(done, whole)

        with new_copy(path, commits) as target:
            source.backup(target, pages=PAGES, progress=counting(copied), sleep=PAUSE)

    def apply(self, fns: Sequence[Fn], guard: Guard | None = None) -> list[Answer]:
        """Runs `fns` in one durable transaction; returns for each its value, or the exception that it raised.

        `guard` runs first; if it raises, nothing of the batch is run and `apply` raises the same.

        Raises:
            JournalUnavailable: nothing is known of the outcome (a failed COMMIT), or nothing could be written. The same
                functions may be given again: what turns out to have been written is not run a second time.
        """
        with self._lock:
            connection = self._connected()
            self._find_out(connection)
            try:
                answers = self._batch(connection, fns, guard)
                mark = self._bump(connection)
            except sqlite3.Error as error:
                self._roll_back(connection)
                raise self._unavailable(error, "nothing of this was written") from error
            except BaseException:
                self._roll_back(connection)
                self._outcomes.forget(fns)
                raise
            self._commit(connection, fns, answers)
            self._outcomes.forget(fns)
            if mark and (self._journal.synchronous == "full" or self._synced(connection)):
                self._high.write(mark)
            return answers

    def outside(self) -> object:
        """Returns a token that differs once another connection has written; the last one while a batch is under way."""
        if self.shared and self._lock.acquire(blocking=False):
            try:
                self._look_outside()
            finally:
                self._lock.release()
        return self._token

    def follow(self, engine: str, jobs: Sequence[str], call: Callable[[], None], ready: Callable[[], None]) -> None:
        """Hears of nothing: `outside` is polled."""

    def unfollow(self, call: Callable[[], None]) -> None:
        """Has nothing to forget."""

    async def enlist(self, connection: Any, key: str, value: str, job: str) -> None:
        """Raises DefinitionError: nobody else has a transaction here."""
        raise DefinitionError("connection= needs a PostgresStorage, in whose database the connection is")

    # ---- a batch
    def _batch(self, connection: sqlite3.Connection, fns: Sequence[Fn], guard: Guard | None) -> list[Answer]:
        """Runs a batch straight through; once one raises, all the others again, each behind a savepoint."""
        self._begin(connection, guard)
        known = self._outcomes.known(fns)
        answers: list[Answer] = []
        for fn, done in zip(fns, known, strict=True):
            answer = done or self._answer(connection, fn)
            if answer[1] is not None and done is None:
                connection.execute("ROLLBACK")
                self._tx.forget()
                self._begin(connection, guard)
                known[len(answers)] = answer
                return [done or self._alone(connection, fn) for fn, done in zip(fns, known, strict=True)]
            answers.append(answer)
        return answers

    def _alone(self, connection: sqlite3.Connection, fn: Fn) -> Answer:
        connection.execute("SAVEPOINT one")
        before = connection.total_changes
        answer = self._answer(connection, fn)
        if answer[1] is not None:
            connection.execute("ROLLBACK TO one")
            self._tx.forget()
            self._changes += connection.total_changes - before  # what was undone is no change
        connection.execute("RELEASE one")
        return answer

    def _answer(self, connection: sqlite3.Connection, fn: Fn) -> Answer:
        try:
            answer: Answer = fn(self._tx), None
        except _FAULTS_OF_FN as error:
            answer = None, error
        except sqlite3.Error:
            raise
        except Exception as error:
            answer = None, error
        if not connection.in_transaction:  # an fn swallowed an error that ended it: what follows would commit by itself
            raise sqlite3.OperationalError("the transaction is over")
        return answer

    def _begin(self, connection: sqlite3.Connection, guard: Guard | None) -> None:
        connection.execute("BEGIN IMMEDIATE")
        if self.shared and (version := value(connection, "PRAGMA data_version")) != self._version:
            self._version = version
            self._tx.forget()
        self._changes = connection.total_changes
        if guard is not None:
            guard(self._tx)

    def _bump(self, connection: sqlite3.Connection) -> int:
        """Counts a batch that wrote; returns its number when it is time to mark it, else 0."""
        self._wrote = connection.total_changes != self._changes
        if not self._wrote:
            return 0
        self.written += 1
        connection.execute(SQL["bump_commits"])
        connection.execute(SQL["bump_batch"], (self._writer, self.written))
        return int(value(connection, SQL["commits"])) if self._high.due() else 0

    def _commit(self, connection: sqlite3.Connection, fns: Sequence[Fn], answers: list[Answer]) -> None:
        try:
            connection.execute("COMMIT")
        except sqlite3.Error as error:
            if self._wrote:
                self._outcomes.lost(self.written, fns, answers)
            self._drop_connection()
            with suppress(JournalError):
                self._use(self._journal.reopen())
            raise self._unavailable(error, "whether this was written is not known") from error

    def _find_out(self, connection: sqlite3.Connection) -> None:
        """Looks what became of a COMMIT that failed. A batch writes its number in its own transaction, so the journal knows."""
        if self._outcomes.unknown is None:
            return
        try:
            written = connection.execute(SQL["batch"], (self._writer, self._outcomes.unknown)).fetchone() is not None
            if written:
                connection.execute("PRAGMA wal_checkpoint(FULL)")  # what was not synced then is synced now
        except sqlite3.Error as error:
            raise self._unavailable(error, "whether the last batch was written is not known") from error
        self._outcomes.found(written)

    def _sign_off(self, connection: sqlite3.Connection) -> None:
        with suppress(sqlite3.Error):
            if self.written:
                connection.execute(SQL["drop_batch"], (self._writer,))

    # ---- the mark
    def _synced(self, connection: sqlite3.Connection) -> bool:
        """Syncs what others, or commits at NORMAL, left unsynced; False when another process is at it."""
        try:
            return not value(connection, "PRAGMA wal_checkpoint(PASSIVE)")
        except sqlite3.Error:
            return False

    def _last_mark(self, connection: sqlite3.Connection) -> None:
        with suppress(sqlite3.Error):
            commits = int(value(connection, SQL["commits"]))
            if commits > self._high.read() and self._synced(connection):  # who has only read syncs nothing
                self._high.write(commits)

    # ---- the connection
    def _connected(self) -> sqlite3.Connection:
        if not self._users:
            raise JournalError(f"journal {self.place} is not open")
        if self._connection is None:
            try:
                self._use(self._journal.reopen())
            except JournalError as error:
                raise JournalUnavailable(str(error)) from error
        assert self._connection is not None
        return self._connection

    def _use(self, connection: sqlite3.Connection) -> None:
        self._connection = connection
        self._connections += 1
        self._tx = SqliteTx(connection)

    def _drop_connection(self) -> None:
        if self._connection is not None:
            with suppress(sqlite3.Error):
                self._connection.close()
        self._connection = None

    def _roll_back(self, connection: sqlite3.Connection) -> None:
        """Ends the transaction; a connection that cannot even do that is given up."""
        try:
            self._tx.forget()
            if connection.in_transaction:
                connection.execute("ROLLBACK")
        except sqlite3.Error:
            self._drop_connection()

    def _look_outside(self) -> None:
        if self._connection is not None:
            with suppress(sqlite3.Error):
                self._token = (self._connections, value(self._connection, "PRAGMA data_version"))

    def _unavailable(self, error: sqlite3.Error, outcome: str) -> JournalUnavailable:
        return JournalUnavailable(f"journal {self.place}: {outcome} ({name(error)}: {error})")
