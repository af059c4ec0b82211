"""What the journal keeps of schedules, and what `taskrun schedule` shows of that.

Written by `schedules`; read also by the command itself when no daemon runs, which needs nothing else of the engine.
"""

from __future__ import annotations

import math
from typing import Any

import msgspec

from taskrun.engine.core.queries.views import rfc3339
from taskrun.rules.cron import CronRule
from taskrun.stores.base import Tx

FACT = "schedule:"  # fact `schedule:ORIGIN:JOB:DIGEST` is a `Kept`


class Kept(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What the journal keeps of a schedule: slots after `seen` are still to come; `last` is the last that started a run."""

    job: str
    cron: str
    timezone: str | None = None
    seen: float
    last: float | None = None
    run: str | None = None


def schedule_views(tx: Tx, now: float) -> list[dict[str, Any]]:
    """Returns the schedules that the journal knows as JSON (`job cron timezone next last last_run`), the next one first."""
    kept = [msgspec.json.decode(text, type=Kept) for text in tx.facts(FACT).values()]
    return sorted((_view(tx, one, now) for one in kept), key=lambda view: (view["next"] or "~", view["job"]))


def _view(tx: Tx, kept: Kept, now: float) -> dict[str, Any]:
    upcoming = CronRule(kept.cron, kept.timezone).next_after(max(kept.seen, now))
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
