"""Runs and log lines page by page, so that no answer outgrows a frame, and where to begin in a log."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

from taskrun.cli import times
from taskrun.cli.session import Backend

PAGE = 1000  # lines of one request; the answer has fewer where they are long


async def all_runs(backend: Backend, limit: int | None = None, **want: Any) -> list[dict[str, Any]]:
    """Returns the runs of a listing, newest first."""
    return [run async for run in each_run(backend, limit, **want)]


async def each_run(backend: Backend, limit: int | None = None, **want: Any) -> AsyncIterator[dict[str, Any]]:
    """Yields the runs of a listing, newest first."""
    count = 0
    here: dict[str, Any] = {}
    while limit is None or count < limit:
        page = await backend.call("runs", **want, **here, limit=None if limit is None else limit - count)
        if not page:
            break
        for run in page:
            yield run
        count, here = count + len(page), {"before": page[-1]["seq"]}


async def begin(backend: Backend, run: str, limit: int | None, since: float | None) -> int:
    """Returns the seq after which the lines stand that are wanted: the last `limit` of those that came `since`."""
    last = await last_seq(backend, run)
    by_count = 0 if limit is None else max(0, last - limit)
    return by_count if since is None else max(by_count, await _before(backend, run, last, since))


async def last_seq(backend: Backend, run: str) -> int:
    """Returns the seq of a run's last line, 0 when there is none."""
    found = await backend.call("logs", run=run, after=0, limit=-1)
    return int(found[-1]["seq"]) if found else 0


async def _before(backend: Backend, run: str, last: int, since: float) -> int:
    """Returns the last seq of the lines before a moment: they are in the order of time, so a few looks find it."""
    low, high = 0, last
    while low < high:
        middle = (low + high) // 2
        (line, *_) = await backend.call("logs", run=run, after=middle, limit=1)
        if (times.moment(line["at"]) or 0.0) >= since:
            high = middle
        else:
            low = int(line["seq"])
    return low


async def old_lines(backend: Backend, run: str, after: int = 0) -> AsyncIterator[dict[str, Any]]:
    """Yields the lines that a run has by now, in order."""
    while page := await backend.call("logs", run=run, after=after, limit=PAGE):
        for line in page:
            yield line
        after = page[-1]["seq"]
