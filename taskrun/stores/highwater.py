"""The high-water mark beside a journal file: how many commits it had, some moments ago.

A lost or shortened write-ahead log leaves a database that is sound, only older. The mark, in a small file of its own
that is synced now and then, tells. It may lag behind the journal, it never runs ahead of what is durable there: so
several processes can write it in any order, and a reader that takes it *before* the journal's own count never errs.
"""

from __future__ import annotations

import os
import time
import zlib
from pathlib import Path

EVERY = 1.0  # seconds between marks
_PATIENCE = 5  # readings, of a mark that is just being written


class HighWater:
    """Reads and writes the mark of one journal; the SQLite store is its only user."""

    def __init__(self, journal: str) -> None:
        self.path = Path(journal + ".high")
        self._next = 0.0

    def read(self) -> int:
        """Returns the mark, 0 where there is none that can be read."""
        for _ in range(_PATIENCE):
            try:
                count, check = self.path.read_text("ascii").split()
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
        count = f"{commits:020d}"
        try:
            handle = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
            try:
                os.pwrite(handle, f"{count} {_check(count)}\n".encode("ascii"), 0)
                os.fsync(handle)
            finally:
                os.close(handle)
        except OSError:
            pass


def _check(count: str) -> str:
    return f"{zlib.crc32(count.encode('ascii')):08x}"
