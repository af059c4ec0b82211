"""What people are to be told: written in the transaction in which it happens, as a notice for each event and its ways.

Functions of one `Transaction`. `notify_runs` starts a run for each way, and removes the notice with that.
"""

from __future__ import annotations

from typing import Any

from taskrun.engine.core.facts import FAILING, NOTICES, Notice
from taskrun.engine.core.outbox import NoticeWritten
from taskrun.engine.core.queries.views import rfc3339
from taskrun.engine.core.transaction import Transaction
from taskrun.model.names import EACH, EXEC, NOTIFY
from taskrun.model.notify_config import Way
from taskrun.model.records import Cause, Run, Status
from taskrun.rules import notice_texts

SETTLED = 2.0  # seconds within which missed slots of a job's schedules are told together


def observe(t: Transaction, before: Run | None, run: Run) -> None:
    """Notices that a run has got into another state; `before` is None where it is new."""
    if not _counts(t, run):
        return
    match run.status:
        case Status.FAILED:
            _failed(t, run)
        case Status.SUCCEEDED:
            _succeeded(t, run)
        case Status.CANCELLED if before is None or before.cause is not Cause.DEBOUNCE:
            _tell(t, "cancelled", run, notice_texts.cancelled(run))
        case Status.PAUSED if run.cause is not Cause.JOB:
            _tell(t, "paused", run, notice_texts.paused(run, t.state.project_option))


def _counts(t: Transaction, run: Run) -> bool:
    """Whether people are told of a run: not of children, but for those of `each`, and not of what tells them."""
    if run.job == NOTIFY or not t.state.notify:
        return False
    parent = t.run(run.parent)
    return run.parent is None or (parent is not None and parent.job == EACH)


def _failed(t: Transaction, run: Run) -> None:
    what = _what_recovers(run)
    if what is not None and FAILING.get(t.tx, what) is None and _ways(t, "recovered", run.job, run.name):
        FAILING.put(t.tx, what, t.now)
    _tell(t, "failed", run, notice_texts.failed(run))


def _succeeded(t: Transaction, run: Run) -> None:
    what = _what_recovers(run)
    since = None if what is None else FAILING.get(t.tx, what)
    if what is not None and since is not None:
        FAILING.drop(t.tx, what)
        _tell(t, "recovered", run, notice_texts.recovered(run, since, t.now))
    _tell(t, "succeeded", run, notice_texts.succeeded(run, t.now))


def _what_recovers(run: Run) -> str | None:
    """Returns what fails and works again with a run: its job; of commands of their own and of many inputs, those of one name."""
    if run.name is not None or run.job == EACH:
        return f"{run.job}:{notice_texts.name_of(run)}"
    return None if run.job == EXEC else run.job


def late(t: Transaction, run: Run) -> None:
    """Tells that a run starts late after its slot."""
    if _counts(t, run):
        _tell(t, "late", run, notice_texts.late(run, t.now))


def slow(t: Transaction, run: Run, limit: float) -> None:
    """Tells that a run takes longer than it should."""
    if _counts(t, run):
        _tell(t, "slow", run, notice_texts.slow(run, limit))


def missed(t: Transaction, job: str, number: int, last: float, most: int, reason: str) -> None:
    """Tells that slots of a job were missed, together with those of its other schedules.

    Parameters:
        most: more than so many are not counted.
    """
    ways = _ways(t, "missed", job)
    if not ways:
        return
    id = f"missed:{job}"
    known = NOTICES.get(t.tx, id)
    if known is not None:
        number, last = min(number + known.number, most), max(last, known.last)
    title, text = notice_texts.missed(job, number, last, most, reason)
    message = _message(t, "missed", job, (title, text))
    ready = t.now + SETTLED if known is None else known.ready
    _write(t, id, Notice(message, ways, ready, number, last))


def _tell(t: Transaction, event: str, run: Run, said: notice_texts.Said) -> None:
    if ways := _ways(t, event, run.job, run.name):
        id = f"{event}:{run.id}:{t.now:.6f}"  # a run can be paused twice before the first is told
        _write(t, id, Notice(_message(t, event, run.job, said, run), ways))


def _ways(t: Transaction, event: str, *names: str | None) -> list[Way]:
    """Returns the ways of all tables that want an event, each once."""
    return [*dict.fromkeys(way for table in t.state.notify if table.wants(event, *names) for way in table.ways)]


def _message(t: Transaction, event: str, job: str, said: notice_texts.Said, run: Run | None = None) -> dict[str, Any]:
    """Returns what is told, as JSON."""
    error = None if run is None else notice_texts.error_of(run)
    return {
        "event": event,
        "job": job,
        "run": None if run is None else run.id,
        "status": None if run is None else run.status.value,
        "reason": None if run is None else run.reason,
        "error": None if error is None else {"type": error.type, "message": error.message},
        "title": said[0],
        "text": said[1],
        "at": rfc3339(t.now),
    }


def _write(t: Transaction, id: str, notice: Notice) -> None:
    NOTICES.put(t.tx, id, notice)
    t.outbox.append(NoticeWritten(id, notice.ready))
