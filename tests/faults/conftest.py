"""A project in a temporary folder, used through the real command and the real daemon. Nothing of it survives its test."""

from __future__ import annotations

import contextlib
import json
import os
import re
import secrets
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple
from unittest.mock import patch

import pytest

from taskrun.daemon.client import Client
from taskrun.daemon.launch import find_holder
from taskrun.model.config import load
from tests.waiting import until

COMMAND = [sys.executable, "-m", "taskrun"]
SOURCE = Path(__file__).resolve().parents[2]
TOML = '[taskrun]\njobs = ["jobs"]\ngrace = "1s"\n'
HELLO = """
from typing import Any
from taskrun import job

@job
async def hello(name: str = "you", times: int = 1) -> str:
    return f"hello {name}" * times

@job
async def strict(name: str, count: int) -> str:
    return name * count

@job
async def free(value: Any = None) -> Any:
    return value
"""
TRACE = """
import asyncio, os, time
from taskrun import job, run, shell, sleep, thread

def trace(what: str) -> None:
    fd = os.open(os.environ["TRACE"], os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    os.write(fd, f"{what} {os.getpid()}\\n".encode())
    os.close(fd)
"""


class Outcome(NamedTuple):
    """How a command ended."""

    code: int
    out: str
    err: str

    @property
    def id(self) -> str:
        return self.out.strip()


class Project:
    """A project, and every process that belongs to it: they carry its tag in their environment."""

    def __init__(self, root: Path, runtime: Path) -> None:
        self.root = root
        self.tag = secrets.token_hex(8)
        self.trace = root / "trace.txt"
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("TASKRUN_", "XDG_"))}
        self.env = kept | {
            "XDG_RUNTIME_DIR": str(runtime),
            "TASKRUN_TEST_TAG": self.tag,
            "PYTHONPATH": str(SOURCE),
            "TRACE": str(self.trace),
        }

    # ---- files

    def write(self, name: str, text: str) -> Path:
        path = self.root / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)
        return path

    def jobs(self, text: str) -> None:
        self.write("jobs/all.py", text)

    @property
    def journal(self) -> Path:
        return self.root / ".taskrun" / "journal.db"

    def traced(self) -> list[str]:
        """The steps that were executed, in order, without the processes that did."""
        return [line.split()[0] for line in self._trace_lines()]

    def tracers(self) -> list[int]:
        return [int(line.split()[1]) for line in self._trace_lines()]

    def _trace_lines(self) -> list[str]:
        return self.trace.read_text().splitlines() if self.trace.exists() else []

    # ---- the command

    def spawn(self, *args: str, before: Sequence[str] = (), **options: Any) -> subprocess.Popen[str]:
        pipes = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
        given = {"cwd": self.root, "env": self.env, "text": True, **pipes, **options}
        process: subprocess.Popen[str] = subprocess.Popen([*before, *COMMAND, *args], **given)
        return process

    def cli(self, *args: str, input: str | None = None, seconds: float = 40, **options: Any) -> Outcome:
        if input is not None:
            options["stdin"] = subprocess.PIPE
        with self.spawn(*args, **options) as process:
            try:
                out, err = process.communicate(input, timeout=seconds)
            except BaseException:
                process.kill()
                raise
        return Outcome(process.returncode, out, err)

    def runs(self) -> list[dict[str, Any]]:
        outcome = self.cli("list", "--all", "--json")
        assert outcome.code == 0, outcome.err
        return list(json.loads(outcome.out))

    # ---- the daemon

    def client(self, autostart: bool = True) -> Client:
        with patch.dict(os.environ, self.env):
            return Client.connect(load(self.root / "taskrun.toml", self.env), autostart=autostart)

    def pid(self) -> int:
        held = find_holder(load(self.root / "taskrun.toml", self.env))
        return 0 if held is None else held.pid

    def kill(self, number: int = signal.SIGKILL) -> None:
        """Signals the daemon and waits for its end."""
        pid = self.pid()
        os.kill(pid, number)
        until(lambda: not alive(pid))

    def workers(self) -> list[int]:
        return self.with_word(b"taskrun.daemon.worker")

    def with_word(self, word: bytes) -> list[int]:
        """The living processes with a word in their command line."""
        return [pid for pid in self.processes() if word in _read(f"/proc/{pid}/cmdline")]

    def processes(self) -> list[int]:
        """Every living process of this project."""
        tag = f"TASKRUN_TEST_TAG={self.tag}".encode()
        pids = [int(entry.name) for entry in Path("/proc").glob("[0-9]*")]
        return [pid for pid in pids if pid != os.getpid() and tag in _read(f"/proc/{pid}/environ") and alive(pid)]

    def end(self) -> None:
        """Ends all of it."""
        with contextlib.suppress(AssertionError):
            until(lambda: not self._killed(), 10)
        assert not self.processes()

    def _killed(self) -> list[int]:
        left = self.processes()
        for pid in left:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        return left


def _read(path: str) -> bytes:
    try:
        return Path(path).read_bytes()
    except OSError:
        return b""


def alive(pid: int) -> bool:
    """Whether a process is there and is no zombie."""
    stat = _read(f"/proc/{pid}/stat")
    return bool(stat) and stat.rpartition(b")")[2].split()[0] not in (b"Z", b"X")


def most_memory(pid: int) -> int:
    """The most memory that a process has had, in bytes."""
    found = re.search(r"VmHWM:\s+(\d+) kB", Path(f"/proc/{pid}/status").read_text())
    assert found is not None
    return int(found[1]) * 1024


def all_in(text: str, parts: Sequence[str]) -> bool:
    return all(part in text for part in parts)


@pytest.fixture
def runtime() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="tr", dir="/tmp") as name:
        yield Path(name)


@pytest.fixture
def bare(tmp_path: Path, runtime: Path) -> Iterator[Project]:
    """A folder without anything."""
    project = Project(tmp_path / "project", runtime)
    project.root.mkdir()
    yield project
    project.end()


@pytest.fixture
def project(bare: Project) -> Project:
    bare.write("taskrun.toml", TOML)
    bare.jobs(HELLO)
    return bare


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Project]:
    """One project for tests that change nothing of it."""
    with tempfile.TemporaryDirectory(prefix="tr", dir="/tmp") as name:
        project = Project(tmp_path_factory.mktemp("shared"), Path(name))
        project.write("taskrun.toml", TOML)
        project.jobs(HELLO)
        yield project
        project.end()
