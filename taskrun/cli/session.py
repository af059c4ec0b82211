"""One command under way: its terminal, its project, its connection, and what Ctrl-C means to it.

Every command gets a `Session` and nothing else from outside. Tests, and later the daemon on behalf of a thin client,
give it another terminal and another way to connect.
"""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Callable
from contextlib import suppress
from functools import cached_property
from typing import TYPE_CHECKING, Any, Protocol

from taskrun.cli.lazy_imports import SCHEDULE_TABLES, import_late
from taskrun.cli.sanitize import lines, to_json
from taskrun.cli.screens.look import Look, printed
from taskrun.cli.terminal import Terminal
from taskrun.model.config import Config, check_variables, find, load, salvage
from taskrun.model.errors import ConfigError, DaemonError

if TYPE_CHECKING:
    from rich.text import Text


class Backend(Protocol):
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


class Connector(Protocol):
    """How a command reaches who answers."""

    async def daemon(self, config: Config, autostart: bool) -> Backend:
        """Returns a connection to the daemon, which it starts if it may; raises DaemonError."""
        ...

    async def reader(self, config: Config) -> Backend:
        """Returns who can answer questions: the daemon, or the journal."""
        ...


class Session:
    """What a command works with."""

    def __init__(self, terminal: Terminal, connector: Connector, config_file: str | None = None) -> None:
        self.terminal = terminal
        self.facts = terminal.facts
        self.config_file = config_file
        self.connector = connector
        self.on_interrupt: Callable[[], object] = _nothing
        self.warned = False  # whether it was said that the configuration is wrong
        self._backends: list[Backend] = []

    # ---- the project

    @property
    def config(self) -> Config:
        """The project's configuration; raises ConfigError when it is wrong."""
        config, fault = self._read
        if fault is not None:
            raise fault
        return config

    @property
    def project(self) -> Config:
        """What is known of the project; of a configuration that is wrong at least where its daemon is."""
        return self._read[0]

    @property
    def fault(self) -> ConfigError | None:
        """What is wrong with the configuration."""
        return self._read[1]

    @cached_property
    def _read(self) -> tuple[Config, ConfigError | None]:
        path = find(self.facts.cwd, self.config_file, self.facts.env)
        check_variables(self.facts.env)  # the caller's own, which no daemon has a better version of
        try:
            config = load(path, self.facts.env)
            if config.schedules:
                import_late(SCHEDULE_TABLES).check_schedules(path)  # loaded for nobody else
        except ConfigError as fault:
            return salvage(path, self.facts.env), fault
        return config, None

    # ---- who answers

    async def daemon(self, start: bool = True, forced: bool = False) -> Backend:
        """Returns a connection to the daemon; starts it if `start` says so, unless `TASKRUN_AUTOSTART=0`.

        Parameters:
            forced: whether to start it in spite of that variable.

        Raises:
            ConfigError: the configuration is wrong, and no daemon runs that still has the last good one.
        """
        allowed = forced or self.facts.env.get("TASKRUN_AUTOSTART", "1").lower() not in ("0", "false", "no", "off")
        try:
            backend = await self.connector.daemon(self.project, start and allowed and self.fault is None)
        except DaemonError as error:
            raise self.fault or error from None
        return await self._kept(backend)

    async def reader(self, lenient: bool = False) -> Backend:
        """Returns who can answer questions without a daemon being started for it.

        Parameters:
            lenient: whether to read the journal of a project whose configuration is wrong.

        Raises:
            ConfigError: as `daemon`.
        """
        backend = await self.connector.reader(self.project)
        if self.fault is not None and not backend.live and not lenient:
            raise self.fault
        return await self._kept(backend)

    async def _kept(self, backend: Backend) -> Backend:
        self._backends.append(backend)
        if backend.live and not self.warned:
            self.warn(await self._problem(backend))
        return backend

    async def _problem(self, backend: Backend) -> str:
        """Returns what the daemon finds wrong with the configuration: whether an input fits its job, nobody else knows."""
        if self.fault is not None or not self.project.schedules:
            return ""
        with suppress(DaemonError):  # an older one knows no such request
            return str((await backend.call("config"))["problem"])
        return ""

    def warn(self, problem: str = "", running: bool = True) -> None:
        """Says once what is wrong with the configuration, if anything is, where things go on all the same."""
        problem = problem or str(self.fault or "")
        if problem and not self.warned:
            self.warned = True
            outcome = "the daemon goes on with the last good configuration" if running else "no daemon starts with that"
            self.say(f"warning: {lines(problem)}\n  {outcome}")

    async def close(self) -> None:
        """Ends all connections."""
        for backend in self._backends:
            await backend.close()

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
