"""The operations that answer more than once: `wait`, `watch`, `tail`.

Each subscribes before it reads the journal, so that nothing is missed between the two. When a client reads so slowly that its
subscription overflows, the journal is read again. Nothing here can hold up a run.
"""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from functools import partial
from typing import Any

import msgspec

from taskrun.daemon.clients.router import Operation, RequestContext
from taskrun.engine.core.outbox import RunChanged, StepChanged
from taskrun.engine.core.queries import views
from taskrun.engine.core.subscriptions import Change, Lagged, LogAdded, Subscription
from taskrun.model.errors import RunNotFound
from taskrun.model.records import UNFINISHED, LogLine, Run, RunFilter, Status, brief_run
from taskrun.stores.base import Tx

PAGE = 1000  # log lines that one transaction reads
Item = dict[str, Any]


# ---- wait


class Wait(msgspec.Struct, frozen=True):
    """`runs`: whole ids. `paused`: those that are paused are wanted, too, each time that they get so."""

    runs: list[str]
    paused: bool = False


async def wait(context: RequestContext, want: Wait) -> AsyncGenerator[Item, None]:
    """Yields each run as it ends, until all have."""
    changed = _ChangedRuns(want.runs, _told if want.paused else _told_if_ended)
    fresh, paused = dict[str, Run | None].fromkeys(want.runs), set[str]()
    async with context.core.bus.subscribe(changed):
        while changed.runs:
            told = [run for run in fresh.values() if run is not None]
            if asked := [run_id for run_id, run in fresh.items() if run is None]:
                told += await context.core.read(partial(_known, run_ids=asked), partial(changed.forget, asked))
            for run in told:
                if run.ended and run.id in changed.runs:
                    changed.runs.discard(run.id)
                    yield views.run_view(run)
                elif run.status is not Status.PAUSED:
                    paused.discard(run.id)
                elif want.paused and run.id not in paused:
                    paused.add(run.id)
                    yield views.run_view(run)
            fresh = await changed.next() if changed.runs else {}


# ---- watch


class Watch(msgspec.Struct, frozen=True):
    """Which runs: those named, or those that a listing would show. `limit` applies to the snapshot only."""

    run: list[str] | None = None
    job: str | None = None
    status: list[Status] | None = None
    since: float | None = None
    limit: int | None = None
    tags: list[tuple[str, str | None]] = []
    parent: str | None = None


async def watch(context: RequestContext, want: Watch) -> AsyncGenerator[Item, None]:
    """Yields the runs as they are, newest first, then `{"kind":"ready"}`, and then every change of a run or step once."""
    watched = WatchedRuns(want)
    async with context.core.bus.subscribe(watched) as changes:
        async for item in _snapshot(context, want, watched, changes):
            yield item
        async for change in changes:
            if isinstance(change, Lagged):
                async for item in _snapshot(context, want, watched, changes):
                    yield item
            elif isinstance(change, RunChanged):
                yield {"kind": "run", "run": views.run_view(change.run)}
            elif isinstance(change, StepChanged):
                yield {"kind": "step", "step": views.step_view(change.step)}


async def _snapshot(
    context: RequestContext, want: Watch, watched: WatchedRuns, changes: Subscription
) -> AsyncIterator[Item]:
    looks = itertools.count()

    def looked(runs: list[Item]) -> None:
        """At the moment of each look; the first knows all that came before it."""
        if not next(looks):
            changes.skip()
        for run in runs:
            watched.note(run["id"], Status(run["status"]))

    async for run in _runs(context, want, looked):
        yield {"kind": "run", "run": run}
    yield {"kind": "ready"}


async def _runs(context: RequestContext, want: Watch, looked: Callable[[list[Item]], None]) -> AsyncIterator[Item]:
    """Yields the runs as they are; `looked` is called with those of each look."""
    for run_id in want.run or ():
        yield await context.core.read(partial(views.show, run_id=run_id), lambda run: looked([run]))
    listing = partial(views.list_runs, job=want.job, statuses=want.status, since=want.since, tags=want.tags)
    left, before = want.limit if want.run is None else 0, None
    while left is None or left > 0:
        page = await context.core.read(partial(listing, limit=left, before=before, parent=want.parent), looked)
        for run in page:
            before = run["seq"]
            yield run
        if not page:
            return
        left = None if left is None else left - len(page)


class WatchedRuns:
    """Which changes a `watch` stream is of.

    A step does not say of which job it is, so where one job is watched, its `unfinished` runs are kept.
    """

    def __init__(self, want: Watch) -> None:
        self.unfinished: set[str] = set()
        self._want = want

    def note(self, run_id: str, status: Status) -> None:
        """Takes the status of a run that is watched."""
        if self._want.job is not None and status in UNFINISHED:
            self.unfinished.add(run_id)
        else:
            self.unfinished.discard(run_id)

    def __call__(self, change: Change) -> bool:
        want = self._want
        if isinstance(change, RunChanged):
            run = change.run
            if want.run is not None:
                return run.id in want.run
            watched = want.job in (None, run.job) and (want.since is None or run.created_at >= want.since)
            if watched:
                self.note(run.id, run.status)
            return watched
        if isinstance(change, StepChanged):
            run_id = change.step.run
            return run_id in want.run if want.run is not None else want.job is None or run_id in self.unfinished
        return isinstance(change, Lagged)


# ---- tail


class Tail(msgspec.Struct, frozen=True):
    """`after`: the last seq of each run that the client has; `limit`: how many old lines it wants where it has none."""

    runs: list[str]
    after: dict[str, int] = {}
    limit: int | None = None


async def tail(context: RequestContext, want: Tail) -> AsyncGenerator[Item, None]:
    """Yields the log of runs, each line once and in order, and `{"kind":"end"}` after the last line of each."""
    changed = _ChangedRuns(want.runs, _runs_of)
    async with context.core.bus.subscribe(changed):
        await context.core.read(lambda tx: _known(tx, want.runs))
        cursors = {run_id: _Cursor(context, run_id, want.after.get(run_id, 0)) for run_id in want.runs}
        for cursor in cursors.values():
            if want.limit is not None and not cursor.seq:
                await cursor.skip(want.limit)
        fresh = list(want.runs)
        while changed.runs:
            for run_id in fresh:
                async for item in cursors[run_id].read():
                    yield item
                if cursors[run_id].ended:
                    changed.runs.discard(run_id)
            fresh = [*await changed.next()] if changed.runs else []


class _Cursor:
    """How far one run's log has been read."""

    def __init__(self, context: RequestContext, run_id: str, seq: int) -> None:
        self.seq = seq
        self.ended = False
        self._context = context
        self._run_id = run_id

    async def skip(self, limit: int) -> None:
        """Skips all old lines but the last `limit`."""
        last = await self._context.core.read(lambda tx: tx.last_log(self._run_id))
        self.seq = max(0, last - limit)

    async def read(self) -> AsyncIterator[Item]:
        """Yields the new lines, and the end once no more can come."""
        while True:
            run, lines = await self._context.core.read(self._page)
            for line in lines:
                self.seq = line.seq
                yield {"kind": "log", **views.log_view(line)}
            if len(lines) < PAGE:
                break
        if run.ended:
            self.ended = True
            yield {"kind": "end", "run": views.run_view(run)}

    def _page(self, tx: Tx) -> tuple[Run, list[LogLine]]:
        (run,) = _known(tx, [self._run_id])
        return run, tx.logs(self._run_id, self.seq, PAGE)


class _ChangedRuns:
    """A subscription that keeps which runs have changed, each as it is now, brief, or None where that is to be looked up.

    Parameters:
        concerned: the runs that a change is of interest for.
    """

    def __init__(self, runs: list[str], concerned: Callable[[Change], dict[str, Run | None]]) -> None:
        self.runs = set(runs)
        self._concerned = concerned
        self._changed: dict[str, Run | None] = {}
        self._happened = asyncio.Event()

    def __call__(self, change: Change) -> bool:
        about = dict[str, Run | None].fromkeys(self.runs) if isinstance(change, Lagged) else self._concerned(change)
        if about := {run_id: run for run_id, run in about.items() if run_id in self.runs}:
            self._changed |= {run_id: None if run is None else brief_run(run) for run_id, run in about.items()}
            self._happened.set()
        return False

    def forget(self, runs: list[str], _: object = None) -> None:
        """Forgets what has happened to some: whoever has looked in the journal knows it."""
        for run_id in runs:
            self._changed.pop(run_id, None)

    async def next(self) -> dict[str, Run | None]:
        """Waits for a change, and returns the runs that have changed."""
        await self._happened.wait()
        self._happened.clear()
        changed, self._changed = self._changed, {}
        return {run_id: changed[run_id] for run_id in sorted(changed) if run_id in self.runs}


def _told(change: Change) -> dict[str, Run | None]:
    return {change.run.id: change.run} if isinstance(change, RunChanged) else {}


def _told_if_ended(change: Change) -> dict[str, Run | None]:
    return _told(change) if isinstance(change, RunChanged) and change.run.ended else {}


def _runs_of(change: Change) -> dict[str, Run | None]:
    if isinstance(change, LogAdded):
        return dict.fromkeys(line.run for line in change.lines)
    return {change.run.id: None} if isinstance(change, RunChanged) else {}


def _known(tx: Tx, run_ids: list[str]) -> list[Run]:
    """Returns runs by their ids, brief.

    Raises:
        RunNotFound: one of them does not exist.
    """
    found = [(run_id, tx.runs(RunFilter(id=run_id, brief=True))) for run_id in run_ids]
    missing = [run_id for run_id, runs in found if not runs]
    if missing:
        raise RunNotFound(f"no run {missing[0]}")
    return [run for _, runs in found for run in runs]


STREAMS: dict[str, Operation] = {
    "wait": Operation(Wait, wait),
    "watch": Operation(Watch, watch),
    "tail": Operation(Tail, tail),
}
