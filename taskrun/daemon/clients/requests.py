"""The requests of clients: a table from the name of an operation to the function that answers it.

The parameters of an operation are a struct, read from the frame with unknown fields ignored; its answer is plain JSON, made by
the views. Operations that answer more than once are in `stream_requests`.
"""

from __future__ import annotations

import asyncio
import os
import platform
import sys
import time
from collections.abc import AsyncGenerator, Awaitable, Callable
from difflib import get_close_matches
from typing import Any, NamedTuple, Protocol, TypeVar, cast

import msgspec

from taskrun.daemon.clients.command_connection import Answering
from taskrun.daemon.lock import Holder
from taskrun.daemon.workers.worker_rpc import WorkerGone
from taskrun.engine.core.admit import Trigger, new_id
from taskrun.engine.core.core import Core
from taskrun.engine.core.queries import views
from taskrun.engine.core.schedule_slots import schedule_views
from taskrun.engine.messages import Description
from taskrun.model.errors import DaemonError, JournalUnavailable, RunNotFound
from taskrun.model.records import Run, RunFilter, Status
from taskrun.stores.base import Tx

P = TypeVar("P")
T = TypeVar("T")
TRIES = 3  # workers that are asked one after the other, when they die
PAUSE = 0.05
COMMITTED_WITHIN = 7.0  # seconds; a client waits 10 for its answer


class Workers(Protocol):
    """The worker processes, as far as requests need them."""

    description: Description

    async def ready(self) -> None:
        """Waits until there is a worker; raises DaemonError when none comes."""
        ...

    async def reload(self) -> dict[str, Any]:
        """Replaces the workers by new ones with the current code; returns what has changed."""
        ...

    async def expect_changes(self, reload_grace: float) -> None:
        """Keeps a worker ready for the next reload; `reload_grace`: seconds for steps in flight to end by themselves then."""
        ...


class RequestContext(NamedTuple):
    """What the functions that answer requests work with."""

    core: Core
    workers: Workers
    journal: str
    holder: Callable[[], Holder]
    stop: Callable[[], None]
    config_problems: Callable[[], Awaitable[dict[str, Any]]]


class Operation(NamedTuple):
    """How one operation is answered. `writes`: whether it has to be committed before the answer."""

    params: type[Any]
    answer: Callable[[RequestContext, Any], Awaitable[Any] | AsyncGenerator[Any, None]]
    writes: bool = False


class RequestRouter:
    """Finds the function that answers a request."""

    def __init__(self, context: RequestContext, ops: dict[str, Operation]) -> None:
        self._context = context
        self._ops = ops

    def find(self, op: str) -> Answering:
        """Returns what answers an operation.

        Raises:
            DaemonError: there is no such operation.
        """
        found = self._ops.get(op)
        if found is None:
            close = get_close_matches(op, self._ops, 1)
            raise DaemonError(f'unknown request "{op[:100]}"' + (f": did you mean {close[0]}?" if close else ""))
        if found.writes:
            return lambda payload: _durably(self._context, found, payload)
        return lambda payload: found.answer(self._context, _params(payload, found.params))


async def _durably(context: RequestContext, op: Operation, payload: bytes) -> Any:
    """Answers an operation that has to be committed, and fails in time when the disk refuses.

    Raises:
        JournalUnavailable: nothing was recorded; or it will be, as soon as the disk allows it.
    """
    if (fault := context.core.journal.fault) is not None:
        raise JournalUnavailable(f"nothing was recorded: {_refusal(fault)}")
    writing = asyncio.ensure_future(cast(Awaitable[Any], op.answer(context, _params(payload, op.params))))
    try:
        done, _ = await asyncio.wait([writing], timeout=COMMITTED_WITHIN)
        if not done and (fault := context.core.journal.fault) is not None:
            raise JournalUnavailable(f"not recorded yet, but as soon as the disk allows it: {_refusal(fault)}")
        return await writing
    except asyncio.CancelledError:
        writing.cancel()
        raise


def _refusal(fault: Exception) -> str:
    """Returns why the disk refuses, without what became of the batch that found out, which was another client's."""
    return f"the journal refuses: {fault.__cause__ or fault}"


def _params(payload: bytes, kind: type[P]) -> P:
    try:
        return msgspec.json.decode(payload, type=kind)
    except msgspec.DecodeError as error:
        raise DaemonError(f"bad request: {error}") from error


# ---- operations that read


class Nothing(msgspec.Struct, frozen=True):
    """No parameters."""


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
    """Which runs; `since` is a Unix time, `before` the `seq` of the last run on the previous page."""

    job: str | None = None
    status: list[Status] | None = None
    since: float | None = None
    limit: int | None = None
    before: int | None = None


class Lines(msgspec.Struct, frozen=True):
    """Log lines above `after`; a negative `limit` means the last ones."""

    run: str
    after: int = 0
    limit: int = 1000


async def status(context: RequestContext, want: Nothing) -> Any:
    """Returns how the daemon is and what it is doing."""
    holder = context.holder()
    counts = await context.core.read(lambda tx: tx.count_runs())
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
        "jobs": len(context.workers.description.jobs),
        "runs": states,
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
    """Returns the jobs and pipes, and what is wrong with job files."""
    await context.workers.ready()
    found = context.workers.description
    paused = await context.core.read(lambda tx: tx.facts("paused:"))
    return {
        "jobs": [{**job, "paused": f"paused:{job['name']}" in paused} for job in found.jobs],
        "pipes": found.pipes,
        "problems": found.problems,
    }


async def runs(context: RequestContext, want: Listing) -> Any:
    """Returns a page of runs, newest first; an empty page at the end."""
    return await context.core.read(
        lambda tx: views.list_runs(tx, want.job, want.status, want.since, want.limit, want.before)
    )


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


async def why(context: RequestContext, want: RunIds) -> Any:
    """Returns why runs are not running or not finished, one answer each."""
    return [await context.core.why(run) for run in want.runs]


# ---- operations that change something


class Start(msgspec.Struct, frozen=True, kw_only=True):
    """A trigger: `input` is JSON text, `delay` seconds, `at` a Unix time, `intent` the idempotency key of this request."""

    job: str
    input: str = "{}"
    key: str | None = None
    delay: float | None = None
    at: float | None = None
    source: str = "cli"
    intent: str | None = None


class Send(msgspec.Struct, frozen=True):
    """An event: `data` is JSON text."""

    pipe: str
    data: str = "{}"


class Cancel(msgspec.Struct, frozen=True):
    """`grace`: seconds for the handler to end, instead of the project's setting."""

    run: str
    reason: str | None = None
    grace: float | None = None


class Pause(msgspec.Struct, frozen=True):
    """A `run`, or a `job` with all its runs; `by`: who asks for it."""

    run: str | None = None
    job: str | None = None
    by: str | None = None


class Prune(msgspec.Struct, frozen=True):
    """`keep`: seconds for which ended runs are kept; `dry_run`: remove nothing, only return what would be removed."""

    keep: float
    dry_run: bool = False


class Retry(msgspec.Struct, frozen=True):
    """`step`: from this step on nothing is kept."""

    run: str
    step: str | None = None


async def start(context: RequestContext, want: Start) -> Any:
    """Triggers a job; answers once that is durable."""
    prepared = await _ask_worker(context, lambda: context.core.prepare(want.job, want.input))
    if want.key is not None:
        prepared = msgspec.structs.replace(prepared, terms=msgspec.structs.replace(prepared.terms, key=want.key))
    until = want.at if want.delay is None else context.core.clock.now() + want.delay
    trigger = Trigger(prepared=prepared, id=new_id(), source=want.source, delay_until=until, intent=want.intent)
    run, created = await context.core.trigger(trigger)
    return {"run": views.run_view(run), "created": created}


async def send(context: RequestContext, want: Send) -> Any:
    """Sends an event; answers with its id once it is durable."""
    return await _ask_worker(context, lambda: context.core.send(want.pipe, want.data))


async def cancel(context: RequestContext, want: Cancel) -> Any:
    """Cancels a run; answers with it if that changed anything."""
    reason = want.reason or "explicit"
    changed = await context.core.cancel(want.run, reason, want.grace)
    return [await _run_view(context, want.run)] if changed else []


async def pause(context: RequestContext, want: Pause) -> Any:
    """Pauses a run before its next step, or all runs of a job; answers with what changed."""
    if want.job is not None:
        await context.workers.ready()
        return _changed(await context.core.jobs.pause(want.job, want.by or "explicit"))
    return [views.run_view(await context.core.pause(want.run or "", want.by or "explicit"))]


async def resume(context: RequestContext, want: Pause) -> Any:
    """Resumes a paused run or job; answers with what changed."""
    if want.job is not None:
        return _changed(await context.core.jobs.resume(want.job))
    return [views.run_view(await context.core.resume(want.run or ""))]


def _changed(answer: dict[str, Any] | None) -> list[dict[str, Any]]:
    return [] if answer is None else [answer]


async def retry(context: RequestContext, want: Retry) -> Any:
    """Runs an ended run again with its finished steps kept; answers with the new run."""
    return views.run_view(await _ask_worker(context, lambda: context.core.retry(want.run, want.step)))


async def prune(context: RequestContext, want: Prune) -> Any:
    """Removes ended runs; answers with their ids."""
    return await context.core.retention.prune(want.keep, want.dry_run)


async def stop(context: RequestContext, want: Nothing) -> Any:
    """Ends the daemon, after this answer."""
    context.stop()
    return msgspec.to_builtins(context.holder())


async def reload(context: RequestContext, want: Nothing) -> Any:
    """Replaces the workers by new ones with the current code."""
    return await context.workers.reload()


async def _ask_worker(context: RequestContext, ask: Callable[[], Awaitable[T]]) -> T:
    """Asks a worker, and the next one when that worker dies before it has answered."""
    for _ in range(TRIES):
        await context.workers.ready()
        try:
            return await ask()
        except WorkerGone:
            await asyncio.sleep(PAUSE)
    raise DaemonError("the workers die as soon as they start; see: taskrun daemon logs")


async def _run_view(context: RequestContext, run_id: str) -> dict[str, Any]:
    return views.run_view(await context.core.get(run_id))


def known(tx: Tx, run_ids: list[str]) -> list[Run]:
    """Returns runs by their ids, brief.

    Raises:
        RunNotFound: one of them does not exist.
    """
    found = [(run_id, tx.runs(RunFilter(id=run_id, brief=True))) for run_id in run_ids]
    missing = [run_id for run_id, runs in found if not runs]
    if missing:
        raise RunNotFound(f"no run {missing[0]}")
    return [run for _, runs in found for run in runs]


OPERATIONS = {
    "status": Operation(Nothing, status),
    "config": Operation(Nothing, config),
    "environment": Operation(Nothing, environment),
    "jobs": Operation(Nothing, jobs),
    "runs": Operation(Listing, runs),
    "find": Operation(Ref, find),
    "show": Operation(RunId, show),
    "steps": Operation(Page, steps),
    "children": Operation(Page, children),
    "failures": Operation(Past, failures),
    "piece": Operation(Piece, piece),
    "logs": Operation(Lines, logs),
    "schedule": Operation(Nothing, schedule),
    "why": Operation(RunIds, why),
    "start": Operation(Start, start, writes=True),
    "send": Operation(Send, send, writes=True),
    "cancel": Operation(Cancel, cancel, writes=True),
    "pause": Operation(Pause, pause, writes=True),
    "resume": Operation(Pause, resume, writes=True),
    "retry": Operation(Retry, retry, writes=True),
    "prune": Operation(Prune, prune, writes=True),
    "stop": Operation(Nothing, stop),
    "reload": Operation(Nothing, reload),
}
