"""Slots: permission to execute a run in this engine. Tokens, each handed out once and taken back once; nothing else counts.

A `Reservation` sets slots aside for an entry on its way into the journal. Those that are not taken go back with `release`,
which whoever made the reservation calls in both sides of that entry.
"""

from __future__ import annotations

from collections.abc import Callable


class Slot:
    """One slot, held by an attempt."""

    __slots__ = ("_slots",)

    def __init__(self, slots: Slots) -> None:
        self._slots: Slots | None = slots

    def release(self) -> None:
        """Gives it back."""
        slots, self._slots = self._slots, None
        assert slots is not None, "a slot was given back twice"
        slots._back(1)


class Reservation:
    """Slots that are set aside."""

    __slots__ = ("_left", "_slots")

    def __init__(self, slots: Slots, count: int) -> None:
        self._slots = slots
        self._left = count

    def __len__(self) -> int:
        return self._left

    def take(self) -> Slot:
        """Makes one of them a slot."""
        assert self._left > 0, "more slots were used than were reserved"
        self._left -= 1
        return Slot(self._slots)

    def release(self) -> None:
        """Gives back those that were not taken."""
        left, self._left = self._left, 0
        if left:
            self._slots._back(left)


class Slots:
    """The slots of one engine.

    Parameters:
        limit: how many there are, None for any number.
        freed: called when slots have come back.
    """

    def __init__(self, limit: int | None, freed: Callable[[], None]) -> None:
        self.limit = limit
        self.used = 0  # held, or set aside
        self._freed = freed

    def free(self) -> bool:
        """Whether there is one."""
        return self.limit is None or self.used < self.limit

    def reserve(self, most: int) -> Reservation:
        """Sets slots aside, as many as are free, at most `most`."""
        count = most if self.limit is None else max(0, min(most, self.limit - self.used))
        self.used += count
        return Reservation(self, count)

    def _back(self, count: int) -> None:
        self.used -= count
        assert self.used >= 0
        self._freed()
