"""`taskrun workers`: who executes runs of this journal."""

from __future__ import annotations

from functools import partial
from typing import Any

import typer

from taskrun.cli import times
from taskrun.cli.common_options import COMMON
from taskrun.cli.exit_codes import Code
from taskrun.cli.lazy_imports import Text
from taskrun.cli.sanitize import cell
from taskrun.cli.screens.look import Look, clipped, columns, stacked, widest
from taskrun.cli.session import Session

app = typer.Typer(rich_markup_mode=None, add_completion=False)
FIELDS = ("host", "version", "load", "heartbeat", "draining")


@app.command()
def workers(json: bool = COMMON.json) -> Any:
    """List the workers and daemons of this journal, on whatever machines: how much they do, and when they said so.

    Example: taskrun workers
    """
    return partial(perform, json)


async def perform(as_json: bool, session: Session) -> int:
    """Prints them."""
    found = await (await session.reader(lenient=True)).call("workers")
    if as_json:
        session.json(found)
    elif not session.facts.out_tty:
        session.data("".join("\t".join(_plain(one[field]) for field in FIELDS) + "\n" for one in found))
    elif found:
        session.show(_table(found, session.now, session.look()))
    else:
        session.say("no worker runs; start one: taskrun daemon start, or taskrun worker")
    return Code.DONE


def _plain(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else cell("" if value is None else str(value))


def _table(found: list[dict[str, Any]], now: float, look: Look) -> Text:
    heads = [Text(name, "dim") for name in ("HOST", "PID", "VERSION", "LOAD", "HEARTBEAT", "")]
    rows = [heads, *(_row(one, now) for one in found)]
    right = (False, True, False, True, False, False)
    return stacked([clipped(line, look.width) for line in columns(rows, widest(rows), right)])


def _row(one: dict[str, Any], now: float) -> list[Text]:
    beat = times.moment(one["heartbeat"])
    return [
        Text(cell(one["host"]), "bold"),
        Text(str(one["pid"])),
        Text(cell(one["version"] or "–")),
        Text("–" if one["load"] is None else str(one["load"])),
        Text("–" if beat is None else f"{times.age(max(0.0, now - beat))} ago"),
        Text("draining" if one["draining"] else "", "yellow"),
    ]
