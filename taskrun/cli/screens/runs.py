"""The table of runs: for a terminal, and tab-separated for a pipe."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from types import MappingProxyType
from typing import Any

import msgspec

from taskrun.cli import times
from taskrun.cli.lazy_imports import Text, cell_len
from taskrun.cli.sanitize import cell, cut, to_json
from taskrun.cli.screens.look import GAP, MARKS, Look, columns, labelled, stacked, widest
from taskrun.cli.screens.phrases import ENDED, current, fault, given, named, short_ids, state, tried, typed
from taskrun.model.names import EXEC

RECENT = 3600
FIELDS = ("id", "job", "status", "created_at", "took", "step", "input")


class Column(msgspec.Struct, frozen=True):
    """A column: its head, its cell for a run, and whether it is aligned to the right."""

    head: str
    of: Callable[[dict[str, Any], float, Look], Text]
    right: bool = False


COLUMNS = (
    Column("RUN", lambda run, now, look: Text(run["shown"], "bold")),
    Column("JOB", lambda run, now, look: Text(named(run))),
    Column("STATE", lambda run, now, look: _state(run, now, look)),
    Column(
        "AGE", lambda run, now, look: Text(times.age(max(0.0, now - (times.moment(run["created_at"]) or now)))), True
    ),
    Column("TOOK", lambda run, now, look: _took(run, now), True),
    Column("STEP", lambda run, now, look: _step(run, look)),
    Column("INPUT", lambda run, now, look: _input(run)),
)
DETAILS = Column("DETAILS", lambda run, now, look: _details(run, look))  # in place of both, where there is room for one
LATER = frozenset({"queued", "scheduled"})
COUNTED = (
    "running",
    "interrupted",
    "waiting",
    "queued",
    "scheduled",
    "paused",
    "failed",
    "succeeded",
    "cancelled",
    "discarded",
)
LEAST_INPUT = 16  # columns below which a part of an input says nothing
QUEUED = 3  # queued runs that are shown where there are many
Defaults = Mapping[str, Mapping[str, Any]]
# What is reduced when the screen is narrow, in this order: to a width, or the column is dropped (0).
GIVE_WAY = (("INPUT", 40), ("STEP", 40), ("STEP", 22))
GIVE_WAY_JOINED = (("DETAILS", 32), ("TOOK", 0), ("JOB", 12), ("DETAILS", 16), ("AGE", 0), ("DETAILS", 0), ("JOB", 6))


def runs_table(
    runs: Sequence[dict[str, Any]],
    now: float,
    look: Look,
    more_queued: int = 0,
    defaults: Defaults = MappingProxyType({}),
) -> Text:
    """Returns runs as a table that fits the width: without columns that are empty, or for which there is no room.

    Parameters:
        more_queued: how many queued runs are left out behind the last one that is shown.
        defaults: of each job's input, which are not shown.
    """
    shown = short_ids([run["id"] for run in runs])
    runs = [{**run, "defaults": defaults.get(run["job"], {})} for run in runs]
    made = _table([{**run, "shown": shown[run["id"]]} for run in runs], now, look)
    if more_queued:
        last = max((at for at, run in enumerate(runs, 1) if run["status"] == "queued"), default=0)
        made.insert(last + 1, Text(f"… {more_queued:,} more queued", "dim"))
    return stacked(made)


def _table(runs: Sequence[dict[str, Any]], now: float, look: Look) -> list[Text]:
    """Returns heads and rows: steps and inputs in columns of their own, or in one where that is too much for the width."""
    cells = {column.head: [column.of(run, now, look) for run in runs] for column in COLUMNS}
    used = {head: [Text(head, "dim"), *column] for head, column in cells.items() if any(column)}
    widths = fit(used, GIVE_WAY, look.width)
    if _total(widths) > look.width:
        joined = [DETAILS.of(run, now, look) for run in runs]
        used = {head: column for head, column in used.items() if head not in ("STEP", "INPUT")}
        used |= {DETAILS.head: [Text(DETAILS.head, "dim"), *joined]} if any(joined) else {}
        widths = fit(used, GIVE_WAY_JOINED, look.width)
    for head, of in (("INPUT", _input), (DETAILS.head, partial(_details, look=look))):
        if head in widths:
            used[head][1:] = [of(run, width=widths[head]) for run in runs]
    rights = {column.head: column.right for column in COLUMNS}
    rows = list(zip(*(used[head] for head in widths), strict=True))
    return columns(rows, list(widths.values()), [rights.get(head, False) for head in widths])


def arranged(runs: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
    """Returns runs in the order in which they matter: under way, then those to start next, then ended ones, newest first."""
    newest = sorted(runs, key=lambda run: run["seq"], reverse=True)
    later = [run for run in newest if run["status"] in LATER]
    ended = [run for run in newest if run["status"] in ENDED]
    active = [run for run in newest if run["status"] not in LATER and run["status"] not in ENDED]
    active.sort(key=lambda run: run["status"] != "running")
    return [*active, *reversed(later), *ended]


def folded(runs: Sequence[dict[str, Any]], rows: int) -> tuple[list[dict[str, Any]], int]:
    """Returns as many arranged runs as there are rows for, and how many queued ones are folded into one line."""
    queued = [run["id"] for run in runs if run["status"] == "queued"]
    if len(queued) <= max(QUEUED + 1, rows // 3):
        return list(runs[:rows]), 0
    left_out = set(queued[QUEUED:])
    kept = [run for run in runs if run["id"] not in left_out][: rows - 1]
    return kept, len(left_out)


def once_each(runs: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Returns queued runs with the reason on the first of each job alone."""
    told: set[str] = set()
    made = []
    for run in runs:
        line = _line(run)
        repeated = run["status"] == "queued" and line in told and run.get("why")
        told |= {line} if run["status"] == "queued" else set()
        made.append({**run, "why": None} if repeated else run)
    return made


def _line(run: dict[str, Any]) -> str:
    """Returns what is the same of runs that wait in one line: their job, or the group of a command."""
    group = run["input"].get("group") if run["job"] == EXEC and isinstance(run["input"], dict) else None
    return f"{run['job']} {group or ''}"


def totals(counts: Iterable[Sequence[Any]], job: str, shown: int, children: int = 0) -> str:
    """Returns how many runs there are, in all and in each state; `shown` of them are on the screen, `children` are of others."""
    states: Counter[str] = Counter()
    for name, status, count in counts:
        states[status] += count if not job or name == job else 0
    parts = [f"{states[one]:,} {MARKS[one].word}" for one in COUNTED if states[one]]
    count = states.total()
    head = f"{count:,} run{'' if count == 1 else 's'}"
    head = head if shown >= count else f"{shown:,} of {head}"
    return " · ".join([f"{head}, {children:,} of them children" if children and not job else head, *parts])


def fit(used: Mapping[str, Sequence[Text]], give_way: Sequence[tuple[str, int]], width: int) -> dict[str, int]:
    """Returns which columns are shown, and how wide each is; too wide if that is all that can give way."""
    natural = dict(zip(used, widest(list(zip(*used.values(), strict=True))), strict=True))
    for head, least in give_way:
        over = _total(natural) - width
        if over <= 0 or head not in natural:
            continue
        if least:
            natural[head] = max(min(least, natural[head]), natural[head] - over)
        else:
            del natural[head]
    return natural


def _total(widths: dict[str, int]) -> int:
    return sum(widths.values()) + GAP * (len(widths) - 1)


def runs_footer(runs: Sequence[dict[str, Any]], now: float, complete: bool = True) -> str:
    """Returns what to type next if a run has failed lately.

    Parameters:
        complete: whether these are all runs, so that the failed ones can be counted.
    """
    lately = [run for run in runs if run["status"] == "failed" and now - (times.moment(run["ended_at"]) or 0) < RECENT]
    if not lately:
        return ""
    shown = short_ids([run["id"] for run in runs])
    count = f"{len(lately)} failed in the last hour" if complete else "failed last"
    return f"{count}: taskrun show {shown[lately[0]['id']]}"


def runs_tsv(runs: Sequence[dict[str, Any]], now: float) -> str:
    """Returns runs as tab-separated lines: full ids, RFC 3339 times, long values cut."""
    return "".join("\t".join(cut(part) for part in _tsv(run, now)) + "\n" for run in runs)


def _tsv(run: dict[str, Any], now: float) -> list[str]:
    seconds = times.took(run, now)
    step = run.get("step")
    return [
        run["id"],
        named(run),
        run["status"],
        run["created_at"],
        "" if seconds is None else f"{seconds:.3f}",
        cell(step["name"]) if step else "",
        cell(run["input"] if "input" in run.get("cut", ()) else to_json(typed(run))),
    ]


def _took(run: dict[str, Any], now: float) -> Text:
    seconds = times.took(run, now)
    return Text("–" if seconds is None else times.span(seconds))


def _state(run: dict[str, Any], now: float, look: Look) -> Text:
    """Returns the state, without the time where the reason tells it."""
    told = run.get("why") and run["status"] in ("scheduled", "waiting") and run["reason"] not in ("retry", "backoff")
    return labelled(run["status"], look) if told else state(run, now, look)


def _step(run: dict[str, Any], look: Look) -> Text:
    text, tries = current(run, look), tried(run)
    if not tries or run.get("why") or run["status"] in ("succeeded", "cancelled"):
        return text
    return text.append(f", {tries}" if text else tries, "yellow")


def _details(run: dict[str, Any], look: Look, width: int | None = None) -> Text:
    """Returns what matters most of a run: its error, or its step or why it is held; then its input."""
    error = fault(run["error"]) if run["error"] and run["status"] in ENDED else ""
    lead = Text(error, "red") if error else _step(run, look)
    room = None if width is None else width - bool(lead) * (cell_len(lead.plain) + GAP)
    fields = given(run, room, run.get("defaults") or {})
    fields = fields if room is None or room >= min(LEAST_INPUT, cell_len(fields)) else ""
    return lead.append("  " if lead and fields else "").append(fields)


def _input(run: dict[str, Any], width: int | None = None) -> Text:
    error = fault(run["error"]) if run["error"] and run["status"] in ENDED else ""
    room = None if width is None else max(width - bool(error) * (len(error) + GAP), width // 2)
    text = Text(given(run, room, run.get("defaults") or {}))
    return text.append("  " if text else "").append(error, "red") if error else text
