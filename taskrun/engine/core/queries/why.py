"""Why a run is not running, or not finished: every cause, who holds what, and when it ends. Behind `taskrun why`.

A pure function of a transaction, which it only reads, and of what only the core knows (`Known`). Each cause is a JSON
object with its `kind`, a `text` for people, and the facts in it (`id limit held_by ahead until since run step` …).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import datetime
from shlex import quote
from typing import Any, NamedTuple

import msgspec
from msgspec.structs import replace

from taskrun.engine.core import run_queue, step_queue
from taskrun.engine.core.event_index import ANYTHING, topic_of
from taskrun.engine.core.fact_kind import PAUSED
from taskrun.engine.core.facts import JOBS, QUEUES
from taskrun.engine.core.queries.views import rfc3339
from taskrun.model.codec import error_from
from taskrun.model.durations import human
from taskrun.model.errors import RunNotFound
from taskrun.model.group_config import limit_id
from taskrun.model.records import PLACE, PLACED, Failure, Run, Status, Step, StepKind
from taskrun.model.records import Cause as RunCause
from taskrun.processes.surviving_command import UnderWay
from taskrun.rules.dependencies import awaited_by
from taskrun.stores.base import Tx

Cause = dict[str, Any]
MANY = 1_000  # runs ahead, that are counted
NAMED = 5  # holders that a text names
SHORT = 6
CLOCK_FROM = 60  # seconds from which a wait also says the time of day
PERIODS = {1.0: "a second", 60.0: "a minute", 3600.0: "an hour", 86400.0: "a day"}


class Known(NamedTuple):
    """What the journal does not say.

    Parameters:
        engine: id of this engine.
        limit: runs that it executes at once, None for any number.
        executing: the runs that hold its slots.
        jobs: those that its executors have.
        stuck: runs that block their executor's event loop, and where.
        commands: those of the run that survive and are alive, by their steps.
    """

    now: float
    engine: str
    limit: int | None
    executing: Sequence[str]
    jobs: Sequence[str]
    stuck: Mapping[str, str]
    commands: Mapping[str, UnderWay]


def why(tx: Tx, run_id: str, known: Known) -> dict[str, Any]:
    """Returns `{id, status, causes}` of a run.

    Raises:
        RunNotFound: no run has this id.
    """
    run = tx.run(run_id)
    if run is None:
        raise RunNotFound(f"no run {run_id}")
    return {"id": run.id, "status": run.status.value, "causes": causes(tx, run, known)}


def causes(tx: Tx, run: Run, known: Known) -> list[Cause]:
    """Returns the causes, the one that matters most first."""
    found = list(_STATES[run.status](tx, run, known)) if not run.ended else [_ended(run, known)]
    return [*_requests(run), *found]


def _cause(kind: str, text: str, **facts: Any) -> Cause:
    return {"kind": kind, "text": text, **facts}


def _ended(run: Run, known: Known) -> Cause:
    text = f"{run.status.value} {_span(known.now - (run.ended_at or known.now))} ago"
    if run.status is Status.FAILED:
        text += f": {_last_error(run.error)}"
    elif run.reason == RunCause.DEPENDENCY:
        lost = [one for one in awaited_by(run) if not one.any and one.ended not in (None, Status.SUCCEEDED)]
        text += f": it was to start after {', '.join(f'{one.run[:SHORT]}, which {_ENDS[one.ended]}' for one in lost)}"
        return _cause("ended", text, since=rfc3339(run.ended_at), runs=[one.run for one in lost])
    elif run.reason:
        text += " by you" if run.reason == RunCause.USER else f" (reason: {run.reason})"
    return _cause("ended", text, since=rfc3339(run.ended_at))


_ENDS: dict[Status | None, str] = {
    Status.FAILED: "failed",
    Status.CANCELLED: "was cancelled",
    Status.DISCARDED: "was discarded",
}


def _requests(run: Run) -> Iterable[Cause]:
    if run.cancel is not None:
        by = "by you" if run.cancel == RunCause.USER else f"(reason: {run.cancel})"
        text = f"it is being cancelled {by}: its handler has its grace period to end"
        yield _cause("cancelling", text, reason=run.cancel)
    if run.pause is not None:
        yield _cause("pausing", "it pauses as soon as the step under way has ended", by=run.pause)


# ---- states


def _paused(tx: Tx, run: Run, known: Known) -> Iterable[Cause]:
    if run.cause is RunCause.JOB:
        kept = PAUSED.get(tx, run.job)
        by, since = (RunCause.USER.value, None) if kept is None else (kept.by, kept.at)
        ago = "" if since is None else f" {_span(known.now - since)} ago"
        text = f"job {run.job} was paused{ago} {_by(by)}; go on: taskrun resume {run.job}"
        yield _cause("job-paused", text, job=run.job, by=by, since=rfc3339(since))
    elif run.cause is RunCause.EXHAUSTED:
        text = (
            f"its retries are used up; last error: {_last_error(run.error)}; after a fix: taskrun resume {_short(run)}"
        )
        yield _cause("exhausted", text, by="on_exhausted")
    else:
        yield _cause("paused", f"it was paused {_by(run.reason)}; go on: taskrun resume {_short(run)}", by=run.reason)


def _scheduled(tx: Tx, run: Run, known: Known) -> Iterable[Cause]:
    if run.cause is RunCause.THROTTLE:
        yield from (_limit(tx, run, limit, known) for limit in run_queue.limits_of(run)[:1])
    elif run.cause is RunCause.BACKOFF:
        yield from _waits(tx, run, known)
    elif run.cause is RunCause.AFTER:
        yield _after(tx, run, known)
        if run.wake_at is not None:
            yield _moment(replace(run, cause=RunCause.DELAY), known)
    else:
        yield _moment(run, known)


def _moment(run: Run, known: Known) -> Cause:
    when, until = _in(run.wake_at, known), rfc3339(run.wake_at)
    if run.cause is RunCause.RETRY:
        failures = msgspec.json.decode(run.failures or "[]", type=list[Failure])
        error = f": {failures[-1].error.type}: {failures[-1].error.message}" if failures else ""
        text = f"attempt {run.attempt - 1} of {run.retry + 1} failed{error}; the next starts {when}"
        return _cause("retry", text, attempt=run.attempt, until=until)
    if run.cause is RunCause.DEBOUNCE:
        text = f'debounce "{run.debounce}": it starts {when} unless a newer trigger takes its place'
        return _cause("debounce", text, id=run.debounce, until=until)
    return _cause("delay", f"it was triggered for later: it starts {when}", until=until)


def _after(tx: Tx, run: Run, known: Known) -> Cause:
    left = [one for one in awaited_by(run) if one.ended is None]
    held = [found for one in left[:MANY] if (found := tx.run(one.run)) is not None]
    every = all(one.any for one in left)
    until = "have ended" if every else "have succeeded"
    if len(left) == 1:
        until = "has ended" if every else "has succeeded"
    text = f"it starts once {_named(held, known)} {until}"
    if not every and any(one.any for one in left):
        text += ", or ended where that is enough"
    return _cause("after", text, runs=[one.run for one in left], command=f"taskrun why {left[0].run[:SHORT]}")


def _queued(tx: Tx, run: Run, known: Known) -> Iterable[Cause]:
    jobs = {*known.jobs, *(job for others in JOBS.all(tx).values() for job in others)}
    if not jobs:
        yield _cause("no-worker", "no worker has loaded the jobs yet")
        return
    if run.job not in jobs:
        text = f"there is no job {run.job} here: its file is gone or broken; see: taskrun jobs"
        yield _cause("no-job", text, job=run.job)
        return
    for limit in run_queue.limits_of(run):
        if run.blocked == limit.queue:
            yield _limit(tx, run, limit, known)
    if known.limit is not None and len(known.executing) >= known.limit:
        yield _engine_full(tx, run, known)
    elif run.crashes and run.blocked is None:
        died = "once" if run.crashes == 1 else f"{run.crashes} times"
        yield _cause("suspect", f"its worker died {died} while it ran: it starts once nothing suspect runs")
    elif run.blocked is None:
        yield _cause("starting", "nothing holds it: it is about to start")


def _engine_full(tx: Tx, run: Run, known: Known) -> Cause:
    ready = [one.id for one in tx.ready(known.engine, known.jobs, MANY)]
    ahead = ready.index(run.id) if run.id in ready else len(ready)
    held = [one for run_id in known.executing if (one := tx.run(run_id)) is not None]
    text = f"all {known.limit} places for runs are taken, held by {_named(held, known)}; {_ahead(ahead)}"
    return _cause("engine-full", text, limit=known.limit, held_by=[one.id for one in held], ahead=ahead)


def _running(tx: Tx, run: Run, known: Known) -> Iterable[Cause]:
    where = known.stuck.get(run.id)
    if where:
        yield _cause("blocked", f"its code blocks the event loop of its worker, at {where}", where=where)
    busy = tx.open_steps(run.id)
    for step in busy:
        if not _is_wait(step):
            tried = f" (try {step.attempt})" if step.attempt > 1 else ""
            text = f'step "{step.key}" has been running for {_span(known.now - step.started_at)}{tried}'
            facts = {"step": step.key, "since": rfc3339(step.started_at), "attempt": step.attempt}
            if (command := known.commands.get(step.key)) is not None:
                adopted = f", adopted {_span(known.now - command.adopted_at)} ago" if command.adopted_at else ""
                text += f"; its command goes on without the daemon, too (pid {command.pid}{adopted})"
                facts |= {"pid": command.pid, "adopted": rfc3339(command.adopted_at or None)}
            yield _cause("step", text, **facts)
    if not busy and not where:
        span = _span(known.now - (run.started_at or known.now))
        yield _cause("running", f"it has been running for {span}, between steps", since=rfc3339(run.started_at))


# ---- waits


def _waits(tx: Tx, run: Run, known: Known) -> Iterable[Cause]:
    """Yields what the steps of a run wait for."""
    for step in tx.open_steps(run.id):
        if _is_wait(step):
            yield _wait(tx, step, known)


def _is_wait(step: Step) -> bool:
    return (step.topic is not None and not step.has_place) or step.wake_at is not None or step.child is not None


def _wait(tx: Tx, step: Step, known: Known) -> Cause:
    since, until = rfc3339(step.started_at), rfc3339(step.wake_at)
    if step.kind is StepKind.SLEEP:
        return _cause("sleep", f"it sleeps, wakes {_in(step.wake_at, known)}", step=step.key, until=until)
    if step.child is not None:
        return _child(tx, step, known)
    if step.kind is StepKind.WAIT:
        facts = {"topic": topic_of(step), "since": since, "until": until, "command": _ending(step)}
        return _cause("event", _event(step, known), step=step.key, **facts)
    if step.asks_place:
        return _place(tx, step, known)
    failures = msgspec.json.decode(step.failures or "[]", type=list[Failure])
    error = f" ({failures[-1].error.type}: {failures[-1].error.message})" if failures else ""
    text = f'step "{step.key}" failed{error}; try {step.attempt} begins {_in(step.wake_at, known)}'
    return _cause("backoff", text, step=step.key, attempt=step.attempt, until=until)


def _event(step: Step, known: Known) -> str:
    kind, _, name = topic_of(step).partition(":")
    what = f'an event of pipe "{name}"' if kind == "pipe" else f"the success of a run of {name}"
    if step.match is None:
        what += " that its predicate accepts"
    elif step.match != ANYTHING:
        what += f" that matches {step.match}"
    ends = "" if step.wake_at is None else f"; it times out {_in(step.wake_at, known)}"
    return f"it has waited {_span(known.now - step.started_at)} for {what}{ends}"


def _ending(step: Step) -> str:
    """Returns the command that ends a wait for an event."""
    kind, _, name = topic_of(step).partition(":")
    command = f"taskrun {'send' if kind == 'pipe' else 'start'} {quote(name)}"
    return command if step.match in (None, ANYTHING) else f"{command} --input {quote(step.match or '')}"


def _child(tx: Tx, step: Step, known: Known) -> Cause:
    child = tx.run(step.child or "")
    if child is None:
        return _cause("child", f"it waits for its child {step.child}, which was pruned", step=step.key, run=step.child)
    inner = causes(tx, child, known) if child.status is not Status.WAITING else []
    because = f": {inner[0]['text']}" if inner else ""
    job, status = child.name or child.job, child.status.value
    text = f"it waits for its child {_short(child)} {job}, which is {status}{because}"
    command = f"taskrun why {_short(child)}"
    return _cause("child", text, step=step.key, run=child.id, job=job, status=status, command=command)


def _place(tx: Tx, step: Step, known: Known) -> Cause:
    place, terms = step_queue.place_of(step), step_queue.terms_of(step)
    waiting = [(one.run, one.key) for one in tx.waiting_steps(f"{PLACE}{place}", MANY)]
    ahead = waiting.index((step.run, step.key)) if (step.run, step.key) in waiting else len(waiting)
    facts = {"step": step.key, "id": place, "limit": terms.limit, "ahead": ahead}
    head = f'step "{step.key}" waits for its place: concurrency "{place}"'
    if terms.period is not None:
        opens = next((one.wake_at for one in tx.waiting_steps(f"{PLACE}{place}", 1)), None)
        text = f"{head} {_rate(terms.limit, terms.period)}; next {_in(opens, known)}; {_ahead(ahead, 'steps')}"
        return _cause("step-concurrency", text, until=rfc3339(opens), **facts)
    placed = [one.run for one in tx.waiting_steps(f"{PLACED}{place}")]
    ids = dict.fromkeys(placed)
    held = [run for run_id in ids if (run := tx.run(run_id)) is not None]
    text = f"{head} {_full(len(placed), terms.limit)}, held by {_named(held, known)}; {_ahead(ahead, 'steps')}"
    return _cause("step-concurrency", text, held_by=[run.id for run in held], **facts)


# ---- limits


def _limit(tx: Tx, run: Run, limit: run_queue.Limit, known: Known) -> Cause:
    ahead, head = _line(tx, run, limit)
    if limit.group.startswith(run_queue.WINDOW):
        held = tx.holders(run.lane or "")
        text = f"{_limit_name(run.lane or '')} {_full(len(held), run.lane_limit or 1)}, held by {_named(held, known)}"
        text += f"; {_ahead(ahead)}"
        if len(held) <= (run.lane_limit or 1):
            text += "; a place gets free when one of them ends or waits"
        facts = {"id": run.lane, "limit": run.lane_limit, "held_by": [one.id for one in held], "ahead": ahead}
        return _cause("concurrency", text, **facts)
    opens = head.wake_at if head is not None else None
    next_one = f"next {_in(opens, known)}; {_ahead(ahead)}"
    facts = {"ahead": ahead, "until": rfc3339(opens)}
    if limit.group.startswith(run_queue.THROTTLE):
        text = f'throttle "{run.throttle}" {_rate(1, run.throttle_period or 0.0)}; {next_one}'
        return _cause("throttle", text, id=run.throttle, **facts)
    text = f"{_limit_name(run.lane or '')} {_rate(run.lane_limit or 1, run.lane_period or 0.0)}; {next_one}"
    return _cause("concurrency", text, id=run.lane, limit=run.lane_limit, **facts)


def _line(tx: Tx, run: Run, limit: run_queue.Limit) -> tuple[int, Run | None]:
    """Returns how many stand before a run in its queue, and the head of that, who waits for the clock."""
    queues = QUEUES.get(tx, limit.group) or {}
    head = tx.run(queues.get(limit.queue, ""))
    if head is not None and head.id == run.id:
        return 0, head
    waiting = [one.id for one in tx.blocked(limit.queue, MANY)]
    before = waiting.index(run.id) if run.id in waiting else len(waiting)
    return before + (head is not None and not head.ended and head.started_at is None), head


# ---- words


def _limit_name(id: str) -> str:
    """Returns what a concurrency id is called: that of a group is the user's own word."""
    group = id.removeprefix(limit_id(""))
    return f'concurrency "{id}"' if group == id else f'group "{group}"'


def _full(taken: int, limit: int) -> str:
    """Returns that no place is left; who shares an id may have a higher limit, and so more than the limit are taken."""
    if taken <= limit:
        return f"is full: {taken} of {limit}"
    left = "none of them is" if limit == 1 else f"fewer than {limit} of them are"
    return f"is full: {taken} places are taken under a higher limit; with its own, {limit}, it starts once {left} left"


def _in(moment: float | None, known: Known) -> str:
    if moment is None:
        return "soon"
    if moment <= known.now:
        return "now"
    left = moment - known.now
    return f"in {human(left)}" + (f", {_clock(moment, known.now)}" if left >= CLOCK_FROM else "")


def _clock(moment: float, now: float) -> str:
    """Returns a moment as local time, with its day unless it is today; nothing a calendar lacks is asked of it."""
    try:
        local, today = datetime.fromtimestamp(moment), datetime.fromtimestamp(now)
    except (OverflowError, ValueError, OSError):
        return "beyond the calendar"
    return f"at {local:%H:%M}" if local.date() == today.date() else f"on {local:%Y-%m-%d} at {local:%H:%M}"


def _span(seconds: float) -> str:
    """Returns how long something has lasted, in whole seconds."""
    return human(float(int(seconds))) if seconds >= 1 else "0s"


def _by(whom: str | None) -> str:
    return "by you" if whom in (None, RunCause.USER) else f"by {whom}"


def _rate(starts: int, period: float) -> str:
    every = PERIODS.get(period, f"every {human(period)}")
    return f"allows {'one start' if starts == 1 else f'{starts} starts'} {every}"


def _ahead(count: int, what: str = "runs") -> str:
    if count == 0:
        return "it is next in line"
    more = "or more " if count >= MANY else ""
    return f"1 {what[:-1]} is ahead of it" if count == 1 else f"{count} {more}{what} are ahead of it"


def _named(runs: Sequence[Run], known: Known) -> str:
    names = [
        f"{_short(run)} {run.name or run.job} ({run.status.value} {_span(_age(run, known))})" for run in runs[:NAMED]
    ]
    return ", ".join(names) + (f" and {len(runs) - NAMED} more" if len(runs) > NAMED else "") or "nobody"


def _age(run: Run, known: Known) -> float:
    return max(0.0, known.now - (run.started_at or run.created_at))


def _short(run: Run) -> str:
    return run.id[:SHORT]


def _last_error(text: str | None) -> str:
    error = error_from(text) if text else None
    return "unknown" if error is None else f"{error.type}: {error.message}"


_STATES: dict[Status, Callable[[Tx, Run, Known], Iterable[Cause]]] = {
    Status.PAUSED: _paused,
    Status.SCHEDULED: _scheduled,
    Status.QUEUED: _queued,
    Status.RUNNING: _running,
    Status.WAITING: _waits,
}
