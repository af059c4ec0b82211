"""Subscriptions to changes, and futures of the ends of runs. Used by handles and the daemon.

A subscription never holds up a run: one that falls behind loses what it has not read and is told so by `Lagged`, after which
it looks in the journal.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from typing import Any

import msgspec

from taskrun.engine.core.journal import Journal
from taskrun.engine.core.outbox import RunChanged, RunOver, StepChanged, TriggerFound
from taskrun.model.errors import JournalUnavailable
from taskrun.model.records import LogLine, Run

LIMIT = 10_000


class LogAdded(msgspec.Struct, frozen=True):
    """A run's log has new lines."""

    lines: list[LogLine]


class Lagged(msgspec.Struct, frozen=True):
    """Changes were lost to this subscription."""


Change = RunChanged | StepChanged | LogAdded | Lagged


class Subscription:
    """Changes as an async iterator; close it with `close` or by `async with`."""

    def __init__(self, all: Subscriptions, wants: Callable[[Change], bool] | None) -> None:
        self._all = all
        self._wants = wants
        self._changes: deque[Change] = deque()
        self._ready = asyncio.Event()
        self._closed = False

    def put(self, change: Change) -> None:
        """Takes a change, or drops all that were not read."""
        if self._wants is not None and not self._wants(change):
            return
        if len(self._changes) >= LIMIT:
            self._changes.clear()
            change = Lagged()
        self._changes.append(change)
        self._ready.set()

    def skip(self) -> None:
        """Drops what was not read yet: whoever has looked in the journal knows it."""
        self._changes.clear()

    def close(self) -> None:
        """Ends the subscription; an iteration under way ends."""
        self._closed = True
        self._all.drop(self)
        self._ready.set()

    def __aiter__(self) -> Subscription:
        return self

    async def __anext__(self) -> Change:
        while not self._changes:
            if self._closed:
                raise StopAsyncIteration
            self._ready.clear()
            await self._ready.wait()
        return self._changes.popleft()

    async def __aenter__(self) -> Subscription:
        return self

    async def __aexit__(self, *_: object) -> None:
        self.close()


class Subscriptions:
    """All subscriptions of one engine."""

    def __init__(self) -> None:
        self._subscriptions: list[Subscription] = []

    @property
    def watched(self) -> bool:
        """Whether anybody listens; nothing needs to be published otherwise."""
        return bool(self._subscriptions)

    def subscribe(self, wants: Callable[[Change], bool] | None = None) -> Subscription:
        """Returns a subscription to the changes that `wants` accepts, or to all."""
        subscription = Subscription(self, wants)
        self._subscriptions.append(subscription)
        return subscription

    def drop(self, subscription: Subscription) -> None:
        """Forgets a subscription."""
        if subscription in self._subscriptions:
            self._subscriptions.remove(subscription)

    def publish(self, change: Change) -> None:
        """Hands a change to every subscription."""
        for subscription in tuple(self._subscriptions):
            subscription.put(change)

    def close(self) -> None:
        """Ends all subscriptions."""
        for subscription in tuple(self._subscriptions):
            subscription.close()


def concerns(change: Change, run_id: str) -> bool:
    """Whether a change may be news to whoever follows a run."""
    if isinstance(change, RunChanged):
        return change.run.id == run_id
    if isinstance(change, LogAdded):
        return change.lines[0].run == run_id
    return isinstance(change, Lagged)


class EndWaiters:
    """Futures of ends, by run id."""

    def __init__(self, journal: Journal) -> None:
        self._futures: dict[str, list[asyncio.Future[Run]]] = {}
        journal.follow(RunOver, lambda event: self.tell(event.run.id, event.run))
        journal.follow(TriggerFound, lambda event: self.tell(event.id, event.run))

    def ids(self) -> list[str]:
        """Returns the runs that somebody waits for; forgets those whose waiters were all cancelled."""
        for run_id in [one for one, futures in self._futures.items() if all(future.done() for future in futures)]:
            del self._futures[run_id]
        return list(self._futures)

    def add(self, run_id: str, future: asyncio.Future[Any] | None = None) -> asyncio.Future[Run]:
        """Returns a future that resolves with the run once it has ended, or is known to have another id."""
        future = asyncio.get_running_loop().create_future() if future is None else future
        futures = self._futures.get(run_id)
        if futures is None:
            self._futures[run_id] = [future]
        else:
            futures.append(future)
        return future

    def drop(self, run_id: str, future: asyncio.Future[Run]) -> None:
        """Forgets a future."""
        futures = self._futures.get(run_id)
        if futures is not None and future in futures:
            futures.remove(future)
            if not futures:
                del self._futures[run_id]

    def tell(self, run_id: str, run: Run) -> None:
        """Resolves the futures of a run that has ended, or of a trigger that has found a run of another id."""
        for future in self._futures.pop(run_id, ()):
            if not future.done():
                future.set_result(run)

    def close(self) -> None:
        """Fails everybody who still waits: the queue is closed, the run goes on at the next start."""
        for futures in self._futures.values():
            for future in futures:
                if not future.done():
                    future.set_exception(JournalUnavailable("the queue was closed; the run goes on at its next start"))
        self._futures.clear()
