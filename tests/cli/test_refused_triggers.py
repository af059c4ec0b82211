"""Triggers that a job has refused are told of wherever the jobs are looked at, with and without a daemon."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from taskrun.cli.screens.jobs import job_screen, refusals
from taskrun.cli.screens.look import Look
from taskrun.engine.core.queries.views import rfc3339
from tests.cli.fakes import JOB, NOW, FakeDaemon, FakeTerminal, typed
from tests.cli.processes import plain

NEVER = {"trigger": "files:in/*.mp3", "at": None, "text": "it gives size, which it does not take", "over": None}
LATELY = {"trigger": "pipe:uploads", "at": rfc3339(NOW - 120), "text": "path: is required", "over": None}
PAST = {"trigger": "schedule:@daily", "at": rfc3339(NOW - 7200), "text": "odd\x1b[31m", "over": rfc3339(NOW - 60)}
REFUSING = JOB | {"refused": [NEVER, LATELY, PAST]}
NEVER_SAID = "files in/*.mp3 can never start it: it gives size, which it does not take"
LATELY_SAID = "pipe uploads did not start it 2m ago: path: is required"


def test_a_job_says_what_it_has_refused_and_whether_that_is_over() -> None:
    assert refusals(REFUSING, NOW, lasting=True) == [NEVER_SAID, LATELY_SAID]
    past = "schedule @daily did not start it 2h ago: odd^[[31m; it has since"
    assert refusals(REFUSING, NOW) == [NEVER_SAID, LATELY_SAID, past]
    assert job_screen(REFUSING, Look(200), now=NOW).plain.count("\nrefused     ") == 3
    assert "refused" not in job_screen(REFUSING, Look(200), "start", [("--json", "one document")]).plain
    assert "refused" not in job_screen(JOB, Look(200)).plain


@pytest.mark.parametrize(("job", "ok"), [(REFUSING, False), (JOB | {"refused": [PAST]}, True), (JOB, True)])
async def test_the_list_of_jobs_and_the_doctor_tell_of_what_is_not_over(
    job: dict[str, Any], ok: bool, screen: FakeTerminal, pipe: FakeTerminal
) -> None:
    daemon = FakeDaemon(jobs={"jobs": [job], "pipes": [], "problems": []}, runs=[], schedule=[])
    assert await typed("jobs", screen, daemon) == 0
    assert (f"warning: processFile: {NEVER_SAID}\n" in screen.chatter) is not ok
    await typed("doctor --json", pipe, daemon)
    (found,) = [check for check in json.loads(pipe.written) if check["check"] == "triggers"]
    assert found["ok"] is ok
    assert ("taskrun jobs processFile" in found["hint"]) is not ok


JOBS = """
from taskrun import files, job

@job(trigger=[files("in/*.txt")])
async def never(path: str) -> None: ...

@job(trigger=[files("in/*.txt", settle="10ms").into(lambda event: {"size": event["name"]})])
async def refuses(size: int) -> None: ...
"""


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    """A project with these jobs; its daemon is stopped at the end."""
    for name in ("in", "jobs"):
        (tmp_path / name).mkdir()
    (tmp_path / "taskrun.toml").write_text("")
    (tmp_path / "jobs" / "a.py").write_text(JOBS)
    yield tmp_path
    plain(tmp_path, "daemon", "stop")


def test_of_a_real_file_with_and_without_a_daemon(folder: Path) -> None:
    assert "files in/*.txt can never start it" in plain(folder, "jobs", "never").stdout
    assert "refused" not in plain(folder, "jobs", "refuses").stdout
    plain(folder, "daemon", "start")
    (folder / "in" / "a.txt").touch()
    deadline = time.monotonic() + 20
    while "refused" not in (shown := plain(folder, "jobs", "refuses").stdout):
        assert time.monotonic() < deadline, shown
        time.sleep(0.1)
    said = "a.txt: invalid input for refuses: size: expected int, got str"
    assert said in " ".join(shown.split())
    plain(folder, "daemon", "stop")
    assert said in " ".join(plain(folder, "jobs", "refuses").stdout.split())
    assert "✗ triggers" in plain(folder, "doctor").stdout


UNFIT = """
[jobs.count]
command = "seq {to}"
input = { to = 3 }

[[files]]
pattern = "in/*"
job = "count"
"""


def test_a_table_of_files_whose_input_does_not_fit_its_job(folder: Path) -> None:
    said = "[[files]] invalid input for count: path: unknown field, valid fields: to"
    (folder / "taskrun.toml").write_text(UNFIT)
    listed = plain(folder, "jobs")
    assert (listed.returncode, said in listed.stderr) == (2, True)
    assert said in plain(folder, "jobs", "count").stderr
    assert said in " ".join(plain(folder, "doctor").stdout.split())
    assert plain(folder, "start", "count").returncode == 2
    (folder / "taskrun.toml").write_text(UNFIT.partition("[[files]]")[0])
    plain(folder, "daemon", "start")
    (folder / "taskrun.toml").write_text(UNFIT)
    assert said in plain(folder, "jobs", "count").stderr
    assert said in " ".join(plain(folder, "doctor").stdout.split())
