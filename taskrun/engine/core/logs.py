"""The runs' logs on their way into the journal: they ride along with the next commit and are published after it.

Of a log over `max_log` head and tail are kept: past the half of it, old lines go as new ones come, and a marker stands where
they were.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field

from msgspec.structs import replace

from taskrun.engine.core.journal import Journal
from taskrun.engine.core.outbox import RunEnded
from taskrun.engine.core.subscriptions import LogAdded, Subscriptions
from taskrun.engine.core.transaction import Transaction
from taskrun.model.durations import human_size
from taskrun.model.records import LogLine


@dataclass(slots=True)
class Size:
    """How much of a run's log there is."""

    head: int = 0  # bytes
    tail: int = 0
    marker: LogLine | None = None  # stands at the first position that was left out
    batches: deque[tuple[int, int, int]] = field(default_factory=deque)  # of the tail: first and last seq, bytes


class Logs:
    """Writes log lines, and keeps each log within its limit.

    Parameters:
        max_log: bytes of one run's log.
    """

    def __init__(self, journal: Journal, bus: Subscriptions, max_log: int) -> None:
        self._journal = journal
        self._bus = bus
        self._half = max_log // 2
        self._sizes: dict[str, Size] = {}

    def add(self, lines: list[LogLine]) -> None:
        """Writes lines of one run, unawaited."""
        size = self._sizes.setdefault(lines[0].run, Size())
        amount = sum(len(line.text) for line in lines)
        if size.head + amount <= self._half:
            size.head += amount
            dropped = None
        else:
            dropped = self._make_room(size, lines, amount)

        def write(t: Transaction) -> None:
            tx = t.tx
            tx.add_logs(lines)
            if dropped is not None and size.marker is not None:
                tx.drop_logs(lines[0].run, size.marker.seq, dropped)
                tx.add_logs([size.marker])

        self._journal.ride(write, lambda _: self._bus.publish(LogAdded(lines)))

    def follow(self, event: RunEnded) -> None:
        """Forgets the size of a log that will not grow any more."""
        self._sizes.pop(event.run.id, None)

    def _make_room(self, size: Size, lines: list[LogLine], amount: int) -> int | None:
        """Counts lines to the tail; returns the last seq that has to go for them."""
        size.batches.append((lines[0].seq, lines[-1].seq, amount))
        size.tail += amount
        dropped = None
        while size.tail > self._half and len(size.batches) > 1:
            first, dropped, gone = size.batches.popleft()
            size.tail -= gone
            if size.marker is None:
                text = f"… lines are left out here: the log is over {human_size(self._half * 2)} …"
                size.marker = replace(lines[0], seq=first, text=text, stream="system", step=None)
        return dropped
