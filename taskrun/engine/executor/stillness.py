"""Whether a handler stands still, and whether it certainly does nothing but wait for durable waits, so that it can be taken down.

The only place that reads private attributes of asyncio. Where they are missing the answer is no, which only costs memory.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Collection, Iterable
from typing import Any

Task = asyncio.Task[Any]
_NOTHING: deque[Any] = deque()


def only_waits(tasks: Iterable[Task], waits: Collection[asyncio.Future[Any]]) -> bool:
    """Whether each task of a handler awaits one of `waits`, or others of the handler's tasks.

    A task that awaits anything else, such as a socket or a lock, may go on at any time.
    """
    alive = {task for task in tasks if not task.done()}
    return all(_waits(task, alive, waits) for task in alive)


def is_idle(loop: asyncio.AbstractEventLoop) -> bool:
    """Whether nothing is scheduled on a loop but what runs now, so that all tasks wait for something else."""
    return getattr(loop, "_ready", None) == _NOTHING


def _waits(task: Task, alive: set[Task], waits: Collection[asyncio.Future[Any]]) -> bool:
    blocker = getattr(task, "_fut_waiter", None)
    if blocker is None or blocker.done():
        return False
    if blocker in waits or blocker in alive:
        return True
    children = getattr(blocker, "_children", None)  # of a gather
    if children is not None:
        return all(child in alive or child in waits or child.done() for child in children)
    inner = _innermost(task)
    code = getattr(inner, "cr_code", None)
    if code is _WAIT:  # of `asyncio.wait`, without a timeout
        awaited = inner.cr_frame.f_locals
        return awaited["timeout"] is None and all(one in alive or one.done() for one in awaited["fs"])
    # At the end of a `TaskGroup`, whose tasks are among the handler's.
    return code is not None and code.co_filename == asyncio.taskgroups.__file__


def _innermost(task: Task) -> Any:
    """Returns the coroutine in which a task stands."""
    inner: Any = task.get_coro()
    while (deeper := getattr(inner, "cr_await", None)) is not None and hasattr(deeper, "cr_code"):
        inner = deeper
    return inner


_WAIT = getattr(getattr(asyncio.tasks, "_wait", None), "__code__", asyncio)  # nothing is it where there is none
