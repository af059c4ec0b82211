"""How fast the whole path is on Postgres, worker processes included; for ratios to others on the same server in the same minutes.

    python tests/benchmarks/bench_postgres.py [jobs|steps|sequential|latency|idle …] [--processes 1] [--dsn DSN]
    python tests/benchmarks/bench_postgres.py --peers [--rounds 3]

Each process is one engine (concurrency 50). `jobs`: 5,000 no-op runs, each triggered by a call of its own, 100 in flight, then
drained by processes that are started; `steps`: 500 runs of 10 no-op steps; `sequential`: one run of 1,000; `latency`: from
`start` in one process to the handler in another, 200 times, and what each costs all;
`idle`: what each of `--processes` idle ones costs itself and the server, for a minute.
With `--peers` the first three beside those of `postgres_peers` whose packages are installed, in turn: what is in the middle,
and ratios within a round.
Without a DSN it starts a server of its own with fsync on.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple

import psycopg

from taskrun import PostgresStorage, Queue, job, run
from tests.benchmarks.postgres_peers import PEERS, measure
from tests.postgres_server import Server

JOBS = int(os.environ.get("JOBS", "5000"))
FLIGHT, RUNS, STEPS, SEQUENTIAL, SAMPLES, IDLE = 100, 500, 10, 1_000, 200, 60.0
STARTS = "STARTS"


async def nothing() -> None:
    """What a no-op step does."""


@job
async def noop() -> None:
    """A run that does nothing."""


@job
async def steps(count: int) -> None:
    """A run of no-op steps."""
    for _ in range(count):
        await run("step", nothing)


@job
async def moment() -> None:
    """Writes down when it starts."""
    at = time.time()
    with Path(os.environ[STARTS]).open("a") as file:
        file.write(f"{at}\n")


async def work(dsn: str) -> None:
    """One engine, until it is killed."""
    async with Queue(jobs=[noop, steps, moment], storage=PostgresStorage(dsn), concurrency=50):
        print("ready", flush=True)
        await asyncio.Event().wait()


class Workers:
    """Engines in processes of their own."""

    def __init__(self, dsn: str, count: int) -> None:
        self._started = [
            subprocess.Popen([sys.executable, __file__, "work", "--dsn", dsn], stdout=subprocess.PIPE, text=True)
            for _ in range(count)
        ]

    def __enter__(self) -> Workers:
        for process in self._started:
            assert process.stdout is not None
            assert process.stdout.readline() == "ready\n"
        return self

    def __exit__(self, *_: object) -> None:
        for process in self._started:
            process.kill()
            process.wait()

    @property
    def cpu(self) -> float:
        """Their seconds of CPU."""
        return sum(_cpu(process.pid) for process in self._started)


def _cpu(pid: int) -> float:
    parts = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(parts[11]) + int(parts[12])) / os.sysconf("SC_CLK_TCK")


@asynccontextmanager
async def triggering(dsn: str) -> AsyncIterator[Queue]:
    """A queue that triggers and executes nothing."""
    queue = Queue(jobs=[noop, steps, moment], storage=PostgresStorage(dsn))
    queue._new_core = partial(queue._new_core, only=frozenset())
    async with queue:
        yield queue


def _count(dsn: str) -> int:
    with psycopg.connect(dsn) as connection:
        rows = connection.execute("SELECT count(*) FROM taskrun.runs WHERE status = 'succeeded'").fetchall()
        return int(rows[0][0])


def _span(dsn: str) -> float:
    with psycopg.connect(dsn) as connection:
        [(span,)] = connection.execute("SELECT max(ended_at) - min(started_at) FROM taskrun.runs").fetchall()
        return float(span)


def _spent(dsn: str, workers: Workers) -> tuple[float, float, float]:
    """CPU of engines and of the server's processes for everybody, and the server's transactions."""
    with psycopg.connect(dsn, autocommit=True) as connection:
        pids = connection.execute("SELECT pid FROM pg_stat_activity WHERE application_name = 'taskrun'").fetchall()
        counted = "SELECT xact_commit FROM pg_stat_database WHERE datname = current_database()"
        [(transactions,)] = connection.execute(counted).fetchall()
    return workers.cpu, sum(_cpu(pid) for (pid,) in pids), transactions


def _since(before: tuple[float, ...], after: tuple[float, ...]) -> list[float]:
    return [end - begin for begin, end in zip(before, after, strict=True)]


async def _until_done(dsn: str, count: int) -> None:
    while await asyncio.to_thread(_count, dsn) < count:
        await asyncio.sleep(0.05)


async def jobs(dsn: str, processes: int) -> dict[str, Any]:
    async with triggering(dsn) as queue:
        began = time.perf_counter()
        for _ in range(JOBS // FLIGHT):
            await asyncio.gather(*(queue.jobs.noop.start() for _ in range(FLIGHT)))
        enqueue = time.perf_counter() - began
    with Workers(dsn, processes) as workers:
        await _until_done(dsn, JOBS)
        cpu = workers.cpu
    drain = _span(dsn)
    return {
        "enqueue_s": round(JOBS / enqueue),
        "drain_s": round(JOBS / drain),
        "e2e_s": round(JOBS / (enqueue + drain)),
        "worker_cpu_ms": round(cpu / JOBS * 1e3, 2),
    }


async def many(dsn: str, processes: int) -> dict[str, Any]:
    async with triggering(dsn) as queue:
        await asyncio.gather(*(queue.jobs.steps.start(count=STEPS) for _ in range(RUNS)))
    with Workers(dsn, processes) as workers:
        await _until_done(dsn, RUNS)
        cpu = workers.cpu
    return {"steps_s": round(RUNS * STEPS / _span(dsn)), "worker_cpu_ms": round(cpu / RUNS / STEPS * 1e3, 2)}


async def sequential(dsn: str, processes: int) -> dict[str, Any]:
    async with triggering(dsn) as queue:
        with Workers(dsn, 1):
            await (await queue.jobs.steps.start(count=SEQUENTIAL)).result()
    return {"us_per_step": round(_span(dsn) / SEQUENTIAL * 1e6)}


async def latency(dsn: str, processes: int) -> dict[str, Any]:
    found = []
    with tempfile.NamedTemporaryFile() as file:
        os.environ[STARTS] = file.name
        async with triggering(dsn) as queue:
            with Workers(dsn, processes) as workers:
                await asyncio.sleep(1.0)
                before = _spent(dsn, workers)
                for number in range(SAMPLES):
                    began = time.time()
                    await queue.jobs.moment.start()
                    while len(lines := Path(file.name).read_text().splitlines()) <= number:
                        await asyncio.sleep(0.001)
                    found.append(float(lines[number]) - began)
                    await asyncio.sleep(0.05)
                engines, server, transactions = _since(before, _spent(dsn, workers))
    found.sort()
    return {
        "p50_ms": round(statistics.median(found) * 1e3, 2),
        "p99_ms": round(found[int(SAMPLES * 0.99)] * 1e3, 2),
        "engines_cpu_ms": round(engines / SAMPLES * 1e3, 2),
        "server_cpu_ms": round(server / SAMPLES * 1e3, 2),
        "transactions": round(transactions / SAMPLES, 1),
    }


async def idle(dsn: str, processes: int) -> dict[str, Any]:
    """CPU of one engine and of the server's processes for it, and transactions of all."""
    with Workers(dsn, processes) as workers:
        await asyncio.sleep(20.0)
        before = _spent(dsn, workers)
        await asyncio.sleep(IDLE)
        engines, server, transactions = _since(before, _spent(dsn, workers))
    return {
        "engine_percent_of_a_core": round(engines / IDLE * 100 / processes, 3),
        "server_percent_of_a_core": round(server / IDLE * 100 / processes, 3),
        "transactions_s": round(transactions / IDLE, 1),
    }


class Against(NamedTuple):
    """What is compared with the peers, as seconds of one piece."""

    runs: int
    each: int  # pieces of one run
    ours: Callable[[dict[str, Any]], float]  # from what the benchmark has found


AGAINST = {
    "jobs": Against(JOBS, 1, lambda found: 1 / found["e2e_s"]),
    "steps": Against(RUNS, STEPS, lambda found: 1 / found["steps_s"]),
    "sequential": Against(1, SEQUENTIAL, lambda found: found["us_per_step"] / 1e6),
}


def beside_peers(dsn: str, rounds: int) -> None:
    """Prints milliseconds of a piece, in the middle of all rounds, and how many times as long each peer takes."""
    for kind, (runs, each, ours) in AGAINST.items():
        found: dict[str, list[float]] = {}
        for _ in range(rounds):
            _clear(dsn)
            found.setdefault("taskrun", []).append(ours(asyncio.run(BENCHES[kind](dsn, 1))))
            for name in PEERS:
                if (took := measure(name, kind, runs, dsn)) is not None:
                    enqueue, execute = took
                    whole = enqueue + execute if kind == "jobs" else execute
                    found.setdefault(name, []).append(whole / runs / each)
        for name, times in found.items():
            ratios = [its / own for its, own in zip(times, found["taskrun"], strict=True)]
            print(
                f"{kind:12}{name:16}{statistics.median(times) * 1e3:8.3f} ms {1 / statistics.median(times):8,.0f}/s"
                f"   {statistics.median(ratios):5.2f} ({min(ratios):.2f} to {max(ratios):.2f})",
                flush=True,
            )


def _clear(dsn: str) -> None:
    with psycopg.connect(dsn, autocommit=True) as connection:
        connection.execute("DROP SCHEMA IF EXISTS taskrun CASCADE")
        connection.execute("CHECKPOINT")


BENCHES = {"jobs": jobs, "steps": many, "sequential": sequential, "latency": latency, "idle": idle}


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("what", nargs="*", default=list(BENCHES))
    parser.add_argument("--processes", type=int, default=1)
    parser.add_argument("--dsn")
    parser.add_argument("--peers", action="store_true")
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    if options.what == ["work"]:
        asyncio.run(work(options.dsn))
        return
    server = None
    if options.dsn is None:
        server = Server("fsync=on", "shared_buffers=128MB")
        server.start()
    dsn = options.dsn or server.dsn  # type: ignore[union-attr]
    try:
        if options.peers:
            missing = [name for name, peer in PEERS.items() if find_spec(peer.package) is None]
            print(f"not installed, so left out: {', '.join(missing) or 'none'}")
            beside_peers(dsn, options.rounds)
            return
        for what in options.what:
            _clear(dsn)
            found = asyncio.run(BENCHES[what](dsn, options.processes))
            print(json.dumps({"what": what, "processes": options.processes, **found}), flush=True)
    finally:
        if server is not None:
            server.remove()


if __name__ == "__main__":
    main()
