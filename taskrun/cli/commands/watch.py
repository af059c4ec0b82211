"""`taskrun watch`: runs the project's daemon, which loads new code as soon as it is saved, and shows what it does."""

from __future__ import annotations

import asyncio
import itertools
import time
from collections.abc import AsyncIterator
from contextlib import suppress
from typing import Any

import typer

from taskrun.cli.backend.all_schedules import check_before_start
from taskrun.cli.exit_codes import Code
from taskrun.cli.lazy_imports import Text
from taskrun.cli.sanitize import lines
from taskrun.cli.screens.changes import change_screen, watching_screen
from taskrun.cli.screens.live import Snapshot, Sticky, drawing, pause_after
from taskrun.cli.screens.look import printed
from taskrun.cli.screens.phrases import is_delivered
from taskrun.cli.screens.runs import runs_table
from taskrun.cli.session import Session
from taskrun.daemon.launch import find_holder, launch_attached
from taskrun.daemon.reaper import adopts_orphans, reap_orphans
from taskrun.model.errors import DaemonStopped, TaskrunError
from taskrun.processes.threads import in_thread

app = typer.Typer(rich_markup_mode=None, add_completion=False)
ROWS = 10
KEPT = 4 * ROWS  # runs that are known: some are left out


@app.command()
def watch() -> Any:
    """Run the project's jobs and reload them when their code changes; Ctrl-C ends it.

    Meanwhile it is the project's daemon, also for other terminals. Unfinished runs go on with the next daemon, which is
    started at the end if there was one at the beginning.

    Example: taskrun watch
    """
    return perform


async def perform(session: Session) -> int:
    """Watches until Ctrl-C, or until the daemon is stopped from elsewhere."""
    await check_before_start(session)
    if (held := find_holder(session.config)) is not None:
        session.say(f"taking over from the daemon (pid {held.pid})")
    view = View(session) if session.facts.out_tty and session.facts.cursor else Lines(session)
    try:
        while await _watch_once(session, view):
            pass
    except DaemonStopped:
        view.note("the daemon was stopped from elsewhere; go on: taskrun watch")
    except asyncio.CancelledError:
        view.note("stopping; unfinished runs wait in the journal" if held is None else await _restored(session))
    finally:
        view.close()
    return Code.DONE


async def _restored(session: Session) -> str:
    """Starts a daemon in place of the one that was replaced, so that schedules and runs go on; returns what to say."""
    try:
        backend = await session.connector.daemon(session.config, True)
    except TaskrunError as error:
        return f"stopping; no daemon could be started in place of the one before: {lines(str(error))}"
    await backend.close()
    return "stopping; a daemon goes on with schedules and runs, as before: taskrun daemon status"


async def _watch_once(session: Session, view: Lines) -> bool:
    """Runs one daemon; returns whether it has to be replaced by another, because settings have changed."""
    config = session.config
    launching = asyncio.ensure_future(in_thread(launch_attached, config))
    try:
        attached = await asyncio.shield(launching)
    except asyncio.CancelledError:  # it starts all the same, and would be taken for one that stays
        with suppress(TaskrunError):
            await in_thread((await launching).end)
        raise
    if adopts_orphans():  # as PID 1 of a container
        reap_orphans({attached.process.pid})
    shown = asyncio.ensure_future(_runs(session, view))
    try:
        async with drawing(view.tick()):
            async for item in _changes(session):
                view.tell(item)
                if item["kind"] == "restart":
                    return True
        return False
    finally:
        shown.cancel()
        await asyncio.gather(shown, return_exceptions=True)
        await in_thread(attached.end)


async def _changes(session: Session) -> AsyncIterator[dict[str, Any]]:
    backend = await session.connector.daemon(session.config, False)
    async for item in backend.stream("changes"):
        yield item


async def _runs(session: Session, view: Lines) -> None:
    backend = await session.connector.daemon(session.config, False)
    async for message in backend.stream("watch", limit=KEPT):
        view.change(message)


class Lines:
    """For a pipe: one line for each change of the code, without colour or a table of runs."""

    def __init__(self, session: Session) -> None:
        self.session = session

    def tell(self, item: dict[str, Any]) -> None:
        """Reports a change of the code."""
        look = self.session.look()
        begins = item["kind"] == "watching"
        self.line(watching_screen(item, look) if begins else change_screen(item, self.session.now, look))

    def line(self, text: Text) -> None:
        """Prints lines."""
        self.session.show(text)

    def note(self, text: str) -> None:
        """Prints a message that is not about a change."""
        self.session.say(text)

    def change(self, message: dict[str, Any]) -> None:
        """Takes a change of a run."""

    async def tick(self) -> None:
        """Does nothing: nothing is drawn."""

    def close(self) -> None:
        """Does nothing: nothing was drawn."""


class View(Lines):
    """For a terminal: the log of changes scrolls above a live table of runs."""

    def __init__(self, session: Session) -> None:
        super().__init__(session)
        self._snapshot = Snapshot(KEPT)
        self._sticky = Sticky(session.terminal.out, session.terminal.size, session.look())

    def line(self, text: Text) -> None:
        """Prints lines above the table."""
        self._sticky.above(printed(text, self.session.look()))

    def note(self, text: str) -> None:
        """Prints a message above the table."""
        self.line(Text(self.session.for_project(text)))

    def change(self, message: dict[str, Any]) -> None:
        """Takes a change of a run; the next frame shows it."""
        self._snapshot.fold(message)

    async def tick(self) -> None:
        """Draws the table up to ten times a second."""
        for count in itertools.count():
            begun = time.thread_time()
            runs = [run for run in self._snapshot.newest() if not is_delivered(run)][:ROWS]
            frame = runs_table(runs, self.session.now, self._sticky.look(count)) if runs else Text()
            self._sticky.paint(frame)
            await asyncio.sleep(pause_after(begun))

    def close(self) -> None:
        """Leaves the last frame where it is."""
        self._sticky.close()
