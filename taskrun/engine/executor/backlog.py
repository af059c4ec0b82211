"""Lines of a run on their way to the core: bounded, with a marker where lines had to be left out."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from typing import NamedTuple

MOST = 8_000_000  # characters that are kept of what comes while nothing can be sent
OVERHEAD = 64  # of a line, beside its characters


class Pending(NamedTuple):
    """A line without its number."""

    at: float
    stream: str
    text: str
    step: str | None
    cursor: int | None = None  # of a command that survives: how far its output goes with this line


class Backlog:
    """Keeps head and tail of what comes between two batches."""

    def __init__(self, most: int = MOST) -> None:
        self.size = 0  # characters
        self._half = most // 2
        self._head: list[Pending] = []
        self._tail: deque[Pending] = deque()
        self._tail_size = 0
        self._dropped = 0

    def add(self, lines: Iterable[Pending]) -> None:
        """Takes lines."""
        for line in lines:
            cost = _cost(line)
            self.size += cost
            if not self._tail and self.size <= self._half:
                self._head.append(line)
            else:
                self._tail.append(line)
                self._tail_size += cost
        while self._tail_size > self._half and len(self._tail) > 1:
            cost = _cost(self._tail.popleft())
            self._tail_size -= cost
            self.size -= cost
            self._dropped += 1

    def take(self) -> list[Pending]:
        """Hands out what there is."""
        lines = [*self._head, *self._marker(), *self._tail]
        self._head, self._tail = [], deque()
        self.size = self._tail_size = self._dropped = 0
        return lines

    def _marker(self) -> Iterator[Pending]:
        if self._dropped:
            lines = "1 line is" if self._dropped == 1 else f"{self._dropped:,} lines are"
            text = f"… {lines} left out here: too many came at once …"
            yield Pending(self._tail[0].at, "system", text, None)


def batches(lines: list[Pending], most: int) -> Iterator[list[Pending]]:
    """Cuts lines into lists of about `most` characters."""
    batch: list[Pending] = []
    size = 0
    for line in lines:
        batch.append(line)
        size += _cost(line)
        if size >= most:
            yield batch
            batch, size = [], 0
    if batch:
        yield batch


def _cost(line: Pending) -> int:
    return len(line.text) + OVERHEAD
