"""What surrounds a command may be broken too: its streams, its folder, its limits."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest

from .conftest import COMMAND, Project

CLOSED = {"stdin": "<&-", "stdout": ">&-", "stderr": "2>&-", "all": "<&- >&- 2>&-"}


def in_shell(project: Project, script: str) -> subprocess.CompletedProcess[str]:
    line = script.replace("taskrun", " ".join(COMMAND))
    options = {"cwd": project.root, "env": project.env, "capture_output": True, "text": True, "timeout": 40}
    return subprocess.run(["bash", "-c", line], **options)  # type: ignore[call-overload, no-any-return]


@pytest.mark.parametrize("closed", CLOSED)
def test_closed_streams_are_nobody_who_listens(shared: Project, closed: str) -> None:
    before = len(shared.runs())
    for command in ("run hello --name Ada", "start hello --name Ada", "list"):
        done = in_shell(shared, f"taskrun {command} {CLOSED[closed]}")
        assert done.returncode == 0, (command, done)
        assert "Traceback" not in done.stderr
    assert len(shared.runs()) == before + 2


def test_a_full_standard_output_is_said_and_does_nothing_twice(shared: Project) -> None:
    before = len(shared.runs())
    for command in ("start hello --name Ada", "list", "jobs", "--help"):
        done = in_shell(shared, f"taskrun {command} > /dev/full")
        assert done.returncode == 125, (command, done)
        assert "standard output: No space left on device" in done.stderr
        assert "Traceback" not in done.stderr
    assert len(shared.runs()) == before + 1


def test_a_reader_that_goes_is_no_error_to_speak_of(shared: Project) -> None:
    done = in_shell(shared, "taskrun list --all | true; echo ${PIPESTATUS[0]}")
    assert done.stdout.strip() in ("0", "141")
    assert done.stderr == ""


def test_a_folder_that_is_gone_is_no_fault_of_ours(shared: Project, tmp_path: Path) -> None:
    done = in_shell(shared, f"mkdir {tmp_path}/gone; cd {tmp_path}/gone; rmdir {tmp_path}/gone; taskrun list")
    assert done.returncode == 2, done
    assert "taskrun init" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("name", ["TASKRUN_CONCURRENCY", "TASKRUN_GRACE", "TASKRUN_RETENTION__KEEP"])
def test_a_bad_variable_is_named(shared: Project, name: str) -> None:
    """It is the caller's own mistake, whether or not a daemon runs."""
    assert shared.cli("run", "hello").code == 0
    for _ in range(2):
        outcome = shared.cli("list", env=shared.env | {name: "many"})
        assert (outcome.code, outcome.out) == (2, "")
        assert name in outcome.err
        assert shared.cli("daemon", "stop").code == 0


def test_odd_surroundings_are_borne(shared: Project) -> None:
    odd = {"COLUMNS": "-5", "LINES": "x", "TERM": "nonsense", "LC_ALL": "C", "PYTHONIOENCODING": "ascii"}
    outcome = shared.cli("run", "hello", "--name", "é", env=shared.env | odd)
    assert outcome.code == 0, outcome
    for args in (["list"], ["show", "@last"], ["jobs"], ["daemon", "status"]):
        outcome = shared.cli(*args, env=shared.env | odd)
        assert outcome.code == 0, outcome
        assert "Traceback" not in outcome.err
    assert json.loads(shared.cli("show", "@last", "--json", env=shared.env | odd).out)["output"] == "hello é"


def test_too_few_descriptors_are_said(project: Project) -> None:
    done = in_shell(project, "ulimit -n 8; taskrun start hello")
    assert done.returncode in (0, 4, 125), done
    assert done.returncode == 0 or done.stderr
    assert project.cli("run", "hello").code == 0
