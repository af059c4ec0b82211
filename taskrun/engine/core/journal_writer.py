"""The thread on which a store commits, one batch at a time."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Sequence
from queue import SimpleQueue
from typing import Any

from taskrun.stores.base import Answer, Store, Tx

Settle = Callable[[list[Answer], Exception | None], None]
Batch = tuple[Sequence[Callable[[Tx], Any]], Callable[[Tx], None] | None, Settle]


class JournalWriter:
    """Applies batches, and tells the event loop what became of each."""

    def __init__(self, store: Store, loop: asyncio.AbstractEventLoop) -> None:
        self._store = store
        self._loop = loop
        self._batches: SimpleQueue[Batch | None] = SimpleQueue()
        self._thread = threading.Thread(target=self._work, name="taskrun-journal", daemon=True)
        self._thread.start()

    def put(self, fns: Sequence[Callable[[Tx], Any]], guard: Callable[[Tx], None] | None, settle: Settle) -> None:
        """Has a batch applied."""
        self._batches.put((fns, guard, settle))

    def close(self) -> None:
        """Waits for the last batch; blocks."""
        self._batches.put(None)
        self._thread.join()

    def _work(self) -> None:
        while (batch := self._batches.get()) is not None:
            fns, guard, settle = batch
            answers: list[Answer] = []
            error: Exception | None = None
            try:
                answers = self._store.apply(fns, guard)
            except Exception as caught:
                error = caught
            try:
                self._loop.call_soon_threadsafe(settle, answers, error)
            except RuntimeError:  # the loop is closed: nobody waits any more
                return
