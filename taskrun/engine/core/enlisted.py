"""Triggers written in a transaction of the caller's own: notes, of which an engine makes runs once they are committed."""

from __future__ import annotations

import asyncio
import logging
from functools import partial

import msgspec

from taskrun.engine.core.admit import Trigger, admit
from taskrun.engine.core.fact_kind import Fact
from taskrun.engine.core.facts import INTENTS
from taskrun.engine.core.journal import Journal
from taskrun.engine.core.outbox import TriggerFound
from taskrun.engine.core.transaction import Transaction
from taskrun.model.errors import EngineLost, JournalUnavailable
from taskrun.model.records import Run
from taskrun.stores.base import Tx

logger = logging.getLogger("taskrun.engine.enlisted")
MOST = 50  # that are admitted in one transaction, since each takes locks

# By the id of the run that it is to become: whoever admits it removes it in the same transaction.
ENLISTED: Fact[Trigger] = Fact("enlisted:", Trigger)


def note(trigger: Trigger) -> tuple[str, str]:
    """Returns the fact that a trigger is until it is admitted: key and value. A known key or burst finds another run."""
    kept = msgspec.structs.replace(trigger, intent=trigger.id)
    return ENLISTED.key(trigger.id), msgspec.json.encode(kept).decode()


def found(tx: Tx, run_id: str) -> Run | None:
    """Returns the run of an id: that of a note too, as it will begin, or the one that its trigger has found."""
    run = tx.run(run_id)
    if run is None and (trigger := ENLISTED.get(tx, run_id)) is not None:
        prepared = trigger.prepared
        return Run(id=run_id, job=prepared.job, created_at=0.0, source=trigger.source, input=prepared.input)
    if run is None and (other := INTENTS.get(tx, run_id)) is not None:
        return tx.run(other)
    return run


class EnlistedTriggers:
    """Admits what was committed, each note by itself: one that cannot be admitted holds up no other."""

    def __init__(self, journal: Journal) -> None:
        self._journal = journal
        self._refused: set[str] = set()

    def look(self) -> None:
        """Looks for notes, and admits them."""
        self._journal.read(_noted, self._admit_all).add_done_callback(_seen)

    def _admit_all(self, noted: list[str]) -> None:
        new = [run_id for run_id in noted if run_id not in self._refused]
        for run_id in new[:MOST]:
            self._journal.do(partial(_admit, run_id=run_id)).add_done_callback(partial(self._settled, run_id))
        if len(new) > MOST:
            self.look()

    def _settled(self, run_id: str, admitted: asyncio.Future[None]) -> None:
        error = None if admitted.cancelled() else admitted.exception()
        if error is None or isinstance(error, EngineLost | JournalUnavailable):  # the latter: it is looked at again
            return
        if run_id in self._refused:  # it was looked at twice at once
            return
        self._refused.add(run_id)
        logger.error("the trigger of run %s, written in a transaction, cannot be admitted", run_id, exc_info=error)


def _noted(tx: Tx) -> list[str]:
    return [key.removeprefix(ENLISTED.prefix) for key in tx.facts(ENLISTED.prefix)]


def _admit(t: Transaction, run_id: str) -> None:
    trigger = ENLISTED.get(t.tx, run_id)
    if trigger is not None:  # else another engine was faster
        ENLISTED.drop(t.tx, run_id)
        run = admit(t, trigger)
        if run.id != run_id:
            t.outbox.append(TriggerFound(run_id, run))


def _seen(reading: asyncio.Future[list[str]]) -> None:
    """What could not be read now is read at the next nudge."""
    if not reading.cancelled():
        reading.exception()
