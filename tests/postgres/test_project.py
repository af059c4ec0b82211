"""A project whose journal is on a server: the daemon, commands without one, workers without one."""

from __future__ import annotations

import json
import re
import shutil
import signal
import subprocess
from pathlib import Path

import pytest

from tests.faults.conftest import COMMAND, SOURCE, Project
from tests.waiting import until


def worker(project: Project, *options: str) -> subprocess.Popen[str]:
    return project.spawn("worker", *options, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def ready(project: Project, count: int) -> None:
    """Waits until so many workers and daemons are there."""
    until(lambda: len(json.loads(project.cli("workers", "--json").out)) == count)


def test_commands_work_with_a_daemon_and_without(project: Project) -> None:
    assert project.cli("list", "--json").out == "[]\n"
    run = project.cli("run", "hello", "--name", "pg", "--json")
    assert (run.code, json.loads(run.out)["output"]) == (0, "hello pg")
    (engine,) = json.loads(project.cli("workers", "--json").out)
    assert (engine["load"], engine["draining"]) == (0, False)
    assert project.cli("daemon", "stop").code == 0
    (shown,) = project.runs()
    assert (shown["status"], shown["output"]) == ("succeeded", "hello pg")
    steps = json.loads(project.cli("show", shown["id"], "--json").out)["steps"]
    assert [step["key"] for step in steps] == ["greet"]
    assert project.cli("workers", "--json").out == "[]\n"


def test_a_daemon_without_workers_triggers_and_others_execute(project: Project) -> None:
    project.env["TASKRUN_WORKERS"] = "0"
    run = project.cli("start", "hello", "-q").id
    why = json.loads(project.cli("why", run, "--json").out)
    assert why["status"] == "queued"
    project.env["TASKRUN_WORKERS"] = "1"
    others = [worker(project), worker(project)]
    assert project.cli("wait", run).code == 0
    ready(project, 3)
    parent = project.cli("run", "parent", "--json")
    assert json.loads(parent.out)["output"] == ["hello child0", "hello child1", "hello child2"]
    assert sorted(project.traced()) == ["hello-child0", "hello-child1", "hello-child2", "hello-you"]
    for other in others:
        other.send_signal(signal.SIGTERM)
        assert other.wait(20) == 0


def test_a_worker_executes_only_the_jobs_that_it_is_for(project: Project, tmp_path: Path) -> None:
    health = tmp_path / "health"
    project.env["TASKRUN_WORKERS"] = "0"
    only = worker(project, "--jobs", "other", "--health", str(health), "--concurrency", "2")
    until(health.exists)
    held = project.cli("start", "hello", "-q").id
    assert project.cli("run", "other", "--json").code == 0
    assert json.loads(project.cli("show", held, "--json").out)["status"] == "queued"
    assert json.loads(health.read_text())["pid"] == only.pid
    only.send_signal(signal.SIGTERM)
    assert only.wait(20) == 0
    assert not health.exists()


def test_a_worker_for_a_job_that_is_not_there_says_so(project: Project) -> None:
    outcome = project.cli("worker", "--jobs", "nothing")
    assert outcome.code == 3
    assert 'no job "nothing"' in outcome.err


def test_a_worker_whose_grace_runs_out_ends_with_1_and_its_run_goes_on_elsewhere(project: Project) -> None:
    project.env["TASKRUN_WORKERS"] = "0"
    first = worker(project)
    run = project.cli("start", "nap", "--seconds", "4", "-q").id
    until(lambda: json.loads(project.cli("show", run, "--json").out)["status"] == "running")
    first.send_signal(signal.SIGTERM)
    until(lambda: any(one["draining"] for one in json.loads(project.cli("workers", "--json").out)))
    assert first.wait(20) == 1
    second = worker(project)
    assert project.cli("wait", run).code == 0
    assert project.traced() == ["nap"]
    second.send_signal(signal.SIGTERM)
    assert second.wait(20) == 0


def test_a_worker_needs_a_journal_on_a_server(project: Project) -> None:
    del project.env["TASKRUN_JOURNAL"]
    assert project.cli("worker").code == 2


def test_no_command_shows_the_password_of_a_server(project: Project) -> None:
    project.env["TASKRUN_JOURNAL"] = project.env["TASKRUN_JOURNAL"].replace("postgres@", "postgres:secret@")
    assert project.cli("daemon", "start").code == 0
    for command in (
        ("config",),
        ("config", "journal"),
        ("daemon", "status"),
        ("daemon", "status", "--json"),
        ("doctor",),
    ):
        outcome = project.cli(*command)
        assert "secret" not in outcome.out + outcome.err
    assert "secret" in project.cli("config", "journal", "--reveal").out


@pytest.mark.parametrize(
    "journal", ["postgresql://nobody@127.0.0.1:1/nothing", "postgresql://postgres@/x?host=/nowhere"]
)
def test_a_server_that_does_not_answer_is_said(project: Project, journal: str) -> None:
    project.env["TASKRUN_JOURNAL"] = journal
    for command in ("list", "start"):
        outcome = project.cli(command, *(["hello"] if command == "start" else []))
        assert outcome.code in (1, 4)
        assert "does not answer" in outcome.err


def test_two_versions_of_the_code_work_side_by_side_in_folders_of_their_own(project: Project, tmp_path: Path) -> None:
    """As two containers do: each with its own folder, home and runtime folder, and nothing in common but the server."""
    newer = tmp_path / "newer"
    shutil.copytree(project.root, newer, ignore=shutil.ignore_patterns(".taskrun"))
    text = (newer / "jobs" / "all.py").read_text()
    (newer / "jobs" / "all.py").write_text(text + "\n\n@job\nasync def brand_new() -> str:\n    return 'new'\n")
    old = worker(project)
    env = {**project.env, "HOME": str(newer), "XDG_RUNTIME_DIR": str(newer)}
    new = project.spawn("worker", cwd=newer, env=env, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    outcome = project.cli("run", "brand_new", "--json", cwd=newer, env={**env, "TASKRUN_WORKERS": "0"})
    assert json.loads(outcome.out)["output"] == "new"
    project.env["TASKRUN_WORKERS"] = "0"
    parent = project.cli("run", "parent", "--count", "6", "--json")
    assert len(json.loads(parent.out)["output"]) == 6
    for process in (old, new):
        process.send_signal(signal.SIGTERM)
        assert process.wait(20) == 0
    assert project.cli("daemon", "stop", cwd=newer, env=env).code == 0


@pytest.mark.parametrize("name", ["compose.yaml", "taskrun-worker.service"])
def test_the_examples_name_commands_and_options_that_there_are(shared_help: str, name: str) -> None:
    text = (SOURCE / "docs" / "examples" / name).read_text()
    options = re.findall(
        r"(?<=[\s,])--\w[\w-]*", "\n".join(line for line in text.splitlines() if "worker" in line and "#" not in line)
    )
    assert options
    assert all(option in shared_help for option in options)


@pytest.fixture(scope="module")
def shared_help() -> str:
    return subprocess.run([*COMMAND, "worker", "--help"], capture_output=True, text=True, check=True, cwd=SOURCE).stdout
