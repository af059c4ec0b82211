from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from taskrun.processes import supervisor
from taskrun.processes.liveness_lock import LivenessLock

from .conftest import Census

ENGINE = Path(__file__).with_name("engine.py")
ROOT = Path(__file__).parents[2]


def start_engine(lock: Path, *more: str) -> subprocess.Popen[str]:
    """An engine whose commands and functions are all under way."""
    command = [sys.executable, str(ENGINE), str(lock), *more]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    engine = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment, start_new_session=True)
    assert engine.stdout
    waited_for = {"up": 2, "spinning": 1, "forked": more.count("fork")}
    while any(waited_for.values()):
        waited_for[engine.stdout.readline().strip()] -= 1
    return engine


def kill(engine: subprocess.Popen[str]) -> None:
    engine.kill()
    assert engine.stdout
    engine.stdout.close()
    engine.wait()


def test_when_the_engine_is_killed_everything_is_gone_and_only_then_its_lock_is_free(
    census: Census, tmp_path: Path
) -> None:
    lock = tmp_path / "lock"
    engine = start_engine(lock, "")
    while sum("sleep 60" in line for line in census.commands().values()) < 3:
        time.sleep(0.01)
    assert not LivenessLock.free(lock)
    kill(engine)
    deadline = time.monotonic() + 5
    while not LivenessLock.free(lock) and time.monotonic() < deadline:
        time.sleep(0.001)
    assert census.commands() == {}
    assert LivenessLock.free(lock)


def test_a_fork_of_the_engine_that_lives_on_does_not_keep_the_commands_alive(census: Census, tmp_path: Path) -> None:
    engine = start_engine(tmp_path / "lock", "fork")
    kill(engine)
    deadline = time.monotonic() + 5
    while census.commands() and time.monotonic() < deadline:
        time.sleep(0.02)
    assert census.commands() == {}
    assert not LivenessLock.free(tmp_path / "lock")  # the fork is part of the engine
    for pid in census.alive():
        os.kill(pid, signal.SIGKILL)


@pytest.mark.skipif(sys.platform != "linux", reason="no /proc")
def test_both_tables_of_processes_agree() -> None:
    before = supervisor.descendants(os.getpid())  # such as a server that other tests use, too
    with subprocess.Popen(["cat"], stdin=subprocess.PIPE, start_new_session=True) as child:
        me = (child.pid, os.getpid(), child.pid)
        assert me in set(supervisor.processes())
        assert me in set(supervisor.processes_by_ps())
        assert supervisor.descendants(os.getpid()) == {**before, child.pid: child.pid}
