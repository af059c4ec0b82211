"""The `[[schedule]]` tables of `taskrun.toml`: given to the core, and again whenever the file or the jobs change.

A file that is wrong changes nothing: the last good one stays, and what is wrong is kept for whoever asks. Used by the server.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any, Protocol

import msgspec

from taskrun.engine.core.core import Core
from taskrun.engine.core.schedules import Entry
from taskrun.engine.messages import Description
from taskrun.model.config import Config, ScheduleTable, schedule_tables
from taskrun.model.errors import ConfigError, DaemonError, DefinitionError, InputInvalid, JobNotFound, TaskrunError
from taskrun.rules.schedule_tables import input_problem

POLL = 1.0  # seconds between looks at the file
LOOKED_WITHIN = 5.0  # seconds that a question waits for a look; a client waits 10 for its answer
JOBS_WITHIN = 5.0  # seconds that a start waits for the jobs, to check inputs with them; afterwards it is done later

logger = logging.getLogger(__name__)


class Workers(Protocol):
    """The worker processes, as far as they are asked here."""

    description: Description

    async def ready(self) -> None:
        """Waits until there is a worker; raises DaemonError when none comes."""
        ...


class ScheduleFile:
    """The schedules of one project's file.

    Parameters:
        read: reads the configuration at `path` anew; raises ConfigError when it is wrong.
    """

    def __init__(self, core: Core, workers: Workers, path: Path, read: Callable[[], Config]) -> None:
        self.problem = ""  # with the file as it is now
        self.inputs: dict[str, str] = {}  # what is wrong with the inputs of its tables, by their places
        self._core = core
        self._workers = workers
        self._path = path
        self._read = read
        self._seen: object = None
        self._looking = asyncio.Lock()

    async def problems(self) -> dict[str, Any]:
        """Returns what is wrong with the file now as JSON; by the look before, while the disk or a worker holds this one up."""
        with suppress(TimeoutError):
            async with asyncio.timeout(LOOKED_WITHIN):
                await self._look()
        return {"problem": self.problem, "inputs": self.inputs}

    async def begin(self) -> None:
        """Takes the schedules on, as soon as there are jobs to check their inputs with.

        Raises:
            ConfigError: the file is wrong.
        """
        if not self._read().schedules:
            return
        try:
            async with asyncio.timeout(JOBS_WITHIN):
                await self._workers.ready()
        except (TimeoutError, DaemonError):  # said by the first request that needs a worker
            return
        self._seen = self._mark()
        await self._take()

    @asynccontextmanager
    async def following(self) -> AsyncIterator[None]:
        """Keeps the schedules as the file has them."""
        task = asyncio.get_running_loop().create_task(self._follow())
        try:
            yield
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    async def _follow(self) -> None:
        while True:
            await self._look()
            await asyncio.sleep(POLL)

    async def _look(self) -> None:
        """Takes the file on if there is anything new."""
        async with self._looking:
            if (mark := self._mark()) != self._seen:
                self._seen = mark if await self._taken() else None

    async def _taken(self) -> bool:
        """Takes the file on, or keeps what is wrong with it; returns whether that is settled."""
        try:
            await self._take()
        except ConfigError as error:
            if str(error) != self.problem:
                logger.error("the schedules of taskrun.toml stay as they were: %s", error)
            self.problem = str(error)
        except TaskrunError as error:  # such as the death of the worker that was asked
            logger.warning("the schedules of taskrun.toml are looked at again: %s", error)
            return False
        else:
            self.problem = ""
        return True

    async def _take(self) -> None:
        """Gives the schedules of the file to the core, if all of them are right."""
        config, self.inputs = self._read(), {}
        for table in schedule_tables(self._path) if config.schedules else ():
            if problem := await self._input_problem(table):
                self.inputs[table.place] = problem
        for problem in self.inputs.values():
            raise ConfigError(problem)
        await self._core.schedules.set(
            Entry(job=one.job, cron=one.cron, timezone=one.timezone, input=_text(one.input)) for one in config.schedules
        )

    async def _input_problem(self, table: ScheduleTable) -> str:
        """Returns what is wrong with an input by the word of its job; nothing where there is no such job."""
        if table.entry is None:
            return ""
        try:
            await self._core.prepare(table.entry.job, _text(table.entry.input))
        except JobNotFound:
            return ""
        except (InputInvalid, DefinitionError) as error:
            return input_problem(table, self._path, error)
        return ""

    def _mark(self) -> object:
        """Returns what is different when there is something to look at: the file, or the jobs."""
        try:
            stat = self._path.stat()
        except OSError:
            return None
        return stat.st_mtime_ns, stat.st_size, stat.st_ino, self._workers.description


def _text(value: object) -> str:
    return msgspec.json.encode(value).decode()
