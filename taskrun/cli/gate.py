"""The way to who answers: the daemon through its blocking client, or the journal when no daemon runs.

The client blocks, so each connection is worked by a thread that nobody waits for: Ctrl-C ends a command at once.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import suppress
from typing import Any, TypeVar

from taskrun.cli.late import OFFLINE, load
from taskrun.cli.session import Caller
from taskrun.daemon.client import Client
from taskrun.daemon.launch import find_holder
from taskrun.words.config import Config

T = TypeVar("T")


class Direct:
    """Connects from this process."""

    async def daemon(self, config: Config, autostart: bool) -> Caller:
        """Returns a connection to the daemon; starts it if it may."""
        return Daemon(await in_thread(lambda: Client.connect(config, autostart=autostart)))

    async def reader(self, config: Config) -> Caller:
        """Returns the daemon when it runs, else the journal."""
        if find_holder(config):
            return await self.daemon(config, False)
        journal: Caller = load(OFFLINE).Offline(config)  # SQLite is loaded for nobody else
        return journal


class Daemon:
    """The daemon as a `Caller`: one connection, which a stream takes for itself."""

    def __init__(self, client: Client) -> None:
        self._client = client

    async def call(self, op: str, **params: Any) -> Any:
        """Returns the answer to one request."""
        return await in_thread(lambda: self._client.call(op, **params))

    async def stream(self, op: str, **params: Any) -> AsyncIterator[Any]:
        """Yields the answers to one request."""
        async for item in from_thread(lambda: self._client.stream(op, **params)):
            yield item

    async def close(self) -> None:
        """Ends the connection."""
        self._client.close()


async def in_thread(work: Callable[[], T]) -> T:
    """Returns what `work` returns, without blocking the loop; a cancelled wait leaves the thread behind."""
    loop = asyncio.get_running_loop()
    answer: asyncio.Future[T] = loop.create_future()

    def run() -> None:
        try:
            outcome = (answer.set_result, work())
        except BaseException as error:
            outcome = (answer.set_exception, error)  # type: ignore[assignment]
        with suppress(RuntimeError):  # the command is over
            loop.call_soon_threadsafe(_settle, answer, *outcome)

    threading.Thread(target=run, daemon=True).start()
    return await answer


def _settle(answer: asyncio.Future[Any], put: Callable[[Any], None], value: Any) -> None:
    if not answer.done():
        put(value)


async def from_thread(items: Callable[[], Iterator[T]]) -> AsyncIterator[T]:
    """Yields what an iterator that blocks yields."""
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
    while True:
        more, item = await queue.get()
        if more:
            yield item
        elif item is None:
            return
        else:
            raise item
