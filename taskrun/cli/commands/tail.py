"""`taskrun tail`: the log of one run, of several, or of whatever is active."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass
from functools import partial
from typing import Any

import typer

from taskrun.cli import times
from taskrun.cli.asks import ASK
from taskrun.cli.exits import Code, code_of
from taskrun.cli.feeds import log_feed, watch_feed
from taskrun.cli.pages import all_runs, begin, old_lines
from taskrun.cli.rich_late import Text
from taskrun.cli.screens.look import printed
from taskrun.cli.screens.phrases import ENDED, short, short_ids
from taskrun.cli.screens.run import end_line, log_line
from taskrun.cli.session import Caller, Session
from taskrun.cli.visible import cell, to_json
from taskrun.words import durations

app = typer.Typer(rich_markup_mode=None, add_completion=False)
ACTIVE = ["running", "waiting", "queued", "scheduled"]
STYLES = ("cyan", "magenta", "green", "yellow", "blue")  # of the runs' prefixes
LINES = 100


@dataclass(frozen=True)
class Tail:
    """What was typed."""

    refs: tuple[str, ...]
    limit: int | None
    since: float | None
    json: bool

    async def begin(self, caller: Caller, run: str, now: float) -> int:
        """Returns the seq after which the lines of a run are wanted."""
        return await begin(caller, run, self.limit, None if self.since is None else now - self.since)


@app.command()
def tail(
    runs: list[str] = typer.Argument(None, metavar="[RUN]...", help="None: what is active."),  # noqa: B008
    limit: int = typer.Option(
        None, "-n", "--lines", min=0, help=f"How many lines that are there already.  [default: {LINES}]"
    ),
    since: str = typer.Option("", "--since", metavar="DURATION", help="Only lines that came since, as in 10m."),
    follow: bool = typer.Option(True, "--follow/--no-follow", help="Go on with what comes."),
    json: bool = ASK.json,
) -> Any:
    """Print the log of runs, and follow it to their end.

    Lines of several runs are told apart by a prefix. Ctrl-C only stops following: the run goes on.

    Example: taskrun tail @last -n 20
    """
    ago = durations.seconds(since, "--since") if since else None
    shown = LINES if limit is None and ago is None else limit
    return partial(following if follow else once, Tail(tuple(runs or ()), shown, ago, json))


async def once(options: Tail, session: Session) -> int:
    """Prints the lines that there are."""
    caller = await session.reader()
    runs = await _named(caller, options) or await _active(caller)
    runs = runs or [run["id"] for run in await caller.call("runs", limit=1)]
    printer = Printer(session, options.json, await _names(caller, runs))
    for run in runs:
        async for record in old_lines(caller, run, await options.begin(caller, run, session.now)):
            printer.line(record)
    return Code.DONE


async def following(options: Tail, session: Session) -> int:
    """Prints lines as they come; ends with the runs, and with the code of a single one."""
    caller = await session.daemon()
    runs = await _named(caller, options) or await _active(caller)
    try:
        if not runs:
            session.say("nothing is active; waiting for the next run")
            runs = [await _next_run(session)]
        printer = Printer(session, options.json, await _names(caller, runs))
        after = {run: await options.begin(caller, run, session.now) for run in runs}
        ended = [run async for run in _print(session, printer, after)]
    except asyncio.CancelledError:
        goes_on = " ".join(map(short, runs))
        verb = "goes on" if len(runs) < 2 else "go on"
        session.say(f"no longer following; {goes_on or 'nothing'} {verb}: taskrun tail {goes_on}".rstrip())
        return Code.INTERRUPTED
    return code_of(ended[0]) if len(ended) == 1 else Code.DONE


async def _named(caller: Caller, options: Tail) -> list[str]:
    return list(dict.fromkeys([await caller.call("find", ref=ref) for ref in options.refs]))


async def _active(caller: Caller) -> list[str]:
    return [run["id"] for run in await all_runs(caller, status=ACTIVE)]


async def _names(caller: Caller, runs: list[str]) -> dict[str, str]:
    """Returns the job of each run, where lines of several have to be told apart."""
    if len(runs) < 2:
        return {}
    return {run: (await caller.call("show", run=run))["job"] for run in runs}


async def _next_run(session: Session) -> str:
    """Waits for a run that begins or goes on."""
    async for message in watch_feed(session, limit=1):
        if message["kind"] == "run" and message["run"]["status"] not in ENDED:
            return str(message["run"]["id"])
    raise asyncio.CancelledError


async def _print(session: Session, printer: Printer, after: dict[str, int]) -> AsyncIterator[dict[str, Any]]:
    """Prints the logs of runs and yields each run that has ended."""

    def back() -> None:
        places = " ".join(f"{short(run)}:{seq}" for run, seq in after.items())
        session.say(f"── daemon restarted, resumed at {places} ──")

    async for message in log_feed(session, after, back):
        if message["kind"] == "end":
            printer.end(message["run"])
            yield message["run"]
        else:
            printer.line(message)


class Printer:
    """Prints log records as lines, or as NDJSON.

    Parameters:
        names: the jobs of runs whose lines need a prefix.
    """

    def __init__(self, session: Session, as_json: bool, names: dict[str, str]) -> None:
        self._session = session
        self._json = as_json
        self._names = names
        self._shown = short_ids(list(names))
        self._width = max((len(cell(name)) for name in names.values()), default=0)
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
        run = record["run"]
        style = STYLES[list(self._names).index(run) % len(STYLES)]
        head = Text.assemble((self._shown[run], style), f" {cell(self._names[run]):<{self._width}} ")
        head.append(times.clock(record["at"], self._session.now), "dim")
        return printed(head, self._session.look()).rstrip("\n") + " "
