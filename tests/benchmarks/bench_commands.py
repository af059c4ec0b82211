"""How fast commands that survive are, as ratios to bare processes in the same run (absolute figures are noise).

    python tests/benchmarks/bench_commands.py [--rounds 3] [--runs 1000]

Bare: `posix_spawn` of `true` and `wait`, 4 at a time. A run that does the same as a step, 4 at a time: in a `Queue` on
`SqliteStorage` (full), plainly and surviving, and in a daemon, from the trigger of the first to the end of the last.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from unittest.mock import patch

from taskrun import Queue, SqliteStorage, job, shell
from taskrun.daemon.client import Client
from taskrun.model.config import load

SLOTS = 4
JOBS = """
from taskrun import job, shell

@job(retry=0, concurrency=4)
async def surviving() -> None:
    await shell(["true"], survive=True)
"""


@job(retry=0)
async def plain() -> None:
    """A command that ends with its worker."""
    await shell(["true"])


@job(retry=0)
async def surviving() -> None:
    """A command that survives."""
    await shell(["true"], survive=True)


def bare(runs: int) -> float:
    """Processes per second."""
    begun = time.perf_counter()
    alive = 0
    for _ in range(runs):
        if alive == SLOTS:
            os.wait()
            alive -= 1
        os.posix_spawnp("true", ["true"], os.environ)
        alive += 1
    for _ in range(alive):
        os.wait()
    return runs / (time.perf_counter() - begun)


async def in_queue(name: str, runs: int) -> float:
    """Runs per second."""
    with tempfile.TemporaryDirectory(dir="/tmp") as folder:
        async with Queue(
            jobs=[plain, surviving], storage=SqliteStorage(Path(folder) / "journal.db"), concurrency=SLOTS
        ) as queue:
            await queue.jobs[name].run()
            begun = time.perf_counter()
            handles = [await queue.jobs[name].start() for _ in range(runs)]
            for handle in handles:
                await handle.result()
            return runs / (time.perf_counter() - begun)


def in_daemon(runs: int) -> float:
    """Runs per second."""
    with tempfile.TemporaryDirectory(dir="/tmp") as name:
        root = Path(name)
        (root / "taskrun.toml").write_text('[taskrun]\njobs = ["jobs"]\n')
        (root / "jobs").mkdir()
        (root / "jobs" / "all.py").write_text(JOBS)
        with (
            patch.dict(os.environ, {"XDG_RUNTIME_DIR": name}),
            Client.connect(load(root / "taskrun.toml", os.environ)) as client,
        ):
            ids = [client.call("start", job="surviving", input="{}")["run"]["id"]]
            list(client.stream("wait", runs=ids))
            begun = time.perf_counter()
            ids = [client.call("start", job="surviving", input="{}")["run"]["id"] for _ in range(runs)]
            list(client.stream("wait", runs=ids))
            rate = runs / (time.perf_counter() - begun)
            subprocess.run(
                [sys.executable, "-m", "taskrun", "daemon", "stop"], cwd=root, check=True, capture_output=True
            )
        return rate


def main() -> None:
    """Prints the figures."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--runs", type=int, default=1_000)
    given = parser.parse_args()
    figures: dict[str, list[float]] = {}
    for _ in range(given.rounds):
        base = bare(given.runs)
        for name, rate in {
            "bare processes": base,
            "Queue, plain": asyncio.run(in_queue("plain", given.runs)),
            "Queue, surviving": asyncio.run(in_queue("surviving", given.runs)),
            "daemon, surviving": in_daemon(given.runs),
        }.items():
            figures.setdefault(name, []).append(rate)
    base = statistics.median(figures["bare processes"])
    for name, rates in figures.items():
        rate = statistics.median(rates)
        print(f"{name:20} {rate:7,.0f}/s  {rate / base:5.2f}")


if __name__ == "__main__":
    main()
