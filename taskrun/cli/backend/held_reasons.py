"""Why runs are held, for the screens that show it besides other things: `list` in a column, `show` in a line."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from taskrun.cli.screens.folds import folded_causes
from taskrun.cli.session import Backend
from taskrun.model.errors import RunNotFound

HELD = frozenset({"scheduled", "queued", "waiting", "paused"})
MOST = 200  # runs of one request


async def explained(backend: Backend, runs: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Returns the runs, those that are held with `why`: the texts of the causes."""
    held = [run["id"] for run in runs if run["status"] in HELD or run.get("held")][:MOST]
    if not held:
        return list(runs)
    try:
        answers = await backend.call("why", runs=held)
    except RunNotFound:  # pruned a moment ago
        return list(runs)
    causes = {one["id"]: [cause["text"] for cause in folded_causes(one["causes"])] for one in answers}
    return [{**run, "why": causes[run["id"]]} if run["id"] in causes else run for run in runs]
