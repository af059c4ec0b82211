"""A worker that answers no more, or whose end nobody would see: who asked is told, the others go on, and stopping has an end."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

from tests.clients import ended, start
from tests.waiting import until

from .conftest import Project, alive

JOBS = """
import asyncio, os, sys, time
from taskrun import Concurrency, job, pipe, run

def raising(error):
    def option(input): raise error
    return option

def spins(input):
    while True:
        pass

def sleeps(input): time.sleep(600)

@job(priority=raising(SystemExit(3)))
async def exits() -> None: ...
@job(key=raising(KeyboardInterrupt()))
async def interrupts() -> None: ...
@job(timeout=raising(GeneratorExit()))
async def generator() -> None: ...
@job(retry=raising(asyncio.CancelledError()))
async def cancels() -> None: ...
@job(concurrency=spins)
async def spinning() -> None: ...
@job(key=sleeps)
async def sleeping() -> None: ...

def exits_in_hook(event): sys.exit(6)
async def exits_in_async_hook(event): sys.exit(7)

@job(on_success=exits_in_hook)
async def hook() -> None: ...
@job(on_settled=exits_in_async_hook)
async def async_hook() -> None: ...
@job(on_trigger=exits_in_hook)
async def trigger_hook() -> None: ...

class Deadly:
    def validate(self, value): sys.exit(4)

@job(input=Deadly())
async def validator(value) -> None: ...

exiting = pipe("exiting", input=Deadly())
events = pipe("events")

@job(trigger=[events.into(lambda event: sys.exit(5))])
async def routed(x: int) -> None: ...

@job(trigger=[events.into(sleeps)])
async def hangs(x: int) -> None: ...

@job(trigger=[events])
async def beside(x: int) -> int: return x

@job
async def hello(name: str = "you") -> str: return f"hello {name}"

@job
async def forks(pid: str, leaves: bool, marker: str) -> str:
    async def fork() -> None:
        child = os.fork()
        if child == 0:
            try:
                if leaves: os.setsid()
                time.sleep(600)
            finally:
                os._exit(0)
        with open(pid, "w") as file: file.write(str(child))
    await run("fork", fork)
    while not os.path.exists(marker):
        await asyncio.sleep(0.02)
    return "done"
"""
RAISED = {
    "exits": "option priority: its function raised SystemExit: 3",
    "interrupts": "KeyboardInterrupt",
    "generator": "GeneratorExit",
    "cancels": "CancelledError",
    "validator": "4",
}


@pytest.fixture(scope="module")
def stuck(shared: Project) -> Project:
    shared.jobs(JOBS)
    return shared


@pytest.mark.parametrize("job", RAISED)
def test_whatever_looks_at_an_input_raises_is_told_and_ends_no_thread(stuck: Project, job: str) -> None:
    outcome = stuck.cli("start", job, "--input", "{}", seconds=15)
    assert outcome.code == 2, outcome
    assert RAISED[job] in outcome.err or RAISED[job].rpartition(" ")[2] in outcome.err
    assert job in outcome.err
    assert stuck.cli("run", "hello", seconds=15).code == 0


def test_an_event_that_ends_the_thread_that_looks_at_it_is_refused(stuck: Project) -> None:
    outcome = stuck.cli("send", "exiting", "--input", "{}", seconds=15)
    assert outcome.code == 2, outcome
    assert "error: " in outcome.err
    assert stuck.cli("run", "hello", seconds=15).code == 0


def test_a_trigger_that_raises_what_it_likes_holds_up_no_other(stuck: Project) -> None:
    with stuck.client() as client:
        client.call("send", pipe="events", data='{"x": 7}')
        run = until(lambda: client.call("runs", job="beside"))[0]
        assert ended(client, run["id"])["output"] == 7
        assert client.call("runs", job="routed") == client.call("runs", job="hangs") == []


@pytest.mark.parametrize("job", ["hook", "async_hook", "trigger_hook"])
def test_a_hook_that_exits_ends_no_worker(stuck: Project, job: str) -> None:
    assert stuck.cli("run", "hello").code == 0
    before = stuck.workers()
    assert stuck.cli("run", job).code == 0
    assert stuck.cli("run", "hello").code == 0
    assert stuck.workers() == before


@pytest.mark.parametrize("job", ["spinning", "sleeping"])
def test_one_that_hangs_is_given_up_in_time_while_others_are_answered(stuck: Project, job: str) -> None:
    assert stuck.cli("run", "hello").code == 0
    waiting = [stuck.spawn("start", job) for _ in range(3)]
    for _ in range(3):
        assert stuck.cli("run", "hello", seconds=9).code == 0
    for process in waiting:
        out, err = process.communicate(timeout=15)
        assert (process.returncode, out) == (2, ""), err
        assert f"job {job}: its code gave no answer within 6 seconds; it is at" in err
        assert "all.py" in err
    assert stuck.cli("run", "hello", seconds=9).code == 0


@pytest.mark.parametrize("leaves", [False, True], ids=["stays in the group", "leaves the group"])
def test_a_death_is_seen_though_a_forked_process_has_the_pipe_open(
    project: Project, tmp_path: Path, leaves: bool
) -> None:
    project.jobs(JOBS)
    pid, marker = tmp_path / "pid", tmp_path / "marker"
    with project.client() as client:
        run = start(client, "forks", pid=str(pid), leaves=leaves, marker=str(marker))
        child = int(until(lambda: pid.exists() and pid.read_text()))
        (worker,) = set(project.workers()) - {child}
        os.kill(worker, signal.SIGKILL)
        marker.touch()
        assert ended(client, run)["output"] == "done"
        assert not alive(child)


@pytest.mark.parametrize("leaves", [False, True], ids=["stays in the group", "leaves the group"])
def test_stopping_ends_what_was_forked(project: Project, tmp_path: Path, leaves: bool) -> None:
    project.jobs(JOBS)
    pid = tmp_path / "pid"
    with project.client() as client:
        start(client, "forks", pid=str(pid), leaves=leaves, marker="/never")
        child = int(until(lambda: pid.exists() and pid.read_text()))
    assert project.cli("daemon", "stop").code == 0
    assert not alive(child)
    assert not project.processes()


def test_what_a_killed_daemon_has_forked_ends_before_the_next_begins(project: Project, tmp_path: Path) -> None:
    project.jobs(JOBS)
    pid, marker = tmp_path / "pid", tmp_path / "marker"
    with project.client() as client:
        run = start(client, "forks", pid=str(pid), leaves=True, marker=str(marker))
        child = int(until(lambda: pid.exists() and pid.read_text()))
    project.kill()
    marker.touch()
    with project.client() as client:
        assert ended(client, run)["output"] == "done"
    assert not alive(child)


def test_a_stopped_worker_keeps_nothing_from_stopping(project: Project) -> None:
    assert project.cli("run", "hello").code == 0
    (worker,) = project.workers()
    os.kill(worker, signal.SIGSTOP)
    outcome = project.cli("start", "hello", seconds=15)
    assert outcome.code == 4, outcome
    assert "no answer within 8 seconds" in outcome.err
    assert project.cli("list").code == 0
    assert project.cli("daemon", "stop").code == 0
    assert not project.processes()
