"""A job that prints faster than can be written down is held up: neither side keeps it all, and the daemon answers."""

from __future__ import annotations

import time

import pytest

from tests.clients import ended, start
from tests.waiting import until

from .conftest import TOML, Project, most_memory

MB = 1_000_000
LINES = 80_000  # of a kilobyte
JOBS = """
import asyncio, os, subprocess, sys
from taskrun import job, run, shell

LINE = "f" * 1023

@job
def printing(lines: int) -> int:
    for _ in range(lines): print(LINE)
    return lines

@job
async def turning(lines: int) -> int:
    for number in range(lines):
        print(LINE)
        if number % 100 == 0: await asyncio.sleep(0)
    return lines

@job
async def command(lines: int) -> int:
    await shell(f"yes {LINE} | head -n {lines}")
    return lines

@job
async def hello(name: str = "you") -> str: return f"hello {name}"
"""


@pytest.mark.parametrize("job", ["printing", "turning", "command"])
def test_a_flood_fills_neither_daemon_nor_worker_and_the_daemon_answers(project: Project, job: str) -> None:
    project.write("taskrun.toml", TOML + '[retention]\nmax_log = "1MB"\n')
    project.jobs(JOBS)
    with project.client() as client:
        assert ended(client, start(client, "hello"))["status"] == "succeeded"
        pid, (worker,) = project.pid(), project.workers()
        before = {one: most_memory(one) for one in (pid, worker)}
        run = start(client, job, lines=LINES)
        until(lambda: client.call("logs", run=run, limit=1))
        waits = []
        while client.call("show", run=run)["ended_at"] is None:
            begun = time.monotonic()
            assert project.cli("list", seconds=10).code == 0
            waits.append(time.monotonic() - begun)
        assert ended(client, run)["output"] == LINES
        assert waits
        for one, was in before.items():
            assert most_memory(one) - was < 50 * MB, ("daemon" if one == pid else "worker", most_memory(one) - was)
