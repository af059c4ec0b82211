"""Why a run is not running, or not finished: its state and every cause, a line each."""

from __future__ import annotations

from typing import Any

from taskrun.cli import times
from taskrun.cli.lazy_imports import Text
from taskrun.cli.sanitize import cell
from taskrun.cli.screens.look import Look, clipped, hanging, mark, stacked
from taskrun.cli.screens.phrases import short
from taskrun.cli.screens.run import next_commands


def why_screen(run: dict[str, Any], causes: list[dict[str, Any]], now: float, look: Look) -> Text:
    """Returns the state of a run, the causes, and what to type next."""
    since = run["ended_at"] or run["started_at"] if run["status"] != "queued" else run["created_at"]
    at = times.moment(since) or times.moment(run["created_at"]) or now
    head = mark(run["status"], look).append(" ") if look.utf8 else Text()
    head.append(f"{short(run['id'])} ", "bold").append(cell(run["job"]))
    head.append(f" is {run['status']} since {times.age(max(0.0, now - at))}")
    lines = [hanging(Text("  "), [Text(cell(cause["text"]))], look) for cause in causes]
    return stacked([clipped(head, look.width), *lines, Text("  " + "   ".join(next_commands(run)), "dim")])


def reason(causes: list[dict[str, Any]]) -> str:
    """Returns the first cause, as a cell of a table says it."""
    return cell(causes[0]["text"]) if causes else ""
