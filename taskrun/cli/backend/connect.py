"""Connects commands that run in their own process: to the daemon, or to the journal when no daemon runs.

The client of the daemon blocks, so its calls run on threads that nobody waits for: Ctrl-C ends a command at once.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from taskrun.cli.lazy_imports import CLIENT, OFFLINE, import_late
from taskrun.cli.session import Backend
from taskrun.daemon.lock import holder
from taskrun.daemon.paths import daemon_paths
from taskrun.model.config import Config
from taskrun.processes.threads import in_thread

if TYPE_CHECKING:
    from taskrun.daemon.client import Client


class ProcessConnector:
    """Connects from this process."""

    async def daemon(self, config: Config, autostart: bool) -> Backend:
        """Returns a connection to the daemon, which is started if `autostart` allows it."""
        connect = import_late(CLIENT).Client.connect  # not loaded when only the journal is read
        return DaemonBackend(await in_thread(connect, config, autostart=autostart))

    async def reader(self, config: Config) -> Backend:
        """Returns the daemon if it runs, else the journal."""
        if holder(daemon_paths(config, make=False).lock):
            return await self.daemon(config, False)
        journal: Backend = import_late(OFFLINE).JournalBackend(config)  # SQLite is loaded only for this
        return journal


class DaemonBackend:
    """The daemon, over one connection, which a stream occupies until it ends."""

    live = True

    def __init__(self, client: Client) -> None:
        self._client = client

    async def call(self, op: str, **params: Any) -> Any:
        """Returns the answer to one request."""
        return await in_thread(self._client.call, op, **params)

    async def stream(self, op: str, **params: Any) -> AsyncIterator[Any]:
        """Yields the answers to one request."""
        async for item in _from_thread(lambda: self._client.stream(op, **params)):
            yield item

    async def close(self) -> None:
        """Ends the connection."""
        self._client.close()


async def _from_thread(items: Callable[[], Iterator[Any]]) -> AsyncIterator[Any]:
    """Yields the items of an iterator that blocks."""
    loop = asyncio.get_running_loop()
    queue: asyncio.Queue[tuple[bool, Any]] = asyncio.Queue()

    def put(more: bool, item: Any) -> None:
        with suppress(RuntimeError):  # the command is over
            loop.call_soon_threadsafe(queue.put_nowait, (more, item))

    def run() -> None:
        try:
            for item in items():
                put(True, item)
            put(False, None)
        except BaseException as error:
            put(False, error)

    threading.Thread(target=run, daemon=True).start()
    async for item in from_queue(queue):
        yield item


async def from_queue(queue: asyncio.Queue[tuple[bool, Any]]) -> AsyncIterator[Any]:
    """Yields what comes over a queue as (True, item), to its end: (False, None), or (False, error), which is raised."""
    while True:
        more, item = await queue.get()
        if more:
            yield item
        elif item is None:
            return
        else:
            raise item
