"""`taskrun show`: everything about one run, once or live."""

from __future__ import annotations

import asyncio
import itertools
import re
from functools import partial
from pathlib import Path
from typing import Any

import typer

from taskrun.cli.asks import ASK
from taskrun.cli.exits import Code, code_of
from taskrun.cli.feeds import watch_feed
from taskrun.cli.live import FRAME, Sticky
from taskrun.cli.reasons import explained
from taskrun.cli.screens.phrases import ENDED, short
from taskrun.cli.screens.run import Source, place, run_screen
from taskrun.cli.session import Caller, Session
from taskrun.cli.visible import to_json
from taskrun.model.errors import TaskrunError

app = typer.Typer(rich_markup_mode=None, add_completion=False)
FRESH = 10  # frames after which a run is looked at again even without news: its log has none
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
        (shown,) = await explained(caller, [shown])
        session.show(run_screen(shown, session.now, session.look(), excerpt(shown, session)))
    return Code.DONE


async def live(ref: str, as_json: bool, session: Session) -> int:
    """Shows the run as it changes, until it ends or Ctrl-C."""
    caller = await session.daemon()
    run_id = await caller.call("find", ref=ref)
    drawn = session.facts.out_tty and session.facts.cursor and not as_json
    screen = (Drawn if drawn else Shown)(session, run_id)
    ticking = asyncio.ensure_future(screen.tick())
    try:
        async for message in watch_feed(session, run=[run_id]):
            screen.stale = True
            if message["kind"] == "run" and message["run"]["status"] in ENDED:
                break
    except asyncio.CancelledError:
        screen.close()
        session.say(f"{short(run_id)} goes on: taskrun tail {short(run_id)}")
        return Code.INTERRUPTED
    finally:
        ticking.cancel()
    shown = await (await session.reader()).call("show", run=run_id)
    if as_json:
        session.data(to_json(shown) + "\n")
    else:
        screen.end(shown)
    return code_of(shown)


class Shown:
    """A run that is followed where nothing can be drawn over: its last state is printed at the end."""

    def __init__(self, session: Session, run_id: str) -> None:
        self.session = session
        self.stale = True
        self._run = run_id

    async def tick(self) -> None:
        """Draws nothing."""

    def end(self, shown: dict[str, Any]) -> None:
        """Shows it as it ended."""
        self.session.show(run_screen(shown, self.session.now, self.session.look(), excerpt(shown, self.session)))

    def close(self) -> None:
        """Has nothing to give back."""


class Drawn(Shown):
    """A run on a screen of its own, drawn again and again."""

    def __init__(self, session: Session, run_id: str) -> None:
        super().__init__(session, run_id)
        self._sticky = Sticky(session.terminal.out, session.terminal.size, session.look(), full=True)
        self._caller: Caller | None = None

    async def tick(self) -> None:
        """Draws a frame ten times a second, of what was news or a second ago; a daemon that is gone leaves the last one."""
        shown: dict[str, Any] = {}
        for count in itertools.count():
            if self.stale or count % FRESH == 0:
                self.stale = False
                shown = await self._look() or shown
            if shown:
                self._paint(shown, count)
            await asyncio.sleep(FRAME)

    async def _look(self) -> dict[str, Any] | None:
        try:
            self._caller = self._caller or await self.session.reader()
            (found,) = await explained(self._caller, [await self._caller.call("show", run=self._run)])
        except TaskrunError:
            self._caller = None
            return None
        return found

    def _paint(self, shown: dict[str, Any], count: int) -> None:
        look = self._sticky.look(count)
        self._sticky.paint(run_screen(shown, self.session.now, look, excerpt(shown, self.session)))

    def end(self, shown: dict[str, Any]) -> None:
        """Draws it as it ended, and leaves that in the scrollback."""
        self._paint(shown, 0)
        self.close()

    def close(self) -> None:
        """Gives the screen back."""
        self._sticky.close()


def excerpt(run: dict[str, Any], session: Session) -> Source | None:
    """Returns the lines of code around a run's error, if its file can still be read."""
    where = _WHERE.fullmatch(place(run))
    if where is None:
        return None
    path, line = session.facts.cwd / Path(where[1]), int(where[2])
    try:
        text = path.read_text("utf-8").splitlines()
    except (OSError, ValueError):
        return None
    first = max(1, line - AROUND)
    return Source(line, list(enumerate(text[first - 1 : line + 1], first)))
