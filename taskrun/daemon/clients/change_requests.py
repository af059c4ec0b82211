"""The operations that change something: runs, jobs, or the daemon itself."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, TypeVar

import msgspec

from taskrun.daemon.clients.each_inputs import EachInput, check_inputs, with_inputs
from taskrun.daemon.clients.router import Nothing, Operation, RequestContext
from taskrun.daemon.workers.worker_rpc import WorkerGone
from taskrun.engine.core.admit import Trigger, new_id
from taskrun.engine.core.queries import views
from taskrun.model.errors import DaemonError
from taskrun.model.names import check_title
from taskrun.model.records import Awaited, Step
from taskrun.model.tags import checked_tags

T = TypeVar("T")
TRIES = 3  # workers that are asked one after the other, when they die
PAUSE = 0.05


class Start(msgspec.Struct, frozen=True, kw_only=True):
    """A trigger: `input` is JSON text, `delay` seconds, `at` a Unix time, `intent` the idempotency key of this request.

    With `each` there are many inputs, and the run is one of the job `each`.
    """

    job: str
    input: str = "{}"
    key: str | None = None
    delay: float | None = None
    at: float | None = None
    source: str = "cli"
    intent: str | None = None
    name: str | None = None
    tags: dict[str, str] = {}
    each: EachInput | None = None
    after: list[Awaited] = []


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
    await context.load_changes()
    job, text = want.job, want.input
    steps: Sequence[Step] = ()
    if want.each is not None:
        await _ask_worker(context, lambda: check_inputs(context.core, want.job, want.each))  # type: ignore[arg-type]
        job, text, steps = with_inputs(want.job, want.each, context.core.clock.now())
    prepared = await _ask_worker(context, lambda: context.core.prepare(job, text))
    if want.key is not None:
        prepared = msgspec.structs.replace(prepared, terms=msgspec.structs.replace(prepared.terms, key=want.key))
    until = want.at if want.delay is None else context.core.clock.now() + want.delay
    trigger = Trigger(
        prepared=prepared,
        id=new_id(),
        source=want.source,
        delay_until=until,
        intent=want.intent,
        name=None if want.name is None else check_title(want.name),
        tags=checked_tags(want.tags),
        steps=steps,
        after=want.after,
    )
    run = await context.core.trigger(trigger)
    return {"run": views.run_view(run), "created": run.id == trigger.id}


async def send(context: RequestContext, want: Send) -> Any:
    """Sends an event; answers once it is durable, with what it started and woke.

    `skipped`: jobs that start nothing for it; `refused`: those that do not since it does not fit, each with the reason;
    `later`: those that have not said yet.
    """
    await context.load_changes()
    sent = await _ask_worker(context, lambda: context.core.send(want.pipe, want.data))
    started = await context.core.triggers.started(sent)
    runs = [run for of_job in started.values() for run in of_job.runs]
    return {
        "id": sent.id,
        "started": await _named(context, runs),
        "woke": await _named(context, sent.woke),
        "skipped": [job for job, of_job in started.items() if not of_job.runs and of_job.refused is None],
        "refused": {job: of_job.refused for job, of_job in started.items() if of_job.refused is not None},
        "later": [job for job in sent.jobs if job not in started],
    }


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
    await context.load_changes()
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


async def _named(context: RequestContext, ids: Sequence[str]) -> list[dict[str, Any]]:
    """Returns runs by id, job and status alone: an event may wake very many."""
    runs = await context.core.read(lambda tx: [run for run_id in ids if (run := tx.run(run_id)) is not None])
    return [{"id": run.id, "job": run.job, "status": run.status.value} for run in runs]


async def _run_view(context: RequestContext, run_id: str) -> dict[str, Any]:
    return views.run_view(await context.core.get(run_id))


CHANGES = {
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
