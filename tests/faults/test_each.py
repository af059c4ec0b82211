"""`--each` with a real daemon: 200 children, and SIGKILL for daemon and workers in the middle."""

from __future__ import annotations

import json
import os
from collections import Counter
from functools import partial
from pathlib import Path

from tests.waiting import until

from .conftest import TRACE, Project

JOBS = (
    TRACE
    + """
@job(retry=0)
async def work(path: str) -> None:
    await run("work", trace, os.path.basename(path).replace(" ", "_"), retry=0)
    if path.endswith("7"):
        raise ValueError("seven")
"""
)
COUNT = 200


def has_traced(project: Project, count: int) -> bool:
    return len(project.traced()) >= count


def files(project: Project) -> None:
    (project.root / "in").mkdir()
    for number in range(COUNT):
        (project.root / "in" / f"file {number}").touch()


def test_a_kill_in_the_middle_repeats_no_child_and_a_retry_does_the_failed_ones(project: Project) -> None:
    project.jobs(JOBS)
    files(project)
    started = project.cli("start", "work", "--each", "path=in/*", "--max", "4", "-q")
    assert started.code == 0, started
    for done in (20, 80, 140):
        until(partial(has_traced, project, done))
        project.kill()
        assert project.cli("daemon", "start").code == 0
    ended = project.cli("wait", started.id, "--json")
    assert ended.code == 1, ended
    failed = COUNT // 10
    tally = {"total": COUNT, "succeeded": COUNT - failed, "failed": failed, "cancelled": 0, "missing": 0}
    assert json.loads(ended.out)["output"] == tally
    runs = json.loads(project.cli("list", "--job", "work", "--all", "--json").out)
    assert Counter(Path(run["input"]["path"]).name for run in runs) == {f"file {n}": 1 for n in range(COUNT)}
    assert len(json.loads(project.cli("list", "--parent", started.id, "--all", "--json").out)) == COUNT
    assert len(project.cli("list", "--parent", started.id, "--status", "failed", "-n", "5").out.splitlines()) == 5
    again = project.cli("retry", started.id, "--failed", "-q")
    assert project.cli("wait", again.id).code == 1
    runs = json.loads(project.cli("list", "--job", "work", "--all", "--json").out)
    assert Counter(run["parent"] for run in runs) == {started.id: COUNT, again.id: failed}


def test_cancelling_ends_the_children(project: Project) -> None:
    project.jobs(TRACE + "\n@job\nasync def work(path: str) -> None:\n    trace('begun')\n    await sleep(3600)\n")
    files(project)
    started = project.cli("start", "work", "--each", f"path={os.fspath(project.root)}/in/file 1*", "-q")
    until(lambda: len(project.traced()) == 10)
    assert project.cli("cancel", started.id).code == 0
    assert project.cli("wait", started.id).code == 130
    runs = json.loads(project.cli("list", "--job", "work", "--all", "--json").out)
    assert Counter(run["status"] for run in runs) == {"cancelled": 10}
    for _ in range(2):  # the daemon lists them, then the command itself
        assert [run["id"] for run in json.loads(project.cli("list", "--json").out)] == [started.id]
        assert [line.split("\t")[0] for line in project.cli("list", "-n", "5").out.splitlines()] == [started.id]
        assert len(project.cli("list", "--all").out.splitlines()) == 11
        assert project.cli("daemon", "stop").code == 0
