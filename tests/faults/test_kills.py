"""Death by kill -9 in the middle of everything: the work goes on, no finished step is executed twice, no orphan beside it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest

from taskrun.daemon.command_protocol import new_intent
from tests.clients import ended
from tests.waiting import until

from .conftest import TRACE, Project, alive

JOBS = (
    TRACE
    + """
@job(retry=0)
async def steps(gate: str) -> int:
    for number in range(5):
        await run("step", trace, f"step{number}", retry=0)
    await run("gate", opened, gate, retry=0)
    for number in range(5, 10):
        await run("step", trace, f"step{number}", retry=0)
    return 10

async def opened(gate: str) -> None:
    trace("waiting")
    while not os.path.exists(gate):
        await asyncio.sleep(0.01)

@job(retry=0)
async def command(gate: str) -> str:
    await run("before", trace, "before", retry=0)
    script = f"echo waiting $$ >> $TRACE; while [ ! -e {gate} ]; do sleep 0.05; done; echo over $$ >> $TRACE; echo done"
    done = await shell(script, name="command")
    await run("after", trace, "after", retry=0)
    return done.stdout.strip()

def block(gate: str) -> str:
    trace("waiting")
    while not os.path.exists(gate):
        time.sleep(0.01)
    trace("over")
    return "done"

@job(retry=0)
async def process(gate: str) -> str:
    await run("before", trace, "before", retry=0)
    value = await thread("process", block, gate, retry=0)
    await run("after", trace, "after", retry=0)
    return value

@job(retry=0)
async def sleeper(seconds: float) -> str:
    await run("before", trace, "before", retry=0)
    await sleep(seconds)
    await run("after", trace, "after", retry=0)
    return "awake"

@job(retry=0)
async def parent(gate: str) -> str:
    await run("before", trace, "before", retry=0)
    value = await process.run(gate=gate)
    await run("last", trace, "last", retry=0)
    return value

@job
async def hello(name: str = "you") -> str:
    trace(f"hello-{name}")
    return name
"""
)


@pytest.fixture
def traced(project: Project) -> Project:
    project.jobs(JOBS)
    return project


def begun(project: Project, job: str, gate: Path) -> str:
    """Starts a job and waits until it stands at its gate."""
    outcome = project.cli("start", job, "--gate", str(gate))
    assert outcome.code == 0, outcome.err
    until(lambda: "waiting" in project.traced())
    return outcome.id


def kill_worker(project: Project) -> None:
    (worker,) = project.workers()
    os.kill(worker, signal.SIGKILL)
    until(lambda: not alive(worker))


def kill_both(project: Project) -> None:
    kill_worker(project)
    project.kill()


KILLS: dict[str, Callable[[Project], None]] = {
    "daemon": Project.kill,
    "worker": kill_worker,
    "both": kill_both,
    "TERM": lambda project: project.kill(signal.SIGTERM),
    "INT": lambda project: project.kill(signal.SIGINT),
}


QUICK = [("steps", "daemon"), ("command", "daemon"), ("process", "both"), ("command", "worker"), ("process", "TERM")]
REST = [(job, victim) for job in ("steps", "command", "process") for victim in KILLS if (job, victim) not in QUICK]


@pytest.mark.parametrize(("job", "victim"), [*QUICK, *(pytest.param(*pair, marks=pytest.mark.slow) for pair in REST)])
def test_work_goes_on_where_it_was(traced: Project, tmp_path: Path, job: str, victim: str) -> None:
    gate = tmp_path / "gate"
    run = begun(traced, job, gate)
    first = traced.tracers()[-1]
    KILLS[victim](traced)
    assert traced.cli("list").code == 0
    with traced.client() as client:
        until(lambda: traced.traced().count("waiting") == 2)
        assert first == traced.tracers()[-1] or job == "steps" or not alive(first)  # no orphan beside it
        gate.touch()
        view = ended(client, run)
        assert (view["status"], view["attempt"]) == ("succeeded", 1), view["error"]
    finished = [what for what in traced.traced() if what not in ("waiting", "over")]
    expected = [f"step{number}" for number in range(10)] if job == "steps" else ["before", "after"]
    assert finished == expected
    assert traced.traced().count("over") == (job != "steps")
    assert len(traced.runs()) == 1


@pytest.mark.parametrize("victim", ["daemon", "worker"])
def test_a_parent_finds_its_child_again(traced: Project, tmp_path: Path, victim: str) -> None:
    gate = tmp_path / "gate"
    run = begun(traced, "parent", gate)
    KILLS[victim](traced)
    with traced.client() as client:
        until(lambda: traced.traced().count("waiting") == 2)
        gate.touch()
        assert ended(client, run)["output"] == "done"
    assert [what for what in traced.traced() if what != "waiting"] == ["before", "before", "over", "after", "last"]
    assert len(traced.runs()) == 2


def test_a_sleep_goes_on_over_the_death_of_the_daemon(traced: Project) -> None:
    run = traced.cli("start", "sleeper", "--seconds", "1.5").id
    until(lambda: "before" in traced.traced())
    with traced.client() as client:
        until(lambda: client.call("show", run=run)["status"] == "waiting")
    traced.kill()
    outcome = traced.cli("wait", run)
    assert outcome.code == 0, outcome.err
    assert traced.traced() == ["before", "after"]


def test_a_command_that_waits_survives_its_daemon(traced: Project, tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    run = begun(traced, "steps", gate)
    with traced.spawn("tail", run) as tail, traced.spawn("wait", run) as wait:
        until(lambda: len(traced.processes()) >= 4)
        traced.kill()
        until(lambda: traced.traced().count("waiting") == 2)  # whoever waits brings it back
        gate.touch()
        assert (wait.wait(30), tail.wait(30)) == (0, 0)
        for process in (tail, wait):
            process.communicate()


def test_a_trigger_whose_answer_was_lost_makes_one_run(traced: Project) -> None:
    """The daemon is killed between the trigger and the answer, again and again; the client asks anew with its intent."""
    for round_ in range(4):
        intent, request = new_intent(), json.dumps({"name": str(round_)})
        client = traced.client()
        client._request("start", {"job": "hello", "input": request, "intent": intent})
        traced.kill()
        client.close()
        with traced.client() as again:
            run = again.call("start", job="hello", input=request, intent=intent)["run"]["id"]
            assert ended(again, run)["status"] == "succeeded"
    assert len(traced.runs()) == 4


def test_a_command_killed_after_it_sent_leaves_one_run_or_none(traced: Project) -> None:
    assert traced.cli("start", "hello", "--name", "first").code == 0
    for number in range(6):
        with traced.spawn("start", "hello", "--name", str(number)) as command:
            with suppress(subprocess.TimeoutExpired):
                command.wait(0.03 * number)
            command.kill()
            command.communicate()
    with traced.client() as client:
        runs = [run["id"] for run in client.call("runs", limit=100)]
        assert {run["status"] for run in client.stream("wait", runs=runs)} == {"succeeded"}
    names = traced.traced()
    assert len(names) == len(set(names)) == len(runs)


def test_a_stopped_daemon_that_goes_on_has_lost_nothing(traced: Project, tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    run = begun(traced, "process", gate)
    pid = traced.pid()
    os.kill(pid, signal.SIGSTOP)
    gate.touch()
    until(lambda: "over" in traced.traced())
    os.kill(pid, signal.SIGCONT)
    assert traced.cli("wait", run).code == 0
    assert traced.pid() == pid
    assert traced.traced() == ["before", "waiting", "over", "after"]


def test_ctrl_c_cancels_a_foreground_run_and_its_processes(traced: Project, tmp_path: Path) -> None:
    with traced.spawn("run", "command", "--gate", str(tmp_path / "never")) as command:
        until(lambda: "waiting" in traced.traced())
        child = traced.tracers()[-1]
        command.send_signal(signal.SIGINT)
        out, _ = command.communicate(timeout=20)
    assert (command.returncode, out) == (130, "")
    until(lambda: not alive(child))
    (run,) = traced.runs()
    assert run["status"] == "cancelled"
