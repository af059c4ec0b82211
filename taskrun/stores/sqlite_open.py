"""Opening a SQLite journal: what must hold before the first transaction. `SqliteStorage` is its only caller.

Order: mark, file, a look through a read-only connection (which neither writes nor folds the write-ahead log on close,
so that a refused journal stays as it is), then the connection for good, then migrations.
"""

from __future__ import annotations

import os
import sqlite3
import threading
import time
from contextlib import closing, suppress
from pathlib import Path
from typing import Any, Final, Literal
from urllib.parse import quote

import msgspec

from taskrun.model.durations import human_size
from taskrun.model.errors import JournalDamaged, JournalError, JournalLocked, JournalNewer, JournalUnavailable
from taskrun.stores.highwater import HighWater, log_size
from taskrun.stores.queries import migrations, statements
from taskrun.stores.sqlite_tx import SQL

Synchronous = Literal["full", "normal"]

APPLICATION_ID: Final = 0x7461736B  # "task"
MIGRATIONS: Final = migrations("migrations")
BUSY: Final = 10.0  # seconds a transaction waits for other processes
_OPENING = {True: 0.5, False: 2.0}  # seconds that opening (exclusively or not) waits for them
_NAP = 0.02
_PAGE: Final = 4096  # bytes: SQLite's own default since 2016

# Closing any descriptor of a file drops all locks that the process has on it: no thread may make a journal while
# another one opens it.
_making = threading.Lock()


class OlderJournal(Exception):
    """A journal that an older taskrun wrote, or whose making was cut off: only a connection that writes can open it."""


class JournalFile(msgspec.Struct, frozen=True):
    """Where a journal is, and how to open it."""

    path: Path
    synchronous: Synchronous
    exclusive: bool
    high: HighWater

    def open(self) -> sqlite3.Connection:
        """Returns a connection to a sound journal of today's version, made or migrated where needed.

        Raises:
            JournalNewer, JournalDamaged, JournalLocked, JournalUnavailable, JournalError: nothing was changed.
        """
        mark = self.high.read()
        try:
            self._make(mark)
        except OSError as error:
            raise JournalError(f"cannot create the journal {self.path}: {error.strerror}. {_HELP_FOLDER}") from error
        return self._patiently(mark)

    def standing_still(self) -> tuple[int, ...] | None:
        """Returns what the file is known by; None where it has a log, or where there is none that SQLite closed in order."""
        try:
            found = self.path.stat()
        except OSError:
            return None
        if any(Path(f"{self.path}{end}").exists() for end in ("-wal", "-journal")):
            return None
        return found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns

    def open_to_read(self, still: bool) -> sqlite3.Connection:
        """Returns a connection that reads a journal of today's version, and has not read it through.

        Parameters:
            still: the file has no log and nobody writes to it: nothing is locked, and nothing made beside it.

        Raises:
            OlderJournal: it has to be migrated first.
            JournalNewer, JournalDamaged: as `open`.
        """
        mark = self.high.read()
        connection = _connection(self.path, "ro", "&immutable=1" if still else "")
        try:
            connection.execute(f"PRAGMA busy_timeout = {int(_OPENING[True] * 1000)}")
            self._check_kind(connection)
            if version(connection) < max(MIGRATIONS):
                raise OlderJournal
            if (commits := value(connection, SQL["commits"])) < mark:
                raise self._shorter(mark, commits)
        except BaseException:
            connection.close()
            raise
        return connection

    def reopen(self) -> sqlite3.Connection:
        """Returns a new connection to a journal that was open before."""
        try:
            return self._connect()
        except sqlite3.Error as error:
            raise self.explained(error) from error

    def read_through(self, connection: sqlite3.Connection) -> None:
        """Reads every page of the journal. Raises JournalDamaged."""
        if (answer := value(connection, "PRAGMA quick_check(1)")) != "ok":
            raise JournalDamaged(f"journal {self.path}: {_DAMAGED} ({answer})")

    def explained(self, error: sqlite3.Error) -> JournalError:
        """Returns the error that says in our words why the journal cannot be opened."""
        kind, text = _REASONS.get(primary(error), (JournalError, "it cannot be opened"))
        return kind(f"journal {self.path}: {text} ({name(error)}: {error})")

    # ---- the file
    def _make(self, mark: int) -> None:
        """Makes the file, private from its first moment: SQLite gives its log the same mode."""
        with _making:
            if self.path.exists():
                return
            _refuse_a_log_alone(self.path)
            if mark:
                raise self._shorter(mark, 0)
            _make_folder(self.path.parent)
            with suppress(FileExistsError):  # another process was faster
                os.close(os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
            sync(self.path.parent)

    # ---- looking
    def _patiently(self, mark: int) -> sqlite3.Connection:
        """Others that open, migrate or close the journal just now are waited for, a moment."""
        deadline = time.monotonic() + _OPENING[self.exclusive]
        while True:
            try:
                looked = self._look(mark)
                return self._connect(None if looked else mark)
            except sqlite3.Error as error:
                if primary(error) not in _LOCKED or time.monotonic() >= deadline:
                    raise self.explained(error) from error
            time.sleep(_NAP)

    def _look(self, mark: int) -> bool:
        """Inspects the journal and touches nothing; False where only the connection that writes can look.

        That is a journal whose making was cut off, and, where the disk is full, any that is to be opened exclusively.
        """
        try:
            with closing(_connection(self.path, "ro")) as connection:
                self._inspect(connection, mark)
        except sqlite3.OperationalError as error:
            code = primary(error)
            if code == sqlite3.SQLITE_READONLY or (self.exclusive and code in _NO_SPACE):
                return False
            raise
        return True

    def _inspect(self, connection: sqlite3.Connection, mark: int) -> None:
        self._check_kind(connection)
        if not self.high.sealed():
            self.read_through(connection)
        commits = value(connection, SQL["commits"]) if version(connection) else 0
        if commits < mark:
            raise self._shorter(mark, commits)

    def _check_kind(self, connection: sqlite3.Connection) -> None:
        kind = value(connection, "PRAGMA application_id")
        if kind != APPLICATION_ID and (kind or value(connection, "SELECT count(*) FROM sqlite_master")):
            raise JournalDamaged(f"{self.path} is a database of another program, not a journal. {_KEPT}")
        if version(connection) > max(MIGRATIONS):
            raise JournalNewer(
                f"journal {self.path} is of version {version(connection)}, this taskrun knows up to {max(MIGRATIONS)}: "
                "upgrade taskrun (`pip install --upgrade taskrun`). Nothing was changed."
            )

    def _shorter(self, mark: int, commits: int) -> JournalDamaged:
        return JournalDamaged(
            f"journal {self.path} came back shorter than it was: at least {mark - commits} commits are missing "
            f"({commits} of {mark} are there). Restore it from a backup together with its -wal file; or move it and "
            f"{self.high.path} away, to begin anew; or only {self.high.path}, to go on with what is there. {_KEPT}"
        )

    # ---- connecting
    def _connect(self, mark: int | None = None) -> sqlite3.Connection:
        """Connects for good; inspects the journal where it comes with the mark to hold it against."""
        connection = _connection(self.path, "rw")
        try:
            self._set_up(connection, mark)
            migrate(connection)
        except BaseException:
            connection.close()
            raise
        connection.execute(f"PRAGMA busy_timeout = {int(BUSY * 1000)}")
        return connection

    def _set_up(self, connection: sqlite3.Connection, mark: int | None) -> None:
        if self.exclusive:  # before the first read, so that there never is a -shm file
            connection.execute("PRAGMA locking_mode = EXCLUSIVE")
        if mark is None:
            self._check_kind(connection)
        else:
            self._inspect(connection, mark)
        if (mode := value(connection, "PRAGMA journal_mode = WAL")) != "wal":
            raise JournalError(
                f"journal {self.path}: its file system allows no write-ahead log (SQLite answers {mode!r}). "
                "Put the journal on a local disk."
            )
        for setting in _SETTINGS:
            connection.execute(setting)
        connection.execute(_SYNCHRONOUS[self.synchronous])
        if self.exclusive:
            self._claim(connection)

    def _claim(self, connection: sqlite3.Connection) -> None:
        """Takes the lock for good, and what a shared opener that was killed left behind."""
        connection.execute("BEGIN IMMEDIATE")
        connection.execute("COMMIT")
        Path(f"{self.path}-shm").unlink(missing_ok=True)


_SYNCHRONOUS: Final[dict[Synchronous, str]] = {
    "full": "PRAGMA synchronous = FULL",
    "normal": "PRAGMA synchronous = NORMAL",
}

_SETTINGS: Final = (
    "PRAGMA fullfsync = ON",  # these two matter on macOS alone
    "PRAGMA checkpoint_fullfsync = ON",
    "PRAGMA mmap_size = 0",
    "PRAGMA temp_store = MEMORY",
    "PRAGMA cache_size = -16000",
    "PRAGMA wal_autocheckpoint = 2000",  # pages: hot ones are written to the database once for many commits
    "PRAGMA journal_size_limit = 67108864",
)

_KEPT = "Nothing was changed."
_DAMAGED = f"it is damaged; restore it from a backup, or move it away to begin anew. {_KEPT}"
_HELP_FOLDER = "Its folder must belong to you and be writable; one that is missing is created."
_NO_SPACE: Final = frozenset({sqlite3.SQLITE_IOERR, sqlite3.SQLITE_FULL, sqlite3.SQLITE_CANTOPEN})
_LOCKED: Final = frozenset({sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED, sqlite3.SQLITE_PROTOCOL})

_REASONS: Final[dict[int, tuple[type[JournalError], str]]] = {
    **dict.fromkeys(_LOCKED, (JournalLocked, "another process has it open; stop that one (`taskrun daemon stop`)")),
    sqlite3.SQLITE_NOTADB: (JournalDamaged, _DAMAGED),
    sqlite3.SQLITE_CORRUPT: (JournalDamaged, _DAMAGED),
    sqlite3.SQLITE_CANTOPEN: (JournalError, f"it cannot be opened. {_HELP_FOLDER}"),
    sqlite3.SQLITE_READONLY: (JournalError, f"it or its folder cannot be written to. {_HELP_FOLDER}"),
    sqlite3.SQLITE_PERM: (JournalError, f"access is denied. {_HELP_FOLDER}"),
    sqlite3.SQLITE_FULL: (JournalUnavailable, "the disk is full; free some space"),
    sqlite3.SQLITE_IOERR: (JournalUnavailable, "the disk reports an I/O error; check its health and free space"),
}


def migrate(connection: sqlite3.Connection) -> None:
    """Brings a journal to today's version in one transaction; of several starters one does it."""
    if version(connection) == max(MIGRATIONS):
        return
    connection.execute("BEGIN IMMEDIATE")
    have = version(connection)
    for number in sorted(number for number in MIGRATIONS if number > have):
        for statement in statements(MIGRATIONS[number]):
            connection.execute(statement)
        connection.execute(f"PRAGMA user_version = {number}")
    connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
    connection.execute("COMMIT")


def version(connection: sqlite3.Connection) -> int:
    """Returns the number of the newest migration of a journal, 0 for an empty file."""
    return int(value(connection, "PRAGMA user_version"))


def value(connection: sqlite3.Connection, query: str) -> Any:
    """Returns the one value of a query."""
    return connection.execute(query).fetchone()[0]


def primary(error: sqlite3.Error) -> int:
    """Returns SQLite's primary result code, 0 for an error of Python's own."""
    return getattr(error, "sqlite_errorcode", 0) & 0xFF


def name(error: sqlite3.Error) -> str:
    """Returns the name of SQLite's result code."""
    return str(getattr(error, "sqlite_errorname", type(error).__name__))


def _connection(path: Path, mode: str, further: str = "") -> sqlite3.Connection:
    _refuse_a_log_alone(path)
    return sqlite3.connect(
        f"file:{quote(str(path))}?mode={mode}{further}",
        uri=True,
        timeout=0,
        isolation_level=None,
        check_same_thread=False,
        cached_statements=256,
    )


def _refuse_a_log_alone(path: Path) -> None:
    """Refuses a log whose journal is gone, empty or cut within its first page: SQLite, given such a one, deletes the log.

    The log is looked at first: a journal has its first page before it has a log.
    """
    log = log_size(str(path))
    size = path.stat().st_size if path.exists() else 0
    if log and size < _PAGE:
        raise JournalDamaged(
            f"journal {path}: {size or 'no'} bytes of it are left beside its write-ahead log, "
            f"{path}-wal, of {human_size(log)}. Restore it from a backup; or move both away, to begin anew. {_KEPT}"
        )


def _make_folder(folder: Path) -> None:
    if not folder.exists():
        _make_folder(folder.parent)
        folder.mkdir(0o700, exist_ok=True)
        sync(folder.parent)


def sync(path: Path) -> None:
    """Makes a file, or what a folder lists, durable."""
    handle = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
