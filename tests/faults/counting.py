"""A project with commands that survive, and what its tests share."""

from __future__ import annotations

import json
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.clients import ended
from tests.waiting import until

from .conftest import Project, alive

JOBS = """
from taskrun import job, shell

@job(retry=0, timeout=None)
async def command(script: str, timeout: float | None = None, rerun: bool = True) -> dict:
    done = await shell(script, name="command", survive=True, rerun=rerun, timeout=timeout, check=False)
    return {"code": done.code, "stdout": done.stdout[-100:]}

@job(retry=2, backoff=0.01)
async def retried(script: str) -> int:
    return (await shell(script, name="command", rerun=False, retry=3, backoff=0.01)).code
"""
# Says that it has begun, prints numbered lines on both streams, now and then many at once, and says that it is over.
COUNTING = """
import os, sys, time
oracle, count, pause, gate = sys.argv[1], int(sys.argv[2]), float(sys.argv[3]), sys.argv[4]

def say(what):
    fd = os.open(oracle, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    os.write(fd, f"{what} {os.getpid()}\\n".encode())
    os.close(fd)

say("begun")
for number in range(count):
    print(f"out {number}", flush=True)
    print(f"err {number}", end="", file=sys.stderr, flush=True)
    if number % 10 == 0:
        time.sleep(pause)
    while number == count // 2 and not os.path.exists(gate):
        time.sleep(0.01)
    print(f" of {count}", file=sys.stderr, flush=True)
say("over")
sys.exit(7)
"""


class Counting:
    """A command that counts, half of the way up to its gate, and what is known of it beside the journal."""

    def __init__(self, project: Project, folder: Path, count: int = 200, pause: float = 0.0) -> None:
        self.count = count
        self.oracle = folder / "oracle"
        self.gate = folder / "gate"
        self._project = project
        program = folder / "counting.py"
        program.write_text(COUNTING)
        self.script = f"exec {sys.executable} -S {program} {self.oracle} {count} {pause} {self.gate}"

    def said(self) -> list[str]:
        return [line.split()[0] for line in self._lines()]

    @property
    def pid(self) -> int:
        return int(self._lines()[-1].split()[1])

    def _lines(self) -> list[str]:
        return self.oracle.read_text().splitlines() if self.oracle.exists() else []

    def check(self, view: dict[str, Any]) -> None:
        """Once begun, once over, its code counts, and each of its lines is in the log once, in order."""
        assert (view["status"], view["output"]["code"]) == ("succeeded", 7), view["error"]
        assert self.said() == ["begun", "over"]
        for stream, expected in (("stdout", "out {}"), ("stderr", f"err {{}} of {self.count}")):
            assert printed(self._project, view["id"], stream) == [expected.format(n) for n in range(self.count)]


def printed(project: Project, run: str, stream: str) -> list[str]:
    outcome = project.cli("tail", "--no-follow", "--json", "-n", "1000000", run, seconds=300)
    assert outcome.code == 0, outcome.err
    records = [json.loads(line) for line in outcome.out.splitlines()]
    return [record["text"] for record in records if record.get("stream") == stream]


def start(project: Project, job: str = "command", **input: Any) -> str:
    outcome = project.cli("start", job, "--input", json.dumps(input))
    assert outcome.code == 0, outcome.err
    return outcome.id


def kill_worker(project: Project) -> None:
    workers = project.workers()
    for worker in workers:
        os.kill(worker, signal.SIGKILL)
    until(lambda: not any(map(alive, workers)))


def kill_daemon(project: Project) -> None:
    until(project.pid)  # 0 while it is starting
    project.kill()


def kill_both(project: Project) -> None:
    kill_worker(project)
    kill_daemon(project)


def restart(project: Project) -> None:
    outcome = project.cli("daemon", "restart")
    assert outcome.code == 0, outcome.err


ENDS: dict[str, Callable[[Project], None]] = {
    "daemon": kill_daemon,
    "worker": kill_worker,
    "both": kill_both,
    "stop": lambda project: project.kill(signal.SIGTERM),
    "restart": restart,
}


def files(project: Project) -> list[Path]:
    return [path for path in (project.root / ".taskrun" / "journal.db.commands").rglob("*") if path.is_file()]


def supervisors(project: Project) -> list[int]:
    return project.with_word(b"detached_supervisor")


def wait(project: Project, run: str) -> dict[str, Any]:
    with project.client() as client:
        return ended(client, run)
