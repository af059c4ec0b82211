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
from msgspec.structs import replace

from taskrun.model.errors import AmbiguousRun, RunNotFound
from taskrun.model.names import EACH, EXEC, NOTIFY
from taskrun.model.records import (
    CUT,
    ErrorRecord,
    Failure,
    LogLine,
    Run,
    RunFilter,
    Status,
    Step,
    brief_run,
    brief_step,
)
from taskrun.model.tags import tags_of
from taskrun.rules.dependencies import awaited_by
from taskrun.stores.base import Tx

SHORTEST_REF = 4
CANDIDATES = 10  # of an ambiguous id, that are listed
NAMED = 1_000  # commands among which one is looked for by its name
PAGE = 200  # runs, steps or children that one answer holds at most
COUNTED = 1_000  # steps of each run that a listing counts at most
LOG_TAIL = 10
PIECE = 4_000_000  # characters of a large value that one answer holds
ANSWER = 2_500_000  # characters that one answer holds at most, roughly, so that it always fits into a frame
ALL = 1 << 30  # characters: more than any value has
LAST = 253_370_764_800.0  # the year 9999: the end of the calendar, where a longer wait is shown to end


def rfc3339(at: float | None) -> str | None:
    """Returns a moment as RFC 3339 with its zone."""
    return None if at is None else datetime.fromtimestamp(min(at, LAST), UTC).isoformat(timespec="milliseconds")


# ---- one record


def run_view(
    run: Run,
    step: Step | None = None,
    ended: int | None = None,
    under_way: int | None = None,
    *,
    whole: bool = False,
) -> dict[str, Any]:
    """Returns a run as JSON.

    Beyond the contract's fields there are those that a screen needs: `wake_at`, `step` and so on. Large values are
    excerpts, and named by `cut`, unless it is to be `whole`.

    Parameters:
        step: the one that it is at, or that it failed at.
        ended: how many of its steps have ended.
        under_way: how many have not.
    """
    run = run if whole else brief_run(run)
    return {
        "id": run.id,
        "job": run.job,
        "status": run.status.value,
        "reason": run.reason,
        "input": _value(run.input),
        "output": _value(run.output),
        "error": error_view(run.error),
        "attempt": run.attempt,
        "priority": run.priority,
        "created_at": rfc3339(run.created_at),
        "started_at": rfc3339(run.started_at),
        "ended_at": rfc3339(run.ended_at),
        "parent": run.parent,
        "progress": _progress_view(run.progress),
        "name": run.name,
        "tags": tags_of(run),
        "attempts": run.retry + 1,  # a run that was resumed after its last has further ones
        "after": [{"run": one.run, "any": one.any, "status": one.ended} for one in awaited_by(run)],
        "wake_at": rfc3339(run.wake_at),
        "deadline": rfc3339(run.deadline),
        "slot": rfc3339(run.slot),
        "key": run.key,
        "source": run.source,
        "retried_from": run.retried_from,
        "cancelling": run.cancel,
        "pausing": run.pause,
        "failures": failures_view(run.failures),
        "step": None if step is None else {field: value for field, value in step_view(step).items() if field in _AT},
        "steps_ended": ended,
        "steps_under_way": under_way,
        "seq": run.seq,
        **_cut(input=run.input, output=run.output, failures=run.failures),
    }


def step_view(step: Step, *, whole: bool = False) -> dict[str, Any]:
    """Returns a step as JSON; large values are excerpts, and named by `cut`, unless it is to be `whole`."""
    step = step if whole else brief_step(step)
    return {
        "run": step.run,
        "key": step.key,
        "name": step.name,
        "kind": step.kind.value,
        "status": step.status.value,
        "attempt": step.attempt,
        "started_at": rfc3339(step.started_at),
        "ended_at": rfc3339(step.ended_at),
        "output": _value(step.output),
        "error": error_view(step.error),
        "wake_at": rfc3339(step.wake_at),
        "topic": None if step.topic is None else step.topic.partition("#")[0],
        "child": step.child,
        "failures": failures_view(step.failures),
        **_cut(output=step.output, failures=step.failures),
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
    """Returns the history of failed attempts as JSON, oldest first; `left_out` counts those that are missing before one."""
    known = failures is not None and not failures.startswith(CUT)
    history = msgspec.json.decode(failures, type=list[Failure]) if failures and known else []
    return [
        {
            "attempt": failure.attempt,
            "at": rfc3339(failure.at),
            "started_at": rfc3339(failure.started_at),
            "error": _error(failure.error),
            "left_out": failure.left_out,
        }
        for failure in history
    ]


def _error(error: ErrorRecord) -> dict[str, Any]:
    return {"type": error.type, "message": error.message, "traceback": error.traceback, "where": error.where}


def _value(text: str | None) -> Any:
    """Returns a value; of one that is cut, its beginning as text."""
    if text is not None and text.startswith(CUT):
        return text.removeprefix(CUT)
    return None if text is None else msgspec.json.decode(text)


def _cut(**values: str | None) -> dict[str, list[str]]:
    """Returns which values are cut as a field of a view, where any is."""
    names = [name for name, text in values.items() if text is not None and text.startswith(CUT)]
    return {"cut": names} if names else {}


def _progress_view(text: str | None) -> dict[str, Any] | None:
    return None if text is None else {"done": None, "total": None, "note": "", **msgspec.json.decode(text)}


_AT = ("key", "name", "kind", "status", "attempt", "started_at", "wake_at", "topic")  # what a listing needs of a step


# ---- many records


def list_runs(
    tx: Tx,
    job: str | None = None,
    statuses: Sequence[Status] | None = None,
    since: float | None = None,
    limit: int | None = None,
    before: int | None = None,
    roots: bool = False,
    tags: Sequence[tuple[str, str | None]] = (),
    parent: str | None = None,
    folds: bool = False,
) -> list[dict[str, Any]]:
    """Returns the runs that fit, newest first, each with the step that it is at: at most a page of them.

    Parameters:
        before: only those whose `seq` is lower.
        roots: only those that are no children.
        tags: only those that have all of these; None stands for any value.
        parent: only the children of this run.
        folds: whether the children of `--each` are left out, for which their parent stands.
    """
    most = min(limit or PAGE, PAGE)
    states = tuple(statuses) if statuses else None
    want = RunFilter(job=job, statuses=states, since=since, limit=most, before=before, roots=roots, parent=parent)
    want = replace(want, tags=tuple(tags), brief=True, not_under=EACH if folds else None)
    return _fitting([_listed(tx, run) for run in tx.runs(want)])


def _listed(tx: Tx, run: Run) -> dict[str, Any]:
    """Returns a run with the step that it is at, and how many have ended, of which the first `COUNTED` are counted."""
    count, under_way = tx.count_steps(run.id, COUNTED)
    return run_view(run, _step_at(tx, run), max(0, count - under_way), under_way)


def counts(tx: Tx) -> dict[str, Any]:
    """Returns how many runs there are of each job in each state, and how many of all are `children`."""
    states = [(job, state, count) for (job, state), count in tx.count_runs().items()]
    return {"counts": states, "children": tx.count_children()}


def _step_at(tx: Tx, run: Run) -> Step | None:
    if not run.ended:
        return tx.open_step(run.id)
    return None if run.status is Status.SUCCEEDED else tx.failed_step(run.id)


def children(tx: Tx, run_id: str, after: int = 0, limit: int = PAGE) -> list[dict[str, Any]]:
    """Returns children of a run, oldest first: a page above a `seq`, an empty one at the end, or the last `-limit`."""
    want = RunFilter(parent=run_id, after=after, limit=min(abs(limit), PAGE), oldest_first=limit >= 0, brief=True)
    return _paged([run_view(child) for child in tx.runs(want)], limit >= 0)


def steps(tx: Tx, run_id: str, after: int = 0, limit: int = PAGE) -> list[dict[str, Any]]:
    """Returns steps of a run as they began: a page above a number `n`, an empty one at the end, or the last `-limit`."""
    found = tx.step_page(run_id, after, max(-PAGE, min(limit, PAGE)))
    return _paged([{**step_view(step), "n": n} for n, step in (found if limit >= 0 else reversed(found))], limit >= 0)


def _paged(views: list[dict[str, Any]], forward: bool) -> list[dict[str, Any]]:
    """Returns those that an answer holds, in order; those that do not come `forward` come the last one first."""
    return _fitting(views) if forward else _fitting(views)[::-1]


def failures(tx: Tx, run_id: str, step: str | None) -> list[dict[str, Any]]:
    """Returns the history of failed attempts of a run or of a step of it, which its view may have left out."""
    return failures_view(tx.piece(run_id, step, "failures", 0, ALL))


def piece(tx: Tx, run_id: str, step: str | None, field: str, start: int) -> str:
    """Returns the next piece of a value that is cut, as JSON text; an empty one at the end."""
    return tx.piece(run_id, step, field, start, PIECE)


def page_logs(tx: Tx, run_id: str, after: int, limit: int) -> list[dict[str, Any]]:
    """Returns log lines after a position, or the last `-limit` ones: as many as one answer holds."""
    found = [log_view(line) for line in tx.logs(run_id, after, limit)]
    return _paged(found if limit >= 0 else found[::-1], limit >= 0)


def _fitting(views: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Returns as many of the first ones as go into an answer: one at least."""
    sizes = [sum(len(str(view.get(name, ""))) for name in _LARGE) for view in views]
    return views[: max(1, bisect_right(list(accumulate(sizes)), ANSWER))]


_LARGE = ("input", "output", "error", "failures", "text")


def show(tx: Tx, run_id: str) -> dict[str, Any]:
    """Returns what a screen shows of one run: with its newest `steps` and `children`, and the end of its log.

    How many steps and lines there are is in `steps_ended`, `steps_left_out` and `log_lines`.

    Raises:
        RunNotFound: no run has this id.
    """
    run = next(iter(tx.runs(RunFilter(id=run_id, brief=True))), None)
    if run is None:
        raise RunNotFound(f"no run {run_id}")
    newest = steps(tx, run_id, limit=-PAGE)
    count, under_way = tx.count_steps(run_id, -1)
    return {
        **run_view(run, _step_at(tx, run), count - under_way, under_way),
        "steps": newest,
        "steps_left_out": count - len(newest),
        "children": children(tx, run_id, limit=-PAGE),
        "log": page_logs(tx, run_id, 0, -LOG_TAIL),
        "log_lines": tx.last_log(run_id),
    }


def whole(tx: Tx, run_id: str) -> dict[str, Any]:
    """Returns everything about one run, for whoever asks in the process itself: all steps and children, and values whole.

    Raises:
        RunNotFound: no run has this id.
    """
    run = tx.run(run_id)
    if run is None:
        raise RunNotFound(f"no run {run_id}")
    recorded = tx.steps(run_id)
    return {
        **run_view(run, _step_at(tx, run), sum(step.finished for step in recorded), whole=True),
        "steps": [step_view(step, whole=True) for step in recorded],
        "children": [run_view(child, whole=True) for child in reversed(tx.runs(RunFilter(parent=run_id)))],
        "log": [log_view(line) for line in tx.logs(run_id, 0, -LOG_TAIL)],
        "log_lines": tx.last_log(run_id),
    }


# ---- finding


def resolve(tx: Tx, ref: str) -> str:
    """Returns the id of the run that `ref` means: an id, a unique prefix or suffix of one, `@last`, `JOB@last` or `NAME@last`.

    Raises:
        RunNotFound: nothing fits.
        AmbiguousRun: several runs do.
    """
    if ref.endswith("@last"):
        return _last(tx, ref.removesuffix("@last"))
    if tx.runs(RunFilter(id=ref, brief=True)):
        return ref
    if len(ref) < SHORTEST_REF:
        raise RunNotFound(f'no run "{ref}": give at least {SHORTEST_REF} characters of its id')
    found = {
        run.id: run
        for want in (RunFilter(id_prefix=ref), RunFilter(id_suffix=ref))
        for run in tx.runs(replace(want, limit=CANDIDATES, brief=True))
    }
    if not found:
        raise RunNotFound(f'no run "{ref}"')
    if len(found) > 1:
        newest = sorted(found.values(), key=lambda run: -run.seq)
        raise AmbiguousRun(ref, [(run.id, run.job, run.created_at) for run in newest])
    return next(iter(found))


def _newest(tx: Tx, job: str) -> Run | None:
    """Returns the newest run of a job; of all those that are no children, one that was not started to tell of another."""
    want = RunFilter(job=job or None, roots=not job, limit=CANDIDATES, brief=True)
    telling: Run | None = None
    while found := tx.runs(want):
        for run in found:
            if job or run.job != NOTIFY:
                return run
        telling = telling or found[0]
        want = replace(want, before=found[-1].seq)
    return telling


def _called(tx: Tx, name: str) -> Run | None:
    """Returns the newest command of a name of its own, which lists have in place of the job's."""
    lately = tx.runs(RunFilter(job=EXEC, limit=NAMED, brief=True))
    return next((run for run in lately if run.name == name), None)


def _last(tx: Tx, job: str) -> str:
    newest = _newest(tx, job) or (_called(tx, job) if job else None)
    if newest is not None:
        return newest.id
    close = get_close_matches(job, {name for name, _ in tx.count_runs()}, 2, 0.6)
    meant = f"; did you mean  {'  '.join(f'{name}@last' for name in close)}" if close else ""
    raise RunNotFound(f'job "{job}" has no runs yet{meant}' if job else "no runs yet")
