"""Fan-out of changes to watchers: published by the journal after the commit, read by handles, the server and tests.

A subscription never holds up a run: one that falls behind loses what it has not read and is told so by `Lagged`, after which
it looks in the journal.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable

import msgspec

from taskrun.model.records import LogLine, Run, Step

LIMIT = 10_000


class RunChanged(msgspec.Struct, frozen=True):
    """A run is new, or changed."""

    run: Run


class StepChanged(msgspec.Struct, frozen=True):
    """A step began or ended."""

    step: Step


class LogAdded(msgspec.Struct, frozen=True):
    """A run's log has new lines."""

    lines: list[LogLine]


class Lagged(msgspec.Struct, frozen=True):
    """Changes were lost to this subscription."""


Change = RunChanged | StepChanged | LogAdded | Lagged


class Subscription:
    """Changes as an async iterator; close it with `close` or by `async with`."""

    def __init__(self, bus: Bus, wants: Callable[[Change], bool] | None) -> None:
        self._bus = bus
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

    def close(self) -> None:
        """Ends the subscription; an iteration under way ends."""
        self._closed = True
        self._bus.drop(self)
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


class Bus:
    """Who is subscribed."""

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
