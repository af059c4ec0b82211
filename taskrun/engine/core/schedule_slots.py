"""What the journal keeps of schedules, and what `taskrun schedule` shows of that.

Written by `schedules`; read also by the command itself when no daemon runs, which needs nothing else of the engine.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

import msgspec
from msgspec.structs import replace

from taskrun.engine.core.queries.views import rfc3339
from taskrun.rules.cron import CronRule
from taskrun.stores.base import Tx

FACT = "schedule:"  # fact `schedule:ORIGIN:JOB:DIGEST` is a `Kept`


MOST_STRETCHES = 8  # that are kept of a schedule: each downtime or jump of the clock with missed slots begins a new one

Stretch = tuple[float, float]  # the first and the last of slots in a row


class Kept(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What the journal keeps of a schedule.

    Slots after `seen` are still to come, but for those in `used`, the stretches of slots that were used: a clock that was ahead
    has used slots of days to come. `last` is the last that started a run. A schedule begins with its own beginning as used.
    """

    job: str
    cron: str
    timezone: str | None = None
    seen: float
    used: tuple[Stretch, ...] = ()
    last: float | None = None
    run: str | None = None

    def upcoming(self, rule: CronRule, after: float) -> float:
        """Returns the first slot after a moment that was not used."""
        slot = rule.next_after(after)
        while (end := next((end for start, end in self.used if start <= slot <= end), None)) is not None:
            slot = rule.next_after(end)
        return slot

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


def schedule_views(tx: Tx, now: float) -> list[dict[str, Any]]:
    """Returns the schedules that the journal knows as JSON (`job cron timezone next last last_run`), the next one first."""
    kept = [msgspec.json.decode(text, type=Kept) for text in tx.facts(FACT).values()]
    paused = tx.facts("paused:")
    views = [{**_view(tx, one, now), "paused": f"paused:{one.job}" in paused} for one in kept]
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
