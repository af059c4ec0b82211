"""Plain functions in threads: sync handlers and sync steps, without blocking the event loop.

A thread for each call, and a daemon one: a function that never returns can then hold up neither another call nor the end of
the process, which a `ThreadPoolExecutor` would let it do.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Callable
from contextvars import Context, copy_context
from typing import Any, TypeVar

T = TypeVar("T")


async def in_thread(fn: Callable[..., T], *args: Any, **kwargs: Any) -> T:
    """Runs `fn` in a thread, with the caller's context variables; a cancel leaves the thread to itself."""
    loop = asyncio.get_running_loop()
    future: asyncio.Future[T] = loop.create_future()
    context = copy_context()

    def work() -> None:
        try:
            value, error = context.run(fn, *args, **kwargs), None
        except BaseException as caught:
            value, error = None, caught
        with contextlib.suppress(RuntimeError):  # the loop was closed meanwhile, so nobody waits
            loop.call_soon_threadsafe(_settle, future, value, error)

    thread = threading.Thread(target=work, name=f"taskrun-{getattr(fn, '__name__', 'call')}", daemon=True)
    Context().run(thread.start)  # it brings its context along
    return await future


def _settle(future: asyncio.Future[Any], value: Any, error: BaseException | None) -> None:
    if future.done():
        return
    if error is None:
        future.set_result(value)
    elif isinstance(error, (StopIteration, GeneratorExit)):  # a future cannot carry it, or it would close who awaits it
        future.set_exception(RuntimeError(f"{type(error).__name__}: {error}"))
    else:
        future.set_exception(error)
