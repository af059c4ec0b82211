"""The work of a dead engine is taken over: killed for real, with SIGKILL, in a process of its own."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from taskrun import RunFailed
from tests.engine.dying import TRACE, queue
from tests.waiting import until_async

ROOT = Path(__file__).parents[2]
Start = Callable[[str], "subprocess.Popen[bytes]"]


@pytest.fixture
def trace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    path = tmp_path / "trace"
    path.touch()
    monkeypatch.setenv(TRACE, str(path))
    return path


@pytest.fixture
def start(tmp_path: Path, trace: Path) -> Start:
    """Starts a job in a process of its own."""

    def go(name: str) -> subprocess.Popen[bytes]:
        command = [sys.executable, "-m", "tests.engine.dying", str(tmp_path / "journal.db"), name]
        return subprocess.Popen(command, cwd=ROOT, stderr=subprocess.DEVNULL)

    return go


async def test_a_run_whose_process_was_killed_goes_on_elsewhere(tmp_path: Path, start: Start, trace: Path) -> None:
    assert start("once").wait(20) == -signal.SIGKILL
    async with queue(tmp_path / "journal.db") as jobs:
        [handle] = [entry async for entry in jobs.runs()]
        assert await handle.result(timeout=10) == ["before", "survived", "after"]
        assert (await handle.info()).attempt == 1, "a death is no failed attempt"
    assert trace.read_text().split() == ["before", "dying", "survived", "after"]


async def test_a_queue_that_is_there_already_takes_over_at_once(tmp_path: Path, start: Start, trace: Path) -> None:
    async with queue(tmp_path / "journal.db") as jobs:
        other = start("bystander")
        await until_async(lambda: other.poll() is not None or bool(trace.read_text()))
        assert other.wait(20) == 0
        [handle] = [entry async for entry in jobs.runs()]
        assert await handle.status() == "succeeded"
    assert trace.read_text().split() == ["bystander"]


async def test_a_run_that_always_kills_its_process_ends_as_a_crash_loop(
    tmp_path: Path, start: Start, trace: Path
) -> None:
    for _ in range(5):
        assert start("always").wait(20) == -signal.SIGKILL
    async with queue(tmp_path / "journal.db") as jobs:
        [handle] = [entry async for entry in jobs.runs()]
        with pytest.raises(RunFailed) as caught:
            await handle.result(timeout=10)
        assert caught.value.error_type == "taskrun.WorkerCrashed"
        assert (await handle.info()).reason == "crash loop"
    assert trace.read_text().split() == ["dying"] * 5


async def test_no_process_of_a_dead_engine_works_beside_its_second_execution(
    tmp_path: Path, start: Start, trace: Path
) -> None:
    first = start("with_process")
    await until_async(lambda: "pid" in trace.read_text())
    first.kill()
    first.wait(20)
    pid = int(trace.read_text().split()[-1])
    async with queue(tmp_path / "journal.db") as jobs:
        [handle] = [entry async for entry in jobs.runs()]
        await until_async(lambda: trace.read_text().count("pid") == 2)
        with pytest.raises(ProcessLookupError):
            os.kill(pid, 0)
        assert await handle.result(timeout=10) == "done"
    assert trace.read_text().split().count("begin") == 1
