"""A small engine for `test_orphans.py`: holds a liveness lock, runs what may become an orphan, and waits to be killed."""

from __future__ import annotations

import asyncio
import os
import sys
import time
from pathlib import Path

from taskrun.processes.command import run_command
from taskrun.processes.liveness_lock import LivenessLock
from taskrun.processes.pool import ProcessPool


def spin() -> None:
    """Hold the GIL in C code for hours."""
    print("spinning", flush=True)
    sum(range(10**14))


def say(_stream: str, text: str) -> None:
    print(text, end="", flush=True)


def leave_fork() -> None:
    """A fork that does nothing but hold a copy of every descriptor, also of the supervisors' sockets."""
    if os.fork() == 0:
        time.sleep(600)


async def main() -> None:
    lock = LivenessLock(Path(sys.argv[1]))
    commands = ["echo up; sleep 600 | cat", "trap '' TERM; sleep 601 & echo up; setsid sleep 602"]
    async with asyncio.TaskGroup() as group:
        for command in commands:
            group.create_task(run_command(command, on_text=say, grace=5, lock_fd=lock.fd))
        pool = ProcessPool(lock.fd)
        group.create_task(pool.call(spin, grace=5, on_text=say))
        if sys.argv[2] == "fork":
            await asyncio.sleep(0.5)
            leave_fork()
            print("forked", flush=True)


asyncio.run(main())
