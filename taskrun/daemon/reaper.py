"""The dead that fall to a daemon which is PID 1 of a container, or a subreaper: it collects them, so that none stays a zombie.

Its own children are left to whoever started them, who wants their exit codes.
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
    """Collects orphans as they end, as long as the event loop runs.

    Parameters:
        own: the children whose exit codes are somebody's, at any time.
    """
    asyncio.get_running_loop().add_signal_handler(signal.SIGCHLD, _collect, own)
    _collect(own)  # those of the time before


def _collect(own: Collection[int]) -> None:
    for pid in _zombies():
        if pid not in own:
            try:
                os.waitpid(pid, os.WNOHANG)
            except ChildProcessError:  # somebody was faster
                continue


def _zombies() -> list[int]:
    """Returns the children of this process that have ended; by looking, since asking the kernel names only one of them."""
    if sys.platform != "linux":
        return []
    found = []
    for name in os.listdir("/proc"):  # noqa: PTH208 - thousands of them cost less so
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
