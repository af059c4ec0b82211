"""Reaps orphans, so that none stays a zombie, where they become children of the daemon: as PID 1 of a container, or a subreaper.

The daemon's own children are left to the code that started them, which needs their exit codes.
"""

from __future__ import annotations

import asyncio
import ctypes
import os
import signal
import sys
from collections.abc import Collection

PR_GET_CHILD_SUBREAPER = 37


def adopts_orphans() -> bool:
    """Whether processes whose parents are gone become children of this one."""
    if os.getpid() == 1:
        return True
    if sys.platform != "linux":
        return False
    found = ctypes.c_int(0)
    ctypes.CDLL(None).prctl(PR_GET_CHILD_SUBREAPER, ctypes.byref(found), 0, 0, 0)
    return bool(found.value)


def reap_orphans(own: Collection[int]) -> None:
    """Reaps orphans as they end, as long as the event loop runs.

    Parameters:
        own: the pids of the children that are left alone, at any time.
    """
    asyncio.get_running_loop().add_signal_handler(signal.SIGCHLD, _reap, own)
    _reap(own)  # those that have ended before


def _reap(own: Collection[int]) -> None:
    for pid in _zombies():
        if pid not in own:
            try:
                os.waitpid(pid, os.WNOHANG)
            except ChildProcessError:  # it was reaped meanwhile
                continue


def _zombies() -> list[int]:
    """Returns the children of this process that have ended, from /proc: `waitpid` could take one that is not an orphan."""
    if sys.platform != "linux":
        return []
    found = []
    for name in os.listdir("/proc"):  # noqa: PTH208 - faster, with thousands of processes
        if name.isdigit() and _state(name) == (b"Z", os.getpid()):
            found.append(int(name))
    return found


def _state(pid: str) -> tuple[bytes, int] | None:
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:  # noqa: PTH123
            fields = file.read().rpartition(b")")[2].split()
    except OSError:
        return None
    return fields[0], int(fields[1])
