"""A project in a temporary folder, with a daemon that nothing survives."""

from __future__ import annotations

import contextlib
import os
import signal
import struct
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from taskrun.daemon.client import Client
from taskrun.daemon.launch import find_holder, stop_daemon
from taskrun.model.config import Config, load
from taskrun.model.errors import DaemonError
from tests.waiting import until

HEAD = struct.Struct(">I")  # of a frame: its length
JOBS = """
import asyncio, os, time
from pathlib import Path
from taskrun import job, pipe, run, shell, sleep

@job
async def hello(name: str = "you") -> str:
    print("hello", name)
    return f"hello {name}"

@job
async def count(to: int, pause: float = 0.0) -> int:
    for number in range(to):
        print("line", number)
        await sleep(pause)
    return to

@job
async def block(until: str) -> str:
    while not Path(until).exists():
        time.sleep(0.01)
    return "free"

@job(retry=0)
async def crash_once(marker: str) -> str:
    async def leave() -> int:
        with open(marker, "a") as file:
            file.write("x")
        return 1
    await run("leave", leave)
    if not Path(marker + ".crashed").exists():
        Path(marker + ".crashed").touch()
        os._exit(3)
    return Path(marker).read_text()

@job
async def wait_for(path: str) -> str:
    async def look() -> str:
        while not Path(path).exists():
            await asyncio.sleep(0.01)
        return "seen"
    return await run("look", look)

@job
async def orphan(pid: str) -> None:
    await shell(f"echo $$ > {pid}; exec sleep 600")
"""


class Project:
    """A project and the daemon that it may have."""

    def __init__(self, root: Path) -> None:
        self.root = root

    @property
    def config(self) -> Config:
        return load(self.root / "taskrun.toml", os.environ)

    def connect(self, autostart: bool = True) -> Client:
        return Client.connect(self.config, autostart=autostart)

    def pid(self) -> int:
        held = find_holder(self.config)
        return 0 if held is None else held.pid

    def kill(self) -> int:
        """Kills the daemon and returns the pid that it had."""
        pid = self.pid()
        assert pid, "no daemon runs"
        os.kill(pid, signal.SIGKILL)
        until(lambda: self.pid() == 0)
        return pid

    def write(self, name: str, text: str) -> Path:
        path = self.root / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)
        return path


@pytest.fixture
def runtime(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A runtime folder with a short path."""
    with tempfile.TemporaryDirectory(prefix="tr", dir="/tmp") as name:
        monkeypatch.setenv("XDG_RUNTIME_DIR", name)
        yield Path(name)


@contextlib.contextmanager
def made(root: Path) -> Iterator[Project]:
    """A project of which no process is left."""
    project = Project(root)
    project.root.mkdir()
    project.write("taskrun.toml", '[taskrun]\njobs = ["jobs"]\ngrace = "1s"\n')
    project.write("jobs/all.py", JOBS)
    yield project
    leftovers = end(project)
    assert not leftovers, f"still running: {leftovers}"


@pytest.fixture
def project(tmp_path: Path, runtime: Path) -> Iterator[Project]:
    with made(tmp_path / "project") as project:
        yield project


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Project]:
    """One project for tests that leave its daemon as it is."""
    with tempfile.TemporaryDirectory(prefix="tr", dir="/tmp") as name, pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_RUNTIME_DIR", name)
        with made(tmp_path_factory.mktemp("shared") / "project") as project:
            yield project


def end(project: Project) -> list[int]:
    """Ends a project's daemon by all means; returns processes of it that are left."""
    project.write("taskrun.toml", '[taskrun]\njobs = ["jobs"]\ngrace = "1s"\n')
    try:
        stop_daemon(project.config)
    except DaemonError:
        with contextlib.suppress(ProcessLookupError):
            os.kill(project.pid(), signal.SIGKILL)
    with contextlib.suppress(AssertionError):
        until(lambda: not processes(project.root), 5)
    return processes(project.root)


def processes(root: Path) -> list[int]:
    """Returns the processes whose current folder is a project's."""
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            if (entry / "cwd").readlink() == root and entry.name != str(os.getpid()):
                found.append(int(entry.name))
    return found
