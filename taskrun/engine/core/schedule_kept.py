"""What the journal keeps of schedules and of their slots, and what `taskrun schedule` shows of that.

Written by `schedule_due` and `schedules`; read also by the command itself when no daemon runs, which needs nothing else of the
engine.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from itertools import takewhile
from typing import Any, Literal

import msgspec
from msgspec.structs import replace

from taskrun.engine.core.fact_kind import PAUSED, Fact
from taskrun.engine.core.queries.views import rfc3339
from taskrun.model.records import Run
from taskrun.rules.cron import CronRule
from taskrun.stores.base import Tx

MOST_STRETCHES = 8  # that are kept of a schedule: each downtime or jump of the clock with missed slots begins a new one

Stretch = tuple[float, float]  # the first and the last of slots in a row
SlotState = Literal["ran", "missed", "skipped"]


class Kept(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What the journal keeps of a schedule.

    Slots after `seen` are still to come, but for those in `used`, the stretches of slots that were used: a clock that was ahead
    has used slots of days to come. `last` is the last that started a run. A schedule begins with its own beginning as used.
    `refused`: the job refused the input of its last slot.
    """

    job: str
    cron: str
    timezone: str | None = None
    seen: float
    used: tuple[Stretch, ...] = ()
    last: float | None = None
    run: str | None = None
    refused: bool = False

    def upcoming(self, rule: CronRule, after: float) -> float:
        """Returns the first slot after a moment that was not used."""
        slot = rule.next_after(after)
        while (end := next((end for start, end in self.used if start <= slot <= end), None)) is not None:
            slot = rule.next_after(end)
        return slot

    def unused(self, rule: CronRule, after: float, until: float) -> Iterator[float]:
        """Iterates over the slots of a time that were not used."""
        while (after := self.upcoming(rule, after)) <= until:
            yield after

    def by_clock(self, now: float) -> Kept:
        """Returns it as it is by a clock that says `now`: what was seen by one that was ahead is still to come."""
        if self.seen <= now:
            return self
        return replace(self, seen=max((min(end, now) for start, end in self.used if start <= now), default=now))

    def with_used(self, rule: CronRule, slots: Iterable[float]) -> Kept:
        """Returns it with more slots used."""
        used = self.used
        for slot in slots:
            used = _with_slot(used, rule, slot)
        return replace(self, used=used[-MOST_STRETCHES:])


class Slot(msgspec.Struct, frozen=True, omit_defaults=True):
    """What became of a slot. One that `ran` has a run, and counts as late if that started more than `late` seconds after it."""

    cron: str
    state: SlotState
    run: str | None = None
    late: float | None = None


# ORIGIN:JOB:DIGEST: `schedules`, once the code or the configuration no longer has it.
SCHEDULES: Fact[Kept] = Fact("schedule:", Kept)
# JOB:MOMENT:SCHEDULE, in the order of time: `retention`, once it is old and its run is gone.
SLOTS: Fact[Slot] = Fact("slot:", Slot)


def slot_id(schedule: str, at: float) -> str:
    """Returns the id of a slot of a schedule."""
    origin, job, digest = schedule.split(":")
    return f"{job}:{at:014.3f}:{origin}:{digest}"


def moment_of(slot: str) -> float:
    """Returns the moment of a slot by its id."""
    return float(slot.split(":")[1])


def _with_slot(used: tuple[Stretch, ...], rule: CronRule, slot: float) -> tuple[Stretch, ...]:
    """Returns stretches with one more slot; those that it joins become one."""
    start = end = slot
    following = rule.next_after(slot)
    apart = []
    for stretch in used:
        if stretch[1] < slot == rule.next_after(stretch[1]):
            start = stretch[0]
        elif stretch[0] == following:
            end = stretch[1]
        else:
            apart.append(stretch)
    return tuple(sorted([*apart, (start, end)], key=lambda stretch: stretch[1]))


# ---- what is shown


def schedule_views(tx: Tx, now: float) -> list[dict[str, Any]]:
    """Returns the schedules that the journal knows as JSON (`job cron timezone next last last_run`), the next one first."""
    paused = PAUSED.all(tx)
    views = [
        {**_view(tx, one, now), "paused": one.job in paused, "missed": _missed(tx, id)}
        for id, one in SCHEDULES.all(tx).items()
    ]
    return sorted(views, key=lambda view: (view["next"] or "~", view["job"]))


def _view(tx: Tx, kept: Kept, now: float) -> dict[str, Any]:
    upcoming = kept.upcoming(CronRule(kept.cron, kept.timezone), now)
    run = None if kept.run is None else tx.run(kept.run)
    return {
        "job": kept.job,
        "cron": kept.cron,
        "timezone": kept.timezone,
        "next": None if upcoming == math.inf else rfc3339(upcoming),
        "last": rfc3339(kept.last),
        "last_run": kept.run,
        "last_status": None if run is None else run.status.value,
    }


def _missed(tx: Tx, schedule: str) -> int:
    """Returns how many of the last slots of a schedule in a row were missed."""
    origin, job, digest = schedule.split(":")
    own = (slot for id, slot in reversed(SLOTS.all(tx, f"{job}:").items()) if id.endswith(f":{origin}:{digest}"))
    return sum(1 for _ in takewhile(lambda slot: slot.state == "missed", own))


def slot_views(tx: Tx, job: str, limit: int, now: float) -> list[dict[str, Any]]:
    """Returns the last slots of a job as JSON (`cron slot state run lag`), the newest first."""
    found = [*SLOTS.all(tx, f"{job}:").items()][-limit:]
    return [_slot_view(tx, moment_of(id), slot, now) for id, slot in reversed(found)]


def _slot_view(tx: Tx, at: float, slot: Slot, now: float) -> dict[str, Any]:
    run = None if slot.run is None else tx.run(slot.run)
    state, lag = judged(slot, at, run, now)
    return {
        "cron": slot.cron,
        "slot": rfc3339(at),
        "state": state,
        "run": slot.run,
        "lag": None if lag is None else round(lag, 3),
        "status": None if run is None else run.status.value,
    }


def judged(slot: Slot, at: float, run: Run | None, now: float) -> tuple[str, float | None]:
    """Returns the state of a slot as people see it, and how many seconds after it its run started, or waits by now."""
    if slot.state != "ran":
        return slot.state, None
    if run is None:  # pruned
        return "ran", None
    if run.started_at is None and run.ended:  # it was taken back before it could start
        return "skipped", None
    lag = max(0.0, (now if run.started_at is None else run.started_at) - at)
    return "late" if slot.late is not None and lag > slot.late else "ran", lag
