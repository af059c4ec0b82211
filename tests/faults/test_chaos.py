"""Chaos: a stream of triggers under random kill -9 of daemon and worker. What was acknowledged is done, once."""

from __future__ import annotations

import json
import os
import random
import signal
import threading
from contextlib import suppress
from pathlib import Path

import pytest

from taskrun.daemon.command_protocol import new_intent
from taskrun.model.errors import DaemonError

from .conftest import TRACE, Project

JOBS = (
    TRACE
    + """
from taskrun import current

def work(name: str) -> str:
    trace(f"{current().run_id}/{name}")
    time.sleep(0.01)
    return name

def far(run_id: str) -> str:
    trace(f"{run_id}/2")
    return "2"

@job(retry=0)
async def chain(number: int) -> int:
    run_id = current().run_id
    await run("0", work, "0", retry=0)
    await run("1", work, "1", retry=0)
    if number % 5 == 0:
        await thread("2", far, run_id, retry=0)
    elif number % 5 == 1:
        await shell(f"echo {run_id}/2 $$ >> $TRACE", name="2")
    else:
        await run("2", work, "2", retry=0)
    await sleep(0.1)
    await asyncio.gather(*(run(name, work, name, retry=0) for name in ("3a", "3b")))
    await run("4", work, "4", retry=0)
    return number
"""
)
WISHES = 30
KILLS = 10
WORKER_KILLS = 4  # a run that was there at five deaths in a row would be taken for the cause
RANK = {"0": 0, "1": 1, "2": 2, "3a": 3, "3b": 3, "4": 4}


class Stream:
    """A client that asks for one run after the other, each until it is acknowledged."""

    def __init__(self, project: Project, acknowledged: Path) -> None:
        self.wanted = 0
        self.calm = threading.Event()  # nobody is killed any more
        self._project = project
        self._acknowledged = acknowledged

    def run(self) -> None:
        while self.wanted < WISHES or not self.calm.is_set():
            self._ask(self.wanted)
            self.wanted += 1

    def _ask(self, number: int) -> None:
        intent, request = new_intent(), json.dumps({"number": number})
        while True:
            try:
                with self._project.client() as client:
                    answer = client.call("start", job="chain", input=request, intent=intent)
                break
            except DaemonError:
                continue
        with self._acknowledged.open("a") as file:
            file.write(f"{answer['run']['id']} {number}\n")


def kill_somebody(project: Project, worker: bool) -> None:
    for pid in filter(None, project.workers() if worker else [project.pid()]):
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


def check(project: Project, acknowledged: list[list[str]]) -> None:
    """What went in came out, once; no step began again after a later one had begun."""
    runs = {run["id"]: run for run in project.runs()}
    assert {run_id for run_id, _ in acknowledged} == runs.keys()
    numbers = [run["input"]["number"] for run in runs.values()]
    assert sorted(numbers) == list(range(len(numbers)))
    for run_id, number in acknowledged:
        run = runs[run_id]
        assert (run["status"], run["output"], run["attempt"]) == ("succeeded", int(number), 1), run
    reached: dict[str, int] = {}
    begun: dict[str, int] = {}
    for what in project.traced():
        run_id, _, step = what.partition("/")
        assert RANK[step] >= reached.get(run_id, 0), f"step {step} of {run_id} was executed again"
        reached[run_id] = RANK[step]
        begun[what] = begun.get(what, 0) + 1
    assert begun.keys() == {f"{run_id}/{step}" for run_id in runs for step in RANK}
    assert max(begun.values()) <= 1 + KILLS


@pytest.mark.parametrize("seed", [7, pytest.param(random.randrange(1 << 32), marks=pytest.mark.slow, id="any")])
def test_what_was_acknowledged_is_done_once_whoever_dies(project: Project, tmp_path: Path, seed: int) -> None:
    print("seed", seed)
    project.jobs(JOBS)
    dice = random.Random(seed)
    log = tmp_path / "acknowledged"
    stream = Stream(project, log)
    client = threading.Thread(target=stream.run)
    client.start()
    worker_kills = 0
    for _ in range(KILLS):
        client.join(dice.uniform(0.1, 1.5))
        worker = worker_kills < WORKER_KILLS and dice.random() < 0.5
        worker_kills += worker
        kill_somebody(project, worker)
    stream.calm.set()
    client.join()
    acknowledged = [line.split() for line in log.read_text().splitlines()]
    assert len(acknowledged) == stream.wanted
    with project.client() as waiting:
        for _ in waiting.stream("wait", runs=[run_id for run_id, _ in acknowledged]):
            pass
    check(project, acknowledged)
