"""Threads that user code starts inside of runs belong to the run: what they print lands in its log, `current()` works in them.

Python gives a new thread an empty context. While an executor lives, `Thread.start` and the pools of `concurrent.futures` hand the
context on, where there is a run in it; outside of runs they do what they always did.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextvars import Context, copy_context
from functools import partial
from typing import Any

from taskrun.engine.executor.run_context import THREAD, inside, sink

_start = threading.Thread.start
_submit: Callable[..., Any] = ThreadPoolExecutor.submit


def start_in_context(self: threading.Thread) -> None:
    """Starts a thread within the run that starts it."""
    if sink.get() is not None:
        self.run = partial(_context().run, self.run)  # type: ignore[method-assign]
    _start(self)


def submit_in_context(self: ThreadPoolExecutor, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Any:
    """Submits a call within the run that submits it. A thread that the pool starts for it is of no run."""
    if sink.get() is None:
        return _submit(self, fn, *args, **kwargs)
    return Context().run(_submit, self, _context().run, fn, *args, **kwargs)


def _context() -> Context:
    """Returns the caller's context; outside of steps, marked so that no step can be called from the thread."""
    context = copy_context()
    if context.get(inside) is None:
        context.run(inside.set, THREAD)
    return context


def begin() -> None:
    """Begins to hand contexts on; never ends, since it changes nothing outside of runs."""
    threading.Thread.start = start_in_context  # type: ignore[method-assign]
    ThreadPoolExecutor.submit = submit_in_context  # type: ignore[method-assign, assignment]
