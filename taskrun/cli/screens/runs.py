"""The table of runs: for a terminal, and tab-separated for a pipe."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from taskrun.cli import times
from taskrun.cli.lazy_imports import Text
from taskrun.cli.sanitize import cell, cut, to_json
from taskrun.cli.screens.look import GAP, Look, columns, stacked, widest
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
# What is reduced when the screen is narrow, in this order: to a width, or the column is dropped (0).
GIVE_WAY = (
    ("INPUT", 12),
    ("STEP", 18),
    ("TOOK", 0),
    ("INPUT", 0),
    ("STEP", 10),
    ("STEP", 0),
    ("AGE", 0),
    ("JOB", 6),
)


def runs_table(runs: Sequence[dict[str, Any]], now: float, look: Look) -> Text:
    """Returns runs as a table that fits the width: without columns that are empty, or for which there is no room."""
    shown = short_ids([run["id"] for run in runs])
    rows = [[column.of({**run, "shown": shown[run["id"]]}, now, look) for column in COLUMNS] for run in runs]
    heads = [Text(column.head, "dim") for column in COLUMNS]
    used = [at for at in range(len(COLUMNS)) if any(row[at] for row in rows)]
    kept, widths = fit([[line[at] for at in used] for line in [heads, *rows]], used, look.width)
    lines = [[line[at] for at in kept] for line in [heads, *rows]]
    return stacked(columns(lines, widths, [COLUMNS[at].right for at in kept]))


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


def _input(run: dict[str, Any]) -> Text:
    text = Text(given(run))
    if run["error"] and run["status"] in ENDED:
        text.append("  " if text else "").append(fault(run["error"]), "red")
    return text
