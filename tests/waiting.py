"""Waiting until others have done what a test expects of them."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Any


def until(holds: Callable[[], Any], seconds: float = 20.0, pause: float = 0.01) -> Any:
    """Waits until something holds, and returns it; fails when it never does."""
    deadline = time.monotonic() + seconds
    while not (value := holds()):
        assert time.monotonic() < deadline, "it never came to hold"
        time.sleep(pause)
    return value


async def until_async(holds: Callable[[], Any], seconds: float = 20.0) -> None:
    """The same, while the loop turns."""
    deadline = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < deadline, "it never came to hold"
        await asyncio.sleep(0.005)
