"""Which step's body the caller is in: one context variable, read by the context and the transcript."""

from __future__ import annotations

from contextvars import ContextVar

inside: ContextVar[str | None] = ContextVar("taskrun-step", default=None)
