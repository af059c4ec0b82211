"""What a command works with: its terminal, its project, its connections, and what Ctrl-C means to it.

A command gets a `Session` and nothing else from outside. Tests, and the daemon on behalf of a thin client, give it another
terminal and another way to connect.
"""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from taskrun.cli.lazy_imports import SCHEDULE_TABLES, import_late
from taskrun.cli.project_option import for_project, project_option
from taskrun.cli.sanitize import lines, to_json
from taskrun.cli.screens.look import Look, printed
from taskrun.cli.terminal import Terminal
from taskrun.model import user_project
from taskrun.model.config import Config, check_variables, find, load, salvage
from taskrun.model.errors import ConfigError, DaemonError, TaskrunError

if TYPE_CHECKING:
    from rich.text import Text


class Backend(Protocol):
    """Answers requests: the daemon, or the journal itself when no daemon runs.

    `live`: whether it is a daemon, so that runs go on meanwhile.
    """

    live: bool

    async def call(self, op: str, **params: Any) -> Any:
        """Returns the answer to one request; raises what the other side raised."""
        ...

    def stream(self, op: str, **params: Any) -> AsyncIterator[Any]:
        """Yields the answers to one request until it ends; until then it takes no other request."""
        ...

    async def close(self) -> None:
        """Ends the connection."""
        ...


class Connector(Protocol):
    """Connects a command to a backend."""

    async def daemon(self, config: Config, autostart: bool) -> Backend:
        """Returns a connection to the daemon, which it starts if it may; raises DaemonError."""
        ...

    async def reader(self, config: Config) -> Backend:
        """Returns a backend for requests that only read: the daemon, or the journal."""
        ...


class Postponed:
    """A Ctrl-C that is still to be heeded, if one was heard.

    Parameters:
        meaning: what Ctrl-C does otherwise.
    """

    def __init__(self, meaning: Callable[[], object]) -> None:
        self.heard = False
        self.meaning = meaning

    def hear(self) -> None:
        """Takes one Ctrl-C."""
        if self.heard:
            self.meaning()
        self.heard = True


class Session:
    """What a command works with."""

    def __init__(
        self, terminal: Terminal, connector: Connector, config_file: str | None = None, user: bool = False
    ) -> None:
        self.terminal = terminal
        self.facts = terminal.facts
        self.config_file = config_file
        self.user = user  # whether the user's own project is meant
        self.connector = connector
        self.on_interrupt: Callable[[], object] = _ignore
        self.warned = False  # whether the user was told that the configuration is invalid
        self._backends: list[Backend] = []

    # ---- the project

    @property
    def config(self) -> Config:
        """The project's configuration; raises ConfigError when it is invalid."""
        config, fault = self._read
        if fault is not None:
            raise fault
        return config

    @property
    def project(self) -> Config:
        """The configuration; if it is invalid, what can be read of it, which at least locates the daemon."""
        return self._read[0]

    @property
    def fault(self) -> ConfigError | None:
        """What is wrong with the configuration."""
        return self._read[1]

    def fall_back_to_user(self) -> bool:
        """Chooses the user's own project if there is no other here; returns whether it did. Call it before all else."""
        if not (self.user or self.config_file or self.facts.env.get("TASKRUN_CONFIG")):
            try:
                find(self.facts.cwd, None, self.facts.env)
            except ConfigError:
                self.user = True
                return True
        return False

    @cached_property
    def _read(self) -> tuple[Config, ConfigError | None]:
        path = self._path()
        check_variables(self.facts.env)  # they are the caller's, so a running daemon does not make up for them
        try:
            config = load(path, self.facts.env)
            if config.schedules or config.declared.timed:
                import_late(SCHEDULE_TABLES).check_schedules(config)  # loaded only when needed
        except ConfigError as fault:
            return salvage(path, self.facts.env), fault
        return config, None

    def _path(self) -> Path:
        """Returns the path of the configuration."""
        if not self.user:
            return find(self.facts.cwd, self.config_file, self.facts.env)
        try:
            return Path(user_project.make(self.facts.env))
        except OSError as error:
            raise ConfigError(f"your own project cannot be made: {error.filename}: {error.strerror}") from None

    # ---- backends

    async def daemon(self, start: bool = True, forced: bool = False) -> Backend:
        """Returns a connection to the daemon; starts it if `start` says so, unless `TASKRUN_AUTOSTART=0`.

        Parameters:
            forced: whether to start it even if that variable forbids it.

        Raises:
            ConfigError: the configuration is invalid, and no daemon runs with the last valid one.
        """
        allowed = forced or self.facts.env.get("TASKRUN_AUTOSTART", "1").lower() not in ("0", "false", "no", "off")
        try:
            backend = await self.connector.daemon(self.project, start and allowed and self.fault is None)
        except DaemonError as error:
            raise self.fault or error from None
        return await self._kept(backend)

    async def reader(self, lenient: bool = False) -> Backend:
        """Returns a backend for requests that only read; starts no daemon.

        Parameters:
            lenient: whether to read the journal even if the configuration is invalid.

        Raises:
            ConfigError: as `daemon`.
        """
        backend = await self.connector.reader(self.project)
        if self.fault is not None and not backend.live and not lenient:
            raise self.fault
        return await self._kept(backend)

    async def release(self, backend: Backend | None) -> None:
        """Ends a connection before the command ends, if there is one: a command that goes on for days may need many."""
        if backend is not None:
            self._backends.remove(backend)
            await backend.close()

    async def _kept(self, backend: Backend) -> Backend:
        self._backends.append(backend)
        if backend.live and not self.warned:
            self.warn(await self._problem(backend))
        return backend

    async def _problem(self, backend: Backend) -> str:
        """Returns what the daemon finds wrong with the configuration: it alone knows whether inputs fit their jobs.

        It looks at the file for that, so that what the command does is told as the file says now.
        """
        if self.fault is not None or not (self.project.schedules or self.project.files or self.project.notify):
            return ""
        with suppress(DaemonError):  # an older daemon does not know this request
            return str((await backend.call("config"))["problem"])
        return ""

    def warn(self, problem: str = "", running: bool = True) -> None:
        """Warns once of what is wrong with the configuration, where the command can go on."""
        problem = problem or str(self.fault or "")
        if problem and not self.warned:
            self.warned = True
            outcome = (
                "the daemon goes on with the last good configuration" if running else "no daemon can start with it"
            )
            self.say(f"warning: {lines(problem)}\n  {outcome}")

    async def close(self) -> None:
        """Ends all connections."""
        for backend in self._backends:
            await backend.close()

    def interrupted(self) -> None:
        """Does what Ctrl-C means at this moment."""
        self.on_interrupt()

    @contextmanager
    def postponing(self, wanted: bool) -> Iterator[Postponed]:
        """Postpones Ctrl-C, if that is wanted: until the answer to a trigger says which run it has started.

        Otherwise that run would go on, and nobody would be told of it. A second Ctrl-C is not postponed.
        """
        postponed = Postponed(self.on_interrupt)
        if wanted:
            self.on_interrupt = postponed.hear
        try:
            yield postponed
        finally:
            self.on_interrupt = postponed.meaning

    # ---- output

    @property
    def now(self) -> float:
        """The moment for which screens are drawn."""
        return time.time()

    def look(self, err: bool = False) -> Look:
        """Returns what a screen may use on standard output, or on standard error."""
        tty = self.facts.err_tty if err else self.facts.out_tty
        width, colour = self.terminal.size()[0], self.facts.colour and tty
        return Look(width, colour, self.facts.utf8, project=self.project_option)

    @property
    def project_option(self) -> str:
        """What a command needs to mean this project, too; empty where it needs nothing."""
        return project_option(self.user, self.config_file)

    def show(self, renderable: Text | str) -> None:
        """Prints a screen on standard output."""
        self.terminal.out(printed(renderable, self.look()))

    def say(self, renderable: Text | str) -> None:
        """Prints a message on standard error; the commands that a plain text names are made to mean this project."""
        shown = self.for_project(renderable) if isinstance(renderable, str) else renderable
        self.terminal.err(printed(shown, self.look(err=True)))

    def for_project(self, text: str) -> str:
        """Returns a text with the commands that it names made to mean this project."""
        return for_project(text, self.project_option)

    def data(self, text: str) -> None:
        """Prints data unchanged on standard output."""
        self.terminal.out(text)

    def json(self, value: Any) -> None:
        """Prints the one JSON document of a command: indented for a person, on one line for a pipe."""
        self.terminal.out(to_json(value, indent=2 if self.facts.out_tty else None, ascii=not self.facts.utf8) + "\n")


def _ignore() -> None:
    """Ctrl-C before anything has begun."""


class KeptReader:
    """One connection for all that a live screen reads, and another one after that was lost."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self.backend: Backend | None = None

    @asynccontextmanager
    async def use(self) -> AsyncIterator[Backend]:
        """Gives the connection; lets go of it where that fails."""
        try:
            backend = self.backend = self.backend or await self._session.reader()
            yield backend
        except TaskrunError:
            await self._session.release(self.backend)
            self.backend = None
            raise
