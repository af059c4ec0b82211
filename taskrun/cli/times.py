"""Moments and durations as a person reads them; pure functions."""

from __future__ import annotations

from datetime import UTC, datetime
from itertools import pairwise
from typing import Any

_STEPS = ((86400 * 365, "y"), (86400, "d"), (3600, "h"), (60, "m"), (1, "s"))


def moment(text: str | None) -> float | None:
    """Returns an RFC 3339 text as Unix seconds."""
    return None if text is None else datetime.fromisoformat(text).timestamp()


def rfc3339(at: float) -> str:
    """Returns a moment as RFC 3339 text, in UTC."""
    return datetime.fromtimestamp(at, UTC).isoformat(timespec="milliseconds")


def age(seconds: float) -> str:
    """Returns how long ago something was, in its largest unit: `12s`, `3m`, `4d`."""
    for size, unit in _STEPS:
        if seconds >= size:
            return f"{int(seconds // size)}{unit}"
    return "0s"


def left(seconds: float) -> str:
    """Returns how long something is still away, rounded in its largest unit: `8s`, `1h` for 59 min 59 s."""
    for (larger, _), (size, unit) in reversed([*pairwise(_STEPS)]):
        count = round(seconds / size)
        if count * size < larger:
            return f"{max(0, count)}{unit}"
    return f"{round(seconds / _STEPS[0][0])}{_STEPS[0][1]}"


def span(seconds: float) -> str:
    """Returns how long something took: `0.4s`, `41.3s`, `1m 12s`, `3d 4h`."""
    if seconds < 59.95:
        return f"{max(0.0, seconds):.1f}s"
    whole = round(seconds)
    for (size, unit), (smaller, small_unit) in pairwise(_STEPS):
        if whole >= size:
            rest = whole % size // smaller
            return f"{whole // size}{unit}" + (f" {rest}{small_unit}" if rest else "")
    return f"{whole}s"


def clock(text: str | None, now: float) -> str:
    """Returns a moment as local time, with its date when that is not today's."""
    at = moment(text)
    if at is None:
        return ""
    local, today = datetime.fromtimestamp(at), datetime.fromtimestamp(now)
    return f"{local:%H:%M:%S}" if local.date() == today.date() else f"{local:%Y-%m-%d %H:%M:%S}"


def took(thing: dict[str, Any], now: float) -> float | None:
    """Returns the seconds that a run or a step took, or has taken so far; None where that is not known."""
    started, ended = moment(thing["started_at"]), moment(thing["ended_at"])
    if started is None or (ended is None and thing.get("held")):
        return None
    return (now if ended is None else ended) - started
