"""Work through the daemon and a worker process: `python tests/benchmarks/bench_daemon.py [OLD_CHECKOUT] [--rounds 3]`.

Prints what one piece takes, from the start of the run that makes them to its end, and the processor time of daemon and workers
for it. With an older checkout both take turns, and the ratios are printed too.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from datetime import datetime
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve()
JOBS = """
import asyncio
from taskrun import job, run

async def nothing():
    pass

@job
async def noop():
    pass

@job
async def children(count: int):
    await asyncio.gather(*(noop.run() for _ in range(count)))

@job
async def sequence(count: int):
    for _ in range(count):
        await run("step", nothing)

@job
async def parallel(count: int):
    await asyncio.gather(*(sequence.run(count=40) for _ in range(count)))
"""
CASES = {  # name: job, its count, pieces
    "child run, 2,000 at once": ("children", 2000, 2000),
    "step, 100 runs": ("parallel", 100, 4000),
    "step, one at a time": ("sequence", 2000, 2000),
}


def taskrun(checkout: Path, project: str, *args: str) -> str:
    command = [sys.executable, "-m", "taskrun", *args]
    env = {**os.environ, "PYTHONPATH": str(checkout), "NO_COLOR": "1"}
    return subprocess.run(command, cwd=project, env=env, stdout=subprocess.PIPE, check=True, text=True).stdout


def used(pids: list[int]) -> float:
    ticks = 0
    for pid in pids:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        ticks += int(fields[11]) + int(fields[12])
    return ticks / os.sysconf("SC_CLK_TCK")


def family(pid: int) -> list[int]:
    found = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return [pid, *(one for child in found for one in family(int(child)))]


def measure(checkout: Path) -> dict[str, tuple[float, float]]:
    """Returns wall and processor time in µs a piece."""
    found: dict[str, tuple[float, float]] = {}
    with tempfile.TemporaryDirectory() as project:
        Path(project, "taskrun.toml").write_text('[taskrun]\njobs = ["jobs.py"]\n')
        Path(project, "jobs.py").write_text(JOBS)
        taskrun(checkout, project, "daemon", "start")
        try:
            pid: int = json.loads(taskrun(checkout, project, "daemon", "status", "--json"))["pid"]
            taskrun(checkout, project, "run", "-q", "children", "--count", "200")
            for name, (job, count, pieces) in CASES.items():
                cpu = used(family(pid))
                run = taskrun(checkout, project, "start", job, "--count", str(count)).strip()
                taskrun(checkout, project, "wait", run)
                cpu = used(family(pid)) - cpu
                shown: dict[str, Any] = json.loads(taskrun(checkout, project, "show", run, "--json"))
                assert shown["status"] == "succeeded"
                lasted = datetime.fromisoformat(shown["ended_at"]) - datetime.fromisoformat(shown["started_at"])
                found[name] = lasted.total_seconds() / pieces * 1e6, cpu / pieces * 1e6
        finally:
            taskrun(checkout, project, "daemon", "stop")
    return found


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("old", nargs="?", type=Path)
    parser.add_argument("--rounds", type=int, default=3)
    args = parser.parse_args()
    versions = {"new": HERE.parents[2]} | ({} if args.old is None else {"old": args.old.resolve()})
    taken: dict[str, list[dict[str, tuple[float, float]]]] = {version: [] for version in versions}
    for _ in range(args.rounds):
        for version, checkout in versions.items():
            taken[version].append(measure(checkout))
    print(f"{'':28}{'µs':>8}{'cpu µs':>8}" + (f"{'wall':>7}{'cpu':>7}" if args.old else ""))
    for name in CASES:
        middle = {
            version: [statistics.median(one[name][n] for one in all) for n in (0, 1)] for version, all in taken.items()
        }
        wall, cpu = middle["new"]
        ratios = f"{wall / middle['old'][0]:7.2f}{cpu / middle['old'][1]:7.2f}" if args.old else ""
        print(f"{name:28}{wall:8.0f}{cpu:8.0f}{ratios}")


if __name__ == "__main__":
    main()
