"""`reload = "auto"`: before a run starts, job files that have changed are loaded.

Requests that start runs ask for it; for schedules and triggers, which nobody asks for, it is looked every second.
"""

from __future__ import annotations

import asyncio
import logging
from contextlib import AbstractAsyncContextManager
from typing import Any

from taskrun.daemon.running import in_background
from taskrun.daemon.watch.project_code import ProjectCode
from taskrun.model.errors import DaemonError

LOADED_WITHIN = 9.0  # seconds that a request waits for changed files; a client waits 10 for its answer
POLL = 1.0  # seconds between two looks at the files
SHARE = 20  # times as long as a look takes is the pause after it, where folders are very large

logger = logging.getLogger(__name__)


class AutoReload:
    """Loads changed job files of one project."""

    def __init__(self, code: ProjectCode) -> None:
        self._code = code
        self._begun = False
        self._holding: list[dict[str, Any]] = []
        self._loading = asyncio.Lock()
        self._tasks: set[asyncio.Task[Any]] = set()

    async def load_changes(self) -> list[dict[str, Any]]:
        """Loads what has changed, to the end even if who asks goes away.

        Returns:
            What is wrong with files for which all code stays as it was.

        Raises:
            DaemonError: no worker is ready, or the files take too long to be loaded for who asks.
        """
        try:
            async with asyncio.timeout(LOADED_WITHIN):
                return await self._loaded()
        except TimeoutError:
            raise DaemonError("the changed job files are still being loaded") from None

    async def _loaded(self) -> list[dict[str, Any]]:
        task = asyncio.get_running_loop().create_task(self._load())
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return await asyncio.shield(task)

    async def _load(self) -> list[dict[str, Any]]:
        async with self._loading:
            if not self._begun:
                await self._code.begin()
                self._begun = True
            for item in await self._code.look():
                lost = item["kind"] == "kept" and item["lost"]
                problems = [one for one in item["problems"] if one["file"] or not lost]
                holding = [{**one, "holding": True} for one in problems] if lost else []
                for one in () if lost and holding == self._holding else problems:  # what is tried again is told once
                    logger.warning("the code has changed: %s", one["text"])
                self._holding = holding
            return self._holding

    def following(self) -> AbstractAsyncContextManager[None]:
        """Loads what has changed also when nobody asks."""
        return in_background(self._follow(), self._tasks)

    async def _follow(self) -> None:
        while True:
            try:
                await self._loaded()
            except DaemonError:  # no worker is ready: the first request that needs one says so
                pass
            except Exception:
                logger.exception("changed job files could not be loaded")
            await asyncio.sleep(max(POLL, SHARE * self._code.sources.look_took))
