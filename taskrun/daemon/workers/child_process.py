"""A child process that leads a process group: the kernel reports its end, whoever still holds a pipe of it.

Processes that it has forked into its group are killed with it.
"""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import threading
from contextlib import suppress
from typing import ClassVar


class ChildProcess:
    """A child process. `ended` is its exit code once it has ended, negative for a signal."""

    awaited: ClassVar[set[int]] = set()  # pids of those that have not ended

    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        self._process = process
        self.awaited.add(process.pid)
        self._loop = asyncio.get_running_loop()
        self.ended: asyncio.Future[int] = self._loop.create_future()
        self._watch()

    @property
    def pid(self) -> int:
        """Its process id."""
        return self._process.pid

    @property
    def code(self) -> int | None:
        """Its exit code, once it has ended."""
        return self._process.returncode

    def kill(self) -> None:
        """Kills it and its group."""
        if self.code is None:
            self._kill_group()

    def _watch(self) -> None:
        if sys.platform == "linux":
            with suppress(OSError):  # for example when no descriptor is left
                watched = os.pidfd_open(self.pid)
                self._loop.add_reader(watched, self._on_end, watched)
                return
        threading.Thread(target=self._wait, name=f"taskrun-child-{self.pid}", daemon=True).start()

    def _on_end(self, watched: int) -> None:
        self._loop.remove_reader(watched)
        os.close(watched)
        self._kill_group()  # before it is reaped: until then no other process can have its id
        self._settle(self._process.wait())

    def _wait(self) -> None:
        code = self._process.wait()
        self._kill_group()
        with suppress(RuntimeError):  # the loop is closed
            self._loop.call_soon_threadsafe(self._settle, code)

    def _kill_group(self) -> None:
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(self.pid, signal.SIGKILL)

    def _settle(self, code: int) -> None:
        self.awaited.discard(self.pid)
        if not self.ended.done():
            self.ended.set_result(code)
