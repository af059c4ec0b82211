"""Handlers of every shape, for the laws of replay: each step leaves a trace outside the journal when it executes.

A step that may be cut off by a crash is executed again, and no other; so the trace of a finished one must stay single.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from taskrun import Job, Queue, RunFailed, job, now, random, run, sleep, uuid

TRACE = "TASKRUN_TEST_TRACE"


def mark(name: str) -> None:
    """Leaves a line that no crash of this process can take back."""
    path = Path(os.environ[TRACE])
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    try:
        os.write(descriptor, f"{os.getpid()} {name}\n".encode())
    finally:
        os.close(descriptor)


async def work(name: str, value: Any) -> Any:
    mark(name)
    await asyncio.sleep(0)
    return value


async def fails(name: str, until: int) -> str:
    """Fails until it has been executed `until` times, by the trace."""
    mark(name)
    count = sum(line.endswith(f" {name}") for line in Path(os.environ[TRACE]).read_text().splitlines())
    if count < until:
        raise ValueError(f"{name} {count}")
    return "at last"


@job
async def sequential() -> list[int]:
    return [await run("one", work, "one", 1), await run("two", work, "two", 2), await run("three", work, "three", 3)]


@job
async def loop() -> int:
    total = 0
    for number in range(4):
        total += await run("add", work, f"add#{number + 1}" if number else "add", number)
    return total


@job
async def gathered() -> list[Any]:
    async def branch(name: str) -> list[int]:
        first = await run("first", work, f"{name}/first", 1)
        return [first, await run("second", work, f"{name}/second", 2)]

    left, right = await asyncio.gather(branch("1"), branch("2"))
    return [*left, *right, *await asyncio.gather(run("a", work, "a", 5), run("b", work, "b", 6))]


@job
async def grouped() -> dict[str, int]:
    results: dict[str, int] = {}

    async def branch(name: str) -> None:
        results[name] = await run("in", work, f"{name}/in", int(name))

    async with asyncio.TaskGroup() as group:
        for name in ("1", "2", "3"):
            group.create_task(branch(name))
    results["after"] = await run("after", work, "after", 9)
    return dict(sorted(results.items()))


@job
async def raced() -> list[str]:
    order: list[str] = []
    pending = [asyncio.ensure_future(run(name, work, name, name)) for name in ("x", "y", "z")]
    for next_done in asyncio.as_completed(pending):
        order.append(await next_done)
    await run("order", work, "order", None)
    return sorted(order)


@job
async def child(number: int) -> int:
    return await run("double", work, f"double-{number}", number * 2)


@job
async def parent() -> list[int]:
    started = await child.start(number=7)
    both = await asyncio.gather(child.run(number=1), child.run(number=2))
    await run("seven", work, "seven", None)
    return [*both, await started.result()]


@job
async def sleeper() -> str:
    await run("before", work, "before", None)
    await sleep(0.01)
    return await run("between", work, "between", "slept")


@job
async def retried() -> str:
    return await run("flaky", fails, "flaky", 3, retry=5, backoff=0.005)


@job(retry=3, backoff=0.005)
async def attempted() -> str:
    await run("kept", work, "kept", None)
    await run("tried", fails, "tried", 2, retry=0)
    return "done"


@job
async def caught() -> str:
    try:
        await run("wrong", fails, "wrong", 99, retry=0)
    except ValueError:
        return await run("instead", work, "instead", "instead")
    return "never"


@job(retry=0)
async def broken() -> None:
    raise LookupError("broken")


@job
async def caught_child() -> str:
    try:
        await broken.run()
    except RunFailed as error:
        return await run("comfort", work, "comfort", error.error_type)
    return "never"


@job
async def finally_done() -> str:
    try:
        return await run("try", work, "try", "tried")
    finally:
        await run("cleanup", work, "cleanup", None)


@job
async def values() -> bool:
    key, chance, moment = uuid(), random(), now()
    again = await run("echo", work, "echo", [str(key), chance, moment.isoformat()])
    return bool(again == [str(key), chance, moment.isoformat()])


HELPERS = [child, broken]
CORPUS: dict[str, Job] = {
    entry.name: entry
    for entry in (
        sequential,
        loop,
        gathered,
        grouped,
        raced,
        parent,
        sleeper,
        retried,
        attempted,
        caught,
        caught_child,
        finally_done,
        values,
    )
}


def queue(storage: Any, **options: Any) -> Queue:
    """Returns a queue with the whole corpus."""
    return Queue(jobs=[*CORPUS.values(), *HELPERS], storage=storage, **options)


Handler = Callable[..., Any]
