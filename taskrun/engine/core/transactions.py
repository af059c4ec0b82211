"""Opens a `Book` for each entry of the journal, and follows up after the commit on what it gathered.

The parts of the core that care for an aspect (watchers, places, timers, hooks, waiters) are the followers, called in the order
in which they were added.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from typing import Any, TypeVar

from taskrun.engine.core import step_queue as permits
from taskrun.engine.core.journal import Journal
from taskrun.engine.core.transaction import Book, Moments
from taskrun.model.clock import Clock
from taskrun.stores.base import Tx

T = TypeVar("T")


class Ledgers:
    """Transactions of one engine."""

    def __init__(self, journal: Journal, clock: Clock, engine: Callable[[], str]) -> None:
        self.journal = journal
        self.followers: list[Callable[[Book], None]] = []
        self.sequence = Sequence()
        self.moments = Moments()
        self.routed: dict[str, list[str]] = {}  # for each topic, the jobs that it triggers
        self.jobs: list[str] = []  # those that executors have
        self._clock = clock
        self._engine = engine

    def do(self, act: Callable[[Book], T], then: Callable[[T], Any] | None = None) -> asyncio.Future[T]:
        """Runs `act` in the next commit; the future resolves after the follow-up and `then`."""
        return self.journal.write(self._entry(act), self._after(then))

    def post(self, act: Callable[[Book], T], then: Callable[[T], Any] | None = None) -> None:
        """Like `do`, for when nobody waits."""
        self.journal.post(self._entry(act), self._after(then))

    def ride(self, act: Callable[[Book], T], then: Callable[[T], Any] | None = None) -> None:
        """Like `post`, with the next commit that happens anyway."""
        self.journal.ride(self._entry(act), self._after(then))

    def _entry(self, act: Callable[[Book], T]) -> Callable[[Tx], tuple[T, Book]]:
        again = False  # whether this entry was executed before: rolled back, or with an unknown outcome

        def entry(tx: Tx) -> tuple[T, Book]:
            nonlocal again
            now, number = self._clock.now(), self.sequence.next
            book = Book(tx, self._engine(), now, number, self.routed, self.jobs, self.moments, again)
            again = True
            value = act(book)
            while book.freed:
                permits.hand_on(book, book.freed.pop())
            return value, book

        return entry

    def _after(self, then: Callable[[T], Any] | None) -> Callable[[tuple[T, Book]], T]:
        def after(result: tuple[T, Book]) -> T:
            value, book = result
            for follow in self.followers:
                follow(book)
            if then is not None:
                then(value)
            return value

        return after


class Sequence:
    """Strictly increasing positions of finished steps: microseconds of the clock, pushed on where they would repeat."""

    def __init__(self) -> None:
        self._last = 0
        self._lock = threading.Lock()

    def next(self, now: float) -> int:
        """Returns the next position."""
        with self._lock:
            self._last = max(self._last + 1, int(now * 1e6))
            return self._last

    def beyond(self, order: int) -> None:
        """Makes every further position higher than one that another engine gave."""
        with self._lock:
            self._last = max(self._last, order)
