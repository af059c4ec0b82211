"""What jobs have refused of their triggers, such as an event without a field that they require: nothing is started then.

The last refusal of each trigger is a fact, written with what uses the event or the slot up, so that whoever looks at the jobs
is told. It is over once the job has taken another one.
"""

from __future__ import annotations

from msgspec.structs import replace

from taskrun.engine.core.fact_kind import REFUSALS, Refusal
from taskrun.engine.core.transaction import Transaction
from taskrun.model.byte_escapes import escaped

LONGEST = 1_000  # characters of a text


def note(t: Transaction, job: str, trigger: str, refused: str | None) -> None:
    """Keeps that a job has refused something of a trigger and why, or that it has taken something."""
    id = f"{job}:{escaped(trigger)}"
    known = REFUSALS.get(t.tx, id)
    if refused is not None:
        REFUSALS.put(t.tx, id, Refusal(t.now, escaped(refused[:LONGEST])))
    elif known is not None and known.over is None:
        REFUSALS.put(t.tx, id, replace(known, over=t.now))


def forget(t: Transaction, job: str, trigger: str) -> None:
    """Forgets what a job has refused of a trigger that it has no longer."""
    REFUSALS.drop_if_any(t.tx, f"{job}:{escaped(trigger)}")
