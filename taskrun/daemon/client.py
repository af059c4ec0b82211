"""The client: a blocking connection to the daemon for the command line, one request at a time.

Import-light, since every command pays for it: no asyncio. A daemon that restarts ends the connection with `DaemonError`; to go
on, connect again and ask for what comes after the last item.
"""

from __future__ import annotations

import itertools
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import msgspec

from taskrun import __version__
from taskrun.daemon.frames import CLIENT_CAP, FrameInvalid, MessageReader, message_frames
from taskrun.daemon.launch import ensure_daemon, find_daemon
from taskrun.daemon.protocol import PROTOCOL, Hello, Reply, common_version, mismatch, remote_error
from taskrun.model.config import Config
from taskrun.model.errors import DaemonError, DaemonStopped

PATIENCE = 10.0  # seconds without an answer
CHUNK = 262_144
GREETING_PAUSES = (0.02, 0.1, 0.3)  # seconds before the next try to say hello


class Disconnected(DaemonError):
    """The connection ended before the answer did: the daemon has stopped, restarted or died."""


class Client:
    """A connection that has said hello."""

    def __init__(self, connection: socket.socket, timeout: float = PATIENCE) -> None:
        self._connection = connection
        self._timeout = timeout
        self._messages = MessageReader(CLIENT_CAP)
        self._payloads: list[bytes] = []
        self._ids = itertools.count(1)
        self.daemon = self._greet()

    @classmethod
    def connect(cls, config: Config, autostart: bool = True, timeout: float = PATIENCE) -> Client:
        """Returns a connection to the project's daemon, which is started if none runs and `autostart` allows it.

        Raises:
            DaemonError: none runs, or it does not answer, or not in a version of the protocol that this client knows.
            TaskrunError: why it could not start.
        """
        for pause in GREETING_PAUSES:
            try:
                return cls._connect_once(config, autostart, timeout)
            except (Disconnected, DaemonStopped):  # it was ending: the next try finds or starts its successor
                time.sleep(pause)
        return cls._connect_once(config, autostart, timeout)

    @classmethod
    def _connect_once(cls, config: Config, autostart: bool, timeout: float) -> Client:
        connection = ensure_daemon(config, timeout) if autostart else find_daemon(config, timeout)
        try:
            return cls(connection, timeout)
        except BaseException:
            connection.close()
            raise

    @classmethod
    def at(cls, path: Path, timeout: float = PATIENCE) -> Client:
        """Returns a connection to the daemon that listens at `path`."""
        connection = socket.socket(socket.AF_UNIX)
        connection.settimeout(timeout)
        connection.connect(str(path))
        return cls(connection, timeout)

    def call(self, op: str, **params: Any) -> Any:
        """Returns the answer to one request.

        Raises:
            DaemonError: no answer came in time.
            Exception: what the daemon raised.
        """
        return self._reply(self._request(op, params)).value

    def stream(self, op: str, **params: Any) -> Iterator[Any]:
        """Yields the answers to one request until it ends; waits for them as long as the daemon lives.

        Raises:
            DaemonError: the daemon gives no sign of life.
            Disconnected: the daemon went away; connect again.
            Exception: what the daemon raised.
        """
        request = self._request(op, params)
        while not (reply := self._reply(request)).end:
            if reply.item is not msgspec.UNSET:
                yield reply.item

    def close(self) -> None:
        """Ends the connection, and every stream on it, also one that another thread waits for."""
        with suppress(OSError):
            self._connection.shutdown(socket.SHUT_RDWR)
        self._connection.close()

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _greet(self) -> Hello:
        ours = Hello(PROTOCOL, __version__)
        self._send(ours)
        theirs = msgspec.json.decode(self._receive(), type=Hello)
        if theirs.error is not None:
            raise remote_error(theirs.error)
        if common_version(PROTOCOL, theirs.protocol) is None:
            raise DaemonError(mismatch(theirs, ours))
        return theirs

    def _request(self, op: str, params: dict[str, Any]) -> int:
        request = next(self._ids)
        self._send({"id": request, "op": op, **params})
        return request

    def _send(self, message: Any) -> None:
        with self._errors(), suppress(BrokenPipeError, ConnectionResetError):  # the daemon may have sent the reason
            self._connection.settimeout(self._timeout)
            for frame in message_frames(msgspec.json.encode(message)):
                self._connection.sendall(frame)

    def _reply(self, request: int) -> Reply:
        while True:
            reply = msgspec.json.decode(self._receive(), type=Reply)
            if reply.id not in (request, 0):
                continue  # of a stream that is no longer read
            if reply.error is not None:
                raise remote_error(reply.error)
            return reply

    def _receive(self) -> bytes:
        while not self._payloads:
            with self._errors():
                self._connection.settimeout(self._timeout)
                data = self._connection.recv(CHUNK)
            if not data:
                raise Disconnected("the daemon closed the connection; see: taskrun daemon logs")
            try:
                self._payloads = [*self._messages.feed(data)][::-1]
            except FrameInvalid as error:
                raise DaemonError(f"the daemon sent {error}") from error
        return self._payloads.pop()

    @contextmanager
    def _errors(self) -> Iterator[None]:
        try:
            yield
        except TimeoutError as error:
            raise DaemonError(f"the daemon gave no answer within {self._timeout:g} seconds") from error
        except OSError as error:
            raise Disconnected(f"the connection to the daemon was lost: {error}") from error
