"""A census of the processes that a test started, and a count of its descriptors: at its end both are what they were."""

from __future__ import annotations

import asyncio
import contextlib
import os
import subprocess
import sys
import time
import uuid
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

TAG = "TASKRUN_CENSUS"


class Census:
    """Finds the living processes that carry this test's tag in their environment."""

    def __init__(self, tag: str) -> None:
        self._mark = f"{TAG}={tag}"

    def alive(self) -> dict[int, str]:
        """The command line of each, by process id."""
        return dict(self._by_proc() if sys.platform == "linux" else self._by_ps())

    def commands(self) -> dict[int, str]:
        """The same without the supervisors and the engine that a test may have started."""
        return {
            pid: line for pid, line in self.alive().items() if "supervisor.py" not in line and "engine.py" not in line
        }

    def supervisors(self) -> list[int]:
        """The supervisors."""
        return [pid for pid, line in self.alive().items() if "supervisor.py" in line]

    async def until(self, count: int, containing: str) -> None:
        """Wait until `count` processes have `containing` in their command line."""
        while sum(containing in line for line in self.commands().values()) < count:
            await asyncio.sleep(0.01)

    def gone(self, seconds: float = 5.0) -> bool:
        """Whether all are gone within `seconds`."""
        deadline = time.monotonic() + seconds
        while self.alive() and time.monotonic() < deadline:
            time.sleep(0.02)
        return not self.alive()

    def _by_proc(self) -> Iterator[tuple[int, str]]:
        for folder in Path("/proc").iterdir():
            try:
                if folder.name.isdigit() and self._mark.encode() in (folder / "environ").read_bytes():
                    yield (
                        int(folder.name),
                        cmdline(folder),
                    )
            except OSError:
                continue

    def _by_ps(self) -> Iterator[tuple[int, str]]:
        listing = subprocess.run(["ps", "-Eww", "-axo", "pid=,command="], capture_output=True, text=True).stdout
        for line in listing.splitlines():
            if self._mark in line:
                pid, command = line.split(maxsplit=1)
                yield int(pid), command


class Printed:
    """What processes print, as whole lines; called as `on_text`."""

    def __init__(self) -> None:
        self.lines: list[tuple[str, str]] = []
        self._parts: dict[str, str] = {}

    def __call__(self, stream: str, text: str) -> None:
        *lines, self._parts[stream] = (self._parts.get(stream, "") + text).split("\n")
        self.lines += [(stream, line) for line in lines]

    def of(self, stream: str) -> list[str]:
        """The lines of one stream."""
        return [text for each, text in self.lines if each == stream]


@pytest.fixture
def census(monkeypatch: pytest.MonkeyPatch) -> Iterator[Census]:
    """What this test started; fails the test if anything of it is left."""
    tag = uuid.uuid4().hex
    monkeypatch.setenv(TAG, tag)
    census = Census(tag)
    yield census
    left = {} if census.gone() else census.alive()
    for pid in left:
        os.kill(pid, 9)
    assert not left


@pytest.fixture
async def no_leak(census: Census) -> AsyncIterator[None]:
    """Fails the test if it leaves descriptors open or children, living or zombies. What was there before is not its fault."""
    files, processes = open_fds(), children()
    yield
    assert not open_fds() - files
    assert not children() - processes


def cmdline(folder: Path) -> str:
    """The command line of the process whose folder in /proc this is."""
    return (folder / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")


def open_fds() -> set[tuple[int, int, int]]:
    """The descriptors that this process has open, each with the file behind it."""
    found = set()
    for entry in Path("/dev/fd").iterdir():
        with contextlib.suppress(OSError):  # that of the listing itself
            file = os.fstat(int(entry.name))
            found.add((int(entry.name), file.st_dev, file.st_ino))
    return found


def children() -> set[int]:
    """The children of this process, living or zombies."""
    listing = subprocess.Popen(["ps", "-axo", "pid=,ppid="], stdout=subprocess.PIPE, text=True)
    processes = [tuple(map(int, line.split())) for line in listing.communicate()[0].splitlines()]
    return {pid for pid, parent in processes if parent == os.getpid()} - {listing.pid}
