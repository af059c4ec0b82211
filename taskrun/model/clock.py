"""Time: one injected `Clock` for everything that reads or waits for it.

Durable times are wall-clock Unix seconds; waiting re-reads the wall clock at least every 30 s, so that a jump of it (a
laptop's lid, NTP) neither loses nor doubles a wake-up.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Protocol

LONGEST_NAP = 30.0


class Alarm(Protocol):
    """A call that is still to come."""

    def cancel(self) -> None:
        """Takes it back."""
        ...


class Clock(Protocol):
    """What the engine knows of time."""

    def now(self) -> float:
        """Returns the wall clock in Unix seconds."""
        ...

    async def sleep(self, seconds: float) -> None:
        """Waits for `seconds` of this clock, or a little less: the caller looks at `now` again."""
        ...

    def alarm(self, seconds: float, call: Callable[[], None]) -> Alarm:
        """Calls `call` on the running event loop once `seconds` of this clock have passed."""
        ...


class SystemClock:
    """The machine's own clock."""

    def now(self) -> float:
        """Returns the wall clock in Unix seconds."""
        return time.time()

    async def sleep(self, seconds: float) -> None:
        """Waits at most 30 s, by the monotonic clock."""
        await asyncio.sleep(max(0.0, min(seconds, LONGEST_NAP)))

    def alarm(self, seconds: float, call: Callable[[], None]) -> Alarm:
        """Calls `call` after `seconds` of the monotonic clock."""
        return asyncio.get_running_loop().call_later(max(0.0, seconds), call)
