"""A journal that cannot be used is refused untouched, with what helps; a disk that fills up loses nothing."""

from __future__ import annotations

import hashlib
import json
import os
import sqlite3
import subprocess
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from tests.clients import ended
from tests.waiting import until

from .conftest import TRACE, Project, all_in

STEPS = (
    TRACE
    + """
@job
async def steps(until: str) -> int:
    number = 0
    while not os.path.exists(until):
        await run("step", trace, f"step{number}", retry=0)
        number += 1
        await asyncio.sleep(0.02)
    return number

@job
async def hello(name: str = "you", pad: str = "") -> str:
    return f"hello {name}"
"""
)


def fingerprint(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def recorded(project: Project) -> Path:
    """A journal with a run, and no daemon."""
    assert project.cli("run", "hello").code == 0
    assert project.cli("daemon", "stop").code == 0
    return project.journal


def test_a_journal_of_a_newer_version_is_refused_untouched(project: Project) -> None:
    journal = recorded(project)
    with sqlite3.connect(journal) as db:
        db.execute("PRAGMA user_version=999")
    db.close()
    before = fingerprint(journal)
    for args in (["list"], ["start", "hello"], ["daemon", "start"], ["show", "@last"]):
        outcome = project.cli(*args)
        assert (outcome.code, outcome.out) == (4, ""), outcome
        assert all_in(outcome.err, ["newer", "taskrun"]), outcome.err
    assert fingerprint(journal) == before
    until(lambda: not project.processes())


@pytest.mark.parametrize(
    "content", [b"this is no database\n" * 100, b"SQLite format 3\0" + os.urandom(5000)], ids=["text", "noise"]
)
def test_a_journal_that_is_no_database_is_refused_and_kept(project: Project, content: bytes) -> None:
    project.journal.parent.mkdir(mode=0o700)
    project.journal.write_bytes(content)
    for args in (["list"], ["start", "hello"]):
        outcome = project.cli(*args)
        assert (outcome.code, outcome.out) == (4, ""), outcome
        assert str(project.journal) in outcome.err
        assert "Traceback" not in outcome.err
    assert project.journal.read_bytes() == content
    until(lambda: not project.processes())


def test_a_journal_that_is_a_folder_is_refused(project: Project) -> None:
    project.journal.mkdir(parents=True)
    for args in (["list"], ["start", "hello"]):
        outcome = project.cli(*args)
        assert (outcome.code, outcome.out) == (4, ""), outcome
        assert "Traceback" not in outcome.err


def test_a_journal_that_came_back_shorter_is_reported(project: Project) -> None:
    journal = recorded(project)
    old = journal.read_bytes()
    for _ in range(3):
        assert project.cli("run", "hello").code == 0
    assert project.cli("daemon", "stop").code == 0
    journal.write_bytes(old)
    outcome = project.cli("start", "hello")
    assert (outcome.code, outcome.out) == (4, ""), outcome
    assert "Traceback" not in outcome.err
    assert journal.read_bytes() == old


def test_a_journal_held_by_another_program_is_said(project: Project) -> None:
    journal = recorded(project)
    db = sqlite3.connect(journal, isolation_level=None)
    db.execute("BEGIN EXCLUSIVE")
    outcome = project.cli("start", "hello")
    assert (outcome.code, outcome.out) == (4, ""), outcome
    assert all_in(outcome.err, ["journal"]), outcome.err
    db.close()
    assert project.cli("run", "hello").code == 0


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=3m", "tmpfs", str(disk)], capture_output=True)
    if mounted.returncode:
        pytest.skip("cannot mount a small disk")
    yield disk
    subprocess.run(["umount", "-l", str(disk)], check=True)


def test_a_full_disk_parks_what_runs_and_loses_nothing(project: Project, small_disk: Path, tmp_path: Path) -> None:
    project.write("taskrun.toml", f'[taskrun]\njobs = ["jobs"]\ngrace = "1s"\njournal = "{small_disk}/journal.db"\n')
    project.jobs(STEPS)
    flag, ballast, big = tmp_path / "flag", small_disk / "ballast", tmp_path / "big.json"
    big.write_text(json.dumps({"pad": "x" * 200_000}))
    run = project.cli("start", "steps", "--until", str(flag)).id
    until(lambda: len(project.traced()) > 5)
    with ballast.open("wb", 0) as file:
        try:
            while True:
                file.write(b"x" * 4096)
        except OSError:
            pass
    starting = project.spawn("start", "hello", "--input", f"@{big}")
    out, err = starting.communicate(timeout=30)
    acknowledged = [out.strip()] if starting.returncode == 0 else []
    assert starting.returncode in (0, 4), err
    if starting.returncode:
        assert out == ""
        assert "Traceback" not in err
        assert all_in(err, ["no answer"]) or "full" in err or "space" in err, err
    with project.client() as client:
        fault = until(lambda: client.call("status")["fault"])
        assert "full" in fault or "space" in fault
        until(lambda: len(project.traced()) == len(project.traced()))
        assert project.cli("list").code == 0
        assert project.cli("schedule").code == 0
        examined = project.cli("doctor")
        assert examined.code == 1
        assert "work then goes on by itself" in " ".join(examined.out.split())
        said = project.cli("daemon", "status")
        assert "full" in said.out + said.err or "space" in said.out + said.err, said
        ballast.unlink()
        until(lambda: client.call("status")["fault"] is None)
        count = len(project.traced())
        until(lambda: len(project.traced()) > count)
        flag.touch()
        view = ended(client, run)
        assert (view["status"], view["attempt"]) == ("succeeded", 1)
        assert project.traced() == [f"step{number}" for number in range(view["output"])]
        for each in acknowledged:
            assert ended(client, each)["status"] == "succeeded"
    assert project.cli("run", "hello").code == 0


def test_a_daemon_that_starts_on_a_full_disk_says_so(project: Project, small_disk: Path) -> None:
    project.write("taskrun.toml", f'[taskrun]\njobs = ["jobs"]\njournal = "{small_disk}/journal.db"\n')
    ballast = small_disk / "ballast"
    with ballast.open("wb", 0) as file:
        try:
            while True:
                file.write(b"x" * 4096)
        except OSError:
            pass
    outcome = project.cli("start", "hello")
    assert (outcome.code, outcome.out) == (4, ""), outcome
    assert "full" in outcome.err or "space" in outcome.err, outcome.err
    ballast.unlink()
    assert project.cli("run", "hello").code == 0


def test_a_daemon_that_finds_its_journal_on_a_full_disk_says_so_and_goes(project: Project, small_disk: Path) -> None:
    project.write("taskrun.toml", f'[taskrun]\njobs = ["jobs"]\njournal = "{small_disk}/journal.db"\n')
    assert project.cli("run", "hello").code == 0
    project.kill()
    ballast = small_disk / "ballast"
    with ballast.open("wb", 0) as file, suppress(OSError):
        while True:
            file.write(b"x" * 512)
    outcome = project.cli("start", "hello")
    assert outcome.code == 4 or outcome.code == 0, outcome
    if outcome.code == 4:
        assert "full" in outcome.err or "space" in outcome.err, outcome.err
    assert project.cli("list").code in (0, 4)
    ballast.unlink()
    assert project.cli("run", "hello").code == 0
    assert len(project.runs()) == 2 + (outcome.code == 0)


def test_a_limit_on_file_sizes_is_a_full_disk(project: Project) -> None:
    assert project.cli("run", "hello").code == 0
    assert project.cli("daemon", "stop").code == 0
    outcome = project.cli("start", "hello", before=["bash", "-c", 'ulimit -f 1; exec "$@"', "-"])
    assert outcome.code == 4, outcome
    assert "journal" in outcome.err
    assert project.cli("run", "hello").code == 0
    assert len(project.runs()) == 2
