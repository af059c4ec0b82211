"""Which file is one's own: known by device and inode, since its path may lead to another one by now. Import-light."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path
from typing import NamedTuple


class Identity(NamedTuple):
    """What a file is known by; never by opening it, which would cost SQLite its locks."""

    device: int
    inode: int


class KnownFile:
    """A file that this process made or uses, as it was when this was asked first."""

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
    """Returns what a file is known by, without following a link; None when there is none."""
    with contextlib.suppress(OSError):
        found = os.fstat(file) if isinstance(file, int) else file.lstat()
        return Identity(found.st_dev, found.st_ino)
    return None
