"""The daemon's lock: whichever process holds it is the daemon.

The daemon takes it before anything else and holds it as long as it lives. The content of the file only informs about the
holder; the lock alone decides. Import-light, because the client is.
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

TRIES = 10  # a process that only looks who holds the lock takes it for an instant
PAUSE = 0.02


class Holder(msgspec.Struct, frozen=True, omit_defaults=True):
    """What the daemon has written about itself; empty while it is starting."""

    pid: int = 0
    version: str = ""
    socket: str = ""
    started_at: float = 0.0


class Lock:
    """A lock that ends with this process at the latest; children do not inherit it."""

    def __init__(self, path: Path, fd: int) -> None:
        self.path = path
        self._fd = fd

    @classmethod
    def take(cls, path: Path, tries: int = TRIES) -> Lock | None:
        """Returns the lock on `path`, or None when another process has it."""
        for look in range(tries):
            if look:
                time.sleep(PAUSE)
            fd = _open(path, os.O_RDWR | os.O_CREAT)
            if _locked(fd, fcntl.LOCK_EX) and _is_at(fd, path):
                return cls(path, fd)
            os.close(fd)
        return None

    def write(self, holder: Holder) -> None:
        """Writes who holds it."""
        text = msgspec.json.encode(holder)
        os.pwrite(self._fd, text, 0)  # before the truncation: on a full disk there is room only where the old text is
        os.ftruncate(self._fd, len(text))

    @property
    def in_place(self) -> bool:
        """Whether the file is still there, so that others see the lock."""
        return _is_at(self._fd, self.path)

    def release(self) -> None:
        """Releases it. The file stays: if it were removed, two processes could hold a lock of this name."""
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
        if _locked(fd, fcntl.LOCK_SH):  # shared, so that two who look at once do not disturb each other
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
