"""The schedules: when each fires next, and how the run of the last time ended; and the slots of one job."""

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
        Text("" if coming is None else times.left(max(0.0, coming - now))),
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


STATES = {"ran": "succeeded", "late": "retry", "missed": "failed", "skipped": "cancelled"}  # shown with these marks


def slots_table(slots: Sequence[dict[str, Any]], now: float, look: Look) -> Text:
    """Returns slots as a table."""
    rows = [
        [Text(head, "dim") for head in ("SLOT", "STATE", "LAG", "RESULT", "SCHEDULE")],
        *(_slot_row(slot, now, look) for slot in slots),
    ]
    right = (False, False, True, False, False)
    return stacked([clipped(line, look.width) for line in columns(rows, widest(rows), right)])


def _slot_row(slot: dict[str, Any], now: float, look: Look) -> list[Text]:
    state = mark(STATES[slot["state"]], look) if look.utf8 else Text("")
    result = Text("–", "dim")
    if slot["run"]:
        result = mark(slot["status"], look) if slot["status"] else Text("pruned", "dim")
        result.append(f" {short(slot['run'])}")
    at = times.moment(slot["slot"])
    assert at is not None
    return [
        Text(day(at, now)),
        Text(f"{state.plain} {slot['state']}".strip(), state.style),
        Text("" if slot["lag"] is None else times.span(slot["lag"])),
        result,
        Text(cell(slot["cron"]), "dim"),
    ]


def slots_tsv(slots: Sequence[dict[str, Any]]) -> str:
    """Returns slots as tab-separated lines."""
    rows = ([slot["cron"], slot["slot"], slot["state"], slot["run"] or "", slot["lag"]] for slot in slots)
    return "".join("\t".join("" if field is None else cell(str(field)) for field in row) + "\n" for row in rows)


def schedule_tsv(entries: Sequence[dict[str, Any]]) -> str:
    """Returns the schedules as tab-separated lines."""
    fields = ("job", "cron", "timezone", "next", "last", "last_run", "problem")
    return "".join("\t".join(cell(str(entry.get(field) or "")) for field in fields) + "\n" for entry in entries)
