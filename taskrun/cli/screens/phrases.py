"""How a run is described on every screen: its state, current step, progress and input."""

from __future__ import annotations

from typing import Any

from taskrun.cli import times
from taskrun.cli.lazy_imports import Text
from taskrun.cli.sanitize import brief, cell, cut
from taskrun.cli.screens.look import Look, bar, labelled

BAR = 5
SHORT_ID = 6
REASON = 60  # characters of why a run is held, in a table
ENDED = frozenset({"succeeded", "failed", "cancelled", "discarded"})


def short_ids(ids: list[str]) -> dict[str, str]:
    """Returns the first characters of each id: 6, or as many as it takes for all of them to differ."""
    for length in range(SHORT_ID, max(map(len, ids), default=SHORT_ID)):
        if len({one[:length] for one in ids}) == len(set(ids)):
            return {one: one[:length] for one in ids}
    return {one: one for one in ids}


def short(run_id: str) -> str:
    """Returns the part of an id that a person types."""
    return run_id[:SHORT_ID]


def state(run: dict[str, Any], now: float, look: Look) -> Text:
    """Returns the state of a run in words."""
    if run.get("cancelling"):
        return labelled("cancelled", look).append(" soon")
    if run.get("held") and run["status"] == "running":
        return labelled("interrupted", look)
    wake = times.moment(run.get("wake_at"))
    left = "" if wake is None else times.age(max(0.0, wake - now))
    if run["status"] == "scheduled":
        retrying = run["reason"] in ("retry", "backoff")
        return labelled("retry", look, left) if retrying else labelled("scheduled", look, left and f"in {left}")
    if run["status"] == "waiting":
        return labelled("waiting", look, left)
    if run["status"] == "failed" and run["reason"]:
        return labelled("failed", look, f"({cell(run['reason'])})")
    if run["status"] == "paused" and run.get("pausing") is None and run["reason"] == "exhausted":
        return labelled("paused", look, "(retries used up)")
    return labelled(run["status"], look)


def current(run: dict[str, Any], look: Look) -> Text:
    """Returns the current step of a run, with its tries and the run's progress; or why the run is held."""
    step = run.get("step")
    if run.get("why"):
        return Text(cut(cell(run["why"][0]).removeprefix("it "), REASON), "dim")
    if step is None:
        count = run.get("steps_ended")
        words = f"{count} step{'s' if count != 1 else ''}" if count and run["status"] in ENDED else ""
        return Text(words, "dim") if words else progress(run, look)
    text = Text(cell(step["name"]))
    if step["attempt"] > 1:
        text.append(f" (try {step['attempt']})", "yellow")
    bars = progress(run, look) if run["status"] not in ENDED else Text()
    return text.append(" ").append_text(bars) if bars else text


def progress(run: dict[str, Any], look: Look, width: int = BAR) -> Text:
    """Returns the progress of a run as a bar, or as a count where the total is not known."""
    found = run["progress"]
    if not found or found["done"] is None:
        return Text()
    note = cell(found["note"] or "")
    total = found["total"]
    if not total:
        return Text(f"{found['done']:g} {note}".rstrip(), "blue")
    fraction = found["done"] / total
    shown = f"{bar(fraction, width, look)} {min(fraction, 1.0):4.0%}"
    return Text(shown, "blue").append(f" {note}" if note else "", "dim")


def tried(run: dict[str, Any]) -> str:
    """Returns which attempt it is, if it is not the first."""
    return f"attempt {run['attempt']}/{run['attempts']}" if run["attempt"] > 1 else ""


def given(run: dict[str, Any]) -> str:
    """Returns an input as `path=song.mp3 dry`."""
    fields = run["input"]
    if not isinstance(fields, dict):
        return brief(fields)
    return " ".join(cell(name) if item is True else f"{cell(name)}={brief(item)}" for name, item in fields.items())


def fault(error: dict[str, Any] | None) -> str:
    """Returns an error as one line."""
    if error is None:
        return ""
    message = error["message"].strip().split("\n", 1)[0]
    return cell(f"{error['type']}: {message}" if message else error["type"])
