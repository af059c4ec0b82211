"""Starts a run of the job `notify` for each way of each notice, and removes the notice in the same transaction.

So a crash between the event and its runs loses and doubles nothing. What becomes of the runs is their own affair: they are
retried like any others, and one that fails is told to nobody. Part of the core, whose timers call `fire`.
"""

from __future__ import annotations

import asyncio
import logging
import math
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import msgspec

from taskrun.engine import messages as m
from taskrun.engine.core import notices
from taskrun.engine.core.admit import Trigger, admit, new_id
from taskrun.engine.core.executors import Executors
from taskrun.engine.core.facts import LIMITS, NOTICES, Notice
from taskrun.engine.core.journal import Journal
from taskrun.engine.core.outbox import NoticeWritten
from taskrun.engine.core.schedule_watch import SlotWatch
from taskrun.engine.core.transaction import Transaction
from taskrun.model.clock import Clock
from taskrun.model.errors import DaemonError, EngineLost, JournalUnavailable, TaskrunError
from taskrun.model.names import NOTIFY
from taskrun.model.notify_config import NotifyTable, Way
from taskrun.rules.policies import Prepared
from taskrun.stores.base import Tx

logger = logging.getLogger("taskrun.engine.notify_runs")


class NotifyRuns:
    """Tells people what happens to runs, by the tables that it was given.

    Parameters:
        wake: called with a moment that the timers may not know of.
    """

    def __init__(self, journal: Journal, executors: Executors, clock: Clock, wake: Callable[[float], None]) -> None:
        self.open = False  # whether runs are started
        self._journal = journal
        self._executors = executors
        self._clock = clock
        self._wake = wake
        self._waiting: dict[str, float] = {}  # notices, and from when on they are told
        self._under_way: dict[str, asyncio.Task[None]] = {}
        journal.follow(NoticeWritten, lambda event: self._add(event.id, event.ready))
        self._watch = SlotWatch(journal, clock, wake)

    def set(self, tables: Sequence[NotifyTable]) -> None:
        """Takes on the tables of the configuration, in place of those before."""
        self._journal.state.notify = tuple(tables)
        self._journal.state.observer = notices.observe if tables else None

    async def join(self, description: m.Description) -> None:
        """Tells what was left untold, once an executor can."""
        await self._journal.read(_found, self._learn)

    def look(self) -> None:
        """Looks for what another engine has written."""
        self._journal.read(_found, self._learn).add_done_callback(_seen)

    async def close(self) -> None:
        """Leaves the rest to the next start."""
        self.open = False
        tasks = [*self._under_way.values(), *filter(None, [self._watch.looking])]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def next(self) -> float | None:
        """Returns the moment at which there is something to do; None while nothing is done."""
        if not self.open:
            return None
        moment = min(self._watch.next(), *self._waiting.values(), math.inf)
        return None if moment == math.inf else moment

    def fire(self) -> None:
        """Does what is due."""
        now = self._clock.now()
        if not self.open:
            return
        self._watch.fire(now)
        for id in [id for id, ready in self._waiting.items() if ready <= now]:
            del self._waiting[id]
            self._begin(id)

    def _learn(self, found: tuple[dict[str, Notice], list[str]]) -> None:
        untold, watched = found
        self._watch.learn(watched)
        for id, notice in untold.items():
            self._add(id, notice.ready)
        self._wake(self.next() or math.inf)

    def _add(self, id: str, ready: float) -> None:
        if ready > self._clock.now():
            self._waiting[id] = ready
            self._wake(ready)
        else:
            self._begin(id)

    def _begin(self, id: str) -> None:
        """Begins to tell, where there is an executor that can; else it is done when one joins."""
        peer = self._executors.with_job(NOTIFY)
        if peer is not None and id not in self._under_way and self.open:
            self._under_way[id] = asyncio.get_running_loop().create_task(self._tell(peer, id))

    async def _tell(self, peer: m.Peer, id: str) -> None:
        """Starts the runs of a notice, as it is when they are started."""
        try:
            while (notice := await self._journal.read(lambda tx: NOTICES.get(tx, id))) is not None:
                prepared = [await self._prepared(peer, notice, way) for way in notice.ways]
                await self._journal.do(lambda t, n=notice, p=prepared: _start(t, id, n, p))  # type: ignore[misc]
        except (EngineLost, JournalUnavailable):  # it is read again when the engine has begun again, or by the next one
            pass
        except DaemonError as error:  # the executor is gone, or has not answered in time
            logger.warning("%s is told later: %s", id, error)
            self._executors.ask_again(NOTIFY, peer, self._clock, partial(self._begin, id))
        except TaskrunError:
            logger.exception("%s could not be told", id)
        finally:
            self._under_way.pop(id, None)

    async def _prepared(self, peer: m.Peer, notice: Notice, way: Way) -> Prepared:
        message = msgspec.json.encode({**notice.message, "to": way.label, "way": way.target()}).decode()
        prepared: Prepared = await peer.ask(m.Prepare(job=NOTIFY, input=message))
        return prepared


def _start(t: Transaction, id: str, notice: Notice, starts: list[Prepared]) -> None:
    """Starts what tells a notice, unless more has come to it meanwhile."""
    if NOTICES.get(t.tx, id) == notice:
        tags = {name: notice.message[name] for name in ("event", "job", "run") if notice.message[name]}
        for prepared in starts:
            admit(t, Trigger(prepared=prepared, id=new_id(), source=f"notify {tags['event']}", tags=tags))
        NOTICES.drop(t.tx, id)


def _found(tx: Tx) -> tuple[dict[str, Notice], list[str]]:
    return NOTICES.all(tx), [*LIMITS.all(tx)]


def _seen(reading: asyncio.Future[Any]) -> None:
    """What could not be read now is read at the next nudge."""
    if not reading.cancelled():
        reading.exception()
