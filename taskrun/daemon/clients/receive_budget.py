"""What clients have begun to send and not ended: bounded over all of them, so that nobody fills the memory by being slow."""

from __future__ import annotations

from typing import Protocol

SMALL = 256 * 1024  # bytes that count for nothing: as much as one read gives


class Sender(Protocol):
    """Who sends."""

    def refuse_rest(self) -> None:
        """Hangs up: there is no room for what it has begun."""
        ...


class ReceiveBudget:
    """The bytes that are held, by who sends them.

    Parameters:
        most: bytes over all. Beyond that goes who has been longest about it: whoever means it is done in a moment.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._held: dict[Sender, int] = {}  # in the order in which they began
        self._total = 0

    def hold(self, sender: Sender, size: int) -> None:
        """Says how much there is of a sender now."""
        self._total -= self._held.get(sender, 0)
        if size <= SMALL:
            self._held.pop(sender, None)
            return
        self._held[sender] = size
        self._total += size
        while self._total > self._most:
            oldest = next(iter(self._held))
            self.hold(oldest, 0)
            oldest.refuse_rest()
