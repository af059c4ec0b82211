"""Jobs that are paused as a whole: what is not started yet is held, what is triggered meanwhile is recorded and held.

Runs that have started go on. A fact `paused:JOB` says by whom and since when; admission and the clock look at it.
"""

from __future__ import annotations

from typing import Any

from taskrun.engine.core import run_lifecycle, run_queue
from taskrun.engine.core.executors import Executors
from taskrun.engine.core.fact_kind import PAUSED, PausedJob
from taskrun.engine.core.journal import Journal
from taskrun.engine.core.transaction import Transaction
from taskrun.model.errors import JobNotFound
from taskrun.model.records import Cause, RunFilter, Status
from taskrun.rules import transitions


class PauseJob:
    """Pauses and resumes jobs for users. Part of the core."""

    def __init__(self, journal: Journal, executors: Executors) -> None:
        self._journal = journal
        self._executors = executors

    async def pause(self, job: str, by: str = Cause.USER.value) -> dict[str, Any] | None:
        """Holds what a job has queued, and what it is triggered for from now on; returns what changed, None for nothing.

        Raises:
            JobNotFound: no executor has the job.
        """
        if self._executors.with_job(job) is None:
            raise JobNotFound(f'no job "{job}"')
        held = await self._journal.do(lambda t: pause(t, job, by))
        return None if held is None else {"job": job, "paused": True, "runs": held}

    async def resume(self, job: str) -> dict[str, Any] | None:
        """Lets a paused job go on; returns what changed, None for nothing."""
        freed = await self._journal.do(lambda t: resume(t, job))
        return None if freed is None else {"job": job, "paused": False, "runs": freed}


def pause(t: Transaction, job: str, by: str) -> int | None:
    """Pauses a job; returns how many runs that holds, None when it was paused already.

    A run with a moment of its own, of a delay or a debounce, is held when that has come, so that bursts stay whole.
    """
    if PAUSED.get(t.tx, job) is not None:
        return None
    PAUSED.put(t.tx, job, PausedJob(by, t.now))
    held = 0
    for run in t.each(t.tx.runs(RunFilter(job=job, statuses=(Status.QUEUED, Status.SCHEDULED)))):
        waits = run.status in (Status.QUEUED, Status.SCHEDULED) and run.cause in (None, Cause.THROTTLE)
        if waits and run.started_at is None:
            t.change(run.id, transitions.hold, Cause.JOB.value, Cause.JOB)
            run_queue.leave(t, run)
            held += 1
    return held


def resume(t: Transaction, job: str) -> int | None:
    """Lets a job go on; returns how many runs that releases, None when it was not paused."""
    if PAUSED.get(t.tx, job) is None:
        return None
    PAUSED.drop(t.tx, job)
    held = [run for run in t.tx.runs(RunFilter(job=job, statuses=(Status.PAUSED,))) if run.cause is Cause.JOB]
    for run in t.each(reversed(held)):
        run_lifecycle.resume(t, run)
    return len(held)
