"""The same work on two checkouts of taskrun, alternating: `python tests/benchmarks/bench_versions.py OLD [--rounds 3]`.

Prints, of medians, processor time in µs a piece of this checkout and the ratios to the old one of processor and wall time.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Awaitable
from pathlib import Path
from typing import Any

from taskrun import MemoryStorage, Queue, SqliteStorage, job, run, sleep

HERE = Path(__file__).resolve()


async def nothing() -> None:
    pass


@job
async def noop() -> None:
    pass


@job
async def stepping(steps: int) -> None:
    for _ in range(steps):
        await run("step", nothing)


@job
async def tree(depth: int) -> None:
    if depth:
        await asyncio.gather(tree.run(depth=depth - 1), tree.run(depth=depth - 1))


@job
async def napper() -> None:
    await sleep("1h")


def used() -> float:
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime


async def in_flight(bound: Any, count: int, most: int, **given: int) -> None:
    room = asyncio.Semaphore(most)

    async def one() -> None:
        async with room:
            await bound.run(**given)

    await asyncio.gather(*(one() for _ in range(count)))


async def parked(queue: Queue, count: int) -> None:
    await asyncio.gather(*(queue.jobs.napper.start() for _ in range(count)))
    while len([handle async for handle in queue.runs(status="waiting")]) < count:
        await asyncio.sleep(0.05)


async def measure() -> dict[str, tuple[float, float]]:
    """Returns processor and wall time in µs a piece."""
    found: dict[str, tuple[float, float]] = {}

    async def take(name: str, work: Awaitable[None], pieces: int) -> None:
        gc.collect()  # else one piece pays for what others have left
        cpu, wall = used(), time.perf_counter()
        await work
        found[name] = (used() - cpu) / pieces * 1e6, (time.perf_counter() - wall) / pieces * 1e6

    for store in ("sqlite", "memory"):
        with tempfile.TemporaryDirectory() as folder:
            storage = SqliteStorage(f"{folder}/journal.db") if store == "sqlite" else MemoryStorage()
            async with Queue(jobs=[noop, stepping, tree, napper], storage=storage) as queue:
                jobs = queue.jobs
                await in_flight(jobs.noop, 300, 100)
                await take(f"{store}: run, 100 in flight", in_flight(jobs.noop, 2000, 100), 2000)
                await take(f"{store}: run, 1,000 in flight", in_flight(jobs.noop, 2000, 1000), 2000)
                await take(f"{store}: run, one at a time", in_flight(jobs.noop, 200, 1), 200)
                await take(f"{store}: step, 100 runs", in_flight(jobs.stepping, 100, 100, steps=40), 4000)
                await take(f"{store}: step, one at a time", in_flight(jobs.stepping, 1, 1, steps=500), 500)
                await take(f"{store}: run of a tree of 511", in_flight(jobs.tree, 1, 1, depth=8), 511)
                await take(f"{store}: run parked", parked(queue, 1500), 1500)
    return found


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("old", nargs="?")
    parser.add_argument("--rounds", type=int, default=3)
    args = parser.parse_args()
    if args.old is None:
        print(json.dumps(asyncio.run(measure())))
        return
    taken: dict[str, list[dict[str, tuple[float, float]]]] = {"new": [], "old": []}
    for _ in range(args.rounds):
        for version, path in (("new", HERE.parents[2]), ("old", Path(args.old).resolve())):
            child = [sys.executable, str(HERE)]
            out = subprocess.run(child, env={**os.environ, "PYTHONPATH": str(path)}, stdout=subprocess.PIPE, check=True)
            taken[version].append(json.loads(out.stdout))
    print(f"{'':34}{'µs':>8}{'cpu':>7}{'wall':>7}")
    for name in taken["new"][0]:
        new, old = ([statistics.median(one[name][n] for one in taken[v]) for n in (0, 1)] for v in ("new", "old"))
        print(f"{name:34}{new[0]:8.0f}{new[0] / old[0]:7.2f}{new[1] / old[1]:7.2f}")


if __name__ == "__main__":
    main()
