"""`taskrun tail`: the log of one run, of several, or of whatever is active."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass
from functools import partial
from typing import Any

import typer
from rich.text import Text

from taskrun.cli import times
from taskrun.cli.exits import Code, code_of
from taskrun.cli.feeds import log_feed, watch_feed
from taskrun.cli.inputs import ASK
from taskrun.cli.screens.look import printed
from taskrun.cli.screens.phrases import ENDED, short
from taskrun.cli.screens.run import end_line, log_line
from taskrun.cli.session import Session
from taskrun.cli.visible import cell, to_json

app = typer.Typer(rich_markup_mode=None)
ACTIVE = ["running", "waiting", "queued", "scheduled"]


@dataclass(frozen=True)
class Tail:
    """What was typed."""

    refs: tuple[str, ...]
    limit: int
    json: bool


@app.command()
def tail(
    runs: list[str] = typer.Argument(None, metavar="[RUN]...", help="None: what is active."),  # noqa: B008
    limit: int = typer.Option(100, "-n", "--lines", min=0, help="How many lines that are there already."),
    follow: bool = typer.Option(True, "--follow/--no-follow", help="Go on with what comes."),
    json: bool = ASK.json,
) -> Any:
    """Print the log of runs, and follow it to their end.

    Ctrl-C only stops following: the run goes on.

    Example: taskrun tail @last
    """
    return partial(following if follow else once, Tail(tuple(runs or ()), limit, json))


async def once(options: Tail, session: Session) -> int:
    """Prints the last lines that there are."""
    caller = await session.reader()
    runs = [await caller.call("find", ref=ref) for ref in options.refs]
    if not runs:
        runs = [run["id"] for run in await caller.call("runs", status=ACTIVE)]
        runs = runs or [run["id"] for run in await caller.call("runs", limit=1)]
    printer = Printer(session, options.json, await _names(caller, runs))
    for run in runs:
        for record in await caller.call("logs", run=run, after=0, limit=-options.limit) if options.limit else ():
            printer.line(record)
    return Code.DONE


async def _names(caller: Any, runs: list[str]) -> dict[str, str]:
    """Returns the job of each run, where lines of several have to be told apart."""
    if len(runs) < 2:
        return {}
    return {run: (await caller.call("show", run=run))["job"] for run in runs}


async def following(options: Tail, session: Session) -> int:
    """Prints lines as they come; ends with the runs, and with the code of a single one."""
    caller = await session.daemon()
    runs = [await caller.call("find", ref=ref) for ref in options.refs]
    runs = runs or [run["id"] for run in await caller.call("runs", status=ACTIVE)]
    try:
        if not runs:
            session.say("nothing is active; waiting for the next run")
            runs = [await _next_run(session)]
        printer = Printer(session, options.json, await _names(caller, runs))
        ended = [run async for run in _print(session, options, printer, runs)]
    except asyncio.CancelledError:
        goes_on = " ".join(map(short, runs))
        session.say(f"no longer following; {goes_on or 'nothing'} goes on: taskrun tail {goes_on}".rstrip())
        return Code.INTERRUPTED
    return code_of(ended[0]) if len(ended) == 1 else Code.DONE


async def _next_run(session: Session) -> str:
    """Waits for a run that begins or goes on."""
    async for message in watch_feed(session, limit=1):
        if message["kind"] == "run" and message["run"]["status"] not in ENDED:
            return str(message["run"]["id"])
    raise asyncio.CancelledError


async def _print(session: Session, options: Tail, printer: Printer, runs: list[str]) -> AsyncIterator[dict[str, Any]]:
    """Prints the logs of runs and yields each run that has ended."""
    after = dict.fromkeys(runs, 0)

    def back() -> None:
        places = " ".join(f"{short(run)}:{seq}" for run, seq in after.items())
        session.say(f"── daemon restarted, resumed at {places} ──")

    async for message in log_feed(session, after, options.limit, back):
        if message["kind"] == "end":
            printer.end(message["run"])
            yield message["run"]
        else:
            printer.line(message)


class Printer:
    """Prints log records as lines, or as NDJSON."""

    def __init__(self, session: Session, as_json: bool, names: dict[str, str]) -> None:
        self._session = session
        self._json = as_json
        self._names = names
        self._sgr = session.facts.out_tty and session.facts.colour

    def line(self, record: dict[str, Any]) -> None:
        """Prints a line of a log."""
        shown = {name: item for name, item in record.items() if name != "kind"}
        text = to_json(shown) if self._json else log_line(record, self._prefix(record), self._sgr)
        self._session.data(text + "\n")

    def end(self, run: dict[str, Any]) -> None:
        """Says that a run has ended, apart from its log."""
        if not self._json:
            self._session.say(end_line(run, self._session.now, self._session.look(err=True)))

    def _prefix(self, record: dict[str, Any]) -> str:
        if not self._names:
            return ""
        job = self._names.get(record["run"], "")
        head = Text.assemble((short(record["run"]), "bold"), f" {cell(job)} ", style="dim")
        return printed(head, self._session.look()).rstrip("\n") + times.clock(record["at"], self._session.now) + " "
