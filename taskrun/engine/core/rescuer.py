"""The rescuer: checks periodically for runs that stand still but should not, heals them, and logs each as a fault of taskrun.

Nothing depends on it: each of its findings means that another mechanism has failed.
"""

from __future__ import annotations

import logging
from typing import NamedTuple

from taskrun.engine.core import dependents, run_lifecycle, run_queue, waits
from taskrun.engine.core.attempts import Attempts
from taskrun.engine.core.claims import Claims
from taskrun.engine.core.fact_kind import Fact
from taskrun.engine.core.journal import Journal
from taskrun.engine.core.transaction import Transaction
from taskrun.model.clock import Clock
from taskrun.model.errors import EngineLost, JournalUnavailable
from taskrun.model.records import Cause, Run, RunFilter, Status

logger = logging.getLogger("taskrun.engine.rescuer")
EVERY = 5.0  # seconds between two looks
PAGE = 200  # waiting runs that one look goes through

LOOKED: Fact[float] = Fact("rescuer:", float)  # when an engine looked last; there is one for ever


class Finding(NamedTuple):
    """A run that stood still."""

    run: str
    what: str


class Rescuer:
    """Looks after one engine."""

    def __init__(self, journal: Journal, claims: Claims, attempts: Attempts, clock: Clock) -> None:
        self.found = 0  # how many it has healed
        self._journal = journal
        self._claims = claims
        self._attempts = attempts
        self._clock = clock
        self._before: int | None = None  # where among the waiting runs the next look begins

    async def run(self) -> None:
        """Looks now and then, until cancelled."""
        while True:
            await self._clock.sleep(EVERY)
            try:
                await self.look()
            except (EngineLost, JournalUnavailable):  # it begins again, or the disk refuses
                continue
            except Exception:  # the next look may succeed
                logger.exception("the check for runs that stand still failed")

    async def look(self) -> list[Finding]:
        """Heals what stands still; returns it."""
        # Not by a read, which would not wait for a commit whose outcome is unknown.
        executing = await self._journal.do(lambda t: t.tx.executing(t.engine))
        # While a claim is under way, a run may be `running` before its attempt exists; no claim can begin before the next entry.
        lost = [] if self._claims.under_way else [run for run in executing if self._attempts.get(run) is None]
        alive = frozenset(attempt.run for attempt in self._attempts.all())  # they wait for more than the journal knows
        found = await self._journal.do(lambda t: self._heal(t, lost, alive))
        for finding in found:
            logger.error("run %s stood still and goes on: %s (a fault of taskrun: please report it)", *finding)
        self.found += len(found)
        self._claims.look_again()
        return found

    def _heal(self, t: Transaction, lost: list[str], alive: frozenset[str]) -> list[Finding]:
        found = []
        for run_id in lost:
            run = t.mine(run_id)
            if run is not None and run.status is Status.RUNNING:
                run_lifecycle.let_go(t, [run_id], blame=False)
                found.append(Finding(run_id, "it was running without an attempt"))
        if not self._has_turn(t):
            return found
        page = t.tx.runs(RunFilter(statuses=(Status.WAITING, Status.SCHEDULED), before=self._before, limit=PAGE))
        self._before = page[-1].seq if len(page) == PAGE else None
        still = (run for run in t.each(page) if run.id not in alive)
        found += [finding for run in still if (finding := self._heal_waiting(t, run)) is not None]
        forgotten = run_queue.offer_forgotten(t)
        found += [Finding(run.id, "it was blocked in a queue that nobody served") for run in forgotten]
        return found

    def _has_turn(self, t: Transaction) -> bool:
        """Whether no other machine has just looked: a thousand of them are not to read the same runs."""
        if self._journal.store.clock is None:
            return True
        last = LOOKED.get(t.tx, "")
        if last is not None and 0 <= t.now - last < EVERY:
            return False
        LOOKED.put(t.tx, "", t.now)
        return True

    def _heal_waiting(self, t: Transaction, run: Run) -> Finding | None:
        if run.engine not in (None, t.engine):
            return None
        for step in t.tx.open_steps(run.id):
            if step.topic is not None and step.topic.startswith("run:"):
                awaited = t.run(step.topic.removeprefix("run:"))
                if awaited is None or awaited.ended:
                    t.deliver(waits.ended(t, step, awaited))
                    return Finding(run.id, f'the run that its step "{step.key}" waits for has ended')
        if run.cause is Cause.AFTER and (hopeless := dependents.mend(t, run)) is not None:
            for one in hopeless:
                run_lifecycle.end(t, one.id, Status.CANCELLED, cause=Cause.DEPENDENCY)
            return Finding(run.id, "a run that it starts after has ended")
        if not run_lifecycle.waits_for_nothing(t, run):
            return None
        t.wake(run.id)
        return Finding(run.id, "it was waiting for nothing")
