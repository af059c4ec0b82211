"""A bound over all clients for requests that are not complete, so that slow clients cannot fill the memory."""

from __future__ import annotations

from typing import Protocol

SMALL = 256 * 1024  # bytes that are not counted: as much as one read gives


class Sender(Protocol):
    """A client that sends."""

    def disconnect_slow(self) -> None:
        """Disconnects it: there is no room for its request."""
        ...


class ReceiveBudget:
    """The bytes that are held for each sender.

    Parameters:
        most: bytes over all senders. Beyond that the one that has been sending longest goes: an honest one takes a moment.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._held: dict[Sender, int] = {}  # in the order in which they began to send
        self._total = 0

    def hold(self, sender: Sender, size: int) -> None:
        """Sets how many bytes are held for a sender."""
        self._total -= self._held.get(sender, 0)
        if size <= SMALL:
            self._held.pop(sender, None)
            return
        self._held[sender] = size
        self._total += size
        while self._total > self._most:
            oldest = next(iter(self._held))
            self.hold(oldest, 0)
            oldest.disconnect_slow()
