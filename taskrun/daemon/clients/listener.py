"""The listening socket: the daemon creates it under its lock, accepts clients from it, and replaces it when it was removed.

A logout removes the folder of sockets, and a cleanup removes files in /tmp; a moment later the daemon can be reached again. It
never removes a socket that is not its own.
"""

from __future__ import annotations

import asyncio
import errno
import logging
import secrets
import socket
import time
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

from taskrun.daemon.file_identity import KnownFile
from taskrun.daemon.unix_socket import answers, bind, socket_path
from taskrun.model.errors import DaemonError

AT_ONCE = 64  # clients that are accepted in one turn of the loop
PAUSE = 0.5  # seconds until the next try when no descriptor is left
QUIET = 60.0  # seconds between two log lines about that
EXHAUSTED = (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM)

logger = logging.getLogger(__name__)


class Listener:
    """The socket of one daemon.

    Parameters:
        lock: the file whose lock the daemon holds; the socket is named after it.
        make: returns the protocol of a new client.
    """

    def __init__(self, lock: Path, make: Callable[[], asyncio.Protocol]) -> None:
        self._lock = lock
        self._make = make
        self._loop = asyncio.get_running_loop()
        self._socket: socket.socket | None = None
        self._file: KnownFile | None = None
        self._paused: asyncio.TimerHandle | None = None
        self._logged = -QUIET  # when it was last logged that clients cannot be accepted
        self._accepting: set[asyncio.Task[Any]] = set()

    @property
    def path(self) -> Path:
        """Its path."""
        assert self._file is not None
        return self._file.path

    @property
    def in_place(self) -> bool:
        """Whether it is still there for clients to find."""
        return self._file is not None and self._file.in_place

    def open(self) -> None:
        """Creates the socket and begins to accept clients; replaces one that is open already.

        Raises:
            DaemonError: no socket can be created.
        """
        path = socket_path(self._lock)
        if answers(path):  # another daemon: of a project seen through another file system, or one that is about to end
            path = path.with_stem(secrets.token_hex(8))
        made = bind(path)
        self.close()
        self._socket, self._file = made, KnownFile(Path(made.getsockname()))
        self._listen()

    def close(self) -> None:
        """Accepts no more clients; removes the socket if it is still our own."""
        if self._paused is not None:
            self._paused.cancel()
            self._paused = None
        if self._file is not None:
            self._file.remove()
        if self._socket is not None:
            self._loop.remove_reader(self._socket)
            self._socket.close()
        self._socket = self._file = None

    # ---- accepting clients

    def _listen(self) -> None:
        assert self._socket is not None
        self._paused = None
        self._loop.add_reader(self._socket, self._accept)

    def _accept(self) -> None:
        assert self._socket is not None
        for _ in range(AT_ONCE):
            try:
                client, _ = self._socket.accept()
            except (BlockingIOError, InterruptedError, ConnectionAbortedError):
                return
            except OSError as error:
                self._pause(error)
                return
            client.setblocking(False)
            self._keep(self._take(client))

    async def _take(self, client: socket.socket) -> None:
        try:
            await self._loop.connect_accepted_socket(self._make, client)
        except OSError as error:
            client.close()
            logger.warning("a client was lost while it connected: %s", error)

    def _pause(self, error: OSError) -> None:
        """Accepts no clients for a moment; they wait in the kernel's queue meanwhile."""
        assert self._socket is not None
        self._loop.remove_reader(self._socket)
        self._paused = self._loop.call_later(PAUSE, self._listen)
        if time.monotonic() - self._logged > QUIET:
            self._logged = time.monotonic()
            why = error.strerror if error.errno in EXHAUSTED else repr(error)
            logger.error("clients cannot be accepted at the moment: %s; trying again every %g s", why, PAUSE)

    def _keep(self, work: Coroutine[Any, Any, None]) -> None:
        task = self._loop.create_task(work)
        self._accepting.add(task)
        task.add_done_callback(self._accepting.discard)


def reopened(listener: Listener) -> bool:
    """Replaces a socket that was removed; returns whether there is a new one."""
    if listener.in_place:
        return False
    try:
        listener.open()
    except DaemonError as error:
        logger.error("the socket was removed and cannot be replaced yet: %s", error)
        return False
    logger.warning("the socket was removed; now listening at %s", listener.path)
    return True
