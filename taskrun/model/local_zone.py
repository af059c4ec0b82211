"""The machine's own time zone. Apart from `clock`, since few commands need what time zones import."""

from __future__ import annotations

import os
from datetime import tzinfo
from functools import lru_cache
from pathlib import Path
from zoneinfo import ZoneInfo

LOCALTIME = Path("/etc/localtime")


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
