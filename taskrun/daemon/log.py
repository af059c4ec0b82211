"""The daemon's own log, `.taskrun/daemon.log`: 0600, and never larger than it may be.

It takes what the daemon logs and what workers print outside of runs. When it is full it is renamed to `daemon.log.1`.
"""

from __future__ import annotations

import contextlib
import logging
import os
from pathlib import Path

from taskrun.daemon.file_identity import identity

LARGEST = 5_000_000  # bytes; there are two files at most
FORMAT = "%(asctime)s %(levelname)s %(message)s"


def open_log(path: Path) -> int:
    """Returns a descriptor that appends to `path`, a file for this user alone."""
    return os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)


class DaemonLog(logging.Handler):
    """Writes log records, and bytes, to a file that is rotated.

    Parameters:
        echo: a further descriptor that gets everything too, for a daemon in the foreground.
        stdio: descriptors of this process that are redirected to the file, also after it was rotated.
    """

    def __init__(self, path: Path, *, echo: int | None = None, stdio: tuple[int, ...] = ()) -> None:
        super().__init__()
        self.setFormatter(logging.Formatter(FORMAT))
        self._path = path
        self._echo = echo
        self._stdio = stdio
        self._open()

    def emit(self, record: logging.LogRecord) -> None:
        """Writes one record."""
        self.put(self.format(record).encode(errors="backslashreplace") + b"\n")

    def put(self, data: bytes) -> None:
        """Writes bytes; a disk that refuses does not stop the daemon. A removed file is created anew, if its folder exists."""
        if identity(self._path) != identity(self._fd):
            self._reopen()
        try:
            if os.fstat(self._fd).st_size + len(data) > LARGEST:
                self._rotate()
            os.write(self._fd, data)
            if self._echo is not None:
                os.write(self._echo, data)
        except OSError:
            pass

    def close(self) -> None:
        """Closes the file."""
        os.close(self._fd)
        super().close()

    def _open(self) -> None:
        self._fd = open_log(self._path)
        for descriptor in self._stdio:
            os.dup2(self._fd, descriptor)

    def _rotate(self) -> None:
        self._path.replace(self._path.with_name(self._path.name + ".1"))
        self._reopen()

    def _reopen(self) -> None:
        before = self._fd
        with contextlib.suppress(OSError):
            self._open()
            os.close(before)
