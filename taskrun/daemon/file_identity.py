"""Identity of files by device and inode: a path may lead to another file by now. Import-light."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

Identity = tuple[int, int]  # device and inode


class KnownFile:
    """A file that this process created or uses, with the identity that it had when this object was made."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.identity = identity(path)

    @property
    def in_place(self) -> bool:
        """Whether it is still what its path leads to."""
        return self.identity is not None and identity(self.path) == self.identity

    def remove(self) -> None:
        """Removes it, unless another file has its path by now."""
        if self.in_place:
            self.path.unlink(missing_ok=True)


def identity(file: Path | int) -> Identity | None:
    """Returns the identity of a file, without following a link; None when there is no such file.

    It is not opened for that: closing it again would drop SQLite's locks.
    """
    with contextlib.suppress(OSError):
        found = os.fstat(file) if isinstance(file, int) else file.lstat()
        return found.st_dev, found.st_ino
    return None
