"""The processes of this machine, as the kernel tells of them. Standard library only, since supervisors use it.

A process is known by its id and its start: ids are given again.
"""

from __future__ import annotations

import functools
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

LINUX = sys.platform == "linux"
STAT = 4096  # bytes, more than what the kernel says of a process in one line


class ProcessEntry(NamedTuple):
    """One process: `started` tells it from another one that had its id."""

    pid: int
    parent: int
    group: int
    session: int
    started: int


def process(pid: int) -> ProcessEntry | None:
    """Returns a process, None when it is gone or has ended and was not reaped yet."""
    if not LINUX:
        return next((entry for entry in _by_ps("-p", str(pid))), None)
    try:
        with open(f"/proc/{pid}/stat", "rb", 0) as file:  # noqa: PTH123
            fields = file.read(STAT).rpartition(b")")[2].split()
    except OSError:
        return None
    if fields[0] in (b"Z", b"X"):
        return None
    return ProcessEntry(pid, int(fields[1]), int(fields[2]), int(fields[3]), int(fields[19]))


def all_processes() -> Iterator[ProcessEntry]:
    """Yields all processes."""
    if not LINUX:
        yield from _by_ps("-ax")
        return
    for name in os.listdir("/proc"):  # noqa: PTH208 - pathlib would double the time
        if name.isdigit() and (entry := process(int(name))) is not None:
            yield entry


def with_environment(mark: str) -> list[ProcessEntry]:
    """Returns the processes that have `NAME=value` in their environment, as far as it can be read."""
    if not LINUX:
        listing = subprocess.run(["ps", "-Eww", "-axo", "pid=,command="], capture_output=True, text=True).stdout
        pids = [int(line.split(None, 1)[0]) for line in listing.splitlines() if mark in line]
        return [entry for pid in pids if (entry := process(pid)) is not None]
    wanted = mark.encode()
    return [entry for entry in all_processes() if wanted in _environment(entry.pid)]


@functools.cache
def boot() -> str:
    """Returns what is different after the machine was started again."""
    if LINUX:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    return subprocess.run(["sysctl", "-n", "kern.bootsessionuuid"], capture_output=True, text=True).stdout.strip()


def _environment(pid: int) -> list[bytes]:
    try:
        with open(f"/proc/{pid}/environ", "rb") as file:  # noqa: PTH123
            return file.read().split(b"\0")
    except OSError:  # it is gone, or somebody else's
        return []


def _by_ps(*which: str) -> Iterator[ProcessEntry]:
    """The same, where there is no /proc."""
    command = ["ps", *which, "-o", "pid=,ppid=,pgid=,stat=,lstart="]
    environment = {**os.environ, "LC_ALL": "C"}  # for the words of dates
    listing = subprocess.run(command, env=environment, capture_output=True, text=True)
    for line in listing.stdout.splitlines():
        pid, parent, group, state, started = line.split(None, 4)
        if not state.startswith("Z"):
            moment = int(time.mktime(time.strptime(started.strip(), "%a %b %d %H:%M:%S %Y")))
            yield ProcessEntry(int(pid), int(parent), int(group), _session(int(pid)), moment)


def _session(pid: int) -> int:
    try:
        return os.getsid(pid)
    except OSError:
        return 0
