"""Which processes have a file open, as the holder of a lock on it has: Linux tells. Import-light."""

from __future__ import annotations

import os
import sys
from contextlib import suppress
from pathlib import Path


def opened_by(path: Path, pid: int) -> bool | None:
    """Whether a process has the file at `path` open; None where there is no telling."""
    if sys.platform != "linux":
        return None
    try:
        numbers = os.listdir(f"/proc/{pid}/fd")  # noqa: PTH208 - pathlib would double the time
    except (FileNotFoundError, ProcessLookupError):
        return False
    except OSError:
        return None
    ours = _identity(str(path))
    return ours is not None and any(_identity(f"/proc/{pid}/fd/{number}") == ours for number in numbers)


def openers(path: Path) -> list[int]:
    """Returns the processes that have the file at `path` open, as far as there is telling; this one is left out."""
    if sys.platform != "linux":
        return []
    pids = [int(name) for name in os.listdir("/proc") if name.isdigit()]  # noqa: PTH208
    return [pid for pid in pids if pid != os.getpid() and opened_by(path, pid)]


def _identity(path: str) -> tuple[int, int] | None:
    with suppress(OSError):
        found = os.stat(path)  # noqa: PTH116
        return found.st_dev, found.st_ino
    return None
