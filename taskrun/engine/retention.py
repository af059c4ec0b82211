"""Removes ended runs that are older than they are to be kept, with their steps and logs, a few at a time."""

from __future__ import annotations

from taskrun.engine.ledgers import Ledgers
from taskrun.stores.base import Tx
from taskrun.words.clock import Clock
from taskrun.words.records import ENDED, RunFilter

BATCH = 200  # runs of one transaction, so that nobody waits long for the next
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
            await self.prune(self._keep)
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
            return [run.id for run in await journal.write(lambda tx: tx.runs(_old(before, None)))]
        gone: list[str] = []
        while batch := await journal.write(lambda tx: _drop(tx, before)):
            gone += batch
        await journal.write(lambda tx: _drop_leftovers(tx, before))
        return gone


def _old(before: float, limit: int | None) -> RunFilter:
    return RunFilter(statuses=tuple(sorted(ENDED)), until=before, limit=limit)


def _drop(tx: Tx, before: float) -> list[str]:
    ids = [run.id for run in tx.runs(_old(before, BATCH))]
    tx.drop_runs(ids)
    return ids


def _drop_leftovers(tx: Tx, before: float) -> None:
    """Drops old events, and the intents of runs that are gone."""
    tx.drop_events(before)
    for key, run_id in tx.facts("intent:").items():
        if tx.run(run_id) is None:
            tx.put(key, None)
