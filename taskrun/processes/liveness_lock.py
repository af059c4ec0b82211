"""The liveness lock: a file that an engine and everything it started keep locked for as long as any of them lives.

The engine opens it and hands `fd` to its supervisors. A `flock` belongs to the open file, not to a process, so the lock ends
when the last of them is gone, whatever killed it. Who takes over a dead engine's runs asks `LivenessLock.free` first.
"""

from __future__ import annotations

import fcntl
import os
from pathlib import Path


class LivenessLock:
    """Holds the lock on `path`, a file (0600) of its own in a folder that exists.

    Raises:
        BlockingIOError: somebody holds it.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        try:
            fcntl.flock(self.fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            os.close(self.fd)
            raise

    def close(self) -> None:
        """Lets go. The file goes too, unless a process that was started still holds it."""
        if self.fd < 0:
            return
        os.close(self.fd)
        self.fd = -1
        if self.free(self.path):
            self.path.unlink(missing_ok=True)

    @staticmethod
    def free(path: Path) -> bool:
        """Whether nobody holds the lock at `path`; a file that is gone is held by nobody. Does not wait."""
        try:
            fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError:
            return True
        except OSError:  # no file descriptor left, say: who cannot look does not take it for free
            return False
        try:
            fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)  # shared, so that two who ask do not disturb each other
        except OSError:
            return False
        finally:
            os.close(fd)
        return True
