"""Which step's body the caller is in: one context variable, read by the context and the run log."""

from __future__ import annotations

from contextvars import ContextVar

inside: ContextVar[str | None] = ContextVar("taskrun-step", default=None)
THREAD = ""  # the caller is in a thread that a handler started itself: in no step, and none can be recorded from there
