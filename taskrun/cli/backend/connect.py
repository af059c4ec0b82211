"""The way to who answers: the daemon through its blocking client, or the journal when no daemon runs.

The client blocks, so each connection is worked by a thread that nobody waits for: Ctrl-C ends a command at once.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import Future
from contextlib import suppress
from typing import TYPE_CHECKING, Any, TypeVar

from taskrun.cli.lazy_imports import CLIENT, OFFLINE, import_late
from taskrun.cli.session import Backend
from taskrun.daemon.lock import holder
from taskrun.daemon.paths import daemon_paths
from taskrun.model.config import Config

if TYPE_CHECKING:
    from taskrun.daemon.client import Client

T = TypeVar("T")
PATIENCE = 10.0  # seconds that a thread waits for the loop to take its answer


class ProcessConnector:
    """Connects from this process."""

    async def daemon(self, config: Config, autostart: bool) -> Backend:
        """Returns a connection to the daemon; starts it if it may."""
        connect = import_late(CLIENT).Client.connect  # loaded for nobody who only reads the journal
        return DaemonBackend(await in_thread(lambda: connect(config, autostart=autostart), _close))

    async def reader(self, config: Config) -> Backend:
        """Returns the daemon when it runs, else the journal."""
        if holder(daemon_paths(config, make=False).lock):
            return await self.daemon(config, False)
        journal: Backend = import_late(OFFLINE).JournalBackend(config)  # SQLite is loaded for nobody else
        return journal


class DaemonBackend:
    """The daemon as a `Caller`: one connection, which a stream takes for itself."""

    live = True

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


def _close(client: Client) -> None:
    client.close()


async def in_thread(work: Callable[[], T], unwanted: Callable[[T], None] = lambda _: None) -> T:
    """Returns what `work` returns, without blocking the loop; a cancelled wait leaves the thread behind.

    Parameters:
        unwanted: takes what `work` returned when nobody waits for it any more.
    """
    loop = asyncio.get_running_loop()
    answer: asyncio.Future[T] = loop.create_future()

    def run() -> None:
        try:
            value = work()
        except BaseException as error:
            _tell(loop, answer, answer.set_exception, error)
        else:
            if not _tell(loop, answer, answer.set_result, value):
                unwanted(value)

    threading.Thread(target=run, daemon=True).start()
    try:
        return await answer
    except asyncio.CancelledError:
        if answer.done() and not answer.cancelled() and answer.exception() is None:  # it came at the same moment
            unwanted(answer.result())
        raise


def _tell(loop: asyncio.AbstractEventLoop, answer: asyncio.Future[Any], put: Callable[[Any], None], value: Any) -> bool:
    """Settles a future from a thread; returns whether anybody was still waiting."""
    told: Future[bool] = Future()

    def settle() -> None:
        wanted = not answer.done()
        if wanted:
            put(value)
        told.set_result(wanted)

    try:
        loop.call_soon_threadsafe(settle)
        return told.result(PATIENCE)
    except (RuntimeError, TimeoutError):  # the command is over
        return False


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
