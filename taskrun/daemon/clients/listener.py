"""Where clients come in: the socket that the daemon makes under its lock, takes clients from, and makes anew when it is gone.

A logout removes the folder of sockets, a cleaner what lies in /tmp: the daemon is in reach again a moment later. What is not its
own it never removes.
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

AT_ONCE = 64  # clients that are taken in one turn of the loop
REST = 0.5  # seconds until the next try when there are no more descriptors
QUIET = 60.0  # seconds between two lines of the log about that
EXHAUSTED = (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM)

logger = logging.getLogger(__name__)


class Listener:
    """The socket of one daemon.

    Parameters:
        lock: the file whose lock the daemon holds; the socket is named after it.
        make: makes the protocol of a client.
    """

    def __init__(self, lock: Path, make: Callable[[], asyncio.Protocol]) -> None:
        self._lock = lock
        self._make = make
        self._loop = asyncio.get_running_loop()
        self._socket: socket.socket | None = None
        self._file: KnownFile | None = None
        self._resting: asyncio.TimerHandle | None = None
        self._told = -QUIET  # when the log was told last that clients cannot be taken
        self._taking: set[asyncio.Task[Any]] = set()

    @property
    def path(self) -> Path:
        """Where it is."""
        assert self._file is not None
        return self._file.path

    @property
    def in_place(self) -> bool:
        """Whether clients find it."""
        return self._file is not None and self._file.in_place

    def open(self) -> None:
        """Makes the socket and begins to take clients; one that is open already is given up for it.

        Raises:
            DaemonError: no socket can be made.
        """
        path = socket_path(self._lock)
        if answers(path):  # not of this project, seen from another file system, or one that ends soon: it is left alone
            path = path.with_stem(secrets.token_hex(8))
        made = bind(path)
        self.close()
        self._socket, self._file = made, KnownFile(Path(made.getsockname()))
        self._listen()

    def close(self) -> None:
        """Takes no more clients; removes the socket if it is still ours."""
        if self._resting is not None:
            self._resting.cancel()
            self._resting = None
        if self._file is not None:
            self._file.remove()
        if self._socket is not None:
            self._loop.remove_reader(self._socket)
            self._socket.close()
        self._socket = self._file = None

    # ---- taking clients

    def _listen(self) -> None:
        assert self._socket is not None
        self._resting = None
        self._loop.add_reader(self._socket, self._accept)

    def _accept(self) -> None:
        assert self._socket is not None
        for _ in range(AT_ONCE):
            try:
                client, _ = self._socket.accept()
            except (BlockingIOError, InterruptedError, ConnectionAbortedError):
                return
            except OSError as error:
                self._rest(error)
                return
            client.setblocking(False)
            self._keep(self._take(client))

    async def _take(self, client: socket.socket) -> None:
        try:
            await self._loop.connect_accepted_socket(self._make, client)
        except OSError as error:
            client.close()
            logger.warning("a client was lost: %s", error)

    def _rest(self, error: OSError) -> None:
        """Takes nobody for a moment: those who come wait in the kernel's queue meanwhile."""
        assert self._socket is not None
        self._loop.remove_reader(self._socket)
        self._resting = self._loop.call_later(REST, self._listen)
        if time.monotonic() - self._told > QUIET:
            self._told = time.monotonic()
            why = error.strerror if error.errno in EXHAUSTED else repr(error)
            logger.error("clients cannot be taken just now: %s; trying again every %g s", why, REST)

    def _keep(self, work: Coroutine[Any, Any, None]) -> None:
        task = self._loop.create_task(work)
        self._taking.add(task)
        task.add_done_callback(self._taking.discard)


def reopened(listener: Listener) -> bool:
    """Makes a socket anew that is gone; returns whether there is a new one."""
    if listener.in_place:
        return False
    try:
        listener.open()
    except DaemonError as error:
        logger.error("the socket is gone and cannot be made anew yet: %s", error)
        return False
    logger.warning("the socket was removed; listening anew at %s", listener.path)
    return True
