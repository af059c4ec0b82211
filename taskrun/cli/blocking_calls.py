"""Functions and iterators that block, run on threads that nobody waits for: Ctrl-C ends a command at once."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import Future
from contextlib import suppress
from typing import Any, TypeVar

T = TypeVar("T")
PATIENCE = 10.0  # seconds that a thread waits for the loop to take its answer


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
