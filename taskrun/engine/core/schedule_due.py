"""What becomes of the slots of a schedule that are due: each is run, missed or skipped, decided and written in one transaction.

A slot is missed if nothing was there to run it and it is not caught up. While its job is paused it is skipped, and nothing is
recorded but that.
"""

from __future__ import annotations

from itertools import islice
from typing import NamedTuple

import msgspec
from msgspec.structs import replace

from taskrun.engine.core import notices, refusals, schedule_watch
from taskrun.engine.core.admit import Trigger, admit, new_id
from taskrun.engine.core.fact_kind import PAUSED, SCHEDULE
from taskrun.engine.core.schedule_kept import SCHEDULES, SLOTS, Kept, Slot, SlotState, slot_id
from taskrun.engine.core.transaction import Transaction
from taskrun.model.catch_up import CatchUp
from taskrun.model.records import Status
from taskrun.rules.cron import CronRule
from taskrun.rules.policies import Prepared

PUNCTUAL = 60.0  # seconds: a slot that is not as old is run whatever `catch_up` says, unless `late` is another limit
SHORTEST = 2.0  # seconds of that: what fires slots is not always there at once
BURST = 100  # missed slots that one transaction makes up for
MOST_COUNTED = 10_000  # missed slots of one outage
MOST_WRITTEN = 100  # of them, the newest
WINDOW = 3600.0  # seconds that are looked through for the newest slots; more where they are further apart


class Entry(msgspec.Struct, frozen=True, kw_only=True):
    """One schedule; `input` is JSON text, `within`, `late` and `slow` are seconds."""

    job: str
    cron: str
    timezone: str | None = None
    input: str = "{}"
    catch_up: CatchUp = "skip"
    within: float | None = None
    late: float | None = None
    slow: float | None = None


class Passed(NamedTuple):
    """Slots that nobody runs any more: how many, and the newest of them."""

    number: int
    newest: list[float]


class Due(NamedTuple):
    """What is to be done about the slots of a schedule up to now; with `more` those that run are not all of them."""

    run: list[float]
    missed: Passed
    skipped: Passed
    more: bool


NONE = Passed(0, [])


def due(kept: Kept, rule: CronRule, entry: Entry, now: float, paused_since: float | None = None) -> Due:
    """Decides about the slots that are not seen yet."""
    if paused_since is not None:
        begun = max(kept.seen, min(now, paused_since - PUNCTUAL))
        return Due([], passed(kept, rule, kept.seen, begun), passed(kept, rule, begun, now), False)
    after = max(kept.seen, _oldest(kept, rule, entry, now))
    slots = list(islice(kept.unused(rule, after, now), BURST + 1))
    return Due(slots[:BURST], passed(kept, rule, kept.seen, after), NONE, len(slots) > BURST)


def _oldest(kept: Kept, rule: CronRule, entry: Entry, now: float) -> float:
    """Returns the moment whose slot is missed at last: those after it are run."""
    punctual = now - (PUNCTUAL if entry.late is None else max(SHORTEST, entry.late))
    oldest = kept.seen if entry.within is None else now - entry.within
    if entry.catch_up == "all":
        return min(punctual, oldest)
    if entry.catch_up == "one" and next(kept.unused(rule, max(kept.seen, punctual), now), None) is None:
        newest = rule.newest(kept.seen, now)
        if newest is not None and newest >= oldest and kept.upcoming(rule, newest - 1) == newest:
            return newest - 0.5  # slots are whole seconds
    return punctual


def passed(kept: Kept, rule: CronRule, after: float, until: float) -> Passed:
    """Returns what there was in a time; a great many slots are not counted to the end."""
    width = WINDOW
    while True:
        begun = max(after, until - width)
        newest = list(islice(kept.unused(rule, begun, until), MOST_COUNTED))
        if begun == after:
            return Passed(len(newest), newest[-MOST_WRITTEN:])
        if len(newest) >= MOST_WRITTEN:
            break
        width *= 8
    number = sum(1 for _ in islice(kept.unused(rule, after, until), MOST_COUNTED))
    return Passed(number, newest[-MOST_WRITTEN:])


def use(
    t: Transaction, schedule: str, entry: Entry, rule: CronRule, prepared: Prepared | str
) -> tuple[Kept | None, bool]:
    """Does what is due of a schedule; returns what is kept of it now, and whether there is more to do.

    Parameters:
        prepared: the trigger of each slot, or why the job refuses it.
    """
    kept = SCHEDULES.get(t.tx, schedule)
    if kept is None:  # dropped meanwhile
        return None, False
    kept = kept.by_clock(t.now)
    paused = PAUSED.get(t.tx, entry.job)
    what = due(kept, rule, entry, t.now, None if paused is None else paused.at)
    kept = replace(kept.with_used(rule, what.run), seen=what.run[-1] if what.more else t.now)
    _write(t, schedule, entry, "missed", what.missed.newest)
    _write(t, schedule, entry, "skipped", what.skipped.newest)
    if what.missed.number:
        _tell(t, entry, what.missed.number, what.missed.newest[-1], "nothing was there to run it")
    refused = prepared if isinstance(prepared, str) else None
    if isinstance(prepared, str):
        _write(t, schedule, entry, "missed", what.run)
        if what.run and not kept.refused:
            _tell(t, entry, len(what.run), what.run[-1], f"the job refused its input: {prepared}")
    else:
        for slot in what.run:
            kept = replace(kept, last=slot, run=_run(t, schedule, entry, slot, prepared))
    if what.run:
        kept = replace(kept, refused=refused is not None)
        refusals.note(t, entry.job, f"{SCHEDULE}{entry.cron}", refused)
    SCHEDULES.put(t.tx, schedule, kept)
    return kept, what.more


def _write(t: Transaction, schedule: str, entry: Entry, state: SlotState, slots: list[float]) -> None:
    for slot in slots:
        SLOTS.put(t.tx, slot_id(schedule, slot), Slot(entry.cron, state))


def _tell(t: Transaction, entry: Entry, number: int, last: float, reason: str) -> None:
    notices.missed(t, entry.job, number, last, MOST_COUNTED, reason)


def _run(t: Transaction, schedule: str, entry: Entry, slot: float, prepared: Prepared) -> str:
    """Starts the run of a slot; returns its id."""
    trigger = Trigger(prepared=prepared, id=new_id(), source=f"schedule {entry.cron}", slot=slot)
    run = admit(t, trigger)
    state: SlotState = "skipped" if run.status is Status.DISCARDED else "ran"
    SLOTS.put(t.tx, slot_id(schedule, slot), Slot(entry.cron, state, run.id, entry.late))
    if run.id == trigger.id and not run.ended:
        schedule_watch.watch(t, run, entry.late, entry.slow)
    return run.id
