"""The one table of a run's states, and every change of a run as a pure function: (run, facts, now) → run.

Called by the engine's ledger inside a transaction, never elsewhere.
"""

from __future__ import annotations

from typing import Any

import msgspec
from msgspec.structs import replace

from taskrun.model.records import ENDED, UNFINISHED, ErrorRecord, Failure, Run, Status

TRANSITIONS: dict[Status, frozenset[Status]] = {
    Status.SCHEDULED: frozenset({Status.QUEUED, Status.PAUSED}) | ENDED,
    Status.QUEUED: frozenset({Status.RUNNING, Status.PAUSED, Status.SCHEDULED}) | ENDED,
    Status.RUNNING: frozenset({Status.QUEUED, Status.WAITING, Status.SCHEDULED, Status.PAUSED}) | ENDED,
    Status.WAITING: frozenset({Status.QUEUED, Status.PAUSED}) | ENDED,
    Status.PAUSED: frozenset({Status.QUEUED, Status.SCHEDULED}) | ENDED,
    **{status: frozenset() for status in ENDED},
}


class IllegalTransition(Exception):
    """The engine tried to take a run from one state to another that does not follow it: a bug, never a user's fault."""


def advance(run: Run, status: Status, **changes: Any) -> Run:
    """Returns the run in another state; the only place where a status changes."""
    if status not in TRANSITIONS[run.status]:
        raise IllegalTransition(f"{run.id}: {run.status} → {status}")
    return replace(run, status=status, **changes)


def start(run: Run, engine: str, now: float) -> Run:
    """Gives a queued run its place and sets its deadline at its first start."""
    deadline = run.deadline
    if run.started_at is None and run.timeout is not None:
        deadline = now + run.timeout
    return advance(
        run,
        Status.RUNNING,
        engine=engine,
        placed=True,
        blocked=None,
        reason=None,
        wake_at=None,
        deadline=deadline,
        started_at=now if run.started_at is None else run.started_at,
    )


def postpone(run: Run, until: float) -> Run:
    """Sends a queued run to wait for the moment at which a limit on starts lets it start."""
    return advance(run, Status.SCHEDULED, wake_at=until, reason="throttle")


def park(run: Run, backoff: bool) -> Run:
    """Takes the place of a run that does nothing but wait; its engine keeps the coroutine."""
    status = Status.SCHEDULED if backoff else Status.WAITING
    return advance(run, status, placed=False, reason="backoff" if backoff else None)


def wake(run: Run) -> Run:
    """Makes a waiting or scheduled run ready for a place."""
    return advance(run, Status.QUEUED, wake_at=None, reason=None, blocked=None)


def release(run: Run) -> Run:
    """Lets go of a run whose coroutine is gone: it goes on by replay, on whichever engine takes it."""
    if run.pause is not None:
        return hold(run, run.pause)
    if run.status is Status.RUNNING:
        run = advance(run, Status.QUEUED, placed=False)
    return replace(run, engine=None)


def hold(run: Run, by: str) -> Run:
    """Pauses a run; `by` says who asked for it."""
    return advance(run, Status.PAUSED, placed=False, blocked=None, engine=None, pause=None, reason=by)


def unhold(run: Run, now: float) -> Run:
    """Resumes a paused run: to its moment, if that is still to come, else to the queue."""
    later = run.wake_at is not None and run.wake_at > now
    return advance(run, Status.SCHEDULED if later else Status.QUEUED, reason=None, pause=None, error=None)


def retry(run: Run, error: ErrorRecord, at: float, now: float) -> Run:
    """Keeps the failure of an attempt and schedules the next one."""
    return advance(
        run,
        Status.SCHEDULED,
        placed=False,
        engine=None,
        attempt=run.attempt + 1,
        wake_at=at,
        reason="retry",
        failures=with_failure(run.failures, Failure(attempt=run.attempt, at=now, error=error)),
    )


def exhaust(run: Run, error: ErrorRecord, now: float) -> Run:
    """Pauses a run that has used up its retries, for `on_exhausted="pause"`."""
    failures = with_failure(run.failures, Failure(attempt=run.attempt, at=now, error=error))
    held = hold(run, "exhausted")
    return replace(held, attempt=run.attempt + 1, failures=failures, error=encode(error))


def end(
    run: Run,
    status: Status,
    now: float,
    *,
    reason: str | None = None,
    output: str | None = None,
    error: ErrorRecord | None = None,
) -> Run:
    """Gives a run its one end."""
    return advance(
        run,
        status,
        reason=reason,
        output=output,
        error=None if error is None else encode(error),
        ended_at=now,
        engine=None,
        placed=False,
        blocked=None,
        wake_at=None,
        deadline=None,
        cancel=None,
        pause=None,
    )


def encode(error: ErrorRecord) -> str:
    """Returns an error as the JSON text that a run or a step keeps."""
    return msgspec.json.encode(error).decode()


def with_failure(failures: str | None, failure: Failure) -> str:
    """Returns a history of failures with one more."""
    history = msgspec.json.decode(failures, type=list[Failure]) if failures else []
    return msgspec.json.encode([*history, failure]).decode()


assert set(TRANSITIONS) == UNFINISHED | ENDED
