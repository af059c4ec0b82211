"""The command as a person has it: a real terminal, a real daemon, real keys."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cli.processes import ENV, PATIENCE, Person, command, plain

JOBS = """
import asyncio
from taskrun import job, run

@job
async def count(n: int = 2, pause: float = 0.2) -> str:
    for i in range(n):
        print(f"line {i}\\x1b[31m\\x07")
        await run("tick", asyncio.sleep, pause)
    return f"counted {n}"

@job
async def short() -> None:
    for name in "abcde":
        await run(name, print, f"in {name}")
        print(f"after {name}")

@job(retry=0)
async def fails() -> None:
    raise ValueError("no luck")
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A project with a daemon that is stopped at the end."""
    project = tmp_path_factory.mktemp("project")
    (project / "taskrun.toml").write_text('[taskrun]\njobs = ["jobs"]\n')
    (project / "jobs").mkdir()
    (project / "jobs" / "counting.py").write_text(JOBS)
    yield project
    plain(project, "daemon", "stop")


def test_run_leaves_its_log_its_steps_and_its_output_on_the_screen(folder: Path) -> None:
    person = Person(folder, "run", "count", "--n", "2")
    assert person.end() == 0
    first, *rest = person.screen()
    assert first.startswith("▸ ")
    assert "count  n=2 pause=0.2" in first
    assert [line.split("  0.")[0].rstrip() for line in rest[:-2]] == [
        "line 0^G",
        "  ✓  tick",
        "line 1^G",
        "  ✓  tick#2",
    ]
    assert rest[-2].startswith("✓ done")
    assert rest[-1] == "counted 2"


@pytest.mark.parametrize("line", [["run", "short"], ["start", "-f", "short"]], ids=["run", "start"])
def test_steps_and_log_of_short_steps_are_never_lost_and_in_the_order_of_time(folder: Path, line: list[str]) -> None:
    for _ in range(6):
        person = Person(folder, *line)
        assert person.end() == 0
        _, *rest = person.screen()
        told = [row.split("  0.")[0].replace("  ✓  ", "done ") for row in rest[:15]]
        assert told == [f"{word} {name}" for name in "abcde" for word in ("in", "done", "after")]
        assert rest[15].startswith("✓ done")


def test_ctrl_c_cancels_the_run_in_the_foreground(folder: Path) -> None:
    person = Person(folder, "run", "count", "--n", "100")
    person.until("line 1")
    person.type(b"\x03")
    assert person.end() == 130
    assert any(line.startswith("⊘ cancelled") for line in person.screen())
    assert json.loads(plain(folder, "show", "count@last", "--json").stdout)["status"] == "cancelled"


def test_ctrl_c_leaves_a_followed_run_alone(folder: Path) -> None:
    run = plain(folder, "start", "count", "--n", "15").stdout.strip()
    person = Person(folder, "tail", run)
    person.until("line 1^G")
    person.type(b"\x03")
    assert person.end() == 130
    assert f"{run[:6]} goes on: taskrun tail {run[:6]}" in person.screen()[-1]
    waited = plain(folder, "wait", run, "--json")
    assert waited.returncode == 0
    assert json.loads(waited.stdout)["output"] == "counted 15"


def test_a_live_list_quits_well_and_leaves_its_last_frame(folder: Path) -> None:
    plain(folder, "run", "count", "--n", "1")
    person = Person(folder, "list", "-w")
    person.until("done")
    person.type(b"\x03")
    assert person.end() == 0
    assert person.screen()[0].startswith("RUN ")


def test_without_a_terminal_data_and_chatter_are_apart(folder: Path) -> None:
    ran = plain(folder, "run", "count", "--n", "1")
    assert (ran.returncode, ran.stdout) == (0, "counted 1\n")
    assert "line 0^G" in ran.stderr
    assert "\x1b" not in ran.stderr
    failed = plain(folder, "run", "fails", "--json")
    assert failed.returncode == 1
    assert json.loads(failed.stdout)["error"]["type"] == "ValueError"


def test_a_job_runs_in_this_process_without_a_daemon(folder: Path) -> None:
    ran = plain(folder, "run", "--local", "count", "--n", "1", "--pause", "0")
    assert (ran.returncode, ran.stdout) == (0, "counted 1\n")
    assert "line 0" in ran.stderr


def test_a_closed_pipe_is_quiet(folder: Path) -> None:
    script = f"{' '.join(command('list', '--json'))} | true"
    ended = subprocess.run(
        ["bash", "-c", script], cwd=folder, env=ENV, capture_output=True, text=True, timeout=PATIENCE
    )
    assert ended.stderr == ""


def test_looking_needs_no_daemon(folder: Path) -> None:
    assert plain(folder, "run", "count", "--n", "1").returncode == 0
    assert plain(folder, "run", "fails").returncode == 1
    assert plain(folder, "daemon", "stop").returncode == 0
    assert plain(folder, "list").stdout.count("\tcount\t") >= 1
    assert json.loads(plain(folder, "show", "fails@last", "--json").stdout)["status"] == "failed"
    assert plain(folder, "tail", "count@last", "--no-follow").stdout.startswith("line 0")
    assert [job["name"] for job in json.loads(plain(folder, "jobs", "--json").stdout)] == ["count", "short", "fails"]
    status = plain(folder, "daemon", "status", "--json")
    assert status.returncode == 3
    assert json.loads(status.stdout)["running"] is False
