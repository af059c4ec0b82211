"""What commands that only look do while no daemon runs: they read the journal and the job files, and cost little."""

from __future__ import annotations

import json
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing, suppress
from pathlib import Path

import pytest

from taskrun.cli.app import execute
from taskrun.cli.backend.connect import ProcessConnector
from taskrun.cli.exit_codes import Code
from taskrun.stores.sqlite_open import version
from tests.cli.fakes import FakeTerminal
from tests.cli.processes import command
from tests.cli.test_fastpath import imported

ENV = {**os.environ, "NO_COLOR": "1"}
JOBS = """
import os
from pathlib import Path
from taskrun import job

print("imported")
os.system("echo imported by a process")
HERE, MODE = Path.cwd().name, os.environ["MODE"]

@job(cron="0 3 * * *")
async def nightly() -> None:
    ...

@job
async def hello(where: str = HERE, mode: str = MODE) -> None:
    ...
"""
HEAVY = (
    "rich",
    "ssl",
    "bz2",
    "lzma",
    "hashlib",
    "taskrun.builtins",
    "taskrun.daemon.client",
    "taskrun.daemon.launch",
    "taskrun.engine.core.core",
    "taskrun.engine.core.executors",
    "taskrun.engine.messages",
)
OF_JOBS = ("taskrun.declarations", "taskrun.model.codec", "taskrun.model.fields")  # beside those, for what needs no job
OF_TIMES = ("zoneinfo", "cronsim")


def run(folder: Path, *args: str) -> subprocess.CompletedProcess[str]:
    line = [sys.executable, "-m", "taskrun", *args]
    return subprocess.run(line, cwd=folder, env=ENV, capture_output=True, text=True, timeout=30, check=True)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A project with a run that has ended and no daemon."""
    project = tmp_path_factory.mktemp("offline")
    (project / "taskrun.toml").write_text('[env]\nMODE = "quiet"\n')
    (project / "jobs").mkdir()
    (project / "jobs" / "all.py").write_text(JOBS)
    (project / "below").mkdir()
    run(project, "run", "hello")
    run(project, "daemon", "stop")
    yield project


@pytest.mark.parametrize(
    ("line", "heavy"),
    [
        ("list --json", (*HEAVY, *OF_JOBS, *OF_TIMES)),
        ("ps", (*HEAVY, *OF_JOBS, *OF_TIMES)),
        ("show @last --json", (*HEAVY, *OF_JOBS, *OF_TIMES)),
        ("schedule --json", (*HEAVY, *OF_JOBS)),
        ("schedule nightly -n 3", (*HEAVY, *OF_JOBS)),
        ("jobs --json", HEAVY),
        ("jobs hello", ("rich.console", *HEAVY[1:])),
    ],
)
def test_a_look_imports_only_what_it_needs(folder: Path, line: str, heavy: tuple[str, ...]) -> None:
    found = imported(folder, *line.split())
    assert "taskrun.cli.backend.offline" in found
    assert not {name for name in found if any(name == one or name.startswith(f"{one}.") for one in heavy)}


def test_a_look_writes_nothing(folder: Path) -> None:
    kept = folder / ".taskrun"
    before = {path.name: path.stat().st_mtime_ns for path in kept.iterdir() if path.is_file()}
    run(folder, "list")
    assert {path.name: path.stat().st_mtime_ns for path in kept.iterdir() if path.is_file()} == before


def test_what_job_files_print_stays_off_standard_output(folder: Path) -> None:
    done = run(folder, "jobs", "--json")
    assert {one["name"] for one in json.loads(done.stdout)} == {"hello", "nightly"}
    assert "imported\n" in done.stderr
    assert "imported by a process\n" in done.stderr


def test_job_files_see_the_folder_and_the_environment_of_a_worker(folder: Path) -> None:
    (found,) = json.loads(run(folder / "below", "jobs", "hello", "--json").stdout)
    defaults = {name: field["default"] for name, field in found["input_schema"]["properties"].items()}
    assert defaults == {"where": folder.name, "mode": "quiet"}


SLOW = """
import asyncio
from taskrun import job, run

@job
async def slow() -> None:
    await run("work", asyncio.sleep, 60)
"""


@pytest.fixture(scope="module")
def interrupted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project whose daemon was killed while a run was under way."""
    project = tmp_path_factory.mktemp("interrupted")
    (project / "taskrun.toml").write_text("")
    (project / "jobs").mkdir()
    (project / "jobs" / "slow.py").write_text(SLOW)
    run(project, "start", "slow")
    deadline = time.monotonic() + 20
    while not json.loads(run(project, "show", "@last", "--json").stdout)["steps"]:
        assert time.monotonic() < deadline, "the step never began"
    os.kill(json.loads(run(project, "daemon", "status", "--json").stdout)["pid"], signal.SIGKILL)
    while subprocess.run(command("daemon", "status"), cwd=project, env=ENV, capture_output=True).returncode != 3:
        assert time.monotonic() < deadline, "the daemon is still there"
    return project


async def test_what_a_dead_daemon_was_at_is_shown_as_interrupted(interrupted: Path) -> None:
    for line in ("list", "show @last"):
        terminal = FakeTerminal(interrupted, in_tty=True, out_tty=True, err_tty=True, env={"HOME": str(interrupted)})
        assert await execute(line.split(), terminal, ProcessConnector()) == 0
        assert "‖ interrupted" in terminal.written
        assert "running" not in terminal.written
        assert "no daemon runs" in terminal.chatter + terminal.written
    (listed,) = json.loads(run(interrupted, "list", "--json").stdout)
    assert (listed["status"], listed["held"]) == ("running", True)


def test_a_daemon_that_was_started_knows_its_jobs_and_one_that_was_stopped_is_gone(folder: Path) -> None:
    assert "2 jobs" in run(folder, "daemon", "start").stdout
    pid = json.loads(run(folder, "daemon", "status", "--json").stdout)["pid"]
    assert run(folder, "daemon", "stop").stderr == "stopped\n  start it: taskrun daemon start\n"
    with suppress(FileNotFoundError):  # a process that has ended, and that nobody has asked for yet
        assert "\nState:\tZ" in Path(f"/proc/{pid}/status").read_text()


def test_a_daemon_that_was_stopped_says_that_something_is_left(folder: Path) -> None:
    run(folder, "start", "hello", "--in", "1h")
    assert run(folder, "daemon", "stop").stderr.startswith("stopped; unfinished runs wait in the journal\n")


async def test_without_a_daemon_the_job_files_are_as_they_are_now_so_nothing_has_to_be_loaded(folder: Path) -> None:
    terminal = FakeTerminal(folder, env={"HOME": str(folder)})
    assert await execute(["jobs", "helo"], terminal, ProcessConnector()) == Code.NOT_FOUND
    assert terminal.chatter.endswith('error: no job "helo"\n  did you mean  hello\n')


async def test_an_older_journal_is_brought_up_to_date_and_read(folder: Path, tmp_path: Path) -> None:
    shutil.copytree(folder, tmp_path / "project")
    journal = tmp_path / "project" / ".taskrun" / "journal.db"
    with closing(sqlite3.connect(journal)) as connection:
        newest = version(connection)
        for column in ("after", "awaited", "tags", "name", "secrets"):
            connection.executescript(f"DROP INDEX IF EXISTS runs_tagged; ALTER TABLE runs DROP COLUMN {column}")
        connection.execute(f"PRAGMA user_version = {newest - 1}")
    assert json.loads(run(tmp_path / "project", "list", "--json").stdout)
    with closing(sqlite3.connect(journal)) as connection:
        assert version(connection) == newest


@pytest.mark.parametrize("left", [None, 0, 100], ids=["gone", "empty", "cut"])
async def test_a_journal_whose_log_outlived_it_is_refused_by_every_look_and_kept(
    interrupted: Path, tmp_path: Path, left: int | None
) -> None:
    project = tmp_path / "project"
    shutil.copytree(interrupted, project)
    journal = project / ".taskrun" / "journal.db"
    journal.unlink() if left is None else os.truncate(journal, left)
    log = journal.with_name("journal.db-wal").read_bytes()
    for line in (["list"], ["show", "@last"], ["schedule"], ["why", "@last"], ["daemon", "start"]):
        terminal = FakeTerminal(project, env={"HOME": str(project)})
        assert await execute(line, terminal, ProcessConnector()) == Code.UNREACHABLE, (line, terminal.written)
        assert "are left beside its write-ahead log" in terminal.chatter
    assert journal.with_name("journal.db-wal").read_bytes() == log
