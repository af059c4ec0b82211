"""What a screen, a script or `info()` sees of the journal: records as plain JSON objects, as the contract names them.

Pure functions of records, or of a transaction that they only read. Called by the daemon's server, `Run.info()`, and the
command itself when no daemon runs.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from datetime import UTC, datetime
from difflib import get_close_matches
from itertools import accumulate
from typing import Any

import msgspec

from taskrun.model.errors import AmbiguousRun, RunNotFound
from taskrun.model.records import ErrorRecord, Failure, LogLine, Run, RunFilter, Status, Step, StepStatus
from taskrun.stores.base import Tx

SHORTEST_REF = 4
CANDIDATES = 10  # of an ambiguous id, that are listed
DETAILED = 200  # listings up to this size look at the steps of each run
LOG_TAIL = 10
ANSWER = 2_500_000  # characters that one answer holds at most, roughly, so that it always fits into a frame
LAST = 253_370_764_800.0  # the year 9999: the end of the calendar, where a longer wait is shown to end


def rfc3339(at: float | None) -> str | None:
    """Returns a moment as RFC 3339 with its zone."""
    return None if at is None else datetime.fromtimestamp(min(at, LAST), UTC).isoformat(timespec="milliseconds")


# ---- one record


def run_view(run: Run, steps: Sequence[Step] | None = None) -> dict[str, Any]:
    """Returns a run as JSON; with its `steps` also the current one and how many have ended.

    Beyond the contract's fields there are those that a screen needs: `wake_at`, `step` and so on.
    """
    return {
        "id": run.id,
        "job": run.job,
        "status": run.status.value,
        "reason": run.reason,
        "input": _decoded(run.input),
        "output": _decoded(run.output),
        "error": error_view(run.error),
        "attempt": run.attempt,
        "priority": run.priority,
        "created_at": rfc3339(run.created_at),
        "started_at": rfc3339(run.started_at),
        "ended_at": rfc3339(run.ended_at),
        "parent": run.parent,
        "progress": _progress_view(run.progress),
        "attempts": max(run.retry + 1, run.attempt),  # a run that was resumed after its last has one more
        "wake_at": rfc3339(run.wake_at),
        "deadline": rfc3339(run.deadline),
        "slot": rfc3339(run.slot),
        "key": run.key,
        "source": run.source,
        "retried_from": run.retried_from,
        "cancelling": run.cancel,
        "pausing": run.pause,
        "failures": failures_view(run.failures),
        "step": None if steps is None else _current(run, steps),
        "steps_ended": None if steps is None else sum(step.finished for step in steps),
        "seq": run.seq,
    }


def step_view(step: Step) -> dict[str, Any]:
    """Returns a step as JSON."""
    return {
        "run": step.run,
        "key": step.key,
        "name": step.name,
        "kind": step.kind.value,
        "status": step.status.value,
        "attempt": step.attempt,
        "started_at": rfc3339(step.started_at),
        "ended_at": rfc3339(step.ended_at),
        "output": _decoded(step.output),
        "error": error_view(step.error),
        "wake_at": rfc3339(step.wake_at),
        "topic": None if step.topic is None else step.topic.partition("#")[0],
        "child": step.child,
        "failures": failures_view(step.failures),
    }


def log_view(line: LogLine) -> dict[str, Any]:
    """Returns a log record as JSON."""
    return {
        "seq": line.seq,
        "at": rfc3339(line.at),
        "run": line.run,
        "step": line.step,
        "stream": line.stream,
        "text": line.text,
    }


def error_view(error: str | None) -> dict[str, Any] | None:
    """Returns the error that a run or step keeps as JSON, with `where` in the user's code it came from."""
    return None if error is None else _error(msgspec.json.decode(error, type=ErrorRecord))


def failures_view(failures: str | None) -> list[dict[str, Any]]:
    """Returns the history of failed attempts as JSON, oldest first."""
    history = msgspec.json.decode(failures, type=list[Failure]) if failures else []
    return [
        {
            "attempt": failure.attempt,
            "at": rfc3339(failure.at),
            "started_at": rfc3339(failure.started_at),
            "error": _error(failure.error),
        }
        for failure in history
    ]


def _error(error: ErrorRecord) -> dict[str, Any]:
    return {"type": error.type, "message": error.message, "traceback": error.traceback, "where": error.where}


def _decoded(text: str | None) -> Any:
    return None if text is None else msgspec.json.decode(text)


def _progress_view(text: str | None) -> dict[str, Any] | None:
    return None if text is None else {"done": None, "total": None, "note": "", **msgspec.json.decode(text)}


def _current(run: Run, steps: Sequence[Step]) -> dict[str, Any] | None:
    """The step that a listing shows: the latest one under way, or the one that an ended run failed at."""
    wanted = StepStatus.RUNNING if not run.ended else StepStatus.FAILED
    if run.status is Status.SUCCEEDED:
        return None
    fitting = [step for step in steps if step.status is wanted]
    if not fitting:
        return None
    step = max(fitting, key=lambda step: step.started_at)
    keep = ("key", "name", "kind", "status", "attempt", "started_at", "wake_at", "topic")
    view = step_view(step)
    return {field: view[field] for field in keep}


# ---- many records


def list_runs(
    tx: Tx,
    job: str | None = None,
    statuses: Sequence[Status] | None = None,
    since: float | None = None,
    limit: int | None = None,
    before: int | None = None,
) -> list[dict[str, Any]]:
    """Returns the runs that fit, newest first; a listing of moderate size knows the current step of each.

    Parameters:
        before: only those whose `seq` is lower.
    """
    want = RunFilter(job=job, statuses=tuple(statuses) if statuses else None, since=since, limit=limit, before=before)
    runs = tx.runs(want)
    detailed = len(runs) <= DETAILED
    return [run_view(run, tx.steps(run.id) if detailed else None) for run in runs]


def page_runs(tx: Tx, limit: int | None = None, **want: Any) -> list[dict[str, Any]]:
    """Returns the next runs of a listing, as many as one answer holds; what follows stands `before` the last of them."""
    found = list_runs(tx, limit=min(limit or DETAILED, DETAILED), **want)
    sizes = [sum(len(str(run[field])) for field in ("input", "output", "error", "failures")) for run in found]
    return found[: _fitting(sizes)]


def page_logs(tx: Tx, run_id: str, after: int, limit: int) -> list[dict[str, Any]]:
    """Returns log lines after a position, or the last `-limit` ones: as many as one answer holds."""
    found = [log_view(line) for line in tx.logs(run_id, after, limit)]
    if limit >= 0:
        return found[: _fitting([len(line["text"]) for line in found])]
    return found[-_fitting([len(line["text"]) for line in reversed(found)]) :]


def _fitting(sizes: Sequence[int]) -> int:
    """Returns how many things of these sizes go into an answer: one at least."""
    return max(1, bisect_right(list(accumulate(sizes)), ANSWER))


def show(tx: Tx, run_id: str) -> dict[str, Any]:
    """Returns everything about one run: with `steps`, `children`, the end of its log and the log's length.

    Raises:
        RunNotFound: no run has this id.
    """
    run = tx.run(run_id)
    if run is None:
        raise RunNotFound(f"no run {run_id}")
    steps = tx.steps(run_id)
    children = reversed(tx.runs(RunFilter(parent=run_id)))
    return {
        **run_view(run, steps),
        "steps": [step_view(step) for step in steps],
        "children": [run_view(child) for child in children],
        "log": [log_view(line) for line in tx.logs(run_id, 0, -LOG_TAIL)],
        "log_lines": tx.last_log(run_id),
    }


# ---- finding


def resolve(tx: Tx, ref: str) -> str:
    """Returns the id of the run that `ref` means: an id, a unique prefix or suffix of one, `@last`, or `JOB@last`.

    Raises:
        RunNotFound: nothing fits.
        AmbiguousRun: several runs do.
    """
    if ref.endswith("@last"):
        return _last(tx, ref.removesuffix("@last"))
    if tx.run(ref) is not None:
        return ref
    if len(ref) < SHORTEST_REF:
        raise RunNotFound(f'no run "{ref}": give at least {SHORTEST_REF} characters of its id')
    found = {
        run.id: run
        for want in (RunFilter(id_prefix=ref, limit=CANDIDATES), RunFilter(id_suffix=ref, limit=CANDIDATES))
        for run in tx.runs(want)
    }
    if not found:
        raise RunNotFound(f'no run "{ref}"')
    if len(found) > 1:
        newest = sorted(found.values(), key=lambda run: -run.seq)
        raise AmbiguousRun(ref, [(run.id, run.job, run.created_at) for run in newest])
    return next(iter(found))


def _last(tx: Tx, job: str) -> str:
    newest = tx.runs(RunFilter(job=job or None, limit=1))
    if newest:
        return newest[0].id
    close = get_close_matches(job, {name for name, _ in tx.count_runs()}, 2, 0.6)
    meant = f"; did you mean  {'  '.join(f'{name}@last' for name in close)}" if close else ""
    raise RunNotFound(f'no run of a job "{job}" yet{meant}' if job else "no run yet")
