"""Whether a task certainly does nothing but wait for durable waits: only then may its coroutine be evicted.

Asks two private attributes of asyncio, the only place that does. Where they are missing the answer is no, which costs memory
and nothing else. Used by the step context when it parks.
"""

from __future__ import annotations

import asyncio
from collections.abc import Collection
from typing import Any


def only_waits(blocker: Any, waits: Collection[asyncio.Future[Any]]) -> bool:
    """Whether what a task awaits is one of `waits`, or a gather of tasks of which the same is true.

    Of anything else, a socket or the inside of a `TaskGroup`, it cannot be told.
    """
    if isinstance(blocker, asyncio.Task):
        return only_waits(getattr(blocker, "_fut_waiter", None), waits)
    if blocker is None or blocker.done():
        return False
    children = getattr(blocker, "_children", None)
    return blocker in waits if children is None else all(only_waits(child, waits) for child in children)
