"""How fast the whole path is, as ratios to bare SQLite in the same run (absolute figures are noise).

    python tests/benchmarks/bench_engine.py [--rounds 3]

Bare: the same rows in group commits of 100, by `sqlite3` alone at synchronous=full, nothing around them. Engine: a `Queue` on
`SqliteStorage` (full) with 100 runs in flight: trigger, admission, claim, handler, end, waiter.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import sqlite3
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from taskrun import Queue, SqliteStorage, job, run

FLIGHT = 100
RUNS = 3_000
WARM = 8.0  # seconds in which a daemon that has just started loads what its commands will need
STEPS = 100  # of each of the runs in flight
ROW = "insert into runs values (?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?)"
STEP = "insert or replace into steps values (?,?,?,?,?,?,?,?,?,?,?,?)"


async def nothing() -> None:
    """What a no-op step does."""


@job
async def noop() -> None:
    """A run that does nothing."""


@job
async def stepping(steps: int) -> None:
    """A run of no-op steps."""
    for _ in range(steps):
        await run("step", nothing)


# ---- bare


@contextlib.contextmanager
def bare(folder: Path) -> Iterator[sqlite3.Connection]:
    """A journal with nothing around it."""
    connection = sqlite3.connect(folder / f"bare-{time.monotonic_ns()}.db", isolation_level=None)
    connection.execute("pragma journal_mode=wal")
    connection.execute("pragma synchronous=full")
    columns = ", ".join(f"c{number}" for number in range(2, 20))
    connection.execute(f"create table runs (seq integer primary key, id text unique, {columns})")
    columns = ", ".join(f"c{number}" for number in range(3, 13))
    connection.execute(f"create table steps (run text, key text, {columns}, primary key (run, key))")
    yield connection
    connection.close()


def in_commits(connection: sqlite3.Connection, statement: str, rows: Sequence[tuple[object, ...]]) -> None:
    for start in range(0, len(rows), FLIGHT):
        connection.execute("begin immediate")
        for row in rows[start : start + FLIGHT]:
            connection.execute(statement, row)
        connection.execute("commit")


def bare_runs(folder: Path) -> float:
    """Runs per second: each inserted, started and ended in a commit that it shares with 99 others."""
    ids = [f"{number:012d}" for number in range(RUNS)]
    filler = [None] * 18
    with bare(folder) as connection:
        begin = time.perf_counter()
        in_commits(connection, ROW, [(number, run_id, *filler) for number, run_id in enumerate(ids)])
        in_commits(connection, "update runs set c2='running', c3=1.5, c4='engine' where id=?", [(i,) for i in ids])
        in_commits(connection, "update runs set c2='succeeded', c5=2.5, c6='null' where id=?", [(i,) for i in ids])
        return RUNS / (time.perf_counter() - begin)


def bare_steps(folder: Path) -> float:
    """Steps per second, in commits of 100."""
    filler = [None] * 8
    rows = [(f"{run_id:012d}", f"step#{n}", "run", "{}", *filler) for n in range(STEPS) for run_id in range(FLIGHT)]
    with bare(folder) as connection:
        begin = time.perf_counter()
        in_commits(connection, STEP, rows)
        return len(rows) / (time.perf_counter() - begin)


# ---- the engine


async def engine_runs(folder: Path) -> float:
    """Runs per second through a queue, 100 in flight."""
    async with queue(folder) as jobs:
        flight = asyncio.Semaphore(FLIGHT)

        async def one() -> None:
            async with flight:
                await jobs.jobs.noop.run()

        begin = time.perf_counter()
        await asyncio.gather(*(one() for _ in range(RUNS)))
        return RUNS / (time.perf_counter() - begin)


async def engine_steps(folder: Path) -> float:
    """Steps per second of 100 runs in flight."""
    async with queue(folder) as jobs:
        begin = time.perf_counter()
        await asyncio.gather(*(jobs.jobs.stepping.run(steps=STEPS) for _ in range(FLIGHT)))
        return FLIGHT * STEPS / (time.perf_counter() - begin)


async def latency(folder: Path) -> float:
    """Milliseconds of one run in an idle queue, end to end: the median of 100."""
    times = []
    async with queue(folder) as jobs:
        for _ in range(100):
            begin = time.perf_counter()
            await jobs.jobs.noop.run()
            times.append((time.perf_counter() - begin) * 1e3)
    return statistics.median(times)


def queue(folder: Path) -> Queue:
    path = folder / f"queue-{time.monotonic_ns()}.db"
    return Queue(jobs=[noop, stepping], storage=SqliteStorage(path), concurrency=FLIGHT)


# ---- an idle daemon


def idle_daemon(folder: Path, seconds: float) -> float:
    """Per cent of a core that a daemon and its worker use while nothing is to do (Linux)."""
    project = folder / "idle"
    (project / "jobs").mkdir(parents=True)
    (project / "taskrun.toml").write_text('[taskrun]\njobs = ["jobs"]\n')
    (project / "jobs" / "noop.py").write_text("from taskrun import job\n\n@job\nasync def noop(): ...\n")

    def command(*words: str) -> str:
        done = subprocess.run(
            [sys.executable, "-m", "taskrun", *words], cwd=project, capture_output=True, text=True, check=True
        )
        return done.stdout

    command("run", "noop")
    pid = int(json.loads(command("daemon", "status", "--json"))["pid"])
    try:
        time.sleep(WARM)
        before = cpu_seconds(pid)
        time.sleep(seconds)
        return (cpu_seconds(pid) - before) / seconds * 100
    finally:
        command("daemon", "stop")


def cpu_seconds(root: int) -> float:
    """CPU seconds of a process and its descendants."""
    parents, ticks = {}, {}
    for entry in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            fields = entry.read_text().rpartition(")")[2].split()
            pid = int(entry.parent.name)
            parents[pid], ticks[pid] = int(fields[1]), int(fields[11]) + int(fields[12])
    family = {root}
    while grown := {pid for pid, parent in parents.items() if parent in family} - family:
        family |= grown
    return sum(ticks.get(pid, 0) for pid in family) / os.sysconf("SC_CLK_TCK")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--idle", type=float, default=20.0, help="seconds to watch an idle daemon, 0 to skip it")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        print(f"{'':24}{'bare':>12}{'taskrun':>12}{'ratio':>8}   (promise)")
        for _ in range(options.rounds):
            base, ours = bare_runs(folder), asyncio.run(engine_runs(folder))
            print(f"{'no-op runs/s':24}{base:12,.0f}{ours:12,.0f}{ours / base:8.2f}   (0.10)")
            base, ours = bare_steps(folder), asyncio.run(engine_steps(folder))
            print(f"{'no-op steps/s':24}{base:12,.0f}{ours:12,.0f}{ours / base:8.2f}   (0.10)")
            print(f"{'idle run, ms':24}{'':12}{asyncio.run(latency(folder)):12.2f}{'':8}   (under 10)")
        if options.idle:
            print(f"{'idle daemon, % core':24}{'':12}{idle_daemon(folder, options.idle):12.3f}{'':8}   (under 0.2)")


if __name__ == "__main__":
    main()
