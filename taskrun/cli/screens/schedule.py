"""The schedules: when each fires next, and how the run of the last time ended."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any

from taskrun.cli import times
from taskrun.cli.lazy_imports import Text
from taskrun.cli.sanitize import cell
from taskrun.cli.screens.look import Look, clipped, columns, hanging, mark, stacked, widest
from taskrun.cli.screens.phrases import short

HEADS = ("NEXT", "LEFT", "LAST", "RESULT", "JOB", "SCHEDULE")
RIGHT = (False, True, False, False, False, False)
WEEK = 7 * 86400


def schedule_table(entries: Sequence[dict[str, Any]], now: float, look: Look) -> Text:
    """Returns the schedules as a table."""
    rows = [[Text(head, "dim") for head in HEADS], *(_row(entry, now, look) for entry in entries)]
    head, *lines = [clipped(line, look.width) for line in columns(rows, widest(rows), RIGHT)]
    under = [_problem(entry, look) for entry in entries]
    return stacked([head, *(part for pair in zip(lines, under, strict=True) for part in pair if part is not None)])


def _row(entry: dict[str, Any], now: float, look: Look) -> list[Text]:
    coming, last, run = times.moment(entry["next"]), times.moment(entry["last"]), entry["last_run"]
    result = Text("–", "dim")
    if run:
        result = mark(entry["last_status"], look) if entry["last_status"] else Text("pruned", "dim")
        result.append(f" {short(run)}")
    zone = f"   {cell(entry['timezone'])}" if entry.get("timezone") else ""
    return [
        Text("–" if coming is None else day(coming, now)),
        Text("" if coming is None else times.age(max(0.0, coming - now))),
        Text("never" if last is None else f"{day(last, now)} ({times.age(max(0.0, now - last))} ago)"),
        result,
        Text(cell(entry["job"]), "bold"),
        Text(cell(entry["cron"])).append(zone, "dim"),
    ]


def _problem(entry: dict[str, Any], look: Look) -> Text | None:
    """Returns the line that says why a schedule never fires."""
    if not entry.get("problem"):
        return None
    return hanging(Text("  ").append_text(mark("failed", look)).append(" "), [Text(cell(entry["problem"]))], look)


def day(at: float, now: float) -> str:
    """Returns a moment as local time: today the time alone, within a week with the weekday, else with the date."""
    local, today = datetime.fromtimestamp(at), datetime.fromtimestamp(now)
    if local.date() == today.date():
        return f"{local:%H:%M:%S}"
    return f"{local:%a %H:%M:%S}" if abs(at - now) < WEEK else f"{local:%Y-%m-%d %H:%M}"


def schedule_tsv(entries: Sequence[dict[str, Any]]) -> str:
    """Returns the schedules as tab-separated lines."""
    fields = ("job", "cron", "timezone", "next", "last", "last_run", "problem")
    return "".join("\t".join(cell(str(entry.get(field) or "")) for field in fields) + "\n" for entry in entries)
