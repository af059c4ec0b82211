"""One command under way: its terminal, its project, its connection, and what Ctrl-C means to it.

Every command gets a `Session` and nothing else from outside. Tests, and later the daemon on behalf of a thin client,
give it another terminal and another way to connect.
"""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Callable
from functools import cached_property
from typing import TYPE_CHECKING, Any, Protocol

from taskrun.cli.screens.look import Look, printed
from taskrun.cli.terminal import Terminal
from taskrun.cli.visible import to_json
from taskrun.model.config import Config, find, load

if TYPE_CHECKING:
    from rich.text import Text


class Caller(Protocol):
    """Who answers requests: the daemon, or the journal itself when no daemon runs.

    `live`: whether runs go on meanwhile, which is to say whether it is a daemon.
    """

    live: bool

    async def call(self, op: str, **params: Any) -> Any:
        """Returns the answer to one request; raises what the other side raised."""
        ...

    def stream(self, op: str, **params: Any) -> AsyncIterator[Any]:
        """Yields the answers to one request until it ends; nothing else is asked of this caller meanwhile."""
        ...

    async def close(self) -> None:
        """Ends the connection."""
        ...


class Gate(Protocol):
    """How a command reaches who answers."""

    async def daemon(self, config: Config, autostart: bool) -> Caller:
        """Returns a connection to the daemon, which it starts if it may; raises DaemonError."""
        ...

    async def reader(self, config: Config) -> Caller:
        """Returns who can answer questions: the daemon, or the journal."""
        ...


class Session:
    """What a command works with."""

    def __init__(self, terminal: Terminal, gate: Gate, config_file: str | None = None) -> None:
        self.terminal = terminal
        self.facts = terminal.facts
        self.config_file = config_file
        self.gate = gate
        self.on_interrupt: Callable[[], object] = _nothing
        self._callers: list[Caller] = []

    # ---- the project

    @cached_property
    def config(self) -> Config:
        """The project's configuration."""
        return load(find(self.facts.cwd, self.config_file, self.facts.env), self.facts.env)

    # ---- who answers

    async def daemon(self, start: bool = True) -> Caller:
        """Returns a connection to the daemon; starts it if `start` says so, unless `TASKRUN_AUTOSTART=0`."""
        allowed = self.facts.env.get("TASKRUN_AUTOSTART", "1").lower() not in ("0", "false", "no", "off")
        return self._kept(await self.gate.daemon(self.config, start and allowed))

    async def reader(self) -> Caller:
        """Returns who can answer questions without a daemon being started for it."""
        return self._kept(await self.gate.reader(self.config))

    def _kept(self, caller: Caller) -> Caller:
        self._callers.append(caller)
        return caller

    async def close(self) -> None:
        """Ends all connections."""
        for caller in self._callers:
            await caller.close()

    def interrupted(self) -> None:
        """Does what Ctrl-C means at this moment."""
        self.on_interrupt()

    # ---- what it says

    @property
    def now(self) -> float:
        """The moment that screens are drawn for."""
        return time.time()

    def look(self, err: bool = False) -> Look:
        """Returns how things may look on standard output, or on standard error."""
        tty = self.facts.err_tty if err else self.facts.out_tty
        return Look(self.terminal.size()[0], self.facts.colour and tty, self.facts.utf8)

    def show(self, renderable: Text | str) -> None:
        """Prints a screen on standard output."""
        self.terminal.out(printed(renderable, self.look()))

    def say(self, renderable: Text | str) -> None:
        """Prints chatter on standard error."""
        self.terminal.err(printed(renderable, self.look(err=True)))

    def data(self, text: str) -> None:
        """Prints data as it is on standard output."""
        self.terminal.out(text)

    def json(self, value: Any) -> None:
        """Prints the one JSON document of a command: indented for a person, on one line for a pipe."""
        self.terminal.out(to_json(value, indent=2 if self.facts.out_tty else None, ascii=not self.facts.utf8) + "\n")


def _nothing() -> None:
    """Ctrl-C before anything is under way."""
