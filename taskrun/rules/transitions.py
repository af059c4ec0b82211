"""The one table of a run's states, and every change of a run as a pure function: (run, facts, now) → run.

Called through `Transaction.change`, which reads the run in the transaction that writes it, never elsewhere.
"""

from __future__ import annotations

from typing import Any

import msgspec
from msgspec.structs import replace

from taskrun.model.codec import error_text, shortened
from taskrun.model.records import ENDED, UNFINISHED, Cause, ErrorRecord, Failure, Run, Status
from taskrun.rules.dependencies import awaited_by, is_open

TRANSITIONS: dict[Status, frozenset[Status]] = {
    Status.SCHEDULED: frozenset({Status.QUEUED, Status.PAUSED, Status.SCHEDULED}) | ENDED,
    Status.QUEUED: frozenset({Status.RUNNING, Status.PAUSED, Status.SCHEDULED}) | ENDED,
    Status.RUNNING: frozenset({Status.QUEUED, Status.WAITING, Status.SCHEDULED, Status.PAUSED}) | ENDED,
    Status.WAITING: frozenset({Status.QUEUED, Status.PAUSED, Status.SCHEDULED}) | ENDED,
    Status.PAUSED: frozenset({Status.QUEUED, Status.SCHEDULED}) | ENDED,
    **{status: frozenset() for status in ENDED},
}


FIRST_KEPT, LAST_KEPT = 10, 20  # failures in a history
TRACEBACKS_KEPT = 3
MAX_ARGS = 8_000  # characters of the args of an error in a history

HOOKS = {  # the hook and the event of each end
    Status.SUCCEEDED: "success",
    Status.FAILED: "failure",
    Status.CANCELLED: "cancel",
    Status.DISCARDED: "cancel",
}


class IllegalTransition(Exception):
    """The engine tried to take a run from one state to another that does not follow it: a bug, never a user's fault."""


def advance(run: Run, status: Status, **changes: Any) -> Run:
    """Returns the run in another state; the only place where a status changes."""
    if status not in TRANSITIONS[run.status]:
        raise IllegalTransition(f"{run.id}: {run.status} → {status}")
    return replace(run, status=status, **changes)


def start(run: Run, engine: str, now: float, placed: bool = True) -> Run:
    """Executes a queued run, and sets its deadline at its first start.

    Parameters:
        placed: it counts in its lane; not one that only goes on to be cancelled.
    """
    deadline = run.deadline
    if run.started_at is None and run.timeout is not None:
        deadline = now + run.timeout
    return advance(
        run,
        Status.RUNNING,
        engine=engine,
        placed=placed,
        blocked=None,
        reason=None,
        cause=None,
        wake_at=None,
        deadline=deadline,
        started_at=now if run.started_at is None else run.started_at,
    )


def postpone(run: Run, until: float) -> Run:
    """Sends a queued run to wait for the moment at which a limit on starts lets it start."""
    return advance(
        run, Status.SCHEDULED, blocked=None, wake_at=until, reason=Cause.THROTTLE.value, cause=Cause.THROTTLE
    )


def block(run: Run, queue: str | None) -> Run:
    """Puts a queued run into the queue of a limit, or takes it out."""
    return replace(run, blocked=queue)


def park(run: Run, backoff: bool) -> Run:
    """Takes the place of a run that does nothing but wait; its engine keeps the coroutine."""
    if not backoff:
        return advance(run, Status.WAITING, placed=False, reason=None, cause=None)
    return advance(run, Status.SCHEDULED, placed=False, reason=Cause.BACKOFF.value, cause=Cause.BACKOFF)


def await_ends(run: Run) -> Run:
    """Lets a run whose moment has come wait for the ends of others alone."""
    return advance(run, Status.SCHEDULED, wake_at=None, reason=Cause.AFTER.value, cause=Cause.AFTER)


def wake(run: Run) -> Run:
    """Makes a waiting or scheduled run ready for a slot; any other stays as it is."""
    if run.status not in (Status.WAITING, Status.SCHEDULED):
        return run
    return advance(run, Status.QUEUED, wake_at=None, reason=None, cause=None, blocked=None)


def release(run: Run) -> Run:
    """Lets go of a run whose coroutine is gone: it goes on by replay, on whichever engine takes it."""
    if run.pause is not None:
        return hold(run, run.pause, Cause.USER)
    if run.status is Status.RUNNING:
        run = advance(run, Status.QUEUED, placed=False)
    return replace(run, engine=None)


def ask_to_cancel(run: Run, reason: str, cause: Cause) -> Run:
    """Notes that a cancel of the run was requested."""
    return replace(run, cancel=reason, cancel_cause=cause)


def ready_to_cancel(run: Run) -> Run:
    """Sends a run without a coroutine through one more replay, so that its `finally` blocks run."""
    if run.status is Status.QUEUED:
        return replace(run, blocked=None)
    return advance(run, Status.QUEUED, wake_at=None, blocked=None, reason=None, cause=None)


def ask_to_pause(run: Run, by: str | None) -> Run:
    """Notes that a pause of the run was requested; None withdraws it."""
    return replace(run, pause=by)


def hold(run: Run, by: str, cause: Cause) -> Run:
    """Pauses a run; `by` says who asked for it."""
    return advance(run, Status.PAUSED, placed=False, blocked=None, engine=None, pause=None, reason=by, cause=cause)


def unhold(run: Run, now: float) -> Run:
    """Resumes a paused run: to the ends that it waits for, or to its moment, if these are still to come, else to the queue.

    One whose retries are used up goes on with a further attempt.
    """
    if run.cause is Cause.EXHAUSTED:
        run = replace(run, attempt=run.attempt + 1)
    if run.started_at is None and is_open(awaited_by(run)):
        return advance(run, Status.SCHEDULED, reason=Cause.AFTER.value, cause=Cause.AFTER, pause=None, error=None)
    if run.wake_at is not None and run.wake_at > now:
        return advance(run, Status.SCHEDULED, reason=Cause.DELAY.value, cause=Cause.DELAY, pause=None, error=None)
    return advance(run, Status.QUEUED, reason=None, cause=None, wake_at=None, pause=None, error=None)


def retry(run: Run, error: ErrorRecord, at: float, now: float, order: int) -> Run:
    """Keeps the failure of an attempt and schedules the next one.

    Parameters:
        order: no step that is finished so far stands behind this position.
    """
    return advance(
        run,
        Status.SCHEDULED,
        placed=False,
        engine=None,
        attempt=run.attempt + 1,
        wake_at=at,
        reason=Cause.RETRY.value,
        cause=Cause.RETRY,
        inherited=order,
        failures=with_failure(run.failures, Failure(attempt=run.attempt, at=now, error=error)),
    )


def exhaust(run: Run, error: ErrorRecord, now: float, order: int) -> Run:
    """Pauses a run that has used up its retries, for `on_exhausted="pause"`."""
    failures = with_failure(run.failures, Failure(attempt=run.attempt, at=now, error=error))
    held = hold(run, Cause.EXHAUSTED.value, Cause.EXHAUSTED)
    return replace(held, failures=failures, error=error_text(error), inherited=order)


def end(
    run: Run,
    status: Status,
    now: float,
    *,
    reason: str | None = None,
    cause: Cause | None = None,
    output: str | None = None,
    error: ErrorRecord | None = None,
) -> Run:
    """Gives a run its one end; a cause is its reason too, unless there is another."""
    return advance(
        run,
        status,
        reason=cause.value if reason is None and cause is not None else reason,
        cause=cause,
        output=output,
        error=None if error is None else error_text(error),
        ended_at=now,
        engine=None,
        placed=False,
        blocked=None,
        wake_at=None,
        deadline=None,
        cancel=None,
        cancel_cause=None,
        pause=None,
    )


def with_failure(failures: str | None, failure: Failure) -> str:
    """Returns a history of failures with one more.

    It is written anew with each failure, so its size is bounded however many there are: the first and the last ones are
    kept, with short `args`, and tracebacks of the newest.
    """
    history = msgspec.json.decode(failures, type=list[Failure]) if failures else []
    history = [*history, replace(failure, error=shortened(failure.error, MAX_ARGS))]
    first, dropped, last = history[:FIRST_KEPT], history[FIRST_KEPT:-LAST_KEPT], history[FIRST_KEPT:][-LAST_KEPT:]
    if dropped:
        left_out = sum(1 + one.left_out for one in dropped)
        last[0] = replace(last[0], left_out=left_out + last[0].left_out)
    history = [*first, *last]
    older = [replace(one, error=replace(one.error, traceback="")) for one in history[:-TRACEBACKS_KEPT]]
    return msgspec.json.encode([*older, *history[-TRACEBACKS_KEPT:]]).decode()


assert set(TRANSITIONS) == UNFINISHED | ENDED
