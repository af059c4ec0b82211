"""Why a run is not running, or not finished: its state and every cause, a line each."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from taskrun.cli import times
from taskrun.cli.lazy_imports import Text
from taskrun.cli.project_option import for_project
from taskrun.cli.sanitize import cell
from taskrun.cli.screens.folds import folded_causes
from taskrun.cli.screens.look import Look, clipped, hanging, mark, stacked
from taskrun.cli.screens.phrases import ENDED, fault, named, reason, short
from taskrun.cli.screens.run import next_lines


def why_screen(run: dict[str, Any], causes: list[dict[str, Any]], now: float, look: Look) -> Text:
    """Returns the state of a run, the causes, and what to type next."""
    head = mark(_status(run), look).append(" ") if look.utf8 else Text()
    head.append(f"{short(run['id'])} ", "bold").append(f"{named(run)} ")
    if run["status"] in ENDED:
        how, causes = causes[:1], causes[1:]
        lines = [hanging(head, [Text(_end(run, cause)) for cause in how], look)]
    else:
        lines = [clipped(head.append(_state(run, now)), look.width)]
    lines += [line for cause in folded_causes(causes) for line in _cause(run, cause, look)]
    return stacked([*lines, *(line for _, line in next_lines(run, look))])


def _end(run: dict[str, Any], cause: dict[str, Any]) -> str:
    """Returns how a run ended; its error as every screen says it."""
    head, colon, _ = cause["text"].partition(": ")
    return cell(head + colon) + fault(run["error"]) if run["error"] and colon else cell(cause["text"])


def _state(run: dict[str, Any], now: float) -> str:
    """Returns the state of a run, and for how long it has been in it where that is known."""
    since = {"queued": run["created_at"], "running": run["started_at"]}.get(run["status"])
    at = times.moment(since)
    if _status(run) == "retry":
        return "is to be tried again"
    return str(run["status"]) if at is None else f"{run['status']} for {times.age(max(0.0, now - at))}"


def _status(run: dict[str, Any]) -> str:
    again = run["status"] == "scheduled" and run["reason"] in ("retry", "backoff")
    return "retry" if again else str(run["status"])


def _cause(run: dict[str, Any], cause: dict[str, Any], look: Look) -> Iterator[Text]:
    yield hanging(Text("  "), [Text(for_project(reason(cause["text"], run), look.project))], look)
    if cause.get("command"):
        yield Text.assemble(("  → ", "dim"), for_project(cell(cause["command"]), look.project))
