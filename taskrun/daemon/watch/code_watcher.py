"""`taskrun watch` within the daemon: when the project's code changes, the workers are replaced.

The kernel only reports *that* something happened. What has changed is found by comparing files, so that every way of saving a
file is noticed and nothing is reloaded without need. Each change becomes a message, which the command shows.
"""

from __future__ import annotations

import asyncio
import logging
import os
import time
from collections.abc import AsyncGenerator
from pathlib import Path

from watchfiles import awatch

from taskrun.daemon.clients.router import Nothing, Operation, RequestContext
from taskrun.daemon.watch.project_code import Item, ProjectCode
from taskrun.engine.core.queries.views import rfc3339

STEP = 20  # milliseconds of quiet after which events are passed on
AGAIN = 1.0  # seconds until files that could not be compared are compared again
RELOAD_GRACE = 1.0  # seconds for a step in flight to end before its run goes on with the new code

logger = logging.getLogger(__name__)
logging.getLogger("watchfiles").setLevel(logging.WARNING)


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

    async def watch(self, context: RequestContext, project: ProjectCode) -> None:
        """Watches until it is cancelled."""
        loop = asyncio.get_running_loop()
        loop.add_reader(self._until, context.stop)
        try:
            await self._watch(context, project)
        finally:
            loop.remove_reader(self._until)

    async def _watch(self, context: RequestContext, project: ProjectCode) -> None:
        """Watches, whatever cannot be done at the moment, such as to look into a folder that nobody may read."""
        begun, told = False, ""
        while True:
            try:
                if not begun:
                    await self._tell(await project.begin())
                    await context.workers.expect_changes(RELOAD_GRACE)
                    begun = True
                await self._follow(context, project, project.sources.folders())
                told = ""
            except Exception as error:
                if (text := str(error) or type(error).__name__) != told:  # what is tried again is told once
                    told = text
                    logger.exception("watching the code has failed, and is tried again")
                    problem = {"file": "", "line": 0, "text": text}
                    await self._tell({"kind": "kept", "lost": True, "problems": [problem], "files": [], "took": 0.0})
                await asyncio.sleep(AGAIN)

    async def _follow(self, context: RequestContext, project: ProjectCode, folders: set[Path]) -> None:
        """Watches these folders, as long as they are the ones to watch."""
        came = asyncio.Event()
        noticing = asyncio.get_running_loop().create_task(_notice(folders, came))
        try:
            # from here on the kernel reports, so that nothing is missed between comparing and watching
            await asyncio.sleep(0)
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
    """Sets `came` whenever something may have changed in the folders, and when they can no longer be watched."""
    news = awatch(*folders, watch_filter=None, step=STEP, debounce=STEP * 10, recursive=False, raise_interrupt=False)
    try:
        async for _ in news:
            came.set()
    except Exception as error:  # one of them is gone, or the kernel cannot watch more: then compare now and then
        logger.warning("%s; comparing the files again in a second", error)
        await asyncio.sleep(1)
    finally:
        came.set()
