"""Where command lines are handed in: what the daemon knows of whoever executes them, which sits a floor above.

A connection whose first frame is an order serves that one command line to its end. Executing never happens on the daemon's
own event loop: a listing that takes seconds to draw must not hold up a run.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable
from pathlib import Path
from typing import Any, Protocol

from taskrun.daemon.command_protocol import ALIVE, REFUSED, CommandRequest, framed

BEAT = 4.0  # seconds between signs of life; the client's patience is 10


Answering = Callable[[bytes], Awaitable[Any] | AsyncGenerator[Any, None]]


class Router(Protocol):
    """Finds what answers a request."""

    def find(self, op: str) -> Answering:
        """Returns what answers an operation: a value to await, or a stream; raises DaemonError."""
        ...


class RunningCommand(Protocol):
    """A command line under way. Both are called on the daemon's loop."""

    def take(self, kind: bytes, data: bytes) -> None:
        """Takes what the client says."""
        ...

    def gone(self) -> None:
        """The client has left: the command is of no use any more."""
        ...


class CommandServer(Protocol):
    """Who executes command lines."""

    def open(self, router: Router, lock: Path, most_input: int) -> None:
        """Begins to be of use; returns at once.

        Parameters:
            lock: of the daemon whose project it serves.
            most_input: bytes of a caller's standard input that are taken.
        """
        ...

    def begin(self, order: CommandRequest, say: Callable[[bytes], None]) -> RunningCommand | None:
        """Begins to execute one, None when it had better be done elsewhere; `say` sends a frame, from any thread."""
        ...

    def close(self) -> None:
        """Drops what is under way."""
        ...


class CommandConnection:
    """One connection's command line: takes the order, passes frames on, and shows that the daemon lives.

    Parameters:
        send: writes to the client; called on the daemon's loop.
    """

    def __init__(self, command_server: CommandServer, payload: bytes, send: Callable[[bytes], None]) -> None:
        self._loop = asyncio.get_running_loop()
        self._send = send
        self._beating: asyncio.TimerHandle | None = None
        self._running = command_server.begin(CommandRequest.unpacked(payload), self._say)
        if self._running is None:
            send(framed(REFUSED))
        else:
            self._beat()

    def take(self, payload: bytes) -> None:
        """Takes a frame of the client."""
        if self._running is not None:
            self._running.take(payload[:1], payload[1:])

    def gone(self) -> None:
        """The client has left."""
        if self._beating is not None:
            self._beating.cancel()
        if self._running is not None:
            self._running.gone()

    def _say(self, data: bytes) -> None:
        self._loop.call_soon_threadsafe(self._send, data)

    def _beat(self) -> None:
        self._send(framed(ALIVE))
        self._beating = self._loop.call_later(BEAT, self._beat)
