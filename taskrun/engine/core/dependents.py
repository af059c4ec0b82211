"""Who starts after whom: noted at the trigger, and told at an end. By then the awaited run is there, whatever is pruned later.

What a run waits for stands in the run itself (`Run.after`); a fact for each pair leads from the awaited run to it.
"""

from __future__ import annotations

from collections.abc import Sequence

from msgspec.structs import replace

from taskrun.engine.core import run_queue
from taskrun.engine.core.fact_kind import PAUSED
from taskrun.engine.core.facts import DEPENDENTS
from taskrun.engine.core.transaction import Transaction
from taskrun.model.errors import RunNotFound
from taskrun.model.records import Awaited, Cause, Run, Status
from taskrun.rules import transitions
from taskrun.rules.dependencies import after_text, awaited_by, is_failed, is_open, with_end

GONE = Status.DISCARDED  # how a run counts as ended of which nothing is left; there should be none


def looked_up(t: Transaction, wanted: Sequence[Awaited]) -> list[Awaited]:
    """Returns what a new run is to start after, each once, with the ends that there are.

    Raises:
        RunNotFound: there is no such run.
    """
    found: dict[str, Awaited] = {}
    for one in wanted:
        run = t.run(one.run)
        if run is None:
            raise RunNotFound(f'no run "{one.run}"')
        known = found.get(one.run)
        found[one.run] = replace(
            one, any=one.any and (known is None or known.any), ended=run.status if run.ended else None
        )
    return list(found.values())


def note(t: Transaction, run: Run) -> list[Run]:
    """Notes that a new run waits for others; returns it where it can never start.

    It may have ended one of them just now, by taking its place in a burst.
    """
    for one in awaited_by(run):
        awaited = t.run(one.run)
        if one.ended is None and awaited is not None and not awaited.ended:
            DEPENDENTS.put(t.tx, f"{one.run}:{run.id}", run.id)
            t.set(one.run, awaited=True)
    return mend(t, run) or []


def forget(t: Transaction, run: Run) -> None:
    """Drops the notes of a run that ends before those it waits for."""
    for one in awaited_by(run):
        if one.ended is None:
            DEPENDENTS.drop(t.tx, f"{one.run}:{run.id}")


def tell(t: Transaction, ended: Run) -> list[Run]:
    """Tells those that wait for a run that it has ended; returns the runs that can never start now."""
    hopeless = []
    for note, run_id in DEPENDENTS.all(t.tx, f"{ended.id}:").items():
        DEPENDENTS.drop(t.tx, note)
        run = t.run(run_id)
        if run is not None and not run.ended:
            hopeless += _take(t, run, {ended.id: ended.status})
    return hopeless


def _take(t: Transaction, run: Run, ends: dict[str, Status]) -> list[Run]:
    """Takes in ends that a run has waited for: it goes on, waits for others, or is returned since it can never start."""
    awaited = awaited_by(run)
    for run_id, status in ends.items():
        awaited = with_end(awaited, run_id, status)
    run = t.set(run.id, after=after_text(awaited))
    if is_failed(awaited):
        return [run]
    if not is_open(awaited) and run.status is Status.SCHEDULED and run.cause is Cause.AFTER:
        release(t, run)
    return []


def release(t: Transaction, run: Run) -> None:
    """Lets a run go on that has waited for the end of others, or for its moment."""
    if is_open(awaited_by(run)):
        t.change(run.id, transitions.await_ends)
    elif run.wake_at is not None and run.wake_at > t.now:
        t.set(run.id, cause=Cause.DELAY, reason=Cause.DELAY.value)
    elif run.started_at is None and PAUSED.get(t.tx, run.job) is not None:
        t.change(run.id, transitions.hold, Cause.JOB.value, Cause.JOB)
        run_queue.leave(t, run)
    else:
        run_queue.fire(t, run)


def mend(t: Transaction, run: Run) -> list[Run] | None:
    """Takes in ends that a run was never told of, also of runs that are gone; None if there are none, as there should be."""
    ends = {}
    for one in awaited_by(run):
        awaited = t.run(one.run)
        if one.ended is None and (awaited is None or awaited.ended):
            ends[one.run] = GONE if awaited is None else awaited.status
            DEPENDENTS.drop_if_any(t.tx, f"{one.run}:{run.id}")
    return _take(t, run, ends) if ends else None
