"""The high-water mark beside a journal file: how many commits it had, some moments ago; and whether it was closed in order.

A lost or shortened write-ahead log leaves a database that is sound, only older. The mark, in a small file of its own
that is synced now and then, tells. It may lag behind the journal, it never runs ahead of what is durable there: so
several processes can write it in any order, and a reader that takes it *before* the journal's own count never errs.

The seal below it is of the last close: which file it left, by inode, size and a time of modification that nothing else gives
to a file. A file that still has them has been written to by nobody since, and need not be read through to be trusted.
"""

from __future__ import annotations

import os
import time
import zlib
from contextlib import suppress
from pathlib import Path

EVERY = 1.0  # seconds between marks
_PATIENCE = 5  # readings, of a mark that is just being written
# nanoseconds before now that a sealed file seems to be of: whoever writes to it makes it newer
_LONG_AGO = 10_000_000_000


class HighWater:
    """Reads and writes the mark of one journal; the SQLite store is its only user."""

    def __init__(self, journal: str) -> None:
        self.path = Path(journal + ".high")
        self._journal = journal
        self._counted: tuple[int, int] | None = None  # device and inode of the journal that is counted
        self._next = 0.0

    def read(self) -> int:
        """Returns the mark, 0 where there is none that can be read."""
        for _ in range(_PATIENCE):
            try:
                count, check, *_ = self.path.read_text("ascii").split()
            except (OSError, ValueError):
                continue
            if check == _check(count):
                return int(count)
        return 0

    def due(self) -> bool:
        """Tells whether it is time for another mark."""
        return time.monotonic() >= self._next

    def write(self, commits: int) -> None:
        """Makes a mark durable. One that cannot be written only lags: that never fails a commit."""
        self._next = time.monotonic() + EVERY
        with suppress(OSError):
            if self._in_place():
                self._put(_line(f"{commits:020d}"), 0)

    def seal(self) -> None:
        """Notes that the journal was closed in order, and how to recognise its file."""
        moment = time.time_ns() - _LONG_AGO
        with suppress(OSError):
            if self._in_place() and self.path.is_file() and not self.sealed() and not log_size(self._journal):
                os.utime(self._journal, ns=(moment, moment))
                self._put(_line(_identity(self._journal)), _MARK_SIZE)

    def sealed(self) -> bool:
        """Tells whether the journal was closed in order and nobody has written to it since."""
        try:
            seal = self.path.read_text("ascii").splitlines(keepends=True)[1:2]
            return seal == [_line(_identity(self._journal))] and not log_size(self._journal)
        except (OSError, ValueError):
            return False

    def _put(self, line: str, at: int) -> None:
        handle = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        try:
            os.pwrite(handle, line.encode("ascii"), at)
            os.fsync(handle)
        finally:
            os.close(handle)

    def _in_place(self) -> bool:
        """Whether the journal that is counted is still there: the mark of one that was removed would condemn its successor."""
        found = Path(self._journal).stat()
        self._counted = self._counted or (found.st_dev, found.st_ino)
        return self._counted == (found.st_dev, found.st_ino)


def is_absent(journal: str) -> bool:
    """Tells whether there never was a journal: neither a file nor a log nor a mark is there."""
    return not any(Path(journal + end).exists() for end in ("", "-wal", ".high"))


def log_size(journal: str) -> int:
    """Returns the bytes of the write-ahead log beside a journal, 0 where there is none."""
    try:
        return Path(f"{journal}-wal").stat().st_size
    except FileNotFoundError:
        return 0


def _identity(file: str) -> str:
    """Returns what a file is known by, without opening it: that would cost SQLite its locks."""
    found = Path(file).stat()
    return f"{found.st_ino:020d} {found.st_size:020d} {found.st_mtime_ns:020d}"


def _line(text: str) -> str:
    return f"{text} {_check(text)}\n"


def _check(text: str) -> str:
    return f"{zlib.crc32(text.encode('ascii')):08x}"


_MARK_SIZE = len(_line("0" * 20))
