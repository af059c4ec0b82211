"""Jobs that are paused as a whole: what is not started yet is held, what is triggered meanwhile is recorded and held.

Runs that have started go on. A fact `paused:JOB` says by whom and since when; admission and the clock look at it.
"""

from __future__ import annotations

from typing import Any

import msgspec

from taskrun.engine.core import run_lifecycle as ledger
from taskrun.engine.core import run_queue as lanes
from taskrun.engine.core.executors import Dispatch
from taskrun.engine.core.transaction import Book
from taskrun.engine.core.transactions import Ledgers
from taskrun.model.errors import JobNotFound
from taskrun.model.records import RunFilter, Status
from taskrun.rules import transitions

HELD = "job"  # reason of the runs that a paused job holds


class Jobs:
    """Pauses and resumes jobs for users. Part of the core."""

    def __init__(self, ledgers: Ledgers, dispatch: Dispatch) -> None:
        self._ledgers = ledgers
        self._dispatch = dispatch

    async def pause(self, job: str, by: str = "explicit") -> dict[str, Any] | None:
        """Holds what a job has queued, and what it is triggered for from now on; returns what changed, None for nothing.

        Raises:
            JobNotFound: no executor has the job.
        """
        if self._dispatch.peer_for(job) is None:
            raise JobNotFound(f'no job "{job}"')
        held = await self._ledgers.do(lambda book: pause(book, job, by))
        return None if held is None else {"job": job, "paused": True, "runs": held}

    async def resume(self, job: str) -> dict[str, Any] | None:
        """Lets a paused job go on; returns what changed, None for nothing."""
        freed = await self._ledgers.do(lambda book: resume(book, job))
        return None if freed is None else {"job": job, "paused": False, "runs": freed}


def pause(book: Book, job: str, by: str) -> int | None:
    """Pauses a job; returns how many runs that holds, None when it was paused already."""
    if book.tx.get(f"paused:{job}") is not None:
        return None
    book.tx.put(f"paused:{job}", msgspec.json.encode({"by": by, "at": book.now}).decode())
    queued = book.tx.runs(RunFilter(job=job, statuses=(Status.QUEUED, Status.SCHEDULED)))
    held = [run for run in queued if run.started_at is None and _starts_by_itself(run.reason)]
    for run in held:
        book.save(transitions.hold(run, HELD))
        lanes.leave(book, run)
    return len(held)


def resume(book: Book, job: str) -> int | None:
    """Lets a job go on; returns how many runs that releases, None when it was not paused."""
    if book.tx.get(f"paused:{job}") is None:
        return None
    book.tx.put(f"paused:{job}", None)
    held = [run for run in book.tx.runs(RunFilter(job=job, statuses=(Status.PAUSED,))) if run.reason == HELD]
    for run in reversed(held):
        ledger.resume(book, run)
    return len(held)


def _starts_by_itself(reason: str | None) -> bool:
    """Whether a run has no moment of its own (a delay, a debounce), at which it would be held."""
    return reason in (None, "throttle")
