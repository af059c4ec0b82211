"""The `[[schedule]]` tables of `taskrun.toml`: given to the core, and again whenever the file changes. Used by the server."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import msgspec

from taskrun.engine.core.schedules import Entry, Schedules
from taskrun.model.config import Config
from taskrun.model.errors import TaskrunError

POLL = 1.0  # seconds between looks at the file

logger = logging.getLogger(__name__)


@asynccontextmanager
async def following(schedules: Schedules, path: Path, read: Callable[[], Config]) -> AsyncIterator[None]:
    """Keeps the schedules as the file has them; a file that is wrong is logged, and changes nothing.

    Parameters:
        read: reads the configuration at `path` anew.
    """
    task = asyncio.get_running_loop().create_task(_follow(schedules, path, read))
    try:
        yield
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def _follow(schedules: Schedules, path: Path, read: Callable[[], Config]) -> None:
    seen: object = None
    while True:
        if (mark := _mark(path)) != seen:
            seen = mark
            await take(schedules, read)
        await asyncio.sleep(POLL)


async def take(schedules: Schedules, read: Callable[[], Config]) -> None:
    """Gives the schedules of the file to the core."""
    try:
        await schedules.set(
            Entry(job=one.job, cron=one.cron, timezone=one.timezone, input=msgspec.json.encode(one.input).decode())
            for one in read().schedules
        )
    except TaskrunError as error:
        logger.error("the schedules of taskrun.toml stay as they were: %s", error)


def _mark(path: Path) -> object:
    try:
        stat = path.stat()
    except OSError:
        return None
    return stat.st_mtime_ns, stat.st_size, stat.st_ino
