"""The daemon's counter: executes command lines for thin clients, by the same app that runs them in a process of their own.

They share a thread and an event loop of their own, so that parsing and drawing never hold up the daemon. What they need is
loaded a moment after the daemon's start; until then every order is refused and the client does it itself.
"""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Callable
from concurrent.futures import Future
from importlib import import_module
from pathlib import Path
from types import ModuleType

from taskrun.cli.fastpath.inner_backend import InnerConnector, OtherProject
from taskrun.cli.fastpath.remote_terminal import RemoteTerminal
from taskrun.daemon.clients.command_connection import Router
from taskrun.daemon.command_protocol import END, REFUSED, CommandRequest, framed
from taskrun.daemon.protocol import VERSION

APP = "taskrun.cli.app"
AFTER = 0.3  # seconds after the daemon's start, when the first command has had its answer


class CommandThread:
    """One thread that executes command lines."""

    def __init__(self) -> None:
        self._app: ModuleType | None = None  # once everything is loaded

    def open(self, router: Router, lock: Path, most_input: int) -> None:
        """Loads the commands a moment later."""
        self._most_input = most_input
        daemon = asyncio.get_running_loop()
        self._connector = InnerConnector(router, lock, daemon)
        self._loop = asyncio.new_event_loop()
        thread = threading.Thread(target=self._run, name="taskrun-counter", daemon=True)
        self._opening = daemon.call_later(AFTER, thread.start)

    def begin(self, order: CommandRequest, say: Callable[[bytes], None]) -> ThreadCommand | None:
        """Begins to execute a command line."""
        if self._app is None or order.version != VERSION or order.env.get("TZ") != os.environ.get("TZ"):
            return None
        try:
            terminal = RemoteTerminal(order, say, self._most_input)
        except LookupError:  # an encoding that only the caller knows
            return None
        line = ThreadCommand(terminal, self._loop)
        line.executing = asyncio.run_coroutine_threadsafe(self._execute(order, terminal, say), self._loop)
        return line

    def close(self) -> None:
        """Drops what is under way; the thread ends with the process."""
        self._opening.cancel()
        self._loop.call_soon_threadsafe(self._loop.stop)

    # ---- on the thread

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        app = import_module(APP)
        for command in app.COMMANDS:
            app.find(command)
        self._app = app
        self._loop.run_forever()

    async def _execute(self, order: CommandRequest, terminal: RemoteTerminal, say: Callable[[bytes], None]) -> None:
        assert self._app is not None
        try:
            code = await self._app.execute(order.argv, terminal, self._connector)
        except OtherProject:
            say(framed(REFUSED))
        else:
            say(framed(END, b"%d" % code))


class ThreadCommand:
    """A command line under way, as the daemon's loop sees it."""

    executing: Future[None]

    def __init__(self, terminal: RemoteTerminal, loop: asyncio.AbstractEventLoop) -> None:
        self._terminal = terminal
        self._loop = loop

    def take(self, kind: bytes, data: bytes) -> None:
        """Hands a frame of the caller to its terminal."""
        self._loop.call_soon_threadsafe(self._terminal.take, kind, data)

    def gone(self) -> None:
        """Ends what nobody waits for any more; a trigger on its way to the journal gets there."""
        self._loop.call_soon_threadsafe(self._terminal.leave)
        self.executing.cancel()
