"""A handler that lets nothing else happen in its worker: cancel and timeout end it all the same, and its neighbours go on."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.clients import ended, start
from tests.waiting import until

from .conftest import TRACE, Project, alive

JOBS = """
import re

@job(retry=0)
async def spins() -> None:
    trace("spins")
    while True:
        pass

@job(retry=0)
async def sleeps() -> None:
    trace("sleeps")
    time.sleep(600)

@job(retry=0, timeout=1)
async def too_long() -> None:
    trace("too_long")
    while True:
        pass

@job(retry=0)
async def swallows() -> None:
    trace("swallows")
    while True:
        try:
            time.sleep(600)
        except BaseException:
            pass

@job
async def neighbour(seen: str) -> str:
    await run("once", trace, "once")
    while not os.path.exists(seen):
        await asyncio.sleep(0.02)
    return "done"
"""


@pytest.mark.parametrize("job", ["spins", "sleeps", "swallows"])
def test_it_is_cancelled_and_its_neighbour_goes_on_without_blame(project: Project, tmp_path: Path, job: str) -> None:
    project.jobs(TRACE + JOBS)
    seen = tmp_path / "seen"
    with project.client() as client:
        beside = start(client, "neighbour", seen=str(seen))
        until(lambda: "once" in project.traced())
        (worker,) = project.workers()
        blocking = start(client, job)
        until(lambda: job in project.traced())
        outcome = project.cli("cancel", blocking, "--json")
        assert outcome.code == 0, outcome
        run = ended(client, blocking)
        assert (run["status"], run["reason"], run["attempt"]) == ("cancelled", "explicit", 1)
        until(lambda: not alive(worker))
        seen.touch()
        run = ended(client, beside)
        assert (run["status"], run["output"], run["attempt"]) == ("succeeded", "done", 1)
    assert project.traced().count(job) == 1
    assert project.traced().count("once") == 1


def test_it_times_out(project: Project) -> None:
    project.jobs(TRACE + JOBS)
    outcome = project.cli("run", "too_long", "--json", seconds=20)
    assert outcome.code == 124, outcome
    run = json.loads(outcome.out)
    assert (run["status"], run["reason"]) == ("failed", "timeout")
    assert project.traced() == ["too_long"]
    assert project.cli("daemon", "stop").code == 0


def test_a_restart_does_not_bring_back_what_was_cancelled(project: Project) -> None:
    project.jobs(TRACE + JOBS)
    with project.client() as client:
        blocking = start(client, "spins")
        until(lambda: "spins" in project.traced())
        client.call("cancel", run=blocking)
    assert project.cli("daemon", "stop").code == 0
    outcome = project.cli("wait", blocking, seconds=20)
    assert outcome.code == 130, outcome
