"""Schedules: cron slots of jobs and of `taskrun.toml`, each of which starts one run, however many engines there are.

A schedule is a fact in the journal that holds its last slot, written in the transaction of the slot's trigger: whoever comes
second finds the slot used; what is decided about each is in `schedule_due`. Part of the core, whose timers call `fire`.
"""

from __future__ import annotations

import asyncio
import logging
import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial
from hashlib import blake2b
from heapq import heappop, heappush
from typing import Any

import msgspec

from taskrun.engine import messages as m
from taskrun.engine.core import refusals
from taskrun.engine.core.executors import Executors
from taskrun.engine.core.fact_kind import SCHEDULE
from taskrun.engine.core.journal import Journal
from taskrun.engine.core.schedule_due import Entry, use
from taskrun.engine.core.schedule_kept import SCHEDULES, Kept, schedule_views
from taskrun.engine.core.tables import wanted_by_others
from taskrun.engine.core.transaction import Transaction
from taskrun.model.clock import Clock
from taskrun.model.codec import message_of
from taskrun.model.errors import DefinitionError, InputInvalid, JobNotFound, TaskrunError
from taskrun.rules.cron import CronRule
from taskrun.rules.policies import Prepared

logger = logging.getLogger("taskrun.engine.core.schedules")
CODE, FILE = "code", "file"  # origins: `@job(cron=…)`, `[[schedule]]`
AGAIN = 1.0  # seconds until a slot that could not be used is tried again
PLANNED = 60.0  # seconds after which all are planned anew


@dataclass(slots=True)
class Active:
    """A schedule that this engine looks after."""

    entry: Entry
    rule: CronRule
    kept: Kept | None = None  # until the journal has it
    busy: bool = False  # its slot is being fired
    pause: float = 0.0  # not to be tried again before this moment
    due: float = math.inf  # when it fires, as last planned

    def next(self, now: float) -> float:
        """Returns when it fires next; at once, if the clock was ahead when it fired last."""
        if self.busy or self.kept is None:
            return math.inf
        slot = now if self.kept.seen > now else self.kept.upcoming(self.rule, self.kept.seen)
        return max(slot, min(self.pause, now + AGAIN))


class Schedules:
    """The schedules of one engine.

    Parameters:
        timezone: of those that name none; the machine's own by default.
        wake: called with the moment of a slot that the timers may not know of.
    """

    def __init__(
        self,
        journal: Journal,
        executors: Executors,
        clock: Clock,
        timezone: str | None,
        wake: Callable[[float], None],
    ) -> None:
        self.open = False  # whether slots are fired
        self._journal = journal
        self._executors = executors
        self._clock = clock
        self._timezone = timezone
        self._wake = wake
        self._active: dict[str, Active] = {}
        self._moments: list[tuple[float, str]] = []  # a heap of what was planned; what is no longer so is passed over
        self._planned = self._latest = -math.inf  # when all were planned, and when it was looked at last
        self._tasks: set[asyncio.Task[None]] = set()

    async def join(self, description: m.Description) -> None:
        """Takes on the schedules of an executor's jobs; those that they had before and have no longer are dropped."""
        entries = [msgspec.convert(cron, Entry) for cron in description.crons]
        await self._take(CODE, entries, jobs=description.names)
        self._plan_all(self._clock.now())
        self._wake(self.next() or math.inf)  # those of the configuration have waited for their jobs

    async def set(self, entries: Iterable[Entry], owner: str = "") -> None:
        """Takes on the schedules of the configuration, in place of those that it had before.

        Parameters:
            owner: which configuration it is, of those that use the journal.

        Raises:
            DefinitionError: an expression or a time zone is wrong; names the job and the field. Nothing changes then.
        """
        await self._take(FILE, list(entries), owner=owner)

    async def views(self) -> list[dict[str, Any]]:
        """Returns all schedules of the journal, as `taskrun schedule --json` does."""
        now = self._clock.now()
        return await self._journal.do(lambda t: schedule_views(t.tx, now))

    async def close(self) -> None:
        """Stops firing slots."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def next(self) -> float | None:
        """Returns the moment of the next slot; None while none is fired."""
        if not self.open:
            return None
        self._look(self._clock.now())
        while self._moments and not self._is_planned(*self._moments[0]):
            heappop(self._moments)
        return self._moments[0][0] if self._moments else None

    def fire(self) -> None:
        """Starts what is due."""
        now = self._clock.now()
        self._look(now)
        while self.open and self._moments and self._moments[0][0] <= now:
            moment, key = heappop(self._moments)
            if self._is_planned(moment, key):
                active = self._active[key]
                active.busy, active.due = True, math.inf
                task = asyncio.get_running_loop().create_task(self._fire(key, active))
                self._tasks.add(task)
                task.add_done_callback(self._tasks.discard)

    # ---- the plan

    def _plan(self, key: str, now: float) -> float:
        """Works out when a schedule fires next, and returns it."""
        active = self._active[key]
        active.due = active.next(now)
        if active.due < math.inf:
            heappush(self._moments, (active.due, key))
        return active.due

    def _plan_all(self, now: float) -> None:
        self._moments.clear()
        self._planned = now
        for key in self._active:
            self._plan(key, now)

    def _look(self, now: float) -> None:
        """Plans anew once in a while, since the machine's zone may be another, and whenever the clock was set back."""
        if now < self._latest or now - self._planned >= PLANNED:
            self._plan_all(now)
        self._latest = now

    def _is_planned(self, moment: float, key: str) -> bool:
        """Whether a schedule is still to be fired then. One without an executor that has its job waits until one joins."""
        active = self._active.get(key)
        return active is not None and active.due == moment and self._executors.with_job(active.entry.job) is not None

    # ---- inside

    async def _take(
        self, origin: str, entries: list[Entry], jobs: frozenset[str] | None = None, owner: str | None = None
    ) -> None:
        wanted = {_key(origin, entry): Active(entry, self._rule(entry)) for entry in entries}

        def committed(kept: dict[str, Kept]) -> None:
            stale = [
                key
                for key, active in self._active.items()
                if key not in wanted and key.startswith(f"{origin}:") and (jobs is None or active.entry.job in jobs)
            ]
            for key in stale:
                del self._active[key]
            for key, active in wanted.items():
                known = self._active.setdefault(key, active)
                known.entry, known.kept = active.entry, kept[key]
                self._wake(self._plan(key, self._clock.now()))

        act = partial(_keep, origin=origin, wanted=wanted, jobs=jobs, owner=owner)
        await self._journal.do(act, committed)  # in the order of the journal

    def _rule(self, entry: Entry) -> CronRule:
        try:
            return CronRule(entry.cron, entry.timezone or self._timezone)
        except DefinitionError as error:
            raise DefinitionError(f"schedule of {entry.job}: {error}") from None

    async def _fire(self, key: str, active: Active) -> None:
        entry, more = active.entry, True
        try:
            while more:
                prepared = await self._prepared(entry)
                act = partial(use, schedule=key, entry=entry, rule=active.rule, prepared=prepared)
                active.kept, more = await self._journal.do(act)
        except Exception as error:  # the slot is still to be used
            active.pause = self._clock.now() + AGAIN
            if isinstance(error, TaskrunError):  # such as the death of a worker, or a lost lease
                logger.warning("the schedule %s could not start %s yet: %s", entry.cron, entry.job, error)
            else:
                logger.exception("the schedule %s could not start %s yet", entry.cron, entry.job)
        finally:
            active.busy = False
        if self._active.get(key) is active:
            self._wake(self._plan(key, self._clock.now()))

    async def _prepared(self, entry: Entry) -> Prepared | str:
        """Asks the job's executor; returns why that refuses, which uses the slot up."""
        peer = self._executors.with_job(entry.job)
        if peer is None:
            raise JobNotFound(f'no job "{entry.job}"')
        try:
            prepared: Prepared = await peer.ask(m.Prepare(job=entry.job, input=entry.input))
            return prepared
        except (InputInvalid, DefinitionError) as error:
            logger.exception("the schedule %s could not start %s", entry.cron, entry.job)
            return message_of(error)


def _keep(
    t: Transaction, origin: str, wanted: dict[str, Active], jobs: frozenset[str] | None, owner: str | None = None
) -> dict[str, Kept]:
    """Writes down new schedules, whose slots begin now, and forgets those that are gone."""
    known = SCHEDULES.all(t.tx, f"{origin}:")
    left = wanted.keys() | (frozenset() if owner is None else wanted_by_others(t, "schedules", owner, wanted))
    for key, kept in known.items():
        if key not in left and (jobs is None or kept.job in jobs):
            SCHEDULES.drop(t.tx, key)
            refusals.forget(t, kept.job, f"{SCHEDULE}{kept.cron}")
    for key, active in wanted.items():
        if key in known:
            continue
        if (now := SCHEDULES.get(t.tx, key)) is None:  # else another engine was faster, and may have used a slot
            entry, zone = active.entry, active.rule.timezone
            begun = (t.now, t.now)
            now = Kept(job=entry.job, cron=entry.cron, timezone=zone, seen=t.now, used=(begun,))
            SCHEDULES.put(t.tx, key, now)
        known[key] = now
    return known


def _key(origin: str, entry: Entry) -> str:
    digest = blake2b(msgspec.json.encode((entry.cron, entry.timezone, entry.input)), digest_size=6).hexdigest()
    return f"{origin}:{entry.job}:{digest}"
