"""A daemon to which orphans fall, as to PID 1 of a container, leaves no zombie and loses no exit code of its own."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from .conftest import Project, ended, start, until

pytestmark = pytest.mark.skipif(
    sys.platform != "linux", reason="only there do orphans fall to a process of one's choice"
)

SUBREAPER = """
import ctypes, os, sys
from pathlib import Path
ctypes.CDLL(None).prctl(36, 1, 0, 0, 0)
os.execv(sys.executable, [sys.executable, "-m", "taskrun.cli.foreground", sys.argv[1]])
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


@pytest.fixture
def adopting(project: Project) -> Iterator[Project]:
    project.jobs(JOBS)
    command = [sys.executable, "-c", SUBREAPER, str(project.root / "taskrun.toml")]
    with subprocess.Popen(command, cwd=project.root, env=project.env, stderr=subprocess.PIPE, text=True) as daemon:
        assert daemon.stderr is not None
        until(lambda: "ready" in (daemon.stderr.readline() if daemon.stderr else ""))
        try:
            yield project
        finally:
            daemon.send_signal(signal.SIGTERM)
            assert daemon.wait(20) == 0


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


def test_orphans_are_collected_and_exit_codes_kept(adopting: Project) -> None:
    with adopting.client() as client:
        run = ended(client, start(client, "orphans"))
        assert (run["status"], run["output"]) == ("succeeded", 7), run
        until(lambda: not zombies(adopting.pid()), 5)
        assert ended(client, start(client, "dies"))["status"] == "succeeded"
    assert "died: exit code 9" in (adopting.root / ".taskrun" / "daemon.log").read_text()
    for worker in adopting.workers():
        os.kill(worker, signal.SIGKILL)
    until(lambda: "died: signal SIGKILL" in (adopting.root / ".taskrun" / "daemon.log").read_text())
    until(lambda: not zombies(adopting.pid()), 5)
