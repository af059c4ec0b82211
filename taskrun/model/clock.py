"""Time: one injected `Clock` for everything that reads or waits for it.

Durable times are wall-clock Unix seconds; waiting re-reads the wall clock at least every 30 s, so that a jump of it (a
laptop's lid, NTP) neither loses nor doubles a wake-up.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Callable
from datetime import tzinfo
from functools import lru_cache
from pathlib import Path
from typing import Protocol
from zoneinfo import ZoneInfo

LONGEST_NAP = 30.0
LOCALTIME = Path("/etc/localtime")


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


def local_zone() -> tzinfo | None:
    """Returns the machine's own time zone as it is now; None where only the C library knows it.

    The C library reads it once in the life of a process: a daemon would stay behind in the zone that a laptop has left.
    """
    if "TZ" in os.environ:
        return None
    try:
        found = LOCALTIME.stat()
        return _zone_in(LOCALTIME, found.st_ino, found.st_size, found.st_mtime_ns)
    except (OSError, ValueError):
        return None


@lru_cache(maxsize=1)
def _zone_in(file: Path, *identity: int) -> tzinfo:
    with file.open("rb") as content:
        return ZoneInfo.from_file(content)
