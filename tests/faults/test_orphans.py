"""A daemon to which orphans fall, as to PID 1 of a container, leaves no zombie and loses no exit code of its own."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.clients import ended, start
from tests.waiting import until

from .conftest import Project

pytestmark = pytest.mark.skipif(
    sys.platform != "linux", reason="only there do orphans fall to a process of one's choice"
)

SUBREAPER = """
import ctypes, os, sys
from pathlib import Path
ctypes.CDLL(None).prctl(36, 1, 0, 0, 0)
os.execv(sys.executable, [sys.executable, "-m", *sys.argv[1:]])
"""
JOBS = """
import os, subprocess
from taskrun import job, run, shell, thread

def leave() -> None:
    subprocess.run("(sleep 0.1 &) ; (sleep 0.1 &)", shell=True)

@job
async def orphans() -> int:
    for number in range(5): await run(f"leave-{number}", leave)
    await thread("leave", leave)
    await shell("(sleep 0.05 &)")
    return subprocess.run("exit 7", shell=True).returncode

@job(retry=0)
async def dies() -> None:
    if not os.path.exists("died"):
        open("died", "w").close()
        os._exit(9)
"""


@contextlib.contextmanager
def adopting(project: Project, *command: str, ready: str) -> Iterator[int]:
    """Runs a module to which orphans fall; gives its process."""
    project.jobs(JOBS)
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
    line = [sys.executable, "-c", SUBREAPER, *command]
    with subprocess.Popen(line, cwd=project.root, env=project.env, **pipes) as process:  # type: ignore[call-overload]
        until(lambda: ready in process.stdout.readline())
        try:
            yield process.pid
        finally:
            process.send_signal(signal.SIGINT)
            assert process.wait(20) == 0


def zombies(parent: int) -> list[int]:
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            fields = (entry / "stat").read_bytes().rpartition(b")")[2].split()
        except OSError:
            continue
        if (fields[0], int(fields[1])) == (b"Z", parent):
            found.append(int(entry.name))
    return found


def leaves_orphans(project: Project, fall_to: int) -> None:
    with project.client() as client:
        run = ended(client, start(client, "orphans"))
        assert (run["status"], run["output"]) == ("succeeded", 7), run
        until(lambda: not zombies(fall_to), 5)


def test_a_daemon_collects_orphans_and_keeps_the_exit_codes_of_its_own(project: Project) -> None:
    log = project.root / ".taskrun" / "daemon.log"
    with adopting(
        project, "taskrun.cli.daemon_main", "foreground", "--config", str(project.root / "taskrun.toml"), ready="ready"
    ) as pid:
        assert project.pid() == pid
        leaves_orphans(project, pid)
        with project.client() as client:
            assert ended(client, start(client, "dies"))["status"] == "succeeded"
        assert "died: exit code 9" in log.read_text()
        for worker in project.workers():
            os.kill(worker, signal.SIGKILL)
        until(lambda: "died: SIGKILL" in log.read_text())
        until(lambda: not zombies(pid), 5)


def test_watch_collects_those_that_fall_to_it(project: Project) -> None:
    with adopting(project, "taskrun", "watch", ready="watching") as pid:
        assert project.pid() != pid
        leaves_orphans(project, pid)
