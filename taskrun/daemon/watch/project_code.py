"""The code of a project as the workers have it and as it is on the disk: what has changed, and what comes of loading it."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

from taskrun.daemon.clients.router import Workers
from taskrun.daemon.watch.source_files import GONE, FileChange, SourceFiles
from taskrun.engine.core.core import Core
from taskrun.engine.messages import Description
from taskrun.model.config import Config
from taskrun.model.errors import ConfigError, JournalUnavailable
from taskrun.model.names import RESERVED
from taskrun.model.records import UNFINISHED, Status

SETTLE = 0.1  # seconds after which an editor that has removed a file has written the new one
FIXED = (
    "journal",
    "concurrency",
    "resident",
    "grace",
    "max_payload",
    "keep",
    "max_log",
    "reload",
)  # settings that only a new daemon reads

logger = logging.getLogger(__name__)
Item = dict[str, Any]


class ChangedAgain(Exception):
    """What was being loaded is not what is on the disk any more."""


class ProjectCode:
    """The code of one project, and the workers that have loaded it.

    Parameters:
        patient: whether runs in flight end their attempts with the code that they began with, however long that takes.
    """

    def __init__(
        self,
        core: Core,
        workers: Workers,
        config_problems: Callable[[], Awaitable[dict[str, Any]]],
        read_config: Callable[[], Config],
        patient: bool = False,
    ) -> None:
        self._core = core
        self._workers = workers
        self._config_problems = config_problems
        self._patient = patient
        self._read_config = read_config
        self._config = read_config()
        self.sources = self._sources()
        self._left: list[FileChange] = []  # those that are still to be loaded
        self._failure = ""  # why they could not be, the last time

    def _sources(self) -> SourceFiles:
        return SourceFiles(self._config.path, self._config.root, self._config.jobs)

    async def begin(self) -> Item:
        """Waits for the first worker; returns what it has loaded."""
        await self._workers.ready()
        found = self._workers.description
        self._know(found.problems)
        jobs, problems = (
            [job["name"] for job in found.jobs if job["name"] not in RESERVED],
            [self._problem(one) for one in found.problems],
        )
        return {
            "kind": "watching",
            "places": self._config.jobs,
            "files": len(self.sources) - 1,
            "jobs": jobs,
            "problems": problems,
        }

    async def look(self) -> list[Item]:
        """Compares the files and reloads what has changed; returns what there is to report.

        What has changed again while it was loaded is loaded anew: it may be the end of an endless loop. What could not be loaded
        for want of a process, a descriptor or room on the disk is loaded at the next look.
        """
        while touched := await self._touched():
            begun = time.monotonic()
            try:
                item = await self._change(touched)
                self._left, self._failure = [], ""
            except ChangedAgain:
                continue
            except Exception as error:
                item = self._not_loaded(error)
            files = [{"how": one.how, "file": self._near(one.file)} for one in touched]
            return [{**item, "files": files, "took": time.monotonic() - begun}]
        return []

    async def _touched(self) -> list[FileChange]:
        """Returns what is to be loaded."""
        self._left = _joined(self._left, self.sources.changes())
        if any(one.how == GONE for one in self._left):
            await asyncio.sleep(SETTLE)
            self._left = _joined(self._left, self.sources.changes())
        return self._left

    def _changed_again(self) -> None:
        """Raises ChangedAgain when anything has changed since the last comparison."""
        if newer := self.sources.changes():
            self._left = _joined(self._left, newer)
            raise ChangedAgain

    def _not_loaded(self, error: Exception) -> Item:
        if not isinstance(error, OSError | JournalUnavailable):  # then the code has to change before it is tried again
            self._left = []
        trace = None if isinstance(error, ConfigError) else error
        if not self._left or str(error) != self._failure:
            logger.warning("changed files could not be loaded: %s", error, exc_info=trace)
        self._failure = str(error)
        problem = {"file": "", "line": 0, "text": str(error) or type(error).__name__}
        return {"kind": "kept", "lost": True, "problems": [problem]}

    async def _change(self, touched: list[FileChange]) -> Item:
        try:
            config = self._read_config()
        except ConfigError:
            if all(one.file == self._config.path for one in touched):
                raise
            config = self._config  # the last good one, which holds back no change of other files
        if not self._patient and any(getattr(config, name) != getattr(self._config, name) for name in FIXED):
            return {"kind": "restart"}
        before, running = self._workers.description, await self._count(Status.RUNNING, Status.WAITING)
        answer = await self._workers.reload(self._patient, self._changed_again)
        problems = [self._problem(one) for one in answer["problems"]]
        if not answer["reloaded"]:
            self._know(answer["problems"])
            return {"kind": "kept", "lost": answer["lost"], "problems": problems}
        self._config, old = config, self._config
        if config.jobs != old.jobs:
            self.sources = self._sources()
        self._know(answer["problems"])
        jobs = await self._jobs(before, self._workers.description)
        problems += await self._schedule_problems()
        return {"kind": "reloaded", "problems": problems, "in_flight": running, **jobs}

    async def _schedule_problems(self) -> list[Item]:
        """Returns what is wrong with the schedules of the file, checked with the reloaded jobs."""
        problem = (await self._config_problems())["problem"]
        return [{"file": "", "line": 0, "text": problem}] if problem else []

    def _know(self, problems: list[Item]) -> None:
        broken = [str(one.get("file") or "") for one in problems]
        self.sources.know(self._workers.description.files, broken)

    async def _jobs(self, before: Description, after: Description) -> Item:
        """Returns how the jobs have changed."""
        old, new = ({job["name"]: job for job in one.jobs} for one in (before, after))
        gone = sorted(old.keys() - new.keys())
        inputs = {
            name: (old[name]["input_schema"], new[name]["input_schema"]) for name in sorted(old.keys() & new.keys())
        }
        return {
            "added": sorted(new.keys() - old.keys()),
            "gone": [{"job": name, "held": await self._held(name)} for name in gone],
            "inputs": [{"job": name, "before": was, "after": now} for name, (was, now) in inputs.items() if was != now],
        }

    async def _count(self, *statuses: Status) -> int:
        counts = await self._core.read(lambda tx: tx.count_runs())
        return sum(count for (_, status), count in counts.items() if status in statuses)

    async def _held(self, job: str) -> int:
        counts = await self._core.read(lambda tx: tx.count_runs())
        return sum(count for (name, status), count in counts.items() if name == job and status in UNFINISHED)

    def _problem(self, problem: Item) -> Item:
        return {**problem, "file": self._near(Path(problem.get("file") or ""))}

    def _near(self, file: Path) -> str:
        return str(file.relative_to(self._config.root) if file.is_relative_to(self._config.root) else file)


def _joined(first: list[FileChange], then: list[FileChange]) -> list[FileChange]:
    """Joins the results of two comparisons: a file that was gone and is back has changed."""
    merged = {one.file: one.how for one in first}
    for file, how in then:
        back = merged.get(file) == GONE and how != GONE
        merged[file] = "~" if back else how
    return [FileChange(file, how) for file, how in sorted(merged.items())]
