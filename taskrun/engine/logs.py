"""The runs' logs on their way into the journal: they ride along with the next commit; beyond `max_log` head and tail are kept."""

from __future__ import annotations

from taskrun.engine.bus import Bus, LogAdded
from taskrun.engine.journal import Journal
from taskrun.words.records import LogLine


class Logs:
    """Writes log lines and publishes them."""

    def __init__(self, journal: Journal, bus: Bus, max_log: int) -> None:
        self._journal = journal
        self._bus = bus
        self._max_log = max_log

    def add(self, lines: list[LogLine]) -> None:
        """Writes lines, unawaited; they are published once they are durable."""
        self._journal.ride(lambda tx: tx.add_logs(lines), lambda _: self._bus.publish(LogAdded(lines)))
