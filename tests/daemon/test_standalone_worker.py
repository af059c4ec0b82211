"""`taskrun worker` does what its configuration says, however long its jobs take to be loaded."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from taskrun.daemon import standalone_worker
from tests.daemon.conftest import Project
from tests.waiting import until

WORK = """
import os
from pathlib import Path
from taskrun.daemon.standalone_worker import work
from taskrun.daemon.watch import schedule_file
from taskrun.model.config import load

schedule_file.JOBS_WITHIN = 0.1
work(load(Path("taskrun.toml"), os.environ), None, Path("health"))
"""
SLOW = """
import time
from pathlib import Path
from taskrun import job

while not Path("go").exists():
    time.sleep(0.01)

@job
async def take(path: str) -> None:
    Path("taken").touch()
"""
FILES = '[[files]]\njob = "take"\npattern = "in/*.txt"\nexisting = true\nsettle = "0.1s"\n'


def test_files_are_watched_though_the_jobs_take_long_to_be_loaded(project: Project) -> None:
    toml = project.root / "taskrun.toml"
    toml.write_text(toml.read_text() + FILES)
    project.write("jobs/slow.py", SLOW)
    project.write("in/one.txt", "")
    with subprocess.Popen(
        [sys.executable, "-c", WORK], cwd=project.root, env=os.environ, stderr=subprocess.DEVNULL
    ) as it:
        try:
            until((project.root / "health").exists)
            project.write("go", "")
            until((project.root / "taken").exists)
            it.send_signal(signal.SIGTERM)
            assert it.wait(20) == 0
        finally:
            it.kill()


async def test_a_health_file_that_cannot_be_written_is_written_as_soon_as_it_can(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(standalone_worker, "BEAT", 0.0)
    core = SimpleNamespace(
        journal=SimpleNamespace(fault=None), slots=SimpleNamespace(used=0), clock=SimpleNamespace(now=lambda: 0.0)
    )
    folder = tmp_path / "run"
    beating = asyncio.ensure_future(standalone_worker._beat(folder / "health", cast(Any, core)))
    for _ in range(3):
        await asyncio.sleep(0)
    assert caplog.text.count("cannot be written") == 1
    folder.mkdir()
    async with asyncio.timeout(20):
        while not (folder / "health").exists():
            await asyncio.sleep(0)
    beating.cancel()
