"""The runs' logs on their way into the journal: lines are written with the next commit, and published after it.

Of a log over `max_log`, head and tail are kept: once it is half full, old lines go as new ones come. A marker has the seq of
the last line that went, so that a reader that goes on from any line of the gap finds it, and one beyond the gap does not.
"""

from __future__ import annotations

import threading
from collections import OrderedDict, deque
from collections.abc import Sequence
from typing import NamedTuple

from msgspec.structs import replace

from taskrun.engine.core.journal import Journal
from taskrun.engine.core.outbox import RunOver
from taskrun.engine.core.subscriptions import LogAdded, Subscriptions
from taskrun.engine.core.transaction import Transaction
from taskrun.model.durations import human_size
from taskrun.model.records import LogLine, Step
from taskrun.stores.base import Tx

ROW = 32  # bytes that a line takes beside its text
PARTS = 32  # the tail goes in so many parts, so that its size is known without all of its lines
WIDTH = 1_000  # lines that are measured together when a log is read again
REMEMBERED = 1_000  # logs whose sizes are known; of others the journal is asked


class Part(NamedTuple):
    """A stretch of the tail."""

    first: int
    last: int
    size: int


Stretch = tuple[int, int]  # the first and the last seq of lines in a row


class Plan(NamedTuple):
    """What becomes of new lines: some are added, after a stretch of old ones has gone."""

    add: list[LogLine]
    gone: Stretch | None


class KeptLog:
    """How much there is of a run's log.

    Parameters:
        engine: who counts; another engine may have added lines since.
        half: bytes of the head, and of the tail.
    """

    def __init__(self, engine: str, half: int) -> None:
        self.engine = engine
        self.last = 0  # the highest seq
        self._half = half
        self._head = 0  # bytes
        self._head_last = 0  # seq
        self._whole = True  # nothing is in the tail yet
        self._tail: deque[Part] = deque()
        self._tail_size = 0
        self._left_out = 0  # the last seq that has gone

    def load(self, tx: Tx, run_id: str) -> None:
        """Measures what the journal has."""
        for block in tx.log_blocks(run_id, WIDTH):
            size = block.size + ROW * block.lines
            if block.lines == block.last - block.first + 1 and size <= self._half // PARTS:
                self._read(block.first, block.last, size)
            else:
                for line in tx.logs(run_id, block.first - 1, block.lines):
                    self._read(line.seq, line.seq, cost(line))

    def take(self, lines: list[LogLine], gap: Stretch | None = None) -> Plan:
        """Counts new lines; returns which of them to keep, and which old ones have to go for them.

        Parameters:
            gap: those among them that were left out already, since what comes after them fills the tail.
        """
        before = self._left_out
        for line in lines:
            if gap is not None and line.seq == gap[1] + 1:
                self._skip(gap[1])
            self._count(line.seq, line.seq, cost(line))
        self._make_room()
        if self._left_out == before:
            return Plan(lines, None)
        first, last = self._head_last + 1, self._left_out
        head = [line for line in lines if line.seq < first]
        tail = [line for line in lines if line.seq > last]
        return Plan([*head, self._marker(lines[0]), *tail], (first, last))

    def _read(self, first: int, last: int, size: int) -> None:
        if first > self.last + 1:  # a marker, behind a gap
            self._whole, self._left_out = False, first
        self._count(first, last, size)

    def _count(self, first: int, last: int, size: int) -> None:
        self.last = last
        if self._whole and self._head + size <= self._half:
            self._head += size
            self._head_last = last
            return
        self._whole = False
        self._tail_size += size
        if self._tail and self._tail[-1].size + size <= self._half // PARTS:
            part = self._tail.pop()
            self._tail.append(Part(part.first, last, part.size + size))
        else:
            self._tail.append(Part(first, last, size))

    def _skip(self, last: int) -> None:
        """Leaves out what is in the tail and what would have come to it up to `last`."""
        self._whole, self._left_out, self.last = False, last, last
        self._tail.clear()
        self._tail_size = 0

    def _make_room(self) -> None:
        while self._tail_size > self._half and len(self._tail) > 1:
            part = self._tail.popleft()
            self._tail_size -= part.size
            self._left_out = part.last

    def _marker(self, line: LogLine) -> LogLine:
        count = self._left_out - self._head_last
        lines = "1 line is" if count == 1 else f"{count:,} lines are"
        text = f"… {lines} left out here: the log is over {human_size(self._half * 2)} …"
        return LogLine(run=line.run, seq=self._left_out, at=line.at, text=text, stream="system")


class Burst:
    """New lines of one run that wait for the next commit, never more of them than its log may keep.

    Parameters:
        half: bytes of the head, and of the tail.
    """

    def __init__(self, half: int) -> None:
        self.gap: Stretch | None = None
        self.steps: dict[str, Step] = {}  # commands that survive, with how far these lines go
        self._half = half
        self._head: list[LogLine] = []
        self._head_size = 0
        self._tail: deque[tuple[int, list[LogLine]]] = deque()  # messages with their sizes
        self._tail_size = 0

    def add(self, lines: list[LogLine]) -> None:
        """Takes more lines, and leaves out those in the middle for which there is no room."""
        size = sum(map(cost, lines))
        if self._head_size < self._half:
            self._head += lines
            self._head_size += size
            return
        self._tail.append((size, lines))
        self._tail_size += size
        while self._tail_size - self._tail[0][0] >= self._half:
            size, gone = self._tail.popleft()
            self._tail_size -= size
            self.gap = self._head[-1].seq + 1, gone[-1].seq

    def lines(self) -> list[LogLine]:
        """Returns what is left of them, in order."""
        return [*self._head, *(line for _, lines in self._tail for line in lines)]


class Logs:
    """Writes log lines, and keeps each log within its limit.

    Parameters:
        max_log: bytes of one run's log.
    """

    def __init__(self, journal: Journal, bus: Subscriptions, max_log: int) -> None:
        self._journal = journal
        self._bus = bus
        self._half = max_log // 2
        self._kept: OrderedDict[str, KeptLog] = OrderedDict()  # used on the journal's thread, but for `follow`
        self._bursts: dict[str, Burst] = {}  # of each run the one that may still grow
        self._lock = threading.Lock()  # of the bursts, which the loop fills and the journal's thread takes
        journal.follow(RunOver, self.follow)

    def add(self, lines: list[LogLine], steps: Sequence[Step] = ()) -> None:
        """Writes lines of one run, unawaited; those that come after its end are dropped.

        Parameters:
            steps: commands that survive, with how far these lines go of what they print.
        """
        run_id = lines[0].run
        with self._lock:
            burst = self._bursts.get(run_id)
            begins = burst is None
            if burst is None:
                burst = self._bursts[run_id] = Burst(self._half)
            burst.add(lines)
            burst.steps.update((step.key, step) for step in steps)
            if not begins:
                return
        plan: Plan | None = None

        def write(transaction: Transaction) -> list[LogLine]:
            nonlocal plan
            self._end(run_id, burst)
            tx = transaction.tx
            if not tx.holds(transaction.engine, run_id):
                return []
            if plan is None:  # else the same was written before, and what became of it is not known
                new = burst.lines()
                plan = self._log_of(transaction, new[0]).take(new, burst.gap)
            if plan.gone is not None:
                tx.drop_logs(run_id, *plan.gone)
            tx.add_logs(plan.add)
            for step in burst.steps.values():
                _keep_cursor(transaction, step)
            return plan.add

        self._journal.defer(write, self._publish, lambda _: self._end(run_id, burst))

    def _end(self, run_id: str, burst: Burst) -> None:
        """Lets further lines begin a new burst."""
        with self._lock:
            if self._bursts.get(run_id) is burst:
                del self._bursts[run_id]

    def follow(self, event: RunOver) -> None:
        """Forgets the size of a log that will no longer grow."""
        self._kept.pop(event.run.id, None)

    def _publish(self, lines: list[LogLine]) -> None:
        if lines:
            self._bus.publish(LogAdded(lines))

    def _log_of(self, transaction: Transaction, first: LogLine) -> KeptLog:
        engine = transaction.engine
        kept = self._kept.pop(first.run, None)
        if kept is None or kept.engine != engine or kept.last + 1 != first.seq:
            kept = KeptLog(engine, self._half)
            if first.seq > 1:
                kept.load(transaction.tx, first.run)
        self._kept[first.run] = kept
        if len(self._kept) > REMEMBERED:
            self._kept.popitem(last=False)
        return kept


def _keep_cursor(t: Transaction, step: Step) -> None:
    """Keeps how far the output of a command is in the log, also where nothing is known of its step yet."""
    known = t.tx.step(step.run, step.key)
    if known is None or (known.attempt != step.attempt and not known.finished):
        t.save_step(step)
    elif not known.finished:
        t.tx.put_step(replace(known, cursor=step.cursor))


def cost(line: LogLine) -> int:
    """Returns the bytes that a line counts for."""
    return ROW + (len(line.text) if line.text.isascii() else len(line.text.encode()))
