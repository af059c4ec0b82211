"""`taskrun watch` within the daemon: when the project's code changes, the workers are replaced.

The kernel only reports *that* something happened. What has changed is found by comparing files, so that every way of saving a
file is noticed and nothing is reloaded without need. Each change becomes a message, which the command shows.
"""

from __future__ import annotations

import asyncio
import logging
import os
import time
from collections.abc import AsyncGenerator, Callable
from pathlib import Path
from typing import Any

from watchfiles import awatch

from taskrun.daemon.clients.router import Nothing, Operation, RequestContext
from taskrun.daemon.watch.source_files import GONE, FileChange, SourceFiles
from taskrun.engine.core.queries.views import rfc3339
from taskrun.engine.messages import Description
from taskrun.model.config import Config
from taskrun.model.records import UNFINISHED, Status

STEP = 20  # milliseconds of quiet after which events are passed on
RELOAD_GRACE = 1.0  # seconds for a step in flight to end before its run goes on with the new code
SETTLE = 0.1  # seconds after which an editor that has removed a file has written the new one
FIXED = (
    "journal",
    "concurrency",
    "resident",
    "grace",
    "max_payload",
    "keep",
    "max_log",
)  # settings that only a new daemon reads

logger = logging.getLogger(__name__)
logging.getLogger("watchfiles").setLevel(logging.WARNING)
Item = dict[str, Any]


class CodeWatcher:
    """Watches one project's code, and reports to clients what came of each change.

    Parameters:
        until: a pipe; the daemon is stopped when its other end is closed.
    """

    def __init__(self, until: int) -> None:
        os.set_inheritable(until, False)
        self._until = until
        self._items: list[Item] = []
        self._changed = asyncio.Condition()

    def ops(self) -> dict[str, Operation]:
        """Returns the operations that it adds to the daemon."""
        return {"changes": Operation(Nothing, self._changes)}

    async def _changes(self, context: RequestContext, want: Nothing) -> AsyncGenerator[Item, None]:
        """Yields what has happened to the code since the beginning."""
        at = 0
        while True:
            while at < len(self._items):
                at += 1
                yield self._items[at - 1]
            async with self._changed:
                if at == len(self._items):
                    await self._changed.wait()

    async def watch(self, context: RequestContext, read_config: Callable[[], Config]) -> None:
        """Watches until it is cancelled."""
        loop = asyncio.get_running_loop()
        loop.add_reader(self._until, context.stop)
        try:
            await self._watch(context, ProjectCode(context, read_config))
        except Exception:
            logger.exception("watching the code has failed")
            raise
        finally:
            loop.remove_reader(self._until)

    async def _watch(self, context: RequestContext, project: ProjectCode) -> None:
        await self._tell(await project.begin())
        await context.workers.expect_changes(RELOAD_GRACE)
        while True:
            await self._follow(context, project, project.sources.folders())

    async def _follow(self, context: RequestContext, project: ProjectCode, folders: set[Path]) -> None:
        """Watches these folders, as long as they are the ones to watch."""
        came = asyncio.Event()
        noticing = asyncio.get_running_loop().create_task(_notice(folders, came))
        try:
            await asyncio.sleep(
                0
            )  # from here on the kernel reports, so that nothing is missed between comparing and watching
            while project.sources.folders() == folders and not noticing.done():
                for item in await project.look():
                    await self._tell(item)
                    await context.workers.expect_changes(RELOAD_GRACE)
                if project.sources.folders() == folders:
                    await came.wait()
                    came.clear()
        finally:
            noticing.cancel()
            await asyncio.gather(noticing, return_exceptions=True)

    async def _tell(self, item: Item) -> None:
        async with self._changed:
            self._items.append({**item, "at": rfc3339(time.time())})
            self._changed.notify_all()


async def _notice(folders: set[Path], came: asyncio.Event) -> None:
    """Sets `came` whenever something may have changed in the folders, and when they cannot be watched any more."""
    news = awatch(*folders, watch_filter=None, step=STEP, debounce=STEP * 10, recursive=False, raise_interrupt=False)
    try:
        async for _ in news:
            came.set()
    except Exception as error:  # one of them is gone, or the kernel cannot watch more: then compare now and then
        logger.warning("%s; comparing the files again in a second", error)
        await asyncio.sleep(1)
    finally:
        came.set()


class ProjectCode:
    """The code of one project, and the workers that have loaded it."""

    def __init__(self, context: RequestContext, read_config: Callable[[], Config]) -> None:
        self._context = context
        self._read_config = read_config
        self._config = read_config()
        self.sources = self._sources()

    def _sources(self) -> SourceFiles:
        return SourceFiles(self._config.path, self._config.root, self._config.jobs)

    async def begin(self) -> Item:
        """Waits for the first worker; returns what it has loaded."""
        await self._context.workers.ready()
        found = self._context.workers.description
        self._know(found.problems)
        jobs, problems = [job["name"] for job in found.jobs], [self._problem(one) for one in found.problems]
        return {
            "kind": "watching",
            "places": self._config.jobs,
            "files": len(self.sources) - 1,
            "jobs": jobs,
            "problems": problems,
        }

    async def look(self) -> list[Item]:
        """Compares the files and reloads what has changed; returns what there is to report."""
        touched = self.sources.changes()
        if any(one.how == GONE for one in touched):
            await asyncio.sleep(SETTLE)
            touched = _joined(touched, self.sources.changes())
        if not touched:
            return []
        begun = time.monotonic()
        files = [{"how": one.how, "file": self._near(one.file)} for one in touched]
        try:
            item = await self._change()
        except Exception as error:
            item = {"kind": "kept", "problems": [{"file": "", "line": 0, "text": str(error) or type(error).__name__}]}
        return [{**item, "files": files, "took": time.monotonic() - begun}]

    async def _change(self) -> Item:
        config = self._read_config()
        if any(getattr(config, name) != getattr(self._config, name) for name in FIXED):
            return {"kind": "restart"}
        before, running = self._context.workers.description, await self._count(Status.RUNNING, Status.WAITING)
        answer = await self._context.workers.reload()
        problems = [self._problem(one) for one in answer["problems"]]
        if not answer["reloaded"]:
            self._know(answer["problems"])
            return {"kind": "kept", "problems": problems}
        self._config, old = config, self._config
        if config.jobs != old.jobs:
            self.sources = self._sources()
        self._know(answer["problems"])
        jobs = await self._jobs(before, self._context.workers.description)
        problems += await self._schedule_problems()
        return {"kind": "reloaded", "problems": problems, "in_flight": running, **jobs}

    async def _schedule_problems(self) -> list[Item]:
        """Returns what is wrong with the schedules of the file, checked with the reloaded jobs."""
        problem = (await self._context.config_problems())["problem"]
        return [{"file": "", "line": 0, "text": problem}] if problem else []

    def _know(self, problems: list[Item]) -> None:
        broken = [str(one.get("file") or "") for one in problems]
        self.sources.know(self._context.workers.description.files, broken)

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
        counts = await self._context.core.read(lambda tx: tx.count_runs())
        return sum(count for (_, status), count in counts.items() if status in statuses)

    async def _held(self, job: str) -> int:
        counts = await self._context.core.read(lambda tx: tx.count_runs())
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
