"""What commands that only look do while no daemon runs: they read the journal and the job files, and cost little."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cli.test_thin import imported

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
    "hashlib",
    "taskrun.daemon.client",
    "taskrun.daemon.launch",
    "taskrun.declarations",
    "taskrun.engine.core",
    "taskrun.engine.dispatch",
    "taskrun.engine.messages",
    "taskrun.words.codec",
)


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


@pytest.mark.parametrize("line", ["list --json", "ps", "show @last --json", "schedule --json"])
def test_a_look_at_the_journal_imports_neither_engine_nor_client_nor_screens(folder: Path, line: str) -> None:
    found = imported(folder, *line.split())
    assert "taskrun.cli.offline" in found
    heavy = {name for name in found if any(name == one or name.startswith(f"{one}.") for one in HEAVY)}
    assert not heavy


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
