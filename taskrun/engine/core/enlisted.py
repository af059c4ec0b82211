"""Triggers written in a transaction of the caller's own: notes, of which an engine makes runs once they are committed."""

from __future__ import annotations

import msgspec

from taskrun.engine.core.admit import Trigger, admit
from taskrun.engine.core.fact import Fact
from taskrun.engine.core.facts import INTENTS
from taskrun.engine.core.journal import Journal
from taskrun.engine.core.transaction import Transaction
from taskrun.model.errors import EngineLost, JournalUnavailable
from taskrun.model.records import Run
from taskrun.stores.base import Tx

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
    """Admits what was committed."""

    def __init__(self, journal: Journal) -> None:
        self._journal = journal

    def look(self) -> None:
        """Looks for notes, and admits them."""
        self._journal.post(_admit_all, None, _unless_impossible)


def _admit_all(t: Transaction) -> None:
    for run_id in ENLISTED.all(t.tx):
        trigger = ENLISTED.get(t.tx, run_id)
        if trigger is not None:  # else another engine was faster
            ENLISTED.drop(t.tx, run_id)
            admit(t, trigger)


def _unless_impossible(error: Exception) -> None:
    if not isinstance(error, EngineLost | JournalUnavailable):
        raise error
