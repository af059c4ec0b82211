"""A `taskrun.toml` that is wrong: an error without a daemon, a warning while one runs that has the last good one."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from taskrun.cli.backend.all_schedules import merged
from taskrun.cli.commands.doctor_checks import differing
from taskrun.cli.exit_codes import Code
from taskrun.model.config import schedule_tables
from taskrun.model.errors import DaemonError
from tests.cli.fakes import JOB, NOW, FakeDaemon, FakeTerminal, a_run
from tests.cli.fakes import typed as typed_to
from tests.cli.test_every_command import typed

GOOD = '[taskrun]\njobs = ["jobs"]\ngrace = "1s"\n'
HOURLY = '[[schedule]]\njob = "backup"\ncron = "@hourly"\n'
JOBS = """
import asyncio
from taskrun import job, pipe

uploads = pipe("uploads")

@job
async def backup(n: int = 1) -> int:
    return n

@job
async def slow() -> None:
    await asyncio.sleep(600)
"""
MISTAKES = {
    "concurency = 5\n": "[taskrun] unknown key concurency; did you mean concurrency?",
    "[taskrun\n": "broken TOML",
    HOURLY.replace("@hourly", "61 * * * *"): '[[schedule]] cron: cron "61 * * * *": the minute field "61" is wrong',
    HOURLY.replace("@hourly", "0 0 30 2 *"): "[[schedule]] cron: cron",
    HOURLY + 'timezone = "Berlin"\n': '[[schedule]] timezone: unknown time zone "Berlin"',
    HOURLY + 'input = { n = "x" }\n': "[[schedule]] input.n: expected int, got str",
    HOURLY + "input = { m = 1 }\n": "[[schedule]] input.m: unknown field",
    HOURLY + HOURLY + "input = { n = [] }\n": "[[schedule]] 2 input.n: expected int, got array",
    HOURLY + "input = { n = nan }\n": "[[schedule]] input",
    HOURLY + "zone = 'UTC'\n": "[[schedule]] unknown key zone",
    '[[schedule]]\ncron = "@hourly"\n': "[[schedule]] job is missing",
}
NEEDS_ALL = ["start backup", "run backup", "send uploads", "daemon start", "daemon restart", "daemon install"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A project with jobs, and no daemon left behind."""
    project = tmp_path_factory.mktemp("broken")
    (project / "taskrun.toml").write_text(GOOD)
    (project / "jobs").mkdir()
    (project / "jobs" / "all.py").write_text(JOBS)
    with tempfile.TemporaryDirectory(prefix="tr", dir="/tmp") as runtime, pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_RUNTIME_DIR", runtime)
        yield project
        (project / "taskrun.toml").write_text(GOOD)
        asyncio.run(typed(project, "daemon stop"))


def write(folder: Path, text: str) -> None:
    (folder / "taskrun.toml").write_text(GOOD + text)


@pytest.mark.parametrize(("text", "said"), MISTAKES.items())
async def test_without_a_daemon_it_is_an_error_that_names_table_and_field(folder: Path, text: str, said: str) -> None:
    write(folder, text)
    for command in ("start backup", "schedule", "daemon restart"):
        code, terminal = await typed(folder, command)
        assert code == Code.USAGE, command
        assert f"error: {folder}/taskrun.toml: {said}" in terminal.chatter, command
    write(folder, "")
    _, terminal = await typed(folder, "list --json --all")
    assert json.loads(terminal.written) == []


async def test_a_job_of_a_broken_file_is_not_said_to_be_unknown(folder: Path) -> None:
    write(folder, "[jobs.tick]\ncomand = 'true'\ncron = '@hourly'\n")
    code, terminal = await typed(folder, "schedule tick --json")
    assert code == Code.USAGE
    assert "[jobs.tick] unknown key comand" in json.loads(terminal.written)["error"]["message"]


async def test_schedule_lists_what_no_daemon_has_seen_yet(folder: Path) -> None:
    write(folder, HOURLY + HOURLY.replace("backup", "nobody") + HOURLY + 'timezone = "Berlin"\n')
    code, terminal = await typed(folder, "schedule --json")
    listed = {
        (one["job"], one["timezone"]): (bool(one["next"]), one["problem"]) for one in json.loads(terminal.written)
    }
    assert code == Code.USAGE
    assert listed[("backup", None)] == (True, None)
    assert listed[("nobody", None)] == (True, 'no job "nobody"')
    assert listed[("backup", "Berlin")][0] is False
    assert "timezone: unknown time zone" in str(listed[("backup", "Berlin")][1])


async def test_with_a_daemon_everything_goes_on_and_says_so(folder: Path) -> None:
    write(folder, HOURLY)
    assert (await typed(folder, "daemon start"))[0] == 0
    try:
        for text, said in MISTAKES.items():
            await _goes_on(folder, text, said)
        write(folder, HOURLY)
        for command in ("list", "schedule"):
            _, terminal = await typed(folder, command)
            assert "warning" not in terminal.chatter
    finally:
        assert (await typed(folder, "daemon stop"))[0] == 0


async def _goes_on(folder: Path, text: str, said: str) -> None:
    write(folder, text)
    commands = ["start slow", "list", "show @last", "why @last", "tail @last --no-follow", "cancel @last", "wait @last"]
    codes = {"wait @last": Code.INTERRUPTED}
    for command in [*commands, "daemon status", "daemon logs", "jobs", "schedule"]:
        code, terminal = await typed(folder, command)
        assert code == codes.get(command, Code.DONE), (command, terminal.chatter)
        if command != "daemon logs" or "input" not in said:  # which looks at a file alone
            assert f"warning: {folder}/taskrun.toml: {said}" in terminal.chatter, command
            assert terminal.chatter.count("warning: ") == 1, command
    code, terminal = await typed(folder, "doctor")
    assert (code, said[:20] in " ".join(terminal.written.split())) == (Code.FAILED, True)
    for command in ("daemon restart", "daemon install"):
        assert (await typed(folder, command))[0] == Code.USAGE, command
    assert (await typed(folder, "daemon status"))[0] == Code.DONE, "what could not start has ended what ran"


async def test_a_broken_file_can_be_stopped_from(folder: Path) -> None:
    write(folder, "")
    assert (await typed(folder, "daemon start"))[0] == 0
    write(folder, "concurency = 5\n")
    assert (await typed(folder, "daemon stop"))[0] == 0
    for command, code in (("daemon stop", 2), ("daemon status", 2), ("list", 2), ("daemon logs", 0)):
        got, terminal = await typed(folder, command)
        assert got == code, command
        assert "concurency" in terminal.chatter


@pytest.mark.parametrize("as_variable", [True, False])
async def test_an_address_is_no_journal(folder: Path, as_variable: bool) -> None:
    address = "mysql://me:hush@host/db"
    write(folder, "" if as_variable else f'journal = "{address}"\n')
    env = {"TASKRUN_JOURNAL": address} if as_variable else {}
    for command in ("start backup", "list", "daemon start", "daemon status", "run backup --local"):
        code, terminal = await typed(folder, command, env={"HOME": str(folder), **env})
        assert code == Code.USAGE, command
        assert (
            "mysql://me:***@host/db: a journal is a SQLite file, or on a server: postgresql://…" in terminal.chatter
        ), command
    assert not [path for path in folder.rglob("*") if "mysql" in path.name]


async def test_a_wrong_variable_is_the_callers_own_mistake(folder: Path) -> None:
    write(folder, "")
    assert (await typed(folder, "daemon start"))[0] == 0
    for text in ("", "concurency = 5\n"):
        write(folder, text)
        for variable, value in (
            ("GRACE", "5"),
            ("WORKERS", "-1"),
            ("JOURNAL", "mysql://h/db"),
            ("RETENTION__KEEP", "x"),
        ):
            for command in ("start backup", "list", "daemon status", "doctor"):
                code, terminal = await typed(folder, command, env={"HOME": str(folder), f"TASKRUN_{variable}": value})
                assert code == (Code.FAILED if command == "doctor" else Code.USAGE), (variable, command)
                assert f"TASKRUN_{variable}" in terminal.chatter + terminal.written, command
    assert (await typed(folder, "daemon stop"))[0] == 0


# ---- whose Python and environment


async def test_status_and_doctor_say_whose_python_and_environment_the_daemon_has(folder: Path) -> None:
    write(folder, "")
    env = {**os.environ, "PATH": "/usr/bin:/bin", "TOKEN": "theirs"}
    command = [sys.executable, "-m", "taskrun", "daemon", "start"]
    subprocess.run(command, cwd=folder, env=env, check=True, capture_output=True)
    try:
        _, terminal = await typed(folder, "daemon status --json")
        status = json.loads(terminal.written)
        assert (status["python"], status["path"]) == (sys.executable, "/usr/bin:/bin")
        _, terminal = await typed(folder, "daemon status")
        assert f"python   {sys.executable}" in terminal.written
        assert "PATH     /usr/bin:/bin" in terminal.written
        _, terminal = await typed(folder, "doctor --json", env={**env, "TOKEN": "ours", "PATH": "/ours"})
        (check,) = [one for one in json.loads(terminal.written) if one["check"] == "environment"]
        assert check["ok"]
        assert "its PATH is not yours but /usr/bin:/bin; variables that differ from yours: TOKEN" in check["text"]
        assert "theirs" not in terminal.written
        _, terminal = await typed(folder, "doctor", env=env)
        assert "and its environment is yours" in " ".join(terminal.written.split())
    finally:
        assert (await typed(folder, "daemon stop"))[0] == 0


async def test_doctor_says_that_the_daemon_has_another_python(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("taskrun.cli.commands.doctor_checks.find_holder", lambda config: True)
    status = {"pid": 1, "version": "0.1.0", "fault": None, "python": "/other/bin/python", "prefix": "/other"}
    daemon = FakeDaemon(status={**status, "python_version": "3.11.1"}, environment={}, schedule=[])
    terminal = FakeTerminal(project)
    assert await typed_to("doctor", terminal, daemon) == Code.FAILED, terminal.chatter
    said = " ".join(terminal.written.split())
    assert f"the daemon's Python is /other/bin/python; yours is {sys.executable}" in said
    assert "problems: " in terminal.chatter
    assert "environment" in terminal.chatter


def test_what_belongs_to_a_terminal_is_no_difference() -> None:
    ours = {"A": "1", "TERM": "xterm", "SHLVL": "2", "SSH_TTY": "/dev/pts/1", "SAME": "x"}
    assert differing(ours, {"B": "1", "SAME": "x", "PWD": "/"}) == ["A", "B"]
    assert differing({str(n): "" for n in range(12)}, {})[-1] == "and 2 more"


# ---- the listing


def test_schedules_of_the_file_are_listed_once(tmp_path: Path) -> None:
    path = tmp_path / "taskrun.toml"
    path.write_text(HOURLY + HOURLY + HOURLY.replace("backup", "nobody"))
    known = {"job": "backup", "cron": "@hourly", "timezone": None, "next": None, "last": None, "last_run": None}
    jobs = [{**JOB, "name": "backup", "schedules": [{"cron": "0 3 * * *", "timezone": None}]}]
    found = merged([known], schedule_tables(path), jobs, NOW)
    assert sorted((one["job"], one["cron"], one["problem"]) for one in found) == [
        ("backup", "0 3 * * *", None),
        ("backup", "@hourly", None),
        ("backup", "@hourly", None),
        ("nobody", "@hourly", 'no job "nobody"'),
    ]


async def test_a_schedule_that_never_fires_is_shown_with_the_reason(screen: FakeTerminal, project: Path) -> None:
    (project / "taskrun.toml").write_text(HOURLY)
    assert await typed_to("schedule", screen, FakeDaemon(schedule=[])) == Code.DONE
    assert '  ✗ no job "backup"' in screen.written.splitlines()


async def test_what_the_daemon_finds_wrong_is_said_once(pipe: FakeTerminal, project: Path) -> None:
    (project / "taskrun.toml").write_text(HOURLY)
    problem = {"problem": "taskrun.toml: [[schedule]] input.n: expected int", "inputs": {}}
    daemon = FakeDaemon(config=problem, runs=[a_run()])
    assert await typed_to("list", pipe, daemon) == Code.DONE
    assert pipe.chatter.startswith(f"warning: {problem['problem']}\n  the daemon goes on with the last good")


async def test_a_daemon_of_an_older_version_is_no_trouble(
    pipe: FakeTerminal, project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("commands.doctor_checks", "commands.daemon"):
        monkeypatch.setattr(f"taskrun.cli.{name}.find_holder", lambda config: True)
    (project / "taskrun.toml").write_text(HOURLY)
    status = {"running": True, "pid": 1, "version": "0.0.9", "fault": None, "uptime": 1.0, "jobs": 1, "runs": {}}
    status |= {"journal": "/j.db", "socket": "/s", "problems": []}
    unknown = DaemonError('unknown request "config"')
    daemon = FakeDaemon(status=status, runs=[], config=unknown, environment=unknown, schedule=[])
    for command in ("list", "daemon status", "doctor", "schedule"):
        assert await typed_to(command, pipe, daemon) != Code.FAULT, pipe.chatter
