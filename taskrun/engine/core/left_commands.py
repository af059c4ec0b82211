"""Ends the commands that survive, and removes their files, where nobody will adopt them: nothing outlives its run.

That is where the run has ended or is gone, and where an engine of another machine has it, which has begun the command anew.
"""

from __future__ import annotations

import asyncio
import logging
import socket
from functools import partial
from pathlib import Path

from taskrun.engine.core.journal import Journal
from taskrun.engine.core.outbox import RunOver
from taskrun.model.errors import EngineLost, JournalUnavailable
from taskrun.processes.surviving_command import UnderWay, end_command, files_of, run_of, under_way
from taskrun.stores.base import Tx

logger = logging.getLogger("taskrun.engine.commands")
EVERY = 5.0  # seconds between two looks for what nobody has told of


class LeftCommands:
    """The commands of a journal.

    Parameters:
        journal_path: their files are beside it; where it has none, there are no such commands.
        grace: seconds that they get to end.
    """

    def __init__(self, journal: Journal, journal_path: str | None, grace: float) -> None:
        self.folder = None if journal_path is None else Path(f"{journal_path}.commands")
        self._journal = journal
        self._grace = grace
        self._ending: set[asyncio.Task[None]] = set()
        journal.follow(RunOver, lambda event: self._end(event.run.id))

    async def run(self) -> None:
        """Looks at the start and now and then, until cancelled."""
        while True:
            try:
                await self.look()
            except (EngineLost, JournalUnavailable):
                pass  # the core sees to that
            except Exception:
                logger.exception("what is left of commands could not be removed")
            await asyncio.sleep(EVERY)

    async def look(self) -> None:
        """Ends the commands that nobody here will adopt."""
        for run_id in {run_of(path) for path in files_of(self.folder)} if self.folder is not None else ():
            if await self._journal.read(partial(_is_lost, run_id=run_id)):
                self._end(run_id)

    def under_way(self, run_id: str) -> dict[str, UnderWay]:
        """Returns the commands of a run that are alive, by their steps."""
        return {} if self.folder is None else {one.step: one for one in under_way(self.folder, run_id)}

    async def close(self) -> None:
        """Waits until those are gone that are being ended."""
        if self._ending:
            await asyncio.wait(self._ending)

    def _end(self, run_id: str) -> None:
        if self.folder is None or not (files := files_of(self.folder, run_id)):
            return
        task = asyncio.get_running_loop().create_task(self._end_all(files))
        self._ending.add(task)
        task.add_done_callback(self._ending.discard)

    async def _end_all(self, files: list[Path]) -> None:
        ends = await asyncio.gather(*(end_command(path, self._grace) for path in files), return_exceptions=True)
        for error in ends:
            if isinstance(error, BaseException):
                logger.error("a command could not be ended", exc_info=error)


def _is_lost(tx: Tx, run_id: str) -> bool:
    """Whether nobody on this machine will go on with a run."""
    run = tx.run(run_id)
    if run is None or run.ended:
        return True
    engine = None if run.engine is None else tx.engine(run.engine)
    return engine is not None and engine.host != socket.gethostname()
