"""`taskrun worker` does what its configuration says, however long its jobs take to be loaded."""

from __future__ import annotations

import os
import signal
import subprocess
import sys

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
