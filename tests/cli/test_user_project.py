"""`taskrun --user`: the project of the user, from any folder, for all commands and on the fast path too."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from taskrun.cli.app import execute
from taskrun.cli.backend.connect import ProcessConnector
from taskrun.cli.session import Session
from taskrun.model import user_project
from tests.cli.fakes import FakeTerminal
from tests.cli.processes import ENV, command

JOBS = """
import os
from taskrun import job, shell

@job
async def where() -> str:
    return os.getcwd() + " " + (await shell("pwd")).stdout.strip()
"""


@pytest.fixture
def home() -> Iterator[Path]:
    """A home folder without anything; its daemon is stopped at the end."""
    made = subprocess.run(["mktemp", "-d", "/tmp/tr-user-XXXXXX"], capture_output=True, text=True, check=True)
    folder = Path(made.stdout.strip())
    yield folder
    taskrun(folder, "--user", "daemon", "stop")
    subprocess.run(["rm", "-rf", folder], check=True)


def env_of(home: Path) -> dict[str, str]:
    kept = {name: value for name, value in ENV.items() if not name.startswith("XDG_") or name == "XDG_RUNTIME_DIR"}
    return {**kept, "HOME": str(home)}


def taskrun(home: Path, *args: str, **env: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command(*args), cwd="/", env={**env_of(home), **env}, capture_output=True, text=True, timeout=30
    )


def mode(path: Path) -> int:
    return path.stat().st_mode & 0o777


def test_it_is_made_at_first_use_for_its_user_alone_and_runs_commands_in_the_home_folder(home: Path) -> None:
    assert taskrun(home, "--user", "list").returncode == 0
    config, state = home / ".config" / "taskrun", home / ".local" / "state" / "taskrun"
    assert [mode(config), mode(state), mode(config / "taskrun.toml")] == [0o700, 0o700, 0o600]
    (config / "jobs" / "where.py").write_text(JOBS)
    ran = taskrun(home, "--user", "run", "where", TASKRUN_CONFIG="/nowhere/taskrun.toml")
    assert (ran.stdout, ran.returncode) == (f"{home} {home}\n", 0), ran.stderr
    assert (state / "journal.db").is_file()
    assert not (config / ".taskrun").exists()


def by_daemon(home: Path, *line: str) -> str:
    """Returns what the thin client makes of a command line: an exit code, or None when no warm daemon executed it."""
    code = f"from taskrun.cli.fastpath.thin_client import run_in_daemon\nprint(run_in_daemon({list(line)}, 'intent'))"
    call = [sys.executable, "-c", code]
    said = subprocess.run(call, cwd="/", env=env_of(home), capture_output=True, text=True, timeout=30, check=True)
    return said.stdout.splitlines()[-1]


def test_a_warm_daemon_executes_its_commands(home: Path) -> None:
    taskrun(home, "--user", "daemon", "start")
    deadline = time.monotonic() + 20
    while by_daemon(home, "--user", "list") == "None":
        assert time.monotonic() < deadline, "the daemon never took a command"
        time.sleep(0.05)  # it loads the commands a moment after its start
    assert by_daemon(home, "--user", "list") == "0"
    assert by_daemon(home, "list") == "None", "there is no project in this folder"
    assert by_daemon(home, "--user", "--config", "x", "list") == "None"


NOTIFY = """
[[notify]]
on = ["paused"]
command = "cat > told.tmp && mv told.tmp told.json"
"""


def test_a_notification_names_the_command_for_it(home: Path) -> None:
    config = Path(user_project.make({"HOME": str(home)}))
    config.write_text(config.read_text() + NOTIFY)
    run = taskrun(home, "--user", "exec", "--in", "1h", "-q", "--", "true").stdout.strip()
    assert taskrun(home, "--user", "pause", run).returncode == 0
    deadline = time.monotonic() + 20
    while not (home / "told.json").exists():
        assert time.monotonic() < deadline, "nobody was told"
        time.sleep(0.05)
    text = json.loads((home / "told.json").read_text())["text"]
    assert text == f"Paused by hand.\nResume it: taskrun --user resume {run}"


@pytest.mark.parametrize("line", [["--user", "--config", "x.toml", "list"], ["--config=x.toml", "--user", "list"]])
async def test_with_a_file_it_is_an_error(project: Path, line: list[str]) -> None:
    terminal = FakeTerminal(project)
    assert await execute(line, terminal, ProcessConnector()) == 2
    assert "two projects" in terminal.chatter


async def test_after_the_command_the_word_is_the_commands_own(project: Path) -> None:
    terminal = FakeTerminal(project)
    assert await execute(["list", "--user"], terminal, ProcessConnector()) == 2
    assert "--user" in terminal.chatter


def test_it_says_where_a_first_job_is_written(home: Path) -> None:
    done = taskrun(home, "--user", "jobs")
    assert done.stderr.strip() == f"no jobs; write one into {home / '.config' / 'taskrun' / 'taskrun.toml'}"


async def test_it_needs_no_init(project: Path) -> None:
    terminal = FakeTerminal(project)
    assert await execute(["--user", "init"], terminal, ProcessConnector()) == 2
    assert sorted(project.iterdir()) == [project / "taskrun.toml"]


def test_a_command_that_needs_no_project_falls_back_to_it_outside_of_any(project: Path, tmp_path: Path) -> None:
    env = {"HOME": str(tmp_path / "home")}
    outside = Session(FakeTerminal(Path("/"), env=env), ProcessConnector())
    assert outside.fall_back_to_user()
    assert outside.config.cwd == tmp_path / "home"
    assert not Session(FakeTerminal(project, env=env), ProcessConnector()).fall_back_to_user()
    named = FakeTerminal(Path("/"), env={**env, "TASKRUN_CONFIG": "/x.toml"})
    assert not Session(named, ProcessConnector()).fall_back_to_user()


def test_base_folders_are_those_of_the_xdg_specification(tmp_path: Path) -> None:
    env = {"HOME": "/home/ada", "XDG_CONFIG_HOME": "/conf", "XDG_STATE_HOME": "not/absolute"}
    assert user_project.config_folder(env) == "/conf/taskrun"
    assert user_project.state_folder(env) == "/home/ada/.local/state/taskrun"
    made = user_project.make({"HOME": str(tmp_path)})
    Path(made).write_text("# mine\n")
    assert user_project.make({"HOME": str(tmp_path)}) == made
    assert Path(made).read_text() == "# mine\n"


def test_a_folder_that_cannot_be_made_is_said(tmp_path: Path) -> None:
    (tmp_path / ".config").write_text("a file")
    said = taskrun(tmp_path, "--user", "list")
    assert said.returncode == 2
    assert "your own project cannot be made" in said.stderr


async def test_outside_of_any_project_an_error_says_what_makes_one(tmp_path: Path) -> None:
    terminal = FakeTerminal(tmp_path, env={"HOME": str(tmp_path / "home")})
    assert await execute(["list"], terminal, ProcessConnector()) == 2
    hint = "make one: taskrun init   or use your own, which needs no folder: taskrun --user COMMAND"
    assert terminal.chatter == f"error: no taskrun.toml in {tmp_path} or above\n  {hint}\n"
