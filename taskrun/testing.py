"""Virtual time for tests of jobs: `TestQueue`.

Time stands still until `advance`, which passes every timer on its way, in order, and lets everything that follows from one
happen before the next. It moves the queue's own clock alone: sleeps, backoffs, timeouts, schedules. What a handler awaits
besides (`asyncio.sleep`, a socket) takes its real time.
"""

from __future__ import annotations

import asyncio
import heapq
import itertools
from collections.abc import Callable
from datetime import UTC, datetime, timedelta, tzinfo
from typing import Any
from zoneinfo import ZoneInfo

from taskrun.engine.api.queue import Queue
from taskrun.model.durations import seconds

QUIET = 30  # turns of the event loop without any activity after which nothing more follows by itself


class VirtualAlarm:
    """A call that is still to come."""

    __slots__ = ("call",)

    def __init__(self, call: Callable[[], None] | None) -> None:
        self.call = call

    def cancel(self) -> None:
        """Takes it back."""
        self.call = None


class VirtualClock:
    """A clock that a test moves.

    Parameters:
        start: Unix seconds that it shows first.
    """

    def __init__(self, start: float) -> None:
        self.time = start
        self._alarms: list[tuple[float, int, VirtualAlarm]] = []
        self._count = itertools.count()

    def now(self) -> float:
        """Returns the virtual time in Unix seconds."""
        return self.time

    async def sleep(self, seconds: float) -> None:
        """Waits until the clock was moved by `seconds`."""
        over = asyncio.Event()
        alarm = self.alarm(seconds, over.set)
        try:
            await over.wait()
        finally:
            alarm.cancel()

    def alarm(self, seconds: float, call: Callable[[], Any]) -> VirtualAlarm:
        """Calls `call` when the clock was moved by `seconds`."""
        alarm = VirtualAlarm(call)
        heapq.heappush(self._alarms, (self.time + max(0.0, seconds), next(self._count), alarm))
        return alarm

    def next(self) -> float | None:
        """Returns when the next alarm is."""
        while self._alarms and self._alarms[0][2].call is None:
            heapq.heappop(self._alarms)
        return self._alarms[0][0] if self._alarms else None

    def ring(self, until: float) -> bool:
        """Moves to the next alarm at or before `until` and calls it; returns False when there is none."""
        moment = self.next()
        if moment is None or moment > until:
            return False
        self.time = max(self.time, moment)
        call = heapq.heappop(self._alarms)[2].call
        if call is not None:
            call()
        return True


class TestQueue(Queue):
    """A `Queue` on virtual time.

    Parameters:
        start: the moment that it begins at, aware, or Unix seconds.
        timezone: the zone of naive moments and of schedules without one.
        replay: takes a handler down at every wait and replays it, so that a test shows what does not survive that.
        options: as for `Queue`.
    """

    __test__ = False  # pytest would take it for a test
    _heartbeat = False

    def __init__(
        self,
        *args: Any,
        start: datetime | float | None = None,
        timezone: str = "UTC",
        replay: bool = False,
        **options: Any,
    ) -> None:
        if replay:
            options["resident"] = 0
        self.timezone: tzinfo = ZoneInfo(timezone)
        self._zone = timezone
        self.clock = VirtualClock(_moment(start, self.timezone))
        super().__init__(*args, **options, clock=self.clock)  # type: ignore[misc]  # `clock` is the ninth

    @property
    def now(self) -> datetime:
        """The virtual time."""
        return datetime.fromtimestamp(self.clock.now(), self.timezone)

    async def advance(self, duration: float | str | timedelta) -> None:
        """Moves time, firing every timer on the way, in order; returns when all that follows has happened."""
        target = self.clock.now() + seconds(duration)
        self.core.files.look()
        await self.settle()
        while self.clock.ring(target):
            await self.settle()
        self.clock.time = max(self.clock.time, target)
        await self.settle()

    async def settle(self) -> None:
        """Waits until nothing more happens by itself: the journal is quiet, and handlers wait for time or have ended."""
        quiet, last = 0, self._activity()
        while quiet < QUIET:
            if self.core.journal.has_deferred:
                await self.core.journal.flush()
            busy = self.core.journal.pending > 0 or self.executor.bodies.threads > 0 or self.core.files.busy
            await asyncio.sleep(0.001 if busy else 0)
            current = self._activity()
            moving = any(context.replay.moving for context in self.executor.contexts.values())
            quiet = 0 if busy or moving or current != last else quiet + 1
            last = current

    async def close(self, grace: float | str | timedelta | None = 0) -> None:
        """Ends at once: there is no time to wait in."""
        await super().close(grace)

    def _activity(self) -> tuple[int, ...]:
        contexts = self.executor.contexts
        replayed = sum(context.replay.moves for context in contexts.values())
        return (self.core.journal.commits, self.executor.bodies.started, len(contexts), replayed)


def _moment(start: datetime | float | None, zone: tzinfo) -> float:
    if start is None:
        return datetime(2026, 1, 1, tzinfo=UTC).timestamp()
    if isinstance(start, datetime):
        return (start if start.tzinfo is not None else start.replace(tzinfo=zone)).timestamp()
    return float(start)
