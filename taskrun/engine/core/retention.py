"""Removes what is older than it is to be kept, a few at a time: ended runs with their steps and logs, events, small facts.

Nothing goes that a run which has not ended may still read: its children, and the events since it was triggered.
"""

from __future__ import annotations

import logging
from functools import partial

import msgspec
from msgspec.structs import replace

from taskrun.engine.core.transactions import Ledgers
from taskrun.model.clock import Clock
from taskrun.model.records import ENDED, Run, RunFilter
from taskrun.rules.admission import BurstFact, debounce_fact
from taskrun.stores.base import Tx

logger = logging.getLogger("taskrun.engine.core.retention")
BATCH = 200  # runs of one transaction, so that nobody waits long for the next
DEBOUNCE = debounce_fact("")
EVERY = 600.0  # seconds between two looks


class Retention:
    """Prunes the journal of one engine.

    Parameters:
        keep: seconds that an ended run is kept, None for ever.
    """

    def __init__(self, ledgers: Ledgers, clock: Clock, keep: float | None) -> None:
        self._ledgers = ledgers
        self._clock = clock
        self._keep = keep

    async def run(self) -> None:
        """Prunes now and then, until cancelled."""
        while self._keep is not None:
            try:
                await self.prune(self._keep)
            except Exception:  # the next time may go well
                logger.exception("old runs could not be removed")
            due = self._clock.now() + EVERY
            while (left := due - self._clock.now()) > 0:
                await self._clock.sleep(left)

    async def prune(self, keep: float, dry_run: bool = False) -> list[str]:
        """Removes the runs that ended more than `keep` seconds ago; returns their ids.

        Parameters:
            dry_run: only say which they are.
        """
        before = self._clock.now() - keep
        journal = self._ledgers.journal
        if dry_run:
            found: list[str] = await journal.write(partial(_prunable, before=before))
            return found
        gone: list[str] = []
        page: RunFilter | None = _old(before, BATCH)
        while page is not None:
            dropped, page = await journal.write(partial(_drop, page=page))
            gone += dropped
        await journal.write(lambda tx: _drop_leftovers(tx, before))
        return gone


def _old(before: float, limit: int | None) -> RunFilter:
    return RunFilter(statuses=tuple(sorted(ENDED)), until=before, limit=limit)


def _prunable(tx: Tx, before: float) -> list[str]:
    return [run.id for run in tx.runs(_old(before, None)) if _is_done_with(tx, run)]


def _drop(tx: Tx, page: RunFilter) -> tuple[list[str], RunFilter | None]:
    """Drops those of a page that nobody needs; returns them, and the next page."""
    found = tx.runs(page)
    ids = [run.id for run in found if _is_done_with(tx, run)]
    tx.drop_runs(ids)
    return ids, replace(page, before=found[-1].seq) if found else None


def _is_done_with(tx: Tx, run: Run) -> bool:
    """Whether no parent may still ask for a run."""
    parent = None if run.parent is None else tx.run(run.parent)
    return parent is None or parent.ended


def _drop_leftovers(tx: Tx, before: float) -> None:
    """Drops old events, the intents of runs that are gone, and what is kept of bursts that are over."""
    oldest = tx.oldest()
    tx.drop_events(before if oldest is None else min(before, oldest))
    for key, run_id in tx.facts("intent:").items():
        if tx.run(run_id) is None:
            tx.put(key, None)
    for key, text in tx.facts(DEBOUNCE).items():
        if _is_over(msgspec.json.decode(text, type=BurstFact), before) and not _holds(tx, key):
            tx.put(key, None)


def _is_over(burst: BurstFact, before: float) -> bool:
    return max(burst.since or 0.0, burst.leading_until or 0.0) < before


def _holds(tx: Tx, key: str) -> bool:
    return tx.run_by_debounce(key.removeprefix(DEBOUNCE)) is not None
