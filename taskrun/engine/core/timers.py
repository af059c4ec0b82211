"""The clock's side of the core: one loop that sleeps until the journal's next due moment and fires what is due.

No timer lives in memory: sleeps, timeouts, delays and backoffs are rows with an index on their time, so that a restart loads
nothing and a hundred thousand sleeping runs cost disk alone.
"""

from __future__ import annotations

import asyncio
import logging
import math
from collections.abc import Awaitable, Callable
from typing import Any

from taskrun.engine.core.outbox import RunChanged, StepChanged
from taskrun.model.clock import Clock

logger = logging.getLogger("taskrun.engine.core.timers")
AGAIN = 1.0  # seconds after which what could not be fired is tried again


class Timers:
    """Calls `fire` when something is due; `fire` returns the next due moment, or None.

    Parameters:
        fire: it is also called once the clock was set back, and told whether it was.
    """

    def __init__(self, clock: Clock, fire: Callable[[bool], Awaitable[float | None]]) -> None:
        self._clock = clock
        self._fire = fire
        self._changed = asyncio.Event()
        self._next: float | None = 0.0
        self._latest = -math.inf  # what the clock said when it was looked at last
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begins; what became due while no engine ran fires at once."""
        self._task = asyncio.get_running_loop().create_task(self._run(), name="taskrun-timers")

    async def stop(self) -> None:
        """Ends; what becomes due from now on waits for the next start."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    def at(self, moment: float) -> None:
        """Says that something is due at a moment that the loop may not know of."""
        if self._next is None or moment < self._next:
            self._next = moment
            self._changed.set()

    def follow(self, event: RunChanged | StepChanged) -> None:
        """Keeps the moments of what was written."""
        if isinstance(event, StepChanged):
            moments = [None if event.step.finished else event.step.wake_at]
        else:
            moments = [event.run.wake_at, event.run.deadline]
        for moment in moments:
            if moment is not None:
                self.at(moment)

    async def _run(self) -> None:
        set_back = False
        while True:
            set_back = await self._wait() or set_back
            self._next = None
            try:
                upcoming = await self._fire(set_back)
                set_back = False
            except Exception:  # what is due stays so in the journal
                logger.exception("due sleeps, timeouts and delays could not be fired; they are tried again")
                upcoming = self._clock.now() + AGAIN
            if upcoming is not None:
                self.at(upcoming)

    async def _wait(self) -> bool:
        """Waits for the next due moment, looking at the wall clock anew whenever it wakes; returns whether that was set back.

        One that was ends the wait: what is due next by a clock that was ahead may be a year away.
        """
        while self._latest <= (now := self._clock.now()) and (self._next is None or self._next > now):
            self._latest = now
            self._changed.clear()
            waits: list[asyncio.Future[Any]] = [asyncio.ensure_future(self._changed.wait())]
            if self._next is not None:
                waits.append(asyncio.ensure_future(self._clock.sleep(self._next - self._clock.now())))
            try:
                await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
            finally:
                for wait in waits:
                    wait.cancel()
        set_back = now < self._latest
        self._latest = now
        return set_back
