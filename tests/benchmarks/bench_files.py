"""Many files dropped at once: `python tests/benchmarks/bench_files.py [FILES] [ROUNDS]`.

Each round drops so many files into a watched folder as fast as it can, and until all have started their runs it executes
`taskrun list` again and again, each time after a bare interpreter. The promises: the last run starts within 10 s of the last
file; `list` takes at most 2.5 × `python -c pass` meanwhile, in the middle of a round. They are broken when even the best round
is beyond them; then this exits with 1. Bytecode is written, as it is in any installation.
"""

from __future__ import annotations

import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from datetime import datetime
from pathlib import Path
from typing import NamedTuple

from taskrun.daemon.client import Client
from taskrun.model.config import load

SCRIPT = shutil.which("taskrun", path=str(Path(sys.executable).parent))
TASKRUN = [SCRIPT] if SCRIPT else [sys.executable, "-m", "taskrun"]
BARE = [sys.executable, "-c", "pass"]
JOB = """from taskrun import files, job


@job(trigger=[files("inbox/*").into(lambda event: {"path": event["path"]})])
async def take(path: str) -> None: ...
"""
DROP = """import sys, time

for n in range(int(sys.argv[2])):
    open(f"inbox/{sys.argv[1]}-{n}", "w").close()
print(time.time())
"""
STARTED_WITHIN, LIST = 10.0, 2.5
GIVEN_UP = 120.0  # seconds


class Round(NamedTuple):
    """Seconds in which the files were dropped, those from the last file to the last start; and the ratios of `list`."""

    dropped: float
    started: float
    ratios: list[float]


class Project:
    """A project in a folder of its own."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.env = {key: value for key, value in os.environ.items() if key != "PYTHONDONTWRITEBYTECODE"}
        self.env["PYTHONPYCACHEPREFIX"] = str(folder / ".pycache")
        for name in ("jobs", "inbox"):
            (folder / name).mkdir()
        (folder / "taskrun.toml").write_text("")
        (folder / "jobs" / "take.py").write_text(JOB)
        self.run("daemon", "start")
        self.client = Client.connect(load(folder / "taskrun.toml", self.env))

    def run(self, *line: str) -> str:
        """Executes a command line; returns what it printed."""
        done = subprocess.run(
            [*TASKRUN, *line], cwd=self.folder, env=self.env, capture_output=True, text=True, check=True
        )
        return done.stdout

    def seconds(self, line: list[str]) -> float:
        """Returns the seconds that a command line takes."""
        begun = time.perf_counter()
        subprocess.run(line, cwd=self.folder, env=self.env, stdout=subprocess.DEVNULL, check=True)
        return time.perf_counter() - begun

    def drop(self, name: str, count: int) -> Round:
        """Drops files and looks on until all have started."""
        before, begun, ratios = self.ended(), time.time(), []
        dropping = subprocess.Popen(
            [sys.executable, "-c", DROP, name, str(count)], cwd=self.folder, stdout=subprocess.PIPE, text=True
        )
        while dropping.poll() is None or self.ended() < before + count:
            assert time.time() < begun + GIVEN_UP, f"{self.ended() - before} of {count} have ended"
            bare = self.seconds(BARE)
            ratios.append(self.seconds([*TASKRUN, "list"]) / bare)
        assert dropping.stdout is not None
        last = float(dropping.stdout.read())
        runs = json.loads(self.run("list", "--job", "take", "-n", str(count), "--json"))
        started = max(datetime.fromisoformat(run["started_at"]).timestamp() for run in runs)
        return Round(last - begun, started - last, ratios)

    def ended(self) -> int:
        """Returns how many runs have succeeded."""
        return int(self.client.call("status")["runs"].get("succeeded", 0))


def main() -> None:
    """Measures in a project of its own."""
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 10_000
    rounds = int(sys.argv[2]) if len(sys.argv) > 2 else 3
    done = []
    with tempfile.TemporaryDirectory(prefix="taskrun-bench-") as name:
        project = Project(Path(name))
        try:
            for at in range(rounds):
                done.append(project.drop(f"round{at}", count))
                dropped, started, ratios = done[-1]
                middle, ninetieth = statistics.median(ratios), statistics.quantiles(ratios, n=10)[-1]
                print(
                    f"{count} files in {dropped:.1f} s   the last started {started:5.2f} s after the last   list "
                    f"{middle:.2f} × in the middle, 90th {ninetieth:.2f}, at most {max(ratios):.2f} of {len(ratios)}"
                )
        finally:
            project.client.close()
            project.run("daemon", "stop")
    best = min(statistics.median(one.ratios) for one in done)
    print(f"promised: {STARTED_WITHIN:g} s, and {LIST} × in the middle")
    sys.exit(0 if min(one.started for one in done) <= STARTED_WITHIN and best <= LIST else 1)


if __name__ == "__main__":
    main()
