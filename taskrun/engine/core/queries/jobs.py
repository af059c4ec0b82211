"""The jobs as they are described by whoever loads them, with what the journal knows of them. For `taskrun jobs` and `doctor`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from taskrun.engine.core.fact_kind import PAUSED, REFUSALS, SCHEDULE, Refusal
from taskrun.engine.core.queries.views import rfc3339
from taskrun.model.byte_escapes import restored
from taskrun.stores.base import Tx


def job_views(tx: Tx, described: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Returns jobs as JSON: whether each is `paused`, and what its triggers were `refused`."""
    paused, refusals = PAUSED.all(tx), REFUSALS.all(tx)
    return [
        {**job, "paused": job["name"] in paused, "refused": [*job["refused"], *_refused(job, refusals)]}
        for job in described
    ]


def _refused(job: dict[str, Any], refusals: Mapping[str, Refusal]) -> list[dict[str, Any]]:
    """Returns the refusals of the triggers that a job still has, besides those that are known without an event."""
    never = {one["trigger"] for one in job["refused"]}
    name = f"{job['name']}:"
    mine = {restored(id.removeprefix(name)): one for id, one in refusals.items() if id.startswith(name)}
    return [
        {"trigger": trigger, "at": rfc3339(one.at), "text": one.text, "over": rfc3339(one.over)}
        for trigger, one in mine.items()
        if trigger not in never and (trigger in job["triggers"] or trigger.startswith(SCHEDULE))
    ]
