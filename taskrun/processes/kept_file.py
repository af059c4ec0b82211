"""The file of one command that survives, as the engine holds it open. Its format: `command_file.py`."""

from __future__ import annotations

import ctypes
import errno
import fcntl
import os
import stat
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple, Self

from taskrun.processes.command_file import (
    END,
    START,
    STREAMS,
    End,
    Marks,
    Processes,
    begin,
    read_facts,
    read_marks,
    read_processes,
    records,
    try_lock,
    write_marks,
)
from taskrun.processes.process_table import boot

PUNCH_HOLE = 3  # of `fallocate`: gives room back, and leaves the size as it is
_libc = ctypes.CDLL(None) if sys.platform == "linux" else None


def check_private(folder: Path) -> None:
    """Lets no file be used that somebody else could have written.

    Raises:
        PermissionError: the folder is a link, another user's, or open to others.
    """
    found = folder.lstat()
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.getuid() or found.st_mode & 0o077:
        raise PermissionError(errno.EPERM, "not a folder of yours alone, so no command is trusted to it", str(folder))


class Identity(NamedTuple):
    """What the processes of a command are known by."""

    token: str
    boot: str
    processes: Processes


class KeptFile:
    """Open as a context manager.

    Parameters:
        make: whether to create it, for this user alone.
    """

    def __init__(self, path: Path, make: bool = True) -> None:
        self.path = path
        self.lock_fd = -1
        self.fd = self._open(make)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.unlock()
        os.close(self.fd)

    def _open(self, make: bool) -> int:
        flags = os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW | (os.O_CREAT if make else 0)
        while True:
            try:
                return os.open(self.path, flags, 0o600)
            except FileNotFoundError:
                if not make:
                    raise
                self.path.parent.mkdir(0o700, exist_ok=True)
                check_private(self.path.parent)

    # ---- the lock

    def lock(self) -> bool:
        """Takes the lock, unless its supervisor, or who is about to begin it, has it."""
        try:
            fd = os.open(self.path, os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW)
        except FileNotFoundError:
            return False
        if not try_lock(fd):
            os.close(fd)
            return False
        self.lock_fd = fd
        return True

    def unlock(self) -> None:
        """Lets go of the lock here; a supervisor that has it keeps it."""
        if self.lock_fd >= 0:
            os.close(self.lock_fd)
            self.lock_fd = -1

    def free(self) -> bool:
        """Whether nobody has the lock."""
        if not try_lock(self.fd, shared=True):
            return False
        fcntl.flock(self.fd, fcntl.LOCK_UN)
        return True

    def is_there(self) -> bool:
        """Whether it is still the file at its path."""
        with suppress(OSError):
            found, ours = self.path.stat(), os.fstat(self.fd)
            return (found.st_dev, found.st_ino) == (ours.st_dev, ours.st_ino)
        return False

    def remove(self) -> None:
        """Removes it."""
        if self.is_there():
            self.path.unlink(missing_ok=True)

    # ---- what it says

    def begun(self) -> dict[str, Any] | None:
        """Returns what is known of the command once it has begun, or is about to for certain; None before.

        After a reboot it counts as begun also where it may not have been.
        """
        facts = read_facts(self.fd)
        if facts is None or not (self.processes().supervisor or facts["boot"] != boot()):
            return None
        return facts

    def identity(self) -> Identity:
        """Returns by what its processes are known."""
        facts = read_facts(self.fd) or {"token": "", "boot": ""}
        return Identity(facts["token"], facts["boot"], self.processes())

    def processes(self) -> Processes:
        """Returns which processes it has, or had."""
        return read_processes(self.fd)

    def begin(self, facts: dict[str, Any], position: int, synced: bool) -> None:
        """Lets what comes begin behind the lines that are there, which nobody can lengthen while this has the lock.

        Parameters:
            position: a whole record ends there.
            synced: whether even a loss of power must not make anybody believe that it has not begun.
        """
        for found in records(self.fd, position):
            if found.kind not in STREAMS:
                break
            position = found.after
        os.ftruncate(self.fd, max(position, START))
        begin(self.fd, facts, Marks(read=position))
        if synced:
            os.fsync(self.fd)
            folder = os.open(self.path.parent, os.O_RDONLY | os.O_CLOEXEC)
            os.fsync(folder)
            os.close(folder)

    def ended(self, position: int, facts: dict[str, Any]) -> bool:
        """Whether it has ended by itself; not where somebody cut it off, or the machine when that was shut down."""
        marks = read_marks(self.fd)
        if marks.cut_off:
            return False
        for found in records(self.fd, max(position, marks.read)):
            if found.kind == END:
                return bool(facts["boot"] == boot() or End.of(found.text).code >= 0)
        return False

    def marks(self) -> Marks:
        """Returns what readers have written into it."""
        return read_marks(self.fd)

    def mark(self, **changes: Any) -> None:
        """Changes marks."""
        write_marks(self.fd, read_marks(self.fd)._replace(**changes))

    def give_back(self, position: int) -> None:
        """Keeps how far the output is in the journal, and gives back the room that it took, where the file system can."""
        self.mark(read=position)
        if _libc is not None:
            length = position - START
            _libc.fallocate(self.fd, PUNCH_HOLE, ctypes.c_int64(START), ctypes.c_int64(length))
