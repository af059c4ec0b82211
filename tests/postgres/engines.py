"""Engines in processes of their own, one that only triggers, and what their steps have to leave."""

from __future__ import annotations

import os
import subprocess
import sys
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path

from taskrun import PostgresStorage, Queue
from taskrun.engine.api.run import Run
from tests.faults.conftest import SOURCE
from tests.postgres.engine_process import JOBS

CONCURRENCY = 4
NAMES = [f"run{number}" for number in range(16)]


class Engines:
    """Engines in processes of their own, and what their steps have left."""

    def __init__(self, dsn: str, trace: Path) -> None:
        self.dsn = dsn
        self.trace = trace
        trace.touch()
        self.processes: list[subprocess.Popen[str]] = []

    def start(self, lease: float = 15.0) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            [sys.executable, "-m", "tests.postgres.engine_process", self.dsn, str(lease), str(CONCURRENCY)],
            stdout=subprocess.PIPE,
            text=True,
            cwd=SOURCE,
            env={**os.environ, "TRACE": str(self.trace)},
        )
        self.processes.append(process)
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        return process

    def executed(self) -> Counter[str]:
        return Counter(line.split()[0] for line in self.trace.read_text().splitlines())

    def end(self) -> None:
        for process in self.processes:
            process.kill()
            process.wait()
            assert process.stdout is not None
            process.stdout.close()


@asynccontextmanager
async def triggering(dsn: str) -> AsyncIterator[Queue]:
    """A queue that knows the jobs and executes nothing: others have to."""
    queue = Queue(jobs=JOBS, storage=PostgresStorage(dsn))
    queue._new_core = partial(queue._new_core, only=frozenset())
    async with queue:
        yield queue


def expected(names: list[str], count: int = 4) -> Counter[str]:
    return Counter({f"{name}-{number}": 1 for name in names for number in range(count)})


def results(names: list[str], count: int = 4) -> list[list[str]]:
    return [[f"{name}-{number}" for number in range(count)] for name in names]


async def outputs(runs: list[Run]) -> list[object]:
    return [await run.result(timeout=60) for run in runs]
