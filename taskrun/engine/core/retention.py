"""Removes what is too old, in small batches: ended runs with their steps and logs, events, small facts.

Nothing goes that a run which has not ended may still read: its children, and the events since it was triggered.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Collection, Iterable
from functools import partial

from msgspec.structs import replace

from taskrun.engine.core.admit import new_id
from taskrun.engine.core.fact_kind import REFUSALS
from taskrun.engine.core.facts import (
    BURSTS,
    FAILING,
    INTENTS,
    JOBS,
    NEWS,
    ROUTES,
    STARTS,
    SUBSCRIBED,
    SUBSCRIPTIONS,
    THROTTLES,
)
from taskrun.engine.core.journal import Journal
from taskrun.engine.core.schedule_kept import SLOTS, moment_of
from taskrun.engine.core.transaction import Transaction
from taskrun.model.clock import Clock
from taskrun.model.errors import EngineLost, JournalUnavailable
from taskrun.model.records import ENDED, Run, RunFilter
from taskrun.stores.base import Tx

logger = logging.getLogger("taskrun.engine.retention")
BATCH = 200  # runs that one transaction removes, so that other entries do not wait long
EVERY = 600.0  # seconds between two looks
MOST_SLOTS = 1_000  # that are kept of a job
FORGET = 30 * 86_400.0  # seconds that events and small facts are kept where runs are kept for ever


class Retention:
    """Prunes the journal of one engine.

    Parameters:
        keep: seconds that an ended run is kept, None for ever.
    """

    def __init__(self, journal: Journal, clock: Clock, keep: float | None) -> None:
        self._journal = journal
        self._clock = clock
        self._keep = keep

    async def run(self) -> None:
        """Prunes now and then, until cancelled."""
        checked = False
        while True:
            try:
                if not checked:
                    await self._drop_intents(None)
                    checked = True
                if self._keep is not None:
                    await self.prune(self._keep)
                else:
                    await self._journal.do(lambda t: _drop_leftovers(t, t.now - FORGET))
            except (EngineLost, JournalUnavailable):
                pass  # the core handles that
            except Exception:  # the next try may succeed
                logger.exception("old runs and events could not be removed")
            due = self._clock.now() + EVERY
            while (left := due - self._clock.now()) > 0:
                await self._clock.sleep(left)

    async def prune(self, keep: float, dry_run: bool = False) -> list[str]:
        """Removes the runs that ended more than `keep` seconds ago; returns their ids.

        Parameters:
            dry_run: only say which they are.
        """
        before = self._clock.now() - keep
        if dry_run:
            return await self._journal.read(partial(_prunable, before=before))
        gone: list[str] = []
        page: RunFilter | None = _old(before, BATCH)
        while page is not None:
            dropped, page = await self._journal.do(partial(_drop, page=page))
            gone += dropped
        await self._drop_intents(frozenset(gone))
        await self._journal.do(lambda t: _drop_leftovers(t, before))
        return gone

    async def _drop_intents(self, gone: Collection[str] | None) -> None:
        """Drops the requests of clients whose runs are gone.

        Parameters:
            gone: those runs; None to look for each run, as after a death between a run's removal and that of its request.
        """
        intents = await self._journal.read(INTENTS.all)
        found = [(intent, run) for intent, run in intents.items() if gone is None or run in gone]
        for first in range(0, len(found), BATCH):
            await self._journal.do(partial(_drop_those_without_a_run, intents=found[first : first + BATCH]))


def _drop_those_without_a_run(t: Transaction, intents: Iterable[tuple[str, str]]) -> None:
    for intent, run in intents:
        if t.tx.run(run) is None:
            INTENTS.drop(t.tx, intent)


def _old(before: float, limit: int | None) -> RunFilter:
    return RunFilter(statuses=tuple(sorted(ENDED)), until=before, limit=limit)


def _prunable(tx: Tx, before: float) -> list[str]:
    return [run.id for run in tx.runs(_old(before, None)) if _is_done_with(tx, run)]


def _drop(t: Transaction, page: RunFilter) -> tuple[list[str], RunFilter | None]:
    """Drops those of a page that nobody needs; returns them, and the next page."""
    found = t.tx.runs(page)
    ids = [run.id for run in found if _is_done_with(t.tx, run)]
    t.tx.drop_runs(ids)
    return ids, replace(page, before=found[-1].seq) if found else None


def _is_done_with(tx: Tx, run: Run) -> bool:
    """Whether no parent may still ask for a run."""
    parent = None if run.parent is None else tx.run(run.parent)
    return parent is None or parent.ended


def _drop_leftovers(t: Transaction, before: float) -> None:
    """Drops old events, and the small facts that are over or whose owner is gone."""
    oldest = t.tx.oldest()
    t.tx.drop_events(before if oldest is None else min(before, oldest))
    for run_id in NEWS.all(t.tx):
        if t.tx.run(run_id) is None:
            NEWS.drop(t.tx, run_id)
    for id, burst in BURSTS.all(t.tx).items():
        if max(burst.since or 0.0, burst.leading_until or 0.0) < before and t.tx.run_by_debounce(id) is None:
            BURSTS.drop(t.tx, id)
    for id, last in THROTTLES.all(t.tx).items():
        if max([last.at, *last.others]) + last.period < min(before, t.now):
            THROTTLES.drop(t.tx, id)
    for id, starts in STARTS.all(t.tx).items():
        if max(starts.at, default=0.0) + starts.period < min(before, t.now):
            STARTS.drop(t.tx, id)
    had = {job for jobs in JOBS.all(t.tx).values() for job in jobs}.union(t.state.jobs)
    for job, subscription in SUBSCRIPTIONS.all(t.tx).items():
        if job not in had and subscription.at < before:
            SUBSCRIPTIONS.drop(t.tx, job)
            SUBSCRIBED.put(t.tx, "", new_id())
    for what, since in FAILING.all(t.tx).items():
        if what.split(":", 1)[0] not in had and since < before:
            FAILING.drop(t.tx, what)
    for trigger, refusal in REFUSALS.all(t.tx).items():
        if refusal.at < before:
            REFUSALS.drop(t.tx, trigger)
    _drop_slots(t, before)
    for note, event in ROUTES.all(t.tx).items():
        if note.split(":", 1)[0] not in had and event.at < before:
            ROUTES.drop(t.tx, note)


def _drop_slots(t: Transaction, before: float) -> None:
    """Drops slots of schedules that are old and whose runs are gone, and those over a job's number, the oldest first."""
    seen = Counter[str]()
    for id, slot in reversed(SLOTS.all(t.tx).items()):
        job = id.split(":")[0]
        seen[job] += 1
        old = moment_of(id) < before and (slot.run is None or t.tx.run(slot.run) is None)
        if old or seen[job] > MOST_SLOTS:
            SLOTS.drop(t.tx, id)
