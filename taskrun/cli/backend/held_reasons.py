"""Why runs are held and which of their commands were adopted, for the screens that show it besides other things."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from taskrun.cli.screens.folds import folded_causes
from taskrun.cli.session import Backend
from taskrun.model.errors import RunNotFound

HELD = frozenset({"scheduled", "queued", "waiting", "paused"})
MOST = 200  # runs of one request


async def explained(backend: Backend, runs: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Returns the runs with what is known of some of them.

    Those that are held have `why`, the texts of the causes; those that run `adopted`, the steps whose command was found again
    after its daemon or worker had died, and when that was.
    """
    asked = [run["id"] for run in runs if _is_held(run) or _has_command(run)][:MOST]
    if not asked:
        return list(runs)
    try:
        answers = await backend.call("why", runs=asked)
    except RunNotFound:  # pruned a moment ago
        return list(runs)
    causes = {one["id"]: one["causes"] for one in answers}
    return [{**run, **_told(run, causes[run["id"]])} if run["id"] in causes else run for run in runs]


def _told(run: dict[str, Any], causes: list[dict[str, Any]]) -> dict[str, Any]:
    if _is_held(run):
        return {"why": [cause["text"] for cause in folded_causes(causes)]}
    return {"adopted": {cause["step"]: cause["adopted"] for cause in causes if cause.get("adopted")}}


def _is_held(run: dict[str, Any]) -> bool:
    return run["status"] in HELD or bool(run.get("held"))


def _has_command(run: dict[str, Any]) -> bool:
    """Whether a run may be at a command, which may have been adopted."""
    return run["status"] == "running" and run["step"] is not None and run["step"]["kind"] == "shell"
