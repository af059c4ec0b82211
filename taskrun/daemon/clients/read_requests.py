"""The operations that only read."""

from __future__ import annotations

import asyncio
import os
import platform
import sys
import time
from typing import Any

import msgspec

from taskrun.daemon.clients.router import Nothing, Operation, RequestContext
from taskrun.engine.core.engine_reports import engine_views
from taskrun.engine.core.queries import views
from taskrun.engine.core.queries.jobs import job_views
from taskrun.engine.core.schedule_kept import schedule_views, slot_views
from taskrun.model.names import RESERVED
from taskrun.model.records import Status

AT_ONCE = 20  # runs whose reasons are looked for in one go


class Ref(msgspec.Struct, frozen=True):
    """`ref`: an id, a prefix or suffix of one, `@last` or `JOB@last`."""

    ref: str


class RunId(msgspec.Struct, frozen=True):
    """`run`: a whole id."""

    run: str


class Page(msgspec.Struct, frozen=True):
    """Steps or children of a run: those after `after`, or the last ones where `limit` is negative."""

    run: str
    after: int = 0
    limit: int = views.PAGE


class Piece(msgspec.Struct, frozen=True):
    """A part of a value of a run or of its `step`, from the character `start` on."""

    run: str
    field: str
    step: str | None = None
    start: int = 0


class Past(msgspec.Struct, frozen=True):
    """The failed attempts of a run, or of its `step`."""

    run: str
    step: str | None = None


class RunIds(msgspec.Struct, frozen=True):
    """`runs`: whole ids."""

    runs: list[str]


class Listing(msgspec.Struct, frozen=True):
    """Which runs; the fields are the parameters of `views.list_runs`, in their order.

    `since` is a Unix time, `before` the `seq` of the last on the previous page.
    """

    job: str | None = None
    status: list[Status] | None = None
    since: float | None = None
    limit: int | None = None
    before: int | None = None
    roots: bool = False
    tags: list[tuple[str, str | None]] = []
    parent: str | None = None
    folds: bool = False


class Slots(msgspec.Struct, frozen=True):
    """The last `limit` slots of a job's schedules."""

    job: str
    limit: int = 20


class Lines(msgspec.Struct, frozen=True):
    """Log lines above `after`; a negative `limit` means the last ones."""

    run: str
    after: int = 0
    limit: int = 1000


async def status(context: RequestContext, want: Nothing) -> Any:
    """Returns how the daemon is and what it is doing."""
    holder = context.holder()
    counts, children = await context.core.read(lambda tx: (tx.count_runs(), tx.count_children()))
    states: dict[str, int] = {}
    for (_, state), count in counts.items():
        states[state] = states.get(state, 0) + count
    fault = context.core.journal.fault
    return {
        "running": True,
        **msgspec.to_builtins(holder),
        "started_at": views.rfc3339(holder.started_at),
        "journal": context.journal,
        "uptime": time.time() - holder.started_at,
        "jobs": len([job for job in context.workers.description.jobs if job["name"] not in RESERVED]),
        "runs": states,
        "children": children,
        "problems": context.workers.description.problems,
        "fault": None if fault is None else str(fault),
        "python": sys.executable,
        "prefix": sys.prefix,
        "python_version": platform.python_version(),
        "virtual_env": os.environ.get("VIRTUAL_ENV"),
        "path": os.environ.get("PATH"),
    }


async def config(context: RequestContext, want: Nothing) -> Any:
    """Returns what is wrong with `taskrun.toml` as it is now (`problem`, else empty), and with `inputs` of its schedules."""
    return await context.config_problems()


async def environment(context: RequestContext, want: Nothing) -> Any:
    """Returns the environment with which the daemon was started; its workers inherit it."""
    return dict(os.environ)


async def jobs(context: RequestContext, want: Nothing) -> Any:
    """Returns the jobs and pipes, and what is wrong with job files.

    `kept`: the last good version of the file is used; `holding`: for it all code stays as it was.
    """
    await context.workers.ready()
    holding = await context.load_changes()
    found = context.workers.description
    files = context.core.files.topics()
    described = [{**job, "triggers": job["triggers"] + files.get(job["name"], [])} for job in found.jobs]
    return {
        "jobs": await context.core.read(lambda tx: job_views(tx, described)),
        "pipes": found.pipes,
        "problems": holding or found.problems,
    }


async def runs(context: RequestContext, want: Listing) -> Any:
    """Returns a page of runs, newest first; an empty page at the end."""
    return await context.core.read(lambda tx: views.list_runs(tx, *msgspec.structs.astuple(want)))


async def overview(context: RequestContext, want: Nothing) -> Any:
    """Returns how many runs there are, and the defaults of each job's input: what a listing says beside the runs."""
    found = context.workers.description.jobs
    schemas = {job["name"]: (job["input_schema"] or {}).get("properties") or {} for job in found}
    defaults = {
        job: {name: field["default"] for name, field in fields.items() if "default" in field}
        for job, fields in schemas.items()
    }
    return {**await context.core.read(views.counts), "defaults": defaults}


async def find(context: RequestContext, want: Ref) -> Any:
    """Returns the id that a reference means."""
    return await context.core.read(lambda tx: views.resolve(tx, want.ref))


async def show(context: RequestContext, want: RunId) -> Any:
    """Returns a run with its newest steps and children; the others, and the rest of large values, are read page by page."""
    return await context.core.read(lambda tx: views.show(tx, want.run))


async def steps(context: RequestContext, want: Page) -> Any:
    """Returns a page of the steps of a run, in the order in which they began; an empty page at the end."""
    return await context.core.read(lambda tx: views.steps(tx, want.run, want.after, want.limit))


async def children(context: RequestContext, want: Page) -> Any:
    """Returns a page of the children of a run, oldest first; an empty page at the end."""
    return await context.core.read(lambda tx: views.children(tx, want.run, want.after, want.limit))


async def failures(context: RequestContext, want: Past) -> Any:
    """Returns the failed attempts of a run or a step, where `show` has no room for them."""
    return await context.core.read(lambda tx: views.failures(tx, want.run, want.step))


async def piece(context: RequestContext, want: Piece) -> Any:
    """Returns a part of a value that is too large for one answer, as JSON text; an empty part at the end."""
    return await context.core.read(lambda tx: views.piece(tx, want.run, want.step, want.field, want.start))


async def logs(context: RequestContext, want: Lines) -> Any:
    """Returns a part of a run's log; nothing after its last line."""
    return await context.core.read(lambda tx: views.page_logs(tx, want.run, want.after, want.limit))


async def schedule(context: RequestContext, want: Nothing) -> Any:
    """Returns the schedules, the next one first."""
    return await context.core.read(lambda tx: schedule_views(tx, time.time()))


async def slots(context: RequestContext, want: Slots) -> Any:
    """Returns the last slots of a job's schedules, the newest first."""
    return await context.core.read(lambda tx: slot_views(tx, want.job, want.limit, time.time()))


async def workers(context: RequestContext, want: Nothing) -> Any:
    """Returns the engines of the journal, this daemon's with what it executes now."""
    core = context.core
    found = await core.read(engine_views)
    own = {"load": core.slots.used, "heartbeat": views.rfc3339(core.clock.now())}
    return [one | own if one["id"] == core.state.id else one for one in found]


async def why(context: RequestContext, want: RunIds) -> Any:
    """Returns why runs are not running or not finished, one answer each."""
    found: list[Any] = []
    for at in range(0, len(want.runs), AT_ONCE):  # these share a transaction of the journal
        found += await asyncio.gather(*map(context.core.why, want.runs[at : at + AT_ONCE]))
    return found


READS = {
    "status": Operation(Nothing, status),
    "config": Operation(Nothing, config),
    "environment": Operation(Nothing, environment),
    "jobs": Operation(Nothing, jobs),
    "runs": Operation(Listing, runs),
    "overview": Operation(Nothing, overview),
    "find": Operation(Ref, find),
    "show": Operation(RunId, show),
    "steps": Operation(Page, steps),
    "children": Operation(Page, children),
    "failures": Operation(Past, failures),
    "piece": Operation(Piece, piece),
    "logs": Operation(Lines, logs),
    "schedule": Operation(Nothing, schedule),
    "slots": Operation(Slots, slots),
    "why": Operation(RunIds, why),
    "workers": Operation(Nothing, workers),
}
