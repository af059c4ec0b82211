"""Jobs whose process is killed in their middle: python -m tests.engine.dying JOURNAL JOB

Starts a run of the job, unless the journal has one, and waits for its end.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from pathlib import Path

from taskrun import Queue, SqliteStorage, job, run, shell

TRACE = "TASKRUN_TEST_TRACE"


def mark(text: str) -> str:
    with Path(os.environ[TRACE]).open("a") as trace:
        trace.write(text + "\n")
    return text


def die_once() -> str:
    """Kills its process the first time that it is called."""
    if "dying" not in Path(os.environ[TRACE]).read_text():
        die()
    return mark("survived")


def die() -> None:
    mark("dying")
    os.kill(os.getpid(), signal.SIGKILL)


@job(retry=0)
async def once() -> list[str]:
    return [
        await run("before", mark, "before"),
        await run("deadly", die_once, retry=0),
        await run("after", mark, "after"),
    ]


@job(retry=0)
async def always() -> None:
    await run("deadly", die)


@job
async def bystander() -> str:
    await run("wait", asyncio.sleep, 0.3)
    return mark("bystander")


@job(retry=0)
async def with_process() -> str:
    """Its command outlives no death: whoever takes over starts another."""
    await run("begin", mark, "begin")
    await shell('echo "pid $$" >> "$TASKRUN_TEST_TRACE"; exec sleep 0.5', name="command")
    return "done"


JOBS = [once, always, bystander, with_process]


def queue(journal: Path) -> Queue:
    return Queue(jobs=JOBS, storage=SqliteStorage(journal, synchronous="normal"))


async def main(journal: Path, name: str) -> None:
    async with queue(journal) as jobs:
        known = [entry async for entry in jobs.runs(job=name)]
        handle = known[0] if known else await jobs.jobs[name].start()
        await handle.result()


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1]), sys.argv[2]))
