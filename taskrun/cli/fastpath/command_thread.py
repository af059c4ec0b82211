"""The thread of the daemon that executes command lines for thin clients, by the same app as in a process of their own.

It has an event loop of its own, so that parsing and drawing never hold up the daemon. The commands are loaded a moment after
the daemon's start; until then every command line is refused, and its client executes it itself.
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

from taskrun import __version__
from taskrun.cli.fastpath.inner_backend import InnerConnector, OtherProject
from taskrun.cli.fastpath.remote_terminal import RemoteTerminal
from taskrun.daemon.clients.command_connection import Router
from taskrun.daemon.command_protocol import END, REFUSED, CommandRequest

APP = "taskrun.cli.app"
AFTER = 0.3  # seconds after the daemon's start: the command that started it is answered first
AT_ONCE = 0.1  # seconds in which a command that follows a run has to end, or its client executes it


class CommandThread:
    """Executes command lines on one thread."""

    def __init__(self) -> None:
        self._app: ModuleType | None = None  # once all commands are loaded

    def open(self, router: Router, lock: Path, most_input: int) -> None:
        """Begins to load the commands a moment later."""
        self._most_input = most_input
        daemon = asyncio.get_running_loop()
        self._connector = InnerConnector(router, lock, daemon)
        self._loop = asyncio.new_event_loop()
        thread = threading.Thread(target=self._run, name="taskrun-commands", daemon=True)
        self._opening = daemon.call_later(AFTER, thread.start)

    def begin(self, request: CommandRequest, send: Callable[[bytes], None]) -> ThreadCommand | None:
        """Begins to execute a command line."""
        if self._app is None or request.version != __version__ or request.env.get("TZ") != os.environ.get("TZ"):
            return None
        held: list[bytes] = []
        try:
            terminal = RemoteTerminal(request, held.append if request.brief else send, self._most_input)
        except LookupError:  # an encoding that only the caller's Python knows
            return None
        command = ThreadCommand(terminal, self._loop)
        command.executing = asyncio.run_coroutine_threadsafe(self._execute(request, terminal, held, send), self._loop)
        return command

    def close(self) -> None:
        """Drops what is being executed; the thread ends with the process."""
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

    async def _execute(
        self, request: CommandRequest, terminal: RemoteTerminal, held: list[bytes], send: Callable[[bytes], None]
    ) -> None:
        """Executes a command line; `held`: what it prints until it ends, if it has to end at once."""
        assert self._app is not None
        try:
            async with asyncio.timeout(AT_ONCE if request.brief else None) as limit:
                code = await self._app.execute(request.argv, terminal, self._connector)
        except (OtherProject, TimeoutError):
            send(REFUSED)
            return
        if limit.expired():  # taken for Ctrl-C; the client begins anew, with the run that it has started by then
            send(REFUSED)
            return
        for payload in held:
            send(payload)
        send(END + b"%d" % code)


class ThreadCommand:
    """A command line that the thread executes, as the daemon's loop sees it."""

    executing: Future[None]

    def __init__(self, terminal: RemoteTerminal, loop: asyncio.AbstractEventLoop) -> None:
        self._terminal = terminal
        self._loop = loop

    def receive(self, kind: bytes, data: bytes) -> None:
        """Hands a frame of the caller to its terminal."""
        self._loop.call_soon_threadsafe(self._terminal.receive, kind, data)

    def abandon(self) -> None:
        """Ends a command whose caller is gone; a trigger that is on its way to the journal still gets there."""
        self._loop.call_soon_threadsafe(self._terminal.close)
        self.executing.cancel()
