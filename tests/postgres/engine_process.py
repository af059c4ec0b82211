"""An engine in a process of its own, on a journal on a server: `python -m tests.postgres.engine_process DSN LEASE [NAME]`.

Its jobs leave a line in the file that `TRACE` names whenever a step executes, which no crash can take back.
"""

from __future__ import annotations

import asyncio
import os
import sys

from taskrun import PostgresStorage, Queue, job, run, sleep


def trace(what: str) -> None:
    descriptor = os.open(os.environ["TRACE"], os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    os.write(descriptor, f"{what} {os.getpid()}\n".encode())
    os.close(descriptor)


async def work(what: str, seconds: float) -> str:
    trace(what)
    await asyncio.sleep(seconds)
    return what


@job(retry=0)
async def steps(name: str, count: int = 4, pause: float = 0.05) -> list[str]:
    done = []
    for number in range(count):
        done.append(await run("step", work, f"{name}-{number}", pause))
        await sleep(0.01)
    return done


@job(retry=0)
async def family(name: str, count: int = 3, pause: float = 0.0) -> list[list[str]]:
    if pause:
        await run("first", work, name, pause)
    return list(await asyncio.gather(*(steps.run(name=f"{name}-{n}", count=2) for n in range(count))))


JOBS = [steps, family]


async def main(dsn: str, lease: float, concurrency: int) -> None:
    async with Queue(jobs=JOBS, storage=PostgresStorage(dsn), lease=lease, concurrency=concurrency):
        print("ready", flush=True)
        await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], float(sys.argv[2]), int(sys.argv[3])))
