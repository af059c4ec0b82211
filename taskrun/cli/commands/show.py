"""`taskrun show`: everything about one run, once or live."""

from __future__ import annotations

import asyncio
import re
from functools import partial
from pathlib import Path
from typing import Any

import typer

from taskrun.cli.exits import Code, code_of
from taskrun.cli.feeds import watch_feed
from taskrun.cli.inputs import ASK
from taskrun.cli.live import Sticky
from taskrun.cli.screens.phrases import ENDED, short
from taskrun.cli.screens.run import Source, run_screen
from taskrun.cli.session import Session
from taskrun.cli.visible import to_json

app = typer.Typer(rich_markup_mode=None)
AROUND = 2  # lines of code before the one that raised, and one after
_WHERE = re.compile(r"(.+):(\d+)(?: in .*)?")


@app.command()
def show(
    run: str = typer.Argument(..., metavar="RUN", help="An id, a part of one, @last or JOB@last."),
    watch: bool = typer.Option(False, "-w", "--watch", help="Live, until it ends."),
    json: bool = ASK.json,
) -> Any:
    """Show one run: input, output or error, steps, children, the end of its log.

    Example: taskrun show @last
    """
    return partial(live if watch else once, run, json)


async def once(ref: str, as_json: bool, session: Session) -> int:
    """Shows the run as it is."""
    caller = await session.reader()
    shown = await caller.call("show", run=await caller.call("find", ref=ref))
    if as_json:
        session.json(shown)
    else:
        session.show(run_screen(shown, session.now, session.look(), excerpt(shown, session)))
    return Code.DONE


async def live(ref: str, as_json: bool, session: Session) -> int:
    """Shows the run as it changes, until it ends or Ctrl-C."""
    caller = await session.daemon()
    run_id = await caller.call("find", ref=ref)
    drawn = session.facts.out_tty and session.facts.cursor and not as_json
    sticky = Sticky(session.terminal.out, session.terminal.size, session.look())
    shown = await caller.call("show", run=run_id)
    try:
        async for message in watch_feed(session, run=[run_id]):
            if message["kind"] == "log":
                continue
            shown = await caller.call("show", run=run_id)
            if drawn:
                sticky.paint(run_screen(shown, session.now, sticky.look(2), excerpt(shown, session)))
            if shown["status"] in ENDED:
                break
    except asyncio.CancelledError:
        sticky.close()
        session.say(f"{short(run_id)} goes on: taskrun tail {short(run_id)}")
        return Code.INTERRUPTED
    finally:
        sticky.close()
    if as_json:
        session.data(to_json(shown) + "\n")
    elif not drawn:
        session.show(run_screen(shown, session.now, session.look(), excerpt(shown, session)))
    return code_of(shown)


def excerpt(run: dict[str, Any], session: Session) -> Source | None:
    """Returns the lines of code around a run's error, if its file can still be read."""
    where = _WHERE.fullmatch((run["error"] or {}).get("where") or "")
    if where is None:
        return None
    path, line = session.facts.cwd / Path(where[1]), int(where[2])
    try:
        text = path.read_text("utf-8").splitlines()
    except (OSError, ValueError):
        return None
    first = max(1, line - AROUND)
    return Source(line, list(enumerate(text[first - 1 : line + 1], first)))
