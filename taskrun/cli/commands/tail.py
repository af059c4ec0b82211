"""`taskrun tail`: the log of one run, of several, or of whatever is active."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from contextlib import suppress
from functools import partial
from typing import Any

import msgspec
import typer

from taskrun.cli import times
from taskrun.cli.backend.paging import all_runs, begin, old_lines
from taskrun.cli.backend.resumable_streams import change_stream, log_stream
from taskrun.cli.backend.time_order import HELD, TimeOrder
from taskrun.cli.common_options import COMMON, text_option
from taskrun.cli.exit_codes import Code, code_of
from taskrun.cli.lazy_imports import Text
from taskrun.cli.sanitize import cell, to_json
from taskrun.cli.screens.look import printed
from taskrun.cli.screens.phrases import ENDED, named, short, short_ids
from taskrun.cli.screens.run import end_line, log_line, paused_text, step_line
from taskrun.cli.session import Backend, Session
from taskrun.model import durations
from taskrun.model.errors import RunNotFound

app = typer.Typer(rich_markup_mode=None, add_completion=False)
ACTIVE = ["running", "waiting", "queued", "scheduled"]
STYLES = ("cyan", "magenta", "green", "yellow", "blue")  # of the runs' prefixes
LINES = 100


class Tail(msgspec.Struct, frozen=True):
    """What was typed."""

    refs: tuple[str, ...]
    limit: int | None
    since: float | None
    json: bool

    async def begin(self, backend: Backend, run: str, now: float) -> int:
        """Returns the seq after which the lines of a run are wanted."""
        return await begin(backend, run, self.limit, None if self.since is None else now - self.since)


@app.command()
def tail(
    runs: list[str] = typer.Argument(None, metavar="[RUN]...", help="By default active runs, and those that start."),  # noqa: B008
    limit: int = typer.Option(
        None,
        "-n",
        "--lines",
        min=0,
        metavar="NUMBER",
        help=f"How many of the lines that exist already.  [default: {LINES}]",
    ),
    since: str = text_option("--since", "DURATION", "Only lines of that time, as in 10m."),
    follow: bool = typer.Option(True, "--follow/--no-follow", help="Go on with new lines."),
    json: bool = COMMON.json,
) -> Any:
    """Print the log of runs, and follow it to their end.

    Lines of several runs have a prefix. Ctrl-C only stops following: the run goes on.

    Example: taskrun tail @last -n 20
    """
    ago = durations.seconds(since, "--since") if since else None
    shown = LINES if limit is None and ago is None else limit
    return partial(following if follow else once, Tail(tuple(runs or ()), shown, ago, json))


async def once(options: Tail, session: Session) -> int:
    """Prints the lines that exist."""
    backend = await session.reader()
    runs = await _named(backend, options) or await _active(backend)
    with suppress(RunNotFound):  # nothing has run yet
        runs = runs or {await backend.call("find", ref="@last"): ""}
    printer = Printer(session, options.json, runs)
    for run in runs:
        silent = True
        async for record in old_lines(backend, run, await options.begin(backend, run, session.now)):
            printer.line(record)
            silent = False
        if silent and not options.json:
            session.say(f"{short(run)} has no lines to show: taskrun show {short(run)}")
    return Code.DONE


async def following(options: Tail, session: Session) -> int:
    """Prints lines as they are written, until the runs have ended; for a single run, returns its exit code."""
    backend = await session.daemon()
    begun = session.now
    runs = await _named(backend, options) or await _active(backend)
    follower = Follower(session, Printer(session, options.json, runs), None if options.refs else begun)
    try:
        if not runs:
            session.say("nothing is active; waiting for the next run")
        ended = await follower.follow({run: await options.begin(backend, run, session.now) for run in runs})
    except asyncio.CancelledError:
        goes_on = " ".join(map(short, follower.active))
        verb = "goes on" if len(follower.active) < 2 else "go on"
        session.say(f"no longer following; {goes_on or 'nothing'} {verb}: taskrun tail {goes_on}".rstrip())
        return Code.INTERRUPTED
    return code_of(ended[0]) if len(ended) == 1 else Code.DONE


async def _named(backend: Backend, options: Tail) -> dict[str, str]:
    """Returns the runs that were named, each with its job if there are several."""
    runs = list(dict.fromkeys([await backend.call("find", ref=ref) for ref in options.refs]))
    return {run: named(await backend.call("show", run=run)) if len(runs) > 1 else "" for run in runs}


async def _active(backend: Backend) -> dict[str, str]:
    return {run["id"]: named(run) for run in await all_runs(backend, status=ACTIVE)}


class Follower:
    """Follows the logs of runs until they have ended, and reports the steps that end meanwhile.

    Parameters:
        begun: also follow runs that start after this moment, as long as any run goes on; None: only those named.
    """

    def __init__(self, session: Session, printer: Printer, begun: float | None) -> None:
        self.active: list[str] = []
        self._session = session
        self._printer = printer
        self._begun = begun
        self._ended: list[dict[str, Any]] = []
        self._feeds: set[asyncio.Future[None]] = set()
        self._order = TimeOrder(printer.line, self._step)
        self._reports = False  # whether steps are reported: those had ended before that come first
        self._paused = set[str]()
        self._joined = asyncio.Event()
        self._over = defaultdict[str, asyncio.Event](asyncio.Event)  # set once the end of a run came with its steps

    async def follow(self, after: dict[str, int]) -> list[dict[str, Any]]:
        """Prints until all runs have ended; returns them.

        Parameters:
            after: the last seq of each run that is not wanted.
        """
        if after:
            self._add(after)
        watching = asyncio.ensure_future(self._watch(list(after)))
        passing = asyncio.ensure_future(self._order.pass_on())
        try:
            if not after:
                await self._first_of(watching)
            while self._feeds:
                done, _ = await asyncio.wait(self._feeds, return_when=asyncio.FIRST_COMPLETED)
                self._feeds -= done
                for feed in done:
                    await feed
        finally:
            for task in (watching, passing, *self._feeds):
                task.cancel()
            await asyncio.gather(watching, passing, *self._feeds, return_exceptions=True)
        return self._ended

    async def _first_of(self, watching: asyncio.Future[None]) -> None:
        """Waits until there is a run to follow; raises what ends `watching`."""
        joined = asyncio.ensure_future(self._joined.wait())
        try:
            waiting: list[asyncio.Future[Any]] = [joined, watching]
            await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
            if not joined.done():
                await watching
        finally:
            joined.cancel()

    def _add(self, after: dict[str, int]) -> None:
        self._joined.set()
        self.active += after
        self._feeds.add(asyncio.ensure_future(self._print(after)))

    async def _print(self, after: dict[str, int]) -> None:
        def back() -> None:
            self._order.flush()
            places = " ".join(f"{short(run)}:{seq}" for run, seq in after.items())
            self._session.say(f"── daemon restarted, resumed at {places} ──")

        async for message in log_stream(self._session, after, back):
            if message["kind"] != "end":
                self._order.add_line(message)
                continue
            with suppress(TimeoutError):
                async with asyncio.timeout(HELD):  # its last steps come on the other stream
                    await self._over[message["run"]["id"]].wait()
            self._order.flush()
            self._printer.end(message["run"])
            self._ended.append(message["run"])
            self.active.remove(message["run"]["id"])

    async def _watch(self, named: list[str]) -> None:
        """Reports which steps end, and adds runs that start. Steps that had ended before are not reported."""
        wanted: dict[str, Any] = {"run": named} if self._begun is None else {"status": ACTIVE}
        async for message in change_stream(self._session, **wanted):
            if message["kind"] == "ready" and not self._reports:
                self._order.flush()
                self._reports = True
            if message["kind"] == "run" and self._begun is not None:
                self._add_new(message["run"], self._begun)
            if message["kind"] == "run" and message["run"]["id"] in self.active:
                self._tell_paused(message["run"])
            self._order.add_steps(message)
            if message["kind"] == "run" and message["run"]["status"] in ENDED:
                self._over[message["run"]["id"]].set()

    def _add_new(self, run: dict[str, Any], begun: float) -> None:
        fresh = run["status"] not in ENDED or (times.moment(run["created_at"]) or 0.0) >= begun
        if fresh and self._printer.name(run["id"], named(run)):
            self._add({run["id"]: 0})

    def _tell_paused(self, run: dict[str, Any]) -> None:
        """Says that a run is paused, after the step that it is paused after."""
        if run["status"] != "paused":
            self._paused.discard(run["id"])
        elif run["id"] not in self._paused:
            self._paused.add(run["id"])
            self._order.flush()
            self._session.say(paused_text(run, self._session.now, self._session.look(err=True)))

    def _step(self, step: dict[str, Any]) -> None:
        if self._reports and step["run"] in self.active:
            self._printer.step(step)


class Printer:
    """Prints log records as lines, or as NDJSON.

    Parameters:
        names: the job of each run; where there are several, their lines have a prefix.
    """

    def __init__(self, session: Session, as_json: bool, names: dict[str, str]) -> None:
        self._session = session
        self._json = as_json
        self._names = dict(names)
        self._arrange()
        self._sgr = session.facts.out_tty and session.facts.colour

    def name(self, run: str, job: str) -> bool:
        """Adds a run; returns whether it is a new one."""
        new = run not in self._names
        self._names[run] = job
        self._arrange()
        return new

    def _arrange(self) -> None:
        self._shown = short_ids(list(self._names))
        self._width = max((len(cell(name)) for name in self._names.values()), default=0)

    def line(self, record: dict[str, Any]) -> None:
        """Prints a line of a log."""
        shown = {name: item for name, item in record.items() if name != "kind"}
        text = to_json(shown) if self._json else log_line(record, self._prefix(record), self._sgr)
        self._session.data(text + "\n")

    def end(self, run: dict[str, Any]) -> None:
        """Reports on standard error that a run has ended."""
        if not self._json:
            self._session.say(end_line(run, self._session.now, self._session.look(err=True)))

    def step(self, step: dict[str, Any]) -> None:
        """Reports on standard error that a step has ended."""
        if not self._json:
            line = step_line(step, self._session.now, self._session.look(err=True))
            self._session.say(self._head(step["run"], step["ended_at"]).append_text(line))

    def _prefix(self, record: dict[str, Any]) -> str:
        if len(self._names) < 2:
            return ""
        return printed(self._head(record["run"], record["at"]), self._session.look()).rstrip("\n") + " "

    def _head(self, run: str, at: str) -> Text:
        """Returns the run and the time of a line; nothing if there is only one run."""
        if len(self._names) < 2:
            return Text()
        style = STYLES[list(self._names).index(run) % len(STYLES)]
        head = Text.assemble((self._shown[run], style), f" {cell(self._names[run]):<{self._width}} ")
        return head.append(times.clock(at, self._session.now), "dim")
