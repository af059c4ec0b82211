"""What the core remembers of an attempt whose coroutine is alive in an executor."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field

from taskrun.engine.messages import Peer
from taskrun.model.records import Step


@dataclass(slots=True)
class Resident:
    """One attempt in an executor."""

    run: str
    peer: Peer
    suspect: bool = False  # was executing when a worker died
    cancelled: bool = False  # the executor was told to cancel
    placed: bool = False  # holds one of the engine's places
    parked: bool = False
    evicting: bool = False
    told: int = 0  # waits that the executor was told are over
    waiting: set[str] = field(default_factory=set)  # keys of waits whose end another engine may write
    over: list[Step] = field(default_factory=list)  # waits that are over, to be told with the next place
    activations: list[asyncio.Future[None]] = field(default_factory=list)
    progress: str | None = None
    progressing: bool = False  # the progress is about to be written
