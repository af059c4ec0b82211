"""Who is the daemon: a lock held for life on a file of its own.

What is written in the file is information, the lock is the truth. The daemon takes it first of all; launchers and
`daemon status` ask `holder`. Import-light, because the client is.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import time
from pathlib import Path

import msgspec

from taskrun.daemon.file_identity import identity
from taskrun.model.errors import DaemonError, FolderReadOnly

PATIENCE = 10  # tries: somebody who only asks holds the lock for an instant
PAUSE = 0.02


class Holder(msgspec.Struct, frozen=True, omit_defaults=True):
    """What the daemon says of itself; all of it empty while it is only just starting."""

    pid: int = 0
    version: str = ""
    socket: str = ""
    started_at: float = 0.0


class Lock:
    """A lock that ends with this process at the latest; children do not get it."""

    def __init__(self, path: Path, fd: int) -> None:
        self.path = path
        self._fd = fd

    @classmethod
    def take(cls, path: Path, tries: int = PATIENCE) -> Lock | None:
        """Returns the lock on `path`, or None when another process has it."""
        for attempt in range(tries):
            if attempt:
                time.sleep(PAUSE)
            fd = _open(path, os.O_RDWR | os.O_CREAT)
            if _locked(fd, fcntl.LOCK_EX) and _is_at(fd, path):
                return cls(path, fd)
            os.close(fd)
        return None

    def tell(self, holder: Holder) -> None:
        """Writes who holds it."""
        told = msgspec.json.encode(holder)
        os.pwrite(self._fd, told, 0)  # first, since a full disk may have room for this only where the old one is
        os.ftruncate(self._fd, len(told))

    @property
    def in_place(self) -> bool:
        """Whether the file is still there, so that others see the lock."""
        return _is_at(self._fd, self.path)

    def release(self) -> None:
        """Lets go. The file stays: removing it would let two hold a lock of this name."""
        if self._fd >= 0:
            os.ftruncate(self._fd, 0)
            os.close(self._fd)
            self._fd = -1


def holder(path: Path) -> Holder | None:
    """Returns who holds the lock on `path`, or None when nobody does."""
    try:
        fd = _open(path, os.O_RDONLY)
    except FileNotFoundError:
        return None
    try:
        if _locked(fd, fcntl.LOCK_SH):  # shared, so that two who ask do not disturb each other
            return None
        with contextlib.suppress(msgspec.DecodeError):
            return msgspec.json.decode(os.pread(fd, 65536, 0), type=Holder)
        return Holder()
    finally:
        os.close(fd)


def _open(path: Path, flags: int) -> int:
    try:
        return os.open(path, flags | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    except FileNotFoundError:
        raise
    except OSError as error:
        if error.errno in (errno.EACCES, errno.EROFS) and not os.access(path.parent, os.W_OK):
            raise FolderReadOnly(f"no daemon can run here: {path.parent} cannot be written to") from error
        raise DaemonError(f"cannot use {path}, which must be a file of yours: {error.strerror}") from error


def _locked(fd: int, how: int) -> bool:
    try:
        fcntl.flock(fd, how | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _is_at(fd: int, path: Path) -> bool:
    return identity(fd) == identity(path)
