"""A copy of a SQLite journal in one new file: private from its first moment, verified, and gone where anything failed.

Used by `SqliteStorage.backup`, of a journal that is open, and by `JournalReader.backup`, beside whoever writes to it.
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Final

from taskrun.model.errors import JournalError
from taskrun.stores.highwater import HighWater
from taskrun.stores.sqlite_open import JournalFile, sync, value
from taskrun.stores.sqlite_tx import SQL

PAGES: Final = 1_024  # that are copied at once: 4 MB
PAUSE: Final = 0.01  # seconds before a copy goes on that a commit held up

Progress = Callable[[int, int], None]  # pages that are copied, and all pages


@contextmanager
def new_copy(path: str | os.PathLike[str], commits: int) -> Iterator[sqlite3.Connection]:
    """Gives a connection to a new file to copy a journal into, and verifies afterwards that it has all its `commits`.

    Raises:
        JournalError: the file is there already, cannot be written, or is not what was copied. It is not left behind.
    """
    file = Path(path).absolute()
    journal = JournalFile(file, "full", True, HighWater(str(file)))
    try:
        os.close(os.open(file, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
    except FileExistsError:
        raise JournalError(f"{file} already exists; a backup overwrites nothing") from None
    except OSError as error:
        raise JournalError(f"cannot create the backup {file}: {error.strerror}") from error
    try:
        with closing(sqlite3.connect(file, isolation_level=None, check_same_thread=False)) as target:
            yield target
            target.execute("PRAGMA journal_mode = DELETE")  # one whole file, that needs nothing beside it to be read
            journal.read_through(target)
            if (found := value(target, SQL["commits"])) < commits:
                raise JournalError(f"the backup {file} has {found} commits, the journal had {commits}")
        sync(file)
        sync(file.parent)
    except BaseException as error:
        for end in ("", "-journal", "-wal", "-shm"):
            Path(f"{file}{end}").unlink(missing_ok=True)
        if isinstance(error, sqlite3.Error):
            raise journal.explained(error) from error
        raise


def counting(progress: Progress | None) -> Callable[[int, int, int], None]:
    """Returns `progress` as SQLite calls it: with what is left."""
    return lambda _, left, whole: None if progress is None else progress(whole - left, whole)
