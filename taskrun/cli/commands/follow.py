"""Follows one run to its end on standard error: steps under way stay at the bottom, its log and ended steps scroll above.

Used by `run` and `start -f`. It reads two streams, the run's changes and its log, which both go on with the next daemon when
theirs is gone.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import suppress
from typing import Any

from taskrun.cli.backend.resumable_streams import change_stream, log_stream
from taskrun.cli.backend.time_order import TimeOrder
from taskrun.cli.lazy_imports import Text
from taskrun.cli.sanitize import lines
from taskrun.cli.screens.folds import Siblings
from taskrun.cli.screens.live import Snapshot, Sticky, pause_after
from taskrun.cli.screens.look import printed
from taskrun.cli.screens.phrases import ENDED, short
from taskrun.cli.screens.run import end_line, live_steps, log_line, paused_text, retry_line, run_head, step_line
from taskrun.cli.session import Session
from taskrun.model.errors import TaskrunError

LOOKS, PAUSE = 20, 0.5  # how often it is looked whether a command was adopted, and seconds between


async def follow(session: Session, run: dict[str, Any], quiet: bool = False) -> dict[str, Any] | None:
    """Shows a run until it ends; returns it, or None when Ctrl-C was pressed (the run goes on)."""
    view: View = view_for(session, quiet)
    try:
        return await watch_to_end(session, run, view)
    except asyncio.CancelledError:
        view.close()
        ref = short(run["id"])
        session.say(f"no longer following; {ref} goes on: taskrun tail {ref}   cancel: taskrun cancel {ref}")
        return None
    finally:
        view.close()


async def watch_to_end(session: Session, run: dict[str, Any], view: View) -> dict[str, Any]:
    """Shows a run's steps and log in a view, until the run has ended and its log is complete."""
    view.begin(run)
    order = TimeOrder(view.log, view.step)
    changes = asyncio.ensure_future(_changes(change_stream(session, run=[run["id"]]), view, order))
    beside = [changes, *(asyncio.ensure_future(task) for task in (order.pass_on(), view.tick()))]

    def back() -> None:
        order.flush()
        view.note("── daemon restarted ──")
        beside.append(asyncio.ensure_future(tell_adopted(session, run["id"], view)))

    try:
        async for message in log_stream(session, {run["id"]: 0}, back):
            if message["kind"] == "end":
                await asyncio.wait([changes])  # its last steps come on the other stream
                order.flush()
                view.end(message["run"])
                ended: dict[str, Any] = message["run"]
                return ended
            order.add_line(message)
        raise RuntimeError(f"the log of {run['id']} ended without its run")
    finally:
        for task in beside:
            task.cancel()
        await asyncio.gather(*beside, return_exceptions=True)


async def tell_adopted(session: Session, run_id: str, view: View) -> None:
    """Says which commands go on after a daemon was lost, once they are adopted."""
    for _ in range(LOOKS):
        await asyncio.sleep(PAUSE)
        with suppress(TaskrunError):
            backend = await session.reader()
            try:
                (found,) = await backend.call("why", runs=[run_id])
            finally:
                await session.release(backend)
            if steps := [cause["step"] for cause in found["causes"] if cause.get("adopted")]:
                view.note(f"── adopted: {', '.join(steps)} ──")
                return


async def _changes(messages: AsyncIterator[dict[str, Any]], view: View, order: TimeOrder) -> None:
    """Passes changes to a view, and ended steps into the order of time, until the run has ended."""
    async for message in messages:
        if message["kind"] == "run" and (message["run"]["status"] == "paused" or message["run"]["reason"] == "retry"):
            order.flush()  # the step that it is paused after, or that has failed, comes before that
        view.change(message)
        order.add_steps(message)
        if message["kind"] == "run" and message["run"]["status"] in ENDED:
            return


def view_for(session: Session, quiet: bool) -> View:
    if quiet:
        return View(session)
    return LiveView(session) if session.facts.err_tty and session.facts.cursor else PlainView(session)


class View:
    """A view for `-q`: it shows only that a run is paused, and how it ended if it did not succeed."""

    def __init__(self, session: Session) -> None:
        self.session = session
        self.run: dict[str, Any] = {}
        self.failed = 0  # the last attempt that was told to have failed
        self.siblings = Siblings()
        self.errors: set[str] = set()  # of steps that were told, so that the end does not repeat them

    def begin(self, run: dict[str, Any]) -> None:
        """Announces the run."""
        self.failed = last_failed(run) - (run["reason"] == "retry")
        self._tell(run)

    def change(self, message: dict[str, Any]) -> None:
        """Takes a change of the run or of one of its steps."""
        self.siblings.began(message)
        if message["kind"] == "run":
            self._tell(message["run"])

    def _tell(self, run: dict[str, Any]) -> None:
        """Reports that an attempt has failed and the next one comes, or that the run is paused and how to resume it."""
        now, look = self.session.now, self.session.look(err=True)
        if last_failed(run) > self.failed and run["status"] not in ENDED:
            self.failed = last_failed(run)
            self.line(retry_line(run, now, look, self.errors))
        if run["status"] == "paused" != self.run.get("status"):
            self.note(paused_text(run, now, look))
        self.run = run

    def log(self, record: dict[str, Any]) -> None:
        """Takes a line of the log."""

    def step(self, step: dict[str, Any]) -> None:
        """Takes a step that has ended, between the lines of the log before and after its end."""

    def told(self, step: dict[str, Any]) -> dict[str, Any] | None:
        """Returns the step to print when one has ended, which stands for all children of its name; None for nothing yet."""
        told = self.siblings.ended(step)
        if told is not None and told["error"]:
            self.errors.add(told["error"]["message"])
        return told

    def end(self, run: dict[str, Any]) -> None:
        """Reports how it ended, where that is not what was wanted."""
        if run["status"] != "succeeded":
            self.session.say(end_line(run, self.session.now, self.session.look(err=True), self.errors))

    def line(self, line: Text) -> None:
        """Takes a line about what has happened."""

    def note(self, text: str) -> None:
        """Prints a message, without disturbing what is drawn."""
        self.session.say(text)

    async def tick(self) -> None:
        """Draws again and again."""

    def close(self) -> None:
        """Restores the terminal."""


class PlainView(View):
    """Lines, for anything but a terminal: each step when it ends, and the log."""

    def __init__(self, session: Session, logs: bool = True) -> None:
        super().__init__(session)
        self._logs = logs

    def begin(self, run: dict[str, Any]) -> None:
        """Announces the run."""
        self.session.say(run_head(run, self.session.now, self.session.look(err=True), followed=True))
        super().begin(run)

    def log(self, record: dict[str, Any]) -> None:
        """Prints a line of the log."""
        if self._logs:
            self.session.terminal.err(log_line(record, "", False) + "\n")

    def step(self, step: dict[str, Any]) -> None:
        """Prints how a step has ended."""
        if (told := self.told(step)) is not None:
            self.line(step_line(told, self.session.now, self.session.look(err=True)))

    def line(self, line: Text) -> None:
        """Prints what has happened."""
        self.session.say(line)

    def end(self, run: dict[str, Any]) -> None:
        """Reports how it ended."""
        for step in self.siblings.rest():
            self.line(step_line(step, self.session.now, self.session.look(err=True)))
        self.session.say(end_line(run, self.session.now, self.session.look(err=True), self.errors))


class LiveView(View):
    """For a terminal: a live frame of the steps under way, with the log and the ended steps scrolling above it."""

    def __init__(self, session: Session) -> None:
        super().__init__(session)
        terminal = session.terminal
        self._snapshot = Snapshot()
        self._sticky = Sticky(terminal.err, terminal.size, session.look(err=True), tail=True)
        self._tick = 0
        self._printed: set[tuple[str, str | None]] = set()  # ends of steps that have scrolled away

    def begin(self, run: dict[str, Any]) -> None:
        """Announces the run in a line that scrolls with the log."""
        self._snapshot.fold({"kind": "run", "run": run})
        self.session.say(run_head(run, self.session.now, self.session.look(err=True), followed=True))
        super().begin(run)

    def change(self, message: dict[str, Any]) -> None:
        """Takes a change; the next frame shows it."""
        super().change(message)
        self._snapshot.fold(message)

    def log(self, record: dict[str, Any]) -> None:
        """Prints a line of the log above the steps."""
        self._sticky.above(log_line(record, "", False))

    def step(self, step: dict[str, Any]) -> None:
        """Prints how a step has ended above those under way."""
        told = self.told(step)
        if told is None:  # it stays in the frame, folded with those that go on
            return
        kept = self._snapshot.steps.get(self.run["id"], {}).values()
        gone = [step, *(one for one in kept if told.get("group") and _ended_child(one, told))]
        self._printed |= {(one["key"], one["ended_at"]) for one in gone}
        self.line(step_line(told, self.session.now, self._sticky.look(self._tick)))

    def end(self, run: dict[str, Any]) -> None:
        """Draws the last frame and how it ended."""
        self._snapshot.fold({"kind": "run", "run": run})
        self._paint()
        self.close()
        self.session.say(end_line(run, self.session.now, self.session.look(err=True), self.errors))

    def line(self, line: Text) -> None:
        """Prints what has happened above the steps."""
        self._sticky.above(printed(line, self._sticky.look(self._tick)))

    def note(self, text: str) -> None:
        """Prints a message above the steps."""
        self._sticky.above(lines(self.session.for_project(text)))

    async def tick(self) -> None:
        """Draws a frame up to ten times a second."""
        while True:
            begun = time.thread_time()
            self._paint()
            self._tick += 1
            await asyncio.sleep(pause_after(begun))

    def close(self) -> None:
        """Leaves the last frame where it is."""
        self._sticky.close()

    def _paint(self) -> None:
        run_id = self.run["id"]
        kept = self._snapshot.steps.get(run_id, {}).values()
        left = [step for step in kept if (step["key"], step["ended_at"]) not in self._printed]
        steps = [step for step in left if step["kind"] != "value"]
        look = self._sticky.look(self._tick)
        self._sticky.paint(live_steps(self._snapshot.runs[run_id], steps, self.session.now, look))


def last_failed(run: dict[str, Any]) -> int:
    """Returns the last attempt of a run that has failed, 0 where none has."""
    failures: list[dict[str, Any]] = run["failures"]
    return int(failures[-1]["attempt"]) if failures else 0


def _ended_child(step: dict[str, Any], group: dict[str, Any]) -> bool:
    return bool(step["kind"] == "child" and step["name"] == group["name"] and step["status"] != "running")
