"""The `[[schedule]]` and `[[files]]` tables of `taskrun.toml`: given to the core, and again whenever the file or the jobs change.

An invalid file changes nothing: the last valid schedules stay, and the problem is kept for whoever asks.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager, suppress
from pathlib import Path
from socket import gethostname
from typing import Any

import msgspec

from taskrun.daemon.clients.router import JobSource
from taskrun.daemon.running import in_background
from taskrun.engine.core.core import Core
from taskrun.engine.core.known_files import FilesEntry
from taskrun.engine.core.schedule_due import Entry
from taskrun.engine.core.tables import RENEWED
from taskrun.model.byte_escapes import escaped
from taskrun.model.config import Config, ScheduleTable, schedule_tables
from taskrun.model.errors import ConfigError, DaemonError, DefinitionError, InputInvalid, JobNotFound, TaskrunError
from taskrun.model.files_config import FilesTable
from taskrun.rules.schedule_tables import input_problem

POLL = 1.0  # seconds between two checks of the file
CHECKED_WITHIN = 5.0  # seconds that a request waits for a check; a client waits 10 for its answer
JOBS_WITHIN = 5.0  # seconds that the start of the daemon waits for jobs to check inputs with; else that is done later

logger = logging.getLogger(__name__)


class ScheduleFile:
    """The schedules of one project's file.

    Parameters:
        read: reads the configuration at `path` again; raises ConfigError when it is invalid.
    """

    def __init__(self, core: Core, workers: JobSource, path: Path, read: Callable[[], Config]) -> None:
        self.problem = ""  # with the file as it is now
        self.inputs: dict[str, str] = {}  # what is wrong with inputs of its tables, by the tables' places
        self._core = core
        self._workers = workers
        self._path = path
        self._read = read
        self._seen: object = None
        self._checking = asyncio.Lock()
        self._tasks: set[asyncio.Task[None]] = set()

    async def problems(self) -> dict[str, Any]:
        """Returns what is wrong with the file as JSON; by the last check, when disk or worker hold up a new one.

        A check goes on to its end, even if who asks goes away.
        """
        task = asyncio.get_running_loop().create_task(self._check())
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        with suppress(TimeoutError):
            async with asyncio.timeout(CHECKED_WITHIN):
                await asyncio.shield(task)
        return {"problem": self.problem, "inputs": self.inputs}

    async def begin(self) -> None:
        """Applies the schedules, once there are jobs to check their inputs with.

        Raises:
            ConfigError: the file is invalid.
        """
        config = self._read()
        if not config.schedules and not config.files:
            return
        try:
            async with asyncio.timeout(JOBS_WITHIN):
                await self._workers.ready()
        except (TimeoutError, DaemonError):  # reported by the first request that needs a worker
            return
        self._seen = self._mark()
        await self._apply()

    def following(self) -> AbstractAsyncContextManager[None]:
        """Applies the schedules of the file whenever it changes."""
        return in_background(self._follow(), self._tasks)

    async def _follow(self) -> None:
        while True:
            try:
                await self._check()
            except Exception:
                logger.exception("taskrun.toml could not be checked")
            await asyncio.sleep(POLL)

    async def _check(self) -> None:
        """Applies the file if it or the jobs have changed."""
        async with self._checking:
            if (mark := self._mark()) != self._seen:
                self._seen = mark if await self._applied() else None

    async def _applied(self) -> bool:
        """Applies the file, or keeps what is wrong with it; returns whether it need not be checked again."""
        try:
            await self._apply()
        except ConfigError as error:
            if str(error) != self.problem:
                logger.error("taskrun.toml is not applied: %s", error)
            self.problem = str(error)
        except TaskrunError as error:  # for example when the worker that was asked has died
            logger.warning("the schedules of taskrun.toml will be checked again: %s", error)
            return False
        else:
            self.problem = ""
        return True

    async def _apply(self) -> None:
        """Gives the schedules of the file to the core, if all of them are valid."""
        config, self.inputs = self._read(), {}
        for table in schedule_tables(self._path) if config.schedules else ():
            if problem := await self._input_problem(table):
                self.inputs[table.place] = problem
        for files in config.files:
            if problem := await self._files_problem(files):
                self.inputs[files.place] = problem
        for problem in self.inputs.values():
            raise ConfigError(problem)
        self._core.notify_runs.set(config.notify)
        owner = escaped(f"{gethostname()}:{self._path}")
        entries = [
            FilesEntry(
                job=one.job,
                patterns=tuple(one.pattern),
                settle=one.settle,
                existing=one.existing,
                poll=one.poll,
                field=one.field,
                input=_text(one.input),
            )
            for one in config.files
        ]
        await self._core.files.set(entries, owner)
        schedules = [Entry(**{**msgspec.structs.asdict(one), "input": _text(one.input)}) for one in config.schedules]
        await self._core.schedules.set(schedules, owner)

    async def _input_problem(self, table: ScheduleTable) -> str:
        """Returns what a job finds wrong with the input of its table; nothing where there is no such job."""
        if table.entry is None:
            return ""
        try:
            await self._core.prepare(table.entry.job, _text(table.entry.input))
        except JobNotFound:
            return ""
        except (InputInvalid, DefinitionError) as error:
            return input_problem(table, self._path, error)
        return ""

    async def _files_problem(self, table: FilesTable) -> str:
        """Returns what a job finds wrong with the input of a `[[files]]`; nothing where there is no such job."""
        try:
            await self._core.prepare(table.job, _text({**table.input, table.field: str(self._path)}))
        except JobNotFound:
            return ""
        except (InputInvalid, DefinitionError) as error:
            return f"{self._path}: {table.place} {error}"
        return ""

    def _mark(self) -> object:
        """Returns a value that differs whenever the file or the jobs have changed, and once a day."""
        try:
            stat = self._path.stat()
        except OSError:
            return None
        day = self._core.clock.now() // RENEWED
        return stat.st_mtime_ns, stat.st_size, stat.st_ino, self._workers.description, day


def _text(value: object) -> str:
    return msgspec.json.encode(value).decode()
