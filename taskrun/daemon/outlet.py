"""The worker's end of its pipe: blocking writes from any thread, one frame or batch at a time.

That a write blocks while the daemon is slow to read is meant: it holds back the code that floods.
"""

from __future__ import annotations

import socket
import threading


class Outlet:
    """A socket that several threads write to."""

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection
        self._lock = threading.Lock()

    def write(self, data: bytes) -> None:
        """Writes all of `data`; a daemon that is gone is the reader's business."""
        with self._lock:
            try:
                self._connection.sendall(data)
            except OSError:
                pass
