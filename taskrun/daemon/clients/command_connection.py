"""Connections on which a command line is executed, and protocols for what executes it, which stands above the daemon.

A connection whose first frame is a `CommandRequest` serves that one command line to its end. It is never executed on the
daemon's own event loop: a listing that takes seconds to draw must not hold up a run.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable
from pathlib import Path
from typing import Any, Protocol

from taskrun.daemon.command_protocol import ALIVE, REFUSED, CommandRequest
from taskrun.daemon.frames import CLIENT_CAP, frame

ALIVE_EVERY = 4.0  # seconds between signs of life, of a stream too; the client waits 10 for one
Answering = Callable[[bytes], Awaitable[Any] | AsyncGenerator[Any, None]]


class Router(Protocol):
    """Finds what answers a request."""

    def find(self, op: str) -> Answering:
        """Returns what answers an operation: a value to await, or a stream; raises DaemonError."""
        ...


class RunningCommand(Protocol):
    """A command line that is being executed. Both methods are called on the daemon's loop."""

    def receive(self, kind: bytes, data: bytes) -> None:
        """Takes a frame of the client."""
        ...

    def abandon(self) -> None:
        """Ends the command: the client is gone."""
        ...


class CommandServer(Protocol):
    """Executes command lines."""

    def open(self, router: Router, lock: Path, most_input: int) -> None:
        """Prepares to execute; returns at once.

        Parameters:
            lock: of the daemon whose project it serves.
            most_input: bytes of a caller's standard input that are taken.
        """
        ...

    def begin(self, request: CommandRequest, send: Callable[[bytes], None]) -> RunningCommand | None:
        """Begins to execute a command line; None when its client is to do so itself.

        Parameters:
            send: sends a frame's payload to the client, from any thread.
        """
        ...

    def close(self) -> None:
        """Drops what is being executed."""
        ...


class CommandConnection:
    """Serves one command line: has it executed, passes frames on, and shows that the daemon lives.

    Parameters:
        send: writes to the client; called on the daemon's loop.
    """

    def __init__(self, server: CommandServer, request: bytes, send: Callable[[bytes], None]) -> None:
        self._loop = asyncio.get_running_loop()
        self._write = send
        self._timer: asyncio.TimerHandle | None = None
        self._command = server.begin(CommandRequest.unpacked(request), self._send_from_thread)
        if self._command is None:
            self._send(REFUSED)
        else:
            self._send_alive()

    def receive(self, payload: bytes) -> None:
        """Takes a frame of the client."""
        if self._command is not None:
            self._command.receive(payload[:1], payload[1:])

    def abandon(self) -> None:
        """Ends the command: the client is gone."""
        if self._timer is not None:
            self._timer.cancel()
        if self._command is not None:
            self._command.abandon()

    def _send(self, payload: bytes) -> None:
        self._write(frame(payload, CLIENT_CAP))

    def _send_from_thread(self, payload: bytes) -> None:
        self._loop.call_soon_threadsafe(self._send, payload)

    def _send_alive(self) -> None:
        self._send(ALIVE)
        self._timer = self._loop.call_later(ALIVE_EVERY, self._send_alive)
