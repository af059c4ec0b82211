"""The tables of the memory store and their indexes. `MemoryTx` alone uses them, and logs how to undo each change."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections import Counter
from collections.abc import Iterable, Iterator
from itertools import groupby
from operator import attrgetter

import msgspec

from taskrun.model.records import LogBlock, LogLine, PipeEvent, Run, RunFilter, Status, Step
from taskrun.stores.indexes import Index, Item, SortedItems

_seq = attrgetter("seq")

Entry = tuple[object, Item] | None


class Runs:
    """Runs by id; each index has what one verb asks for, in its order. An item ends with the run's id."""

    def __init__(self) -> None:
        self.by_id: dict[str, Run] = {}
        self.counts: Counter[tuple[str, str]] = Counter()
        self.ready = Index(_ready)
        self.blocked = Index(_blocked)
        self.placed = Index(_placed)
        self.owned = Index(_owned)
        self.asked = Index(_asked)
        self.wakes = Index(_wakes)
        self.deadlines = Index(_deadlines)
        self.debounced = Index(_debounced)
        self._moving = [value for value in vars(self).values() if isinstance(value, Index)]
        self.keyed = Index(_keyed)
        self.all = Index(_all)
        self.of_job = Index(_of_job)
        self.children = Index(_children)
        self._every = [value for value in vars(self).values() if isinstance(value, Index)]
        self._seq = 0

    def next_seq(self) -> int:
        """Returns a seq that no run had."""
        self._seq += 1
        return self._seq

    def take_seq_back(self) -> None:
        """Makes the last seq one that no run had."""
        self._seq -= 1

    def change(self, old: Run | None, new: Run | None) -> None:
        """Replaces a run by its successor; None stands for no run."""
        for index in self._every if old is None or new is None else self._moving:
            index.move(old, new)
        if old is not None:
            self.counts[old.job, old.status] -= 1
            del self.by_id[old.id]
        if new is not None:
            self.counts[new.job, new.status] += 1
            self.by_id[new.id] = new

    def at(self, items: Iterable[Item]) -> Iterator[Run]:
        """Returns the runs that items of an index stand for."""
        return (self.by_id[item[-1]] for item in items)

    def newest(self, items: SortedItems) -> Run | None:
        """Returns the last run of a group."""
        return next(self.at(reversed(items)), None)

    def newest_first(self, want: RunFilter) -> Iterator[Run]:
        """Returns runs from the narrowest group that has all those wanted."""
        if want.parent is not None:
            return self.at(reversed(self.children.group(want.parent)))
        if want.job is not None:
            return self.at(reversed(self.of_job.group(want.job)))
        return self.at(reversed(self.all.group(None)))

    def timers(self, engine: str) -> list[SortedItems]:
        """Returns the groups of runs with a moment that concerns an engine, each by that moment."""
        return [index.group(owner) for index in (self.wakes, self.deadlines) for owner in (None, engine)]


def _ready(run: Run) -> Entry:
    if run.status is Status.QUEUED and run.blocked is None:
        return run.job, (run.cancel is None, -run.priority, run.seq, run.id)
    return None


def _blocked(run: Run) -> Entry:
    if run.status is Status.QUEUED and run.blocked is not None:
        return run.blocked, (-run.priority, run.seq, run.id)
    return None


def _placed(run: Run) -> Entry:
    return (run.lane, (run.seq, run.id)) if run.placed and run.lane is not None else None


def _owned(run: Run) -> Entry:
    return (run.engine, (run.seq, run.id)) if run.engine is not None and not run.ended else None


def _asked(run: Run) -> Entry:
    asked = not run.ended and (run.cancel is not None or run.pause is not None)
    return (run.engine, (run.seq, run.id)) if asked else None


def _wakes(run: Run) -> Entry:
    if run.status is Status.SCHEDULED and run.wake_at is not None:
        return run.engine, (run.wake_at, run.seq, run.id)
    return None


def _deadlines(run: Run) -> Entry:
    return (run.engine, (run.deadline, run.seq, run.id)) if run.deadline is not None and not run.ended else None


def _keyed(run: Run) -> Entry:
    return ((run.job, run.key), (run.seq, run.id)) if run.key is not None else None


def _debounced(run: Run) -> Entry:
    if run.debounce is not None and run.status is Status.SCHEDULED:
        return run.debounce, (run.seq, run.id)
    return None


def _all(run: Run) -> Entry:
    return None, (run.seq, run.id)


def _of_job(run: Run) -> Entry:
    return run.job, (run.seq, run.id)


def _children(run: Run) -> Entry:
    return (run.parent, (run.seq, run.id)) if run.parent is not None else None


Put = tuple[int, Step | None]  # the order of the first put, and the step


class Steps:
    """Steps by run and key, each with its number in the order of first puts."""

    def __init__(self) -> None:
        self._by_run: dict[str, dict[str, Put]] = {}
        self.timed = Index(_timed)
        self.waiting = Index(_waiting)
        self._n = 0

    def next_n(self) -> int:
        """Returns a number above all those before."""
        self._n += 1
        return self._n

    def get(self, run_id: str, key: str) -> Put:
        """Returns a step with its number, (0, None) where there is none."""
        return self._by_run.get(run_id, {}).get(key, (0, None))

    def of(self, run_id: str) -> list[Step]:
        """Returns the steps of a run by their numbers."""
        return [step for _, step in self.puts(run_id)]

    def puts(self, run_id: str) -> list[tuple[int, Step]]:
        """Returns the steps of a run with their numbers, in order."""
        puts = sorted(self._by_run.get(run_id, {}).values(), key=lambda put: put[0])
        return [(n, step) for n, step in puts if step is not None]

    def at(self, items: Iterable[Item]) -> Iterator[Step]:
        """Returns the steps that items of an index stand for."""
        for item in items:
            step = self._by_run[item[-2]][item[-1]][1]
            assert step is not None
            yield step

    def change(self, run_id: str, key: str, old: Put, new: Put) -> None:
        """Replaces a step by its successor."""
        self.timed.move(old, new)
        self.waiting.move(old, new)
        if new[1] is not None:
            self._by_run.setdefault(run_id, {})[key] = new
        elif old[1] is not None:
            steps = self._by_run[run_id]
            del steps[key]
            if not steps:
                del self._by_run[run_id]


def _timed(put: Put) -> Entry:
    n, step = put
    if step is None or step.finished or step.wake_at is None:
        return None
    return None, (step.wake_at, n, step.run, step.key)


def _waiting(put: Put) -> Entry:
    n, step = put
    if step is None or step.finished or step.topic is None:
        return None
    return step.topic, (n, step.run, step.key)


class Topic:
    """The events of a topic by seq. Their moments rise with their seqs but for jumps of the clock."""

    def __init__(self, events: Iterable[PipeEvent] = ()) -> None:
        self.events: list[PipeEvent] = []
        self._latest: list[float] = []  # the highest moment so far: it never falls, so it can be searched
        for event in events:
            self.add(event)

    def add(self, event: PipeEvent) -> None:
        """Appends an event."""
        self._latest.append(max(event.at, self._latest[-1]) if self._latest else event.at)
        self.events.append(event)

    def pop(self) -> None:
        """Takes the newest event back."""
        self.events.pop()
        self._latest.pop()

    def read(self, since: float, after: int) -> Iterator[PipeEvent]:
        """Iterates over the events from a moment on with a seq above `after`."""
        first = max(bisect_left(self._latest, since), bisect_right(self.events, after, key=_seq))
        found = (self.events[at] for at in range(first, len(self.events)))
        return (event for event in found if event.at >= since)


class Topics:
    """The events of all topics."""

    def __init__(self) -> None:
        self._topics: dict[str, Topic] = {}
        self._seq = 0

    def add(self, event: PipeEvent) -> PipeEvent:
        """Appends an event; returns it with its seq."""
        self._seq += 1
        event = msgspec.structs.replace(event, seq=self._seq)
        self._topics.setdefault(event.topic, Topic()).add(event)
        return event

    def pop(self, topic: str) -> None:
        """Takes the newest event of a topic back, and its seq."""
        self._topics[topic].pop()
        self._seq -= 1

    def read(self, topic: str, since: float, after: int) -> Iterator[PipeEvent]:
        """Iterates over events of a topic."""
        return self._topics.get(topic, _EMPTY).read(since, after)

    def has(self, before: float) -> bool:
        """Tells whether there is an event before a moment."""
        return any(event.at < before for topic in self._topics.values() for event in topic.events)

    def drop(self, before: float) -> dict[str, Topic]:
        """Deletes the events before a moment; returns what was there."""
        was = self._topics
        kept = {name: [event for event in topic.events if event.at >= before] for name, topic in was.items()}
        self._topics = {name: Topic(events) for name, events in kept.items() if events}
        return was

    def put_back(self, topics: dict[str, Topic]) -> None:
        """Takes a deletion back."""
        self._topics = topics


_EMPTY = Topic()


class Logs:
    """The log lines of each run by seq."""

    def __init__(self) -> None:
        self._lines: dict[str, list[LogLine]] = {}

    def add(self, line: LogLine) -> bool:
        """Inserts a line; False when one with its seq is there."""
        lines = self._lines.setdefault(line.run, [])
        at = bisect_left(lines, line.seq, key=_seq)
        if at < len(lines) and lines[at].seq == line.seq:
            return False
        lines.insert(at, line)
        return True

    def remove(self, line: LogLine) -> None:
        """Takes an insertion back."""
        lines = self._lines[line.run]
        del lines[bisect_left(lines, line.seq, key=_seq)]

    def cut(self, run_id: str, first: int, last: int) -> list[LogLine]:
        """Deletes lines of a run by their seqs, both included; returns them."""
        lines = self._lines.get(run_id, [])
        where = slice(bisect_left(lines, first, key=_seq), bisect_right(lines, last, key=_seq))
        gone = lines[where]
        del lines[where]
        return gone

    def put_lines_back(self, gone: list[LogLine]) -> None:
        """Takes the deletion of a stretch of lines back."""
        lines = self._lines[gone[0].run]
        at = bisect_left(lines, gone[0].seq, key=_seq)
        lines[at:at] = gone

    def blocks(self, run_id: str, width: int) -> list[LogBlock]:
        """Measures the lines of a run in stretches of `width` seqs."""
        stretches = groupby(self._lines.get(run_id, []), key=lambda line: line.seq // width)
        return [
            LogBlock(lines[0].seq, lines[-1].seq, len(lines), sum(len(line.text.encode()) for line in lines))
            for lines in (list(stretch) for _, stretch in stretches)
        ]

    def page(self, run_id: str, after: int, limit: int) -> list[LogLine]:
        """Returns lines of a run above a seq: the first `limit`, or the last `-limit` of them."""
        lines = self._lines.get(run_id, [])
        first = bisect_right(lines, after, key=_seq)
        return lines[first : first + limit] if limit >= 0 else lines[max(first, len(lines) + limit) :]

    def last(self, run_id: str) -> int:
        """Returns the highest seq of a run, 0 for none."""
        lines = self._lines.get(run_id)
        return lines[-1].seq if lines else 0

    def take(self, run_id: str) -> list[LogLine]:
        """Deletes the lines of a run; returns them."""
        return self._lines.pop(run_id, [])

    def put_back(self, run_id: str, lines: list[LogLine]) -> None:
        """Takes a deletion back."""
        self._lines[run_id] = lines
