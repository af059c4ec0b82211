"""A kind of small facts in the journal: one key, one type. Imports little, since commands without a daemon read facts too.

The kinds are declared by their owners, most of them in `facts`; here are those that such commands read from anywhere.
"""

from __future__ import annotations

from typing import Any, Generic, TypeVar

import msgspec

from taskrun.stores.base import Tx

T = TypeVar("T")


class Fact(Generic[T]):
    """One kind of small facts, by an id of its own.

    Parameters:
        prefix: of its keys.
        kind: the type of its values.
    """

    def __init__(self, prefix: str, kind: Any) -> None:
        self.prefix = prefix
        self._decode = msgspec.json.Decoder(kind).decode

    def key(self, id: str) -> str:
        """Returns the whole key of a fact."""
        return self.prefix + id

    def get(self, tx: Tx, id: str) -> T | None:
        """Returns a fact, or None."""
        text = tx.get(self.prefix + id)
        return None if text is None else self._decode(text)

    def put(self, tx: Tx, id: str, value: T) -> None:
        """Writes a fact."""
        tx.put(self.prefix + id, msgspec.json.encode(value).decode())

    def drop(self, tx: Tx, id: str) -> None:
        """Removes a fact."""
        tx.put(self.prefix + id, None)

    def drop_if_any(self, tx: Tx, id: str) -> None:
        """Removes a fact that usually does not exist, without a write in that case."""
        if tx.get(self.prefix + id) is not None:
            self.drop(tx, id)

    def all(self, tx: Tx, beginning: str = "") -> dict[str, T]:
        """Returns the facts whose id begins so, by id, in its order."""
        found = tx.facts(self.prefix + beginning)
        return {key.removeprefix(self.prefix): self._decode(text) for key, text in found.items()}


class PausedJob(msgspec.Struct, frozen=True):
    """By whom a job was paused, and when."""

    by: str
    at: float


class Refusal(msgspec.Struct, frozen=True, omit_defaults=True):
    """Why a job has refused an event or a slot, and when; `over`: when it has taken one again."""

    at: float
    text: str
    over: float | None = None


# By job: `pause_job.resume`.
PAUSED: Fact[PausedJob] = Fact("paused:", PausedJob)
# JOB:TRIGGER: `retention`, once it is old; of a schedule `refusals.forget`, with the schedule.
REFUSALS: Fact[Refusal] = Fact("refused:", Refusal)
SCHEDULE = "schedule:"  # how schedules begin as triggers there; their expression follows
