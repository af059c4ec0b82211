"""A child process of ours in a group of its own: its end is told by the kernel, whoever still holds a pipe of it.

What it has forked into its group ends with it.
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
    """A process that leads its group. `ended` gets its exit code, negative for a signal."""

    awaited: ClassVar[set[int]] = set()  # whose exit codes are still to come

    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        self._process = process
        self.awaited.add(process.pid)
        self._loop = asyncio.get_running_loop()
        self.ended: asyncio.Future[int] = self._loop.create_future()
        self._watch()

    @property
    def pid(self) -> int:
        """Its id."""
        return self._process.pid

    @property
    def code(self) -> int | None:
        """Its exit code, once it has ended."""
        return self._process.returncode

    def kill(self) -> None:
        """Kills it, and its group."""
        if self.code is None:
            self._kill_group()

    def _watch(self) -> None:
        if sys.platform == "linux":
            with suppress(OSError):  # no descriptor left, say
                watched = os.pidfd_open(self.pid)
                self._loop.add_reader(watched, self._noticed, watched)
                return
        threading.Thread(target=self._wait, name=f"taskrun-child-{self.pid}", daemon=True).start()

    def _noticed(self, watched: int) -> None:
        self._loop.remove_reader(watched)
        os.close(watched)
        self._kill_group()  # while its id is still taken, so that it can be no other's
        self._settle(self._process.wait())

    def _wait(self) -> None:
        code = self._process.wait()
        self._kill_group()
        with suppress(RuntimeError):  # the loop is closed: nobody waits any more
            self._loop.call_soon_threadsafe(self._settle, code)

    def _kill_group(self) -> None:
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(self.pid, signal.SIGKILL)

    def _settle(self, code: int) -> None:
        self.awaited.discard(self.pid)
        if not self.ended.done():
            self.ended.set_result(code)
