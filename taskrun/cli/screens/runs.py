"""The table of runs: for a terminal, and tab-separated for a pipe."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from types import MappingProxyType
from typing import Any, NamedTuple

from taskrun.cli import times
from taskrun.cli.lazy_imports import Text
from taskrun.cli.sanitize import cell, cut, to_json
from taskrun.cli.screens.look import GAP, MARKS, Look, columns, stacked, widest
from taskrun.cli.screens.phrases import ENDED, current, fault, given, short_ids, state, tried

RECENT = 3600
FIELDS = ("id", "job", "status", "created_at", "took", "step", "input")


class Column(NamedTuple):
    """A column: its head, its cell for a run, and whether it is aligned to the right."""

    head: str
    of: Callable[[dict[str, Any], float, Look], Text]
    right: bool = False


COLUMNS = (
    Column("RUN", lambda run, now, look: Text(run["shown"], "bold")),
    Column("JOB", lambda run, now, look: Text(cell(run["job"]))),
    Column("STATE", state),
    Column(
        "AGE", lambda run, now, look: Text(times.age(max(0.0, now - (times.moment(run["created_at"]) or now)))), True
    ),
    Column("TOOK", lambda run, now, look: _took(run, now), True),
    Column("STEP", lambda run, now, look: _step(run, look)),
    Column("INPUT", lambda run, now, look: _input(run)),
)
INPUT = len(COLUMNS) - 1
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
QUEUED = 3  # queued runs that are shown where there are many
Defaults = Mapping[str, Mapping[str, Any]]
# What is reduced when the screen is narrow, in this order: to a width, or the column is dropped (0).
GIVE_WAY = (
    ("INPUT", 40),
    ("STEP", 22),
    ("INPUT", 12),
    ("STEP", 18),
    ("TOOK", 0),
    ("INPUT", 0),
    ("STEP", 10),
    ("STEP", 0),
    ("AGE", 0),
    ("JOB", 6),
)


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
    rows = [[column.of({**run, "shown": shown[run["id"]]}, now, look) for column in COLUMNS] for run in runs]
    heads = [Text(column.head, "dim") for column in COLUMNS]
    used = [at for at in range(len(COLUMNS)) if any(row[at] for row in rows)]
    kept, widths = fit([[line[at] for at in used] for line in [heads, *rows]], used, look.width)
    if INPUT in kept:
        for row, run in zip(rows, runs, strict=True):
            row[INPUT] = _input(run, widths[-1])
    lines = [[line[at] for at in kept] for line in [heads, *rows]]
    made = columns(lines, widths, [COLUMNS[at].right for at in kept])
    if more_queued:
        last = max((at for at, run in enumerate(runs, 1) if run["status"] == "queued"), default=0)
        made.insert(last + 1, Text(f"… {more_queued:,} more queued", "dim"))
    return stacked(made)


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
        repeated = run["status"] == "queued" and run["job"] in told and run.get("why")
        told |= {run["job"]} if run["status"] == "queued" else set()
        made.append({**run, "why": None} if repeated else run)
    return made


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


def fit(lines: Sequence[Sequence[Text]], used: Sequence[int], width: int) -> tuple[list[int], list[int]]:
    """Returns which columns are shown, and how wide each is."""
    natural = dict(zip([COLUMNS[at].head for at in used], widest(lines), strict=True))
    for head, least in GIVE_WAY:
        over = _total(natural) - width
        if over <= 0 or head not in natural:
            continue
        if least:
            natural[head] = max(min(least, natural[head]), natural[head] - over)
        else:
            del natural[head]
    return [at for at in used if COLUMNS[at].head in natural], list(natural.values())


def _total(widths: dict[str, int]) -> int:
    return sum(widths.values()) + GAP * (len(widths) - 1)


def runs_footer(runs: Sequence[dict[str, Any]], now: float) -> str:
    """Returns what to type next if a run has failed lately."""
    lately = [run for run in runs if run["status"] == "failed" and now - (times.moment(run["ended_at"]) or 0) < RECENT]
    if not lately:
        return ""
    shown = short_ids([run["id"] for run in runs])
    return f"{len(lately)} failed in the last hour: taskrun show {shown[lately[0]['id']]}"


def runs_tsv(runs: Sequence[dict[str, Any]], now: float) -> str:
    """Returns runs as tab-separated lines: full ids, RFC 3339 times, long values cut."""
    return "".join("\t".join(cut(part) for part in _tsv(run, now)) + "\n" for run in runs)


def _tsv(run: dict[str, Any], now: float) -> list[str]:
    seconds = times.took(run, now)
    step = run.get("step")
    return [
        run["id"],
        cell(run["job"]),
        run["status"],
        run["created_at"],
        "" if seconds is None else f"{seconds:.3f}",
        cell(step["name"]) if step else "",
        cell(run["input"] if "input" in run.get("cut", ()) else to_json(run["input"])),
    ]


def _took(run: dict[str, Any], now: float) -> Text:
    seconds = times.took(run, now)
    return Text("–" if seconds is None else times.span(seconds))


def _step(run: dict[str, Any], look: Look) -> Text:
    text, tries = current(run, look), tried(run)
    if not tries or run["status"] in ("succeeded", "cancelled"):
        return text
    return text.append(f", {tries}" if text else tries, "yellow")


def _input(run: dict[str, Any], width: int | None = None) -> Text:
    error = fault(run["error"]) if run["error"] and run["status"] in ENDED else ""
    room = None if width is None else max(width - bool(error) * (len(error) + GAP), width // 2)
    text = Text(given(run, room, run.get("defaults") or {}))
    return text.append("  " if text else "").append(error, "red") if error else text
