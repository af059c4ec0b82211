"""The core and the executors under thousands of seeds of input and faults: nothing wrong on the way, all at its end."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from tests.postgres_server import shared_dsn
from tests.simulation.holes import HOLES
from tests.simulation.runner import play, story

FAULTS = {"close", "edit", "jump", "kill", "kill worker", "refuse", "reload", "stall", "stop", "unknown"}
SEEDS_OF_A_HOLE = 1_500
SEEDS_ON_POSTGRES = 25
JOBS = min(2, os.cpu_count() or 1)


def wanted(config: pytest.Config) -> list[int]:
    """Returns the seeds that the options ask for."""
    one = config.getoption("--seed", None)
    first = config.getoption("--first-seed", 0)
    return [one] if one is not None else list(range(first, first + config.getoption("--seeds", 2_000)))


@pytest.mark.timeout(3_600)
def test_everything_comes_to_its_end_under_every_seed(request: pytest.FixtureRequest) -> None:
    seeds = wanted(request.config)
    report = play(seeds, JOBS)
    failures = "\n\n".join(story(outcome) for outcome in report.failed[:3])
    assert not report.failed, "\n".join([failures, *report.lines()])
    assert len(seeds) < 500 or set(report.seen) >= FAULTS


@pytest.mark.timeout(600)
def test_a_seed_replays_exactly() -> None:
    seeds = list(range(60))
    assert play(seeds, JOBS).traces == play(seeds[::-1], 1).traces


@pytest.mark.timeout(600)
def test_it_does_on_a_postgres_server_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TASKRUN_TEST_POSTGRES", shared_dsn())
    seeds = list(range(SEEDS_ON_POSTGRES))
    report = play(seeds, JOBS, postgres=True)
    assert not report.failed, "\n".join([*map(story, report.failed[:3]), *report.lines()])
    again = play(seeds[:5], 1, postgres=True)
    assert again.traces.items() <= report.traces.items()


@pytest.mark.parametrize(
    "hole",
    [pytest.param(hole, marks=[pytest.mark.slow] if HOLES[hole].emphasis.postgres else []) for hole in sorted(HOLES)],
)
@pytest.mark.timeout(600)
def test_a_known_fault_is_found(hole: str, monkeypatch: pytest.MonkeyPatch) -> None:
    if HOLES[hole].emphasis.postgres:
        monkeypatch.setenv("TASKRUN_TEST_POSTGRES", shared_dsn())
    report = play(HOLES[hole].seeds, 1, hole, enough=1)
    if not report.failed:
        report = play(list(range(SEEDS_OF_A_HOLE)), JOBS, hole, enough=1)
    assert report.failed, f"{hole} is not found in {SEEDS_OF_A_HOLE} seeds"
    assert "TypeError" not in str(report.failed[0].wrong), "what is put back does not fit any more"


@pytest.mark.timeout(300)
def test_its_processes_end_with_the_one_that_began_them() -> None:
    command = [
        sys.executable,
        "-m",
        "tests.simulation",
        "--jobs",
        "2",
        "--seeds",
        "500",
        "--hole",
        "a_body_begins_while_its_run_parks",
    ]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as parent:
        assert parent.stdout is not None
        assert parent.stdout.readline().startswith(b"seed ")
        parent.kill()
        parent.stdout.read()  # ends once nobody can write any more
