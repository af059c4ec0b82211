"""`taskrun show`: everything about one run, once or live."""

from __future__ import annotations

import asyncio
import itertools
import re
import time
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

import typer

from taskrun.cli.backend.documents import print_document, run_document
from taskrun.cli.backend.held_reasons import explained
from taskrun.cli.backend.resumable_streams import change_stream
from taskrun.cli.common_options import COMMON
from taskrun.cli.exit_codes import Code, code_of
from taskrun.cli.screens.live import Snapshot, Sticky, drawing, pause_after
from taskrun.cli.screens.phrases import ENDED, short
from taskrun.cli.screens.run import Source, place, run_screen
from taskrun.cli.session import KeptReader, Session
from taskrun.model.errors import TaskrunError

app = typer.Typer(rich_markup_mode=None, add_completion=False)
FRESH = 10  # frames after which is asked for what no change tells
LINES, CHILDREN = 10, 100  # the last ones, that are shown while it runs
AROUND = 2  # lines of code shown before the one that raised; one is shown after it
_WHERE = r"(.+):(\d+)(?: in .*)?"


@app.command()
def show(
    run: str = typer.Argument(..., metavar="RUN", help="An id, a part of one, @last or JOB@last."),
    watch: bool = typer.Option(False, "-w", "--watch", help="Live, until it ends."),
    json: bool = COMMON.json,
) -> Any:
    """Show one run: input, output or error, steps, children, the end of its log.

    Example: taskrun show @last
    """
    return partial(live if watch else once, run, json)


async def once(ref: str, as_json: bool, session: Session) -> int:
    """Shows the run as it is."""
    backend = await session.reader()
    shown = await backend.call("show", run=await backend.call("find", ref=ref))
    if as_json:
        await print_document(session, backend, run_document(backend, shown))
    else:
        (shown,) = await explained(backend, [shown])
        session.show(run_screen(shown, session.now, session.look(), excerpt(shown, session)))
    return Code.DONE


async def live(ref: str, as_json: bool, session: Session) -> int:
    """Shows the run as it changes, until it ends or Ctrl-C."""
    backend = await session.daemon()
    run_id = await backend.call("find", ref=ref)
    drawn = session.facts.out_tty and session.facts.cursor and not as_json
    screen = (Drawn if drawn else Shown)(session, run_id)
    try:
        async with drawing(screen.tick()):
            async for message in change_stream(session, run=[run_id]):
                screen.change(message)
                if message["kind"] == "run" and message["run"]["status"] in ENDED:
                    break
    except asyncio.CancelledError:
        screen.close()
        session.say(f"{short(run_id)} goes on: taskrun tail {short(run_id)}")
        return Code.INTERRUPTED
    backend = await session.reader()
    shown = await backend.call("show", run=run_id)
    if as_json:
        await print_document(session, backend, run_document(backend, shown))
    else:
        screen.end(shown)
    return code_of(shown)


class Shown:
    """For a screen that cannot be redrawn: the run is printed once it has ended."""

    def __init__(self, session: Session, run_id: str) -> None:
        self.session = session
        self._run = run_id

    def change(self, message: dict[str, Any]) -> None:
        """Takes a change of the run or of one of its steps."""

    async def tick(self) -> None:
        """Does nothing: nothing is drawn."""

    def end(self, shown: dict[str, Any]) -> None:
        """Shows it as it ended."""
        self.session.show(run_screen(shown, self.session.now, self.session.look(), excerpt(shown, self.session)))

    def close(self) -> None:
        """Does nothing: nothing was drawn."""


class Drawn(Shown):
    """For a terminal: the run is drawn again and again on a screen of its own."""

    def __init__(self, session: Session, run_id: str) -> None:
        super().__init__(session, run_id)
        self._snapshot = Snapshot()
        # What no change tells: children, the end of the log, why it is held, what was adopted.
        self._beside: dict[str, Any] = {}
        self._sticky = Sticky(session.terminal.out, session.terminal.size, session.look(), full=True)
        self._reader = KeptReader(session)

    def change(self, message: dict[str, Any]) -> None:
        """Takes a change; the next frame shows it."""
        self._snapshot.fold(message)

    async def tick(self) -> None:
        """Draws a frame up to ten times a second; a daemon that is gone leaves the last one."""
        for count in itertools.count():
            begun = time.thread_time()
            if (run := self._snapshot.runs.get(self._run)) is not None:
                if count % FRESH == 0:
                    await self._look(run)
                steps = [*self._snapshot.steps.get(self._run, {}).values()]
                under_way = sum(step["status"] == "running" for step in steps)
                left_out = max(0, (run["steps_ended"] or 0) + under_way - len(steps))
                self._paint({**run, "steps": steps, "steps_left_out": left_out, **self._beside}, count)
            await asyncio.sleep(pause_after(begun))

    async def _look(self, run: dict[str, Any]) -> None:
        """Asks for what no change tells."""
        with suppress(TaskrunError):
            async with self._reader.use() as backend:
                log = await backend.call("logs", run=self._run, limit=-LINES)
                children = await backend.call("children", run=self._run, limit=-CHILDREN)
                (found,) = await explained(backend, [run])
            lines = log[-1]["seq"] if log else 0
            told = {name: found[name] for name in found.keys() & {"why", "adopted"}}
            self._beside = {"log": log, "log_lines": lines, "children": children, **told}

    def _paint(self, shown: dict[str, Any], count: int) -> None:
        look = self._sticky.look(count)
        height = None if shown["ended_at"] else self.session.terminal.size()[1]
        self._sticky.paint(run_screen(shown, self.session.now, look, excerpt(shown, self.session), height))

    def end(self, shown: dict[str, Any]) -> None:
        """Draws the run as it ended, which stays in the scrollback."""
        self._paint(shown, 0)
        self.close()

    def close(self) -> None:
        """Restores the screen."""
        self._sticky.close()


def excerpt(run: dict[str, Any], session: Session) -> Source | None:
    """Returns the lines of code around a run's error, if its file can still be read."""
    where = re.fullmatch(_WHERE, place(run))
    if where is None:
        return None
    path, line = session.facts.cwd / Path(where[1]), int(where[2])
    try:
        text = path.read_text("utf-8").splitlines()
    except (OSError, ValueError):
        return None
    first = max(1, line - AROUND)
    return Source(line, list(enumerate(text[first - 1 : line + 1], first)))
