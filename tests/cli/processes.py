"""The command as a process of its own, by itself or with a person at its terminal."""

from __future__ import annotations

import fcntl
import os
import pty
import select
import struct
import subprocess
import sys
import termios
import time
from pathlib import Path

from tests.cli.emulator import Emulator

ROOT = Path(__file__).parents[2]
ENV = {**os.environ, "TERM": "xterm-256color", "PYTHONPATH": str(ROOT), "LC_ALL": "C.UTF-8"}
PATIENCE = 20.0


def command(*args: str) -> list[str]:
    """Returns a command line of this checkout."""
    return [sys.executable, "-m", "taskrun", *args]


def plain(folder: Path, *args: str) -> subprocess.CompletedProcess[str]:
    """Executes a command line to its end, without a terminal."""
    return subprocess.run(command(*args), cwd=folder, env=ENV, capture_output=True, text=True, timeout=PATIENCE)


class Person:
    """Sits at a terminal in which one command runs."""

    def __init__(self, folder: Path, *args: str) -> None:
        master, slave = pty.openpty()
        fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 80, 0, 0))
        self.before = termios.tcgetattr(slave)
        self._fd, self._slave = master, slave
        self.seen = ""
        self._process = subprocess.Popen(
            [sys.executable, "-c", _SESSION, *command(*args)],
            cwd=folder,
            env=ENV,
            stdin=slave,
            stdout=slave,
            stderr=slave,
            start_new_session=True,
        )

    def until(self, text: str) -> None:
        """Reads until a text stands on the screen."""
        deadline = time.monotonic() + PATIENCE
        while text not in self.seen:
            assert time.monotonic() < deadline, f"{text!r} never came:\n{self.seen}"
            self._read()

    def type(self, keys: bytes) -> None:
        os.write(self._fd, keys)

    def end(self) -> int:
        """Reads to the end of the command; returns its code, having checked that the terminal is as it was."""
        deadline = time.monotonic() + PATIENCE
        while self._process.poll() is None:
            assert time.monotonic() < deadline, self.seen
            self._read()
        while self._read():
            pass
        assert termios.tcgetattr(self._slave) == self.before
        os.close(self._fd)
        os.close(self._slave)
        return self._process.returncode

    def screen(self) -> list[str]:
        emulator = Emulator(80)
        emulator.write(self.seen)
        assert emulator.cursor_shown
        return emulator.text()

    def _read(self) -> bool:
        ready, _, _ = select.select([self._fd], [], [], 0.1)
        if ready:
            self.seen += os.read(self._fd, 65536).decode()
        return bool(ready)


# Makes the terminal the controlling one, so that the keys for signals work, and becomes the command.
_SESSION = "import fcntl, os, sys, termios; fcntl.ioctl(0, termios.TIOCSCTTY, 0); os.execv(sys.argv[1], sys.argv[1:])"
