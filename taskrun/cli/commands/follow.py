"""Following one run to its end: its steps stay at the bottom, its log scrolls above them, all on standard error.

Used by `run` and `start -f`. Two streams feed it, the run's changes and its log; both go on where they were when the
daemon comes back.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

from taskrun.cli.backend.resumable_streams import log_feed, watch_feed
from taskrun.cli.sanitize import lines
from taskrun.cli.screens.live import FRAME, Snapshot, Sticky
from taskrun.cli.screens.phrases import ENDED, short, state
from taskrun.cli.screens.run import end_line, live_steps, log_line, run_head, step_line
from taskrun.cli.session import Session

CAUGHT_UP_WITHIN = 1.0  # seconds that a run's end waits for its last steps to be told


async def follow(session: Session, run: dict[str, Any], quiet: bool = False) -> dict[str, Any] | None:
    """Shows a run until it ends; returns it, or None when Ctrl-C stopped the following (the run goes on)."""
    view: Screen = screen(session, quiet)
    try:
        return await watch_to_end(session, run, view)
    except asyncio.CancelledError:
        view.close()
        ref = short(run["id"])
        session.say(f"no longer following; {ref} goes on: taskrun tail {ref}   cancel: taskrun cancel {ref}")
        return None
    finally:
        view.close()


async def watch_to_end(session: Session, run: dict[str, Any], view: Screen) -> dict[str, Any]:
    """Feeds a view with a run's steps and log until it has ended and its log is complete."""
    view.begin(run)
    changes = asyncio.ensure_future(_changes(watch_feed(session, run=[run["id"]]), view))
    ticking = asyncio.ensure_future(view.tick())
    try:
        async for message in log_feed(session, {run["id"]: 0}):
            if message["kind"] == "end":
                await asyncio.wait([changes], timeout=CAUGHT_UP_WITHIN)  # its last steps come on the other stream
                view.end(message["run"])
                ended: dict[str, Any] = message["run"]
                return ended
            view.log(message)
        raise RuntimeError(f"the log of {run['id']} ended without its run")
    finally:
        for task in (changes, ticking):
            task.cancel()
        await asyncio.gather(changes, ticking, return_exceptions=True)


async def _changes(messages: AsyncIterator[dict[str, Any]], view: Screen) -> None:
    """Hands changes to a view, up to the run's end."""
    async for message in messages:
        view.change(message)
        if message["kind"] == "run" and message["run"]["status"] in ENDED:
            return


def screen(session: Session, quiet: bool) -> Screen:
    if quiet:
        return Screen(session)
    return Lively(session) if session.facts.err_tty and session.facts.cursor else Plain(session)


class Screen:
    """A view that shows nothing: for `-q`."""

    def __init__(self, session: Session) -> None:
        self.session = session
        self.run: dict[str, Any] = {}

    def begin(self, run: dict[str, Any]) -> None:
        """Announces the run."""
        self.run = run

    def change(self, message: dict[str, Any]) -> None:
        """Takes a change of the run or of one of its steps."""

    def log(self, record: dict[str, Any]) -> None:
        """Takes a line of the log."""

    def end(self, run: dict[str, Any]) -> None:
        """Takes the run as it ended."""

    def note(self, text: str) -> None:
        """Says something to the person, without disturbing what is drawn."""
        self.session.say(text)

    async def tick(self) -> None:
        """Draws again and again."""

    def close(self) -> None:
        """Gives the terminal back."""


class Plain(Screen):
    """Lines, for what is no terminal: each step as it ends, and the log."""

    def __init__(self, session: Session, logs: bool = True) -> None:
        super().__init__(session)
        self._logs = logs
        self._told: set[str] = set()

    def begin(self, run: dict[str, Any]) -> None:
        """Announces the run."""
        super().begin(run)
        self.session.say(run_head(run, self.session.now, self.session.look(err=True)))

    def change(self, message: dict[str, Any]) -> None:
        """Says which steps have ended, and when the run is held."""
        steps = [message["step"]] if message["kind"] == "step" else message.get("run", {}).get("steps") or ()
        for step in steps:
            if step["status"] != "running" and step["kind"] != "value" and step["key"] not in self._told:
                self._told.add(step["key"])
                self.session.say(step_line(step, self.session.now, self.session.look(err=True)))
        self._pauses(message.get("run") or self.run)

    def _pauses(self, run: dict[str, Any]) -> None:
        """Says that the run is held, and what lets it go on: its end may never come."""
        if run["status"] == "paused" != self.run["status"]:
            ref = short(run["id"])
            self.session.say(state(run, self.session.now, self.session.look(err=True)).append(f"  {ref}"))
            self.session.say(f"  why: taskrun why {ref}   go on: taskrun resume {ref}")
        self.run = run

    def log(self, record: dict[str, Any]) -> None:
        """Prints a line of the log."""
        if self._logs:
            self.session.terminal.err(log_line(record, "", False) + "\n")

    def end(self, run: dict[str, Any]) -> None:
        """Says how it ended."""
        self.session.say(end_line(run, self.session.now, self.session.look(err=True)))


class Lively(Screen):
    """Sticky steps with the log scrolling above them."""

    def __init__(self, session: Session) -> None:
        super().__init__(session)
        terminal = session.terminal
        self._snapshot = Snapshot()
        self._sticky = Sticky(terminal.err, terminal.size, session.look(err=True), tail=True)
        self._tick = 0

    def begin(self, run: dict[str, Any]) -> None:
        """Announces the run in a line that scrolls with the log."""
        super().begin(run)
        self._snapshot.fold({"kind": "run", "run": run})
        self.session.say(run_head(run, self.session.now, self.session.look(err=True)))

    def change(self, message: dict[str, Any]) -> None:
        """Takes a change; the next frame shows it."""
        self._snapshot.fold(message)

    def log(self, record: dict[str, Any]) -> None:
        """Prints a line of the log above the steps."""
        self._sticky.above(log_line(record, "", False))

    def end(self, run: dict[str, Any]) -> None:
        """Draws the last frame and how it ended."""
        self._snapshot.fold({"kind": "run", "run": run})
        self._paint()
        self.close()
        self.session.say(end_line(run, self.session.now, self.session.look(err=True)))

    def note(self, text: str) -> None:
        """Says something above the steps."""
        self._sticky.above(lines(text))

    async def tick(self) -> None:
        """Draws a frame ten times a second."""
        while True:
            self._paint()
            self._tick += 1
            await asyncio.sleep(FRAME)

    def close(self) -> None:
        """Leaves the last frame where it is."""
        self._sticky.close()

    def _paint(self) -> None:
        run_id = self.run["id"]
        steps = [step for step in self._snapshot.steps.get(run_id, {}).values() if step["kind"] != "value"]
        look = self._sticky.look(self._tick)
        self._sticky.paint(live_steps(self._snapshot.runs[run_id], steps, self.session.now, look))
