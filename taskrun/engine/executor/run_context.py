"""The run and step that the caller is in: `sink`, the log that takes what it prints, and `inside`, the step whose body it is in.

Two context variables, set per attempt and per step; read by whatever captures output, and by the step calls.
"""

from __future__ import annotations

import os
from contextvars import ContextVar
from typing import Protocol


class Sink(Protocol):
    """Where a run's lines go; called from any thread."""

    @property
    def closed(self) -> bool:
        """Whether it takes no more."""
        ...

    @property
    def full(self) -> bool:
        """Whether whoever can wait should wait before writing more."""
        ...

    def write(self, stream: str, text: str, step: str | None = None) -> None:
        """Takes text, not always whole lines; without `step` it is of the step that the caller is in, if any."""
        ...


sink: ContextVar[Sink | None] = ContextVar("taskrun-sink", default=None)
inside: ContextVar[str | None] = ContextVar("taskrun-step", default=None)
THREAD = ""  # `inside` in a thread that a handler started itself: in no step, and none can be recorded from there

os.register_at_fork(after_in_child=lambda: sink.set(None))  # a fork has no way to the run


def target() -> Sink | None:
    """Returns the log of the run that the caller is in, None outside of runs and where the run is over."""
    found = sink.get()
    return None if found is None or found.closed else found
