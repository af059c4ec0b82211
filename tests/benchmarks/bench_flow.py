"""How little flow control costs, as ratios within one run (absolute figures are noise).

    python tests/benchmarks/bench_flow.py [--rounds 5] [--queued 100000] [--waiters 10000]

Admission: triggers of a job with every rule set, to triggers of one with none. Queue: the latency of triggers of a job while
100,000 runs wait behind another's concurrency id, to that without them. Wake: from the send of an event that matches one of
10,000 waits on its pipe to the end of the run that waited, and that to the same with one wait alone.
"""

from __future__ import annotations

import argparse
import asyncio
import statistics
import tempfile
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

from taskrun import Concurrency, Debounce, Queue, SqliteStorage, Throttle, job, pipe, run

TRIGGERS = 2_000
PROBES = 200
p = pipe("p")
free = asyncio.Event()


@job
async def plain(n: int) -> None:
    """No rule."""


@job(
    concurrency=lambda ruled: Concurrency(f"lane{ruled['n']}", 1),
    throttle=lambda ruled: Throttle(f"slow{ruled['n']}", 60),
    debounce=lambda ruled: Debounce(f"burst{ruled['n']}", 60),
    priority=lambda ruled: ruled["n"] % 3,
    key=lambda ruled: f"key{ruled['n']}",
    timeout=60,
)
async def ruled(n: int) -> None:
    """Every rule."""


@job(concurrency=Concurrency("busy", 1))
async def busy(n: int) -> None:
    """Holds the only place of its id."""
    await run("hold", free.wait)


@job
async def waits(n: int) -> int:
    """Waits for its own event."""
    return int((await p.wait_for({"n": n}))["n"])


async def timed(act: Callable[[], Awaitable[Any]]) -> float:
    """Returns the seconds that something takes."""
    begun = time.perf_counter()
    await act()
    return time.perf_counter() - begun


async def in_pages(count: int, start: Callable[[int], Awaitable[Any]]) -> None:
    """Does something `count` times, 500 at once."""
    for first in range(0, count, 500):
        await asyncio.gather(*(start(n) for n in range(first, min(first + 500, count))))


async def admission(queue: Queue, base: int) -> tuple[float, float]:
    """Seconds per trigger with no rule, and with all; nothing runs meanwhile."""
    queue.core.claims.open = False

    async def one(name: str) -> float:
        return await timed(lambda: in_pages(TRIGGERS, lambda n: queue.jobs[name].start(n=base + n))) / TRIGGERS

    try:
        return await one("plain"), await one("ruled")
    finally:
        queue.core.claims.open = True


async def latency(queue: Queue) -> float:
    """Median seconds from a trigger to its end."""
    return statistics.median([await timed(lambda n=n: queue.jobs.plain.run(n=n)) for n in range(PROBES)])  # type: ignore[misc]


async def wake(queue: Queue, waiters: int) -> float:
    """Seconds from an event to the end of the one run of many that waits for it."""
    runs: dict[int, Any] = {}

    async def start(n: int) -> None:
        runs[n] = await queue.jobs.waits.start(n=n)

    await in_pages(waiters, start)
    while len(await queue.core.read(lambda tx: tx.waiting_steps('pipe:p#[["n"],0]'))) == 0:
        await asyncio.sleep(0.01)
    await asyncio.sleep(0.5 if waiters > 1 else 0.05)
    while queue.core.journal.pending:
        await asyncio.sleep(0.01)
    chosen = list(range(0, waiters, max(1, waiters // 10)))[:10]
    times = []
    for n in chosen:
        begun = time.perf_counter()
        await queue.pipes.p.send(n=n)
        await runs[n].result()
        times.append(time.perf_counter() - begun)
    return statistics.median(times)


async def measure(options: argparse.Namespace, folder: Path) -> None:
    """Prints the table."""

    def queue(name: str) -> Queue:
        return Queue([plain, ruled, busy, waits], [p], storage=SqliteStorage(folder / f"{name}.db"))

    rows: list[tuple[str, str, str, float, float]] = []
    async with queue("admission") as one:
        pairs = [await admission(one, round * TRIGGERS) for round in range(options.rounds)]
        none, every = (statistics.median(times) for times in zip(*pairs, strict=True))
        rows.append(("admission, all rules to none", _us(none), _us(every), every / none, 2.0))
    async with queue("queued") as one:
        before = statistics.median([await latency(one) for _ in range(options.rounds)])
        await in_pages(options.queued, lambda n: one.jobs.busy.start(n=n))
        after = statistics.median([await latency(one) for _ in range(options.rounds)])
        rows.append((f"latency behind {options.queued:,} queued runs", _us(before), _us(after), after / before, 1.2))
    async with queue("one") as one:
        alone = await wake(one, 1)
    async with queue("many") as one:
        many = await wake(one, options.waiters)
        rows.append((f"wake 1 of {options.waiters:,} waiters, to 20 ms", _us(alone), _us(many), many / 0.02, 1.0))
    print(f"{'':44} {'base':>10} {'measured':>10} {'ratio':>7} {'limit':>6}")
    for name, base, value, ratio, limit in rows:
        print(f"{name:44} {base:>10} {value:>10} {ratio:7.2f} {limit:6.2f}{'' if ratio <= limit else '  MISSED'}")


def _us(seconds: float) -> str:
    return f"{seconds * 1e6:,.0f} µs"


def main() -> None:
    """Measures in a folder of its own."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--queued", type=int, default=100_000)
    parser.add_argument("--waiters", type=int, default=10_000)
    with tempfile.TemporaryDirectory() as folder:
        asyncio.run(measure(parser.parse_args(), Path(folder)))


if __name__ == "__main__":
    main()
