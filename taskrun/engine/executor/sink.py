"""Where what the caller prints and logs goes: one context variable, set per attempt, read by whatever captures output."""

from __future__ import annotations

import os
from contextvars import ContextVar
from typing import Protocol


class Sink(Protocol):
    """Where a run's lines go; called from any thread."""

    @property
    def closed(self) -> bool:
        """Whether it takes nothing any more."""
        ...

    @property
    def full(self) -> bool:
        """Whether whoever can wait should, before there is more."""
        ...

    def write(self, stream: str, text: str, step: str | None = None) -> None:
        """Takes text, not always whole lines; without `step` it is of the step that the caller is in, if any."""
        ...


sink: ContextVar[Sink | None] = ContextVar("taskrun-sink", default=None)

os.register_at_fork(after_in_child=lambda: sink.set(None))  # a fork has no way to the run


def target() -> Sink | None:
    """Returns the log of the run that the caller is in, None outside of runs and where the run is over."""
    found = sink.get()
    return None if found is None or found.closed else found
