"""Commands that survive: the daemon and its worker die at any moment, and the same process goes on, followed by the next."""

from __future__ import annotations

import os
import random
import time
from pathlib import Path

import pytest

from tests.clients import ended
from tests.clients import start as trigger
from tests.waiting import until

from .conftest import Project, alive
from .counting import ENDS, JOBS, Counting, files, kill_worker, start, wait

ROUNDS = int(os.environ.get("TASKRUN_KILLS", "12"))


@pytest.fixture
def surviving(project: Project) -> Project:
    project.jobs(JOBS)
    return project


@pytest.mark.parametrize("victim", ENDS)
def test_the_same_process_goes_on_whatever_ends(surviving: Project, tmp_path: Path, victim: str) -> None:
    command = Counting(surviving, tmp_path)
    run = start(surviving, script=command.script)
    until(command.said)
    pid = command.pid
    ENDS[victim](surviving)
    assert alive(pid)
    command.gate.touch()
    command.check(wait(surviving, run))
    assert command.pid == pid
    assert not files(surviving)


@pytest.mark.timeout(120 + 10 * ROUNDS)
def test_kills_at_random_moments(surviving: Project, tmp_path: Path) -> None:
    """TASKRUN_KILLS says how many."""
    seed = int(os.environ.get("TASKRUN_SEED", "0")) or random.randrange(10**6)
    print(f"TASKRUN_SEED={seed}")
    chance = random.Random(seed)
    left = ROUNDS
    while left > 0:
        folder = tmp_path / str(left)
        folder.mkdir()
        command = Counting(surviving, folder, chance.choice([10, 300, 3000]), chance.choice([0.0, 0.005, 0.02]))
        command.gate.touch()
        run = start(surviving, script=command.script)
        for _ in range(min(left, chance.randrange(1, 9))):
            time.sleep(chance.choice([0.0, 0.01, 0.1, 0.5]) * chance.random())
            ENDS[chance.choice(["daemon", "worker", "both"])](surviving)
            left -= 1
            outcome = surviving.cli("daemon", "start")
            assert outcome.code == 0, outcome.err
        command.check(wait(surviving, run))
        until(lambda: not files(surviving))
        assert not alive(command.pid)


@pytest.mark.timeout(120 + 10 * ROUNDS)
def test_each_of_many_short_commands_is_executed_once_whenever_their_worker_dies(
    surviving: Project, tmp_path: Path
) -> None:
    """Their supervisors take one after the other, so that a death comes between two as well."""
    surviving.write("taskrun.toml", '[taskrun]\njobs = ["jobs"]\nconcurrency = 4\n')
    oracle, chance, runs = tmp_path / "oracle", random.Random(), list[str]()
    with surviving.client() as client:
        for _ in range(max(3, ROUNDS // 4)):
            for number in range(len(runs), len(runs) + 20):
                runs.append(trigger(client, "command", script=f"echo {number} | tee -a {oracle}"))
            time.sleep(chance.choice([0.0, 0.1, 0.3]) * chance.random())
            kill_worker(surviving)
        outputs = [ended(client, run)["output"]["stdout"] for run in runs]
    assert outputs == [f"{number}\n" for number in range(len(runs))]
    assert sorted(map(int, oracle.read_text().split())) == list(range(len(runs)))
    until(lambda: not files(surviving))
