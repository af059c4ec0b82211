"""The journal in memory: plain dicts and sorted indexes under one lock. A product: it runs the suite of all stores.

Each change leaves its inverse in a log, so that an `fn` that raises is undone alone and to the last trace.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from heapq import merge, nsmallest
from itertools import islice, takewhile
from operator import attrgetter
from typing import Any

import msgspec

from taskrun.model.errors import DefinitionError
from taskrun.model.records import (
    Engine,
    LogBlock,
    LogLine,
    PipeEvent,
    Run,
    RunFilter,
    Status,
    Step,
    StepStatus,
    brief_run,
    brief_step,
)
from taskrun.model.tags import tags_of
from taskrun.stores.base import Answer, Tx
from taskrun.stores.indexes import Item, SortedItems
from taskrun.stores.memory_tables import Logs, Runs, Steps, Topics
from taskrun.stores.rows import RUN_CHANGING

Fn = Callable[[Tx], Any]
Guard = Callable[[Tx], None]

_changing = attrgetter(*RUN_CHANGING)


class MemoryStorage:
    """Keeps the journal in this process: what it holds ends with it."""

    instant = True
    shared = False
    place = address = None
    clock = None
    pace = math.inf

    def __init__(self) -> None:
        self.written = 0
        self._lock = threading.Lock()
        self._tx = MemoryTx()

    def open(self) -> None:
        """Has nothing to do: the journal lives as long as the object."""

    def close(self) -> None:
        """Keeps everything, so that another queue can go on with it."""

    def apply(self, fns: Sequence[Fn], guard: Guard | None = None) -> list[Answer]:
        """Runs `fns` in one transaction; returns for each its value, or the exception that it raised.

        `guard` runs first; if it raises, nothing of the batch is run and `apply` raises the same.
        """
        with self._lock:
            try:
                if guard is not None:
                    guard(self._tx)
                answers = [self._answer(fn) for fn in fns]
                self.written += self._tx.changes > 0
                return answers
            except BaseException:
                self._tx.undo(0)
                raise
            finally:
                self._tx.forget()

    def outside(self) -> object:
        """Returns always the same: nobody else can write."""
        return None

    def follow(self, engine: str, jobs: Sequence[str], call: Callable[[], None], ready: Callable[[], None]) -> None:
        """Has nothing to hear of."""

    def unfollow(self, call: Callable[[], None]) -> None:
        """Has nothing to forget."""

    async def enlist(self, connection: Any, key: str, value: str, job: str) -> None:
        """Raises DefinitionError: nobody else has a transaction here."""
        raise DefinitionError("connection= needs a PostgresStorage, in whose database the connection is")

    def _answer(self, fn: Fn) -> Answer:
        before = self._tx.changes
        try:
            return fn(self._tx), None
        except Exception as error:
            self._tx.undo(before)
            return None, error


class MemoryTx:
    """Implements `Tx` on dicts. One for the life of the store; `undo` and `forget` are the store's."""

    def __init__(self) -> None:
        self._log: list[Callable[[], None]] = []
        self._runs = Runs()
        self._steps = Steps()
        self._topics = Topics()
        self._logs = Logs()
        self._engines: dict[str, Engine] = {}
        self._facts: dict[str, str] = {}
        self._fact_keys = SortedItems()

    @property
    def changes(self) -> int:
        """How many changes may still be undone."""
        return len(self._log)

    def undo(self, down_to: int) -> None:
        """Takes changes back, the newest first, until `down_to` are left."""
        while len(self._log) > down_to:
            self._log.pop()()

    def forget(self) -> None:
        """Makes all changes final."""
        self._log.clear()

    # ---- runs
    def add_run(self, run: Run) -> Run:
        if run.id in self._runs.by_id:
            raise ValueError(f"a run {run.id} is there already")
        run = msgspec.structs.replace(run, seq=self._runs.next_seq())
        self._log.append(self._runs.take_seq_back)
        self._change_run(None, run)
        return run

    def run(self, run_id: str) -> Run | None:
        return self._runs.by_id.get(run_id)

    def holds(self, engine: str, run_id: str) -> bool:
        run = self._runs.by_id.get(run_id)
        return run is not None and run.engine == engine and not run.ended

    def save_run(self, run: Run) -> None:
        if (old := self._runs.by_id.get(run.id)) is not None:
            changed = dict(zip(RUN_CHANGING, _changing(run), strict=True))
            if run.output is None:
                del changed["output"]
            self._change_run(old, msgspec.structs.replace(old, **changed))

    def runs(self, want: RunFilter) -> list[Run]:
        one = self._runs.by_id.get(want.id or "")
        group = self._runs.newest_first(want) if want.id is None else ([] if one is None else [one])
        found = (run for run in group if fits(run, want) and not self._is_under(run, want.not_under))
        first = islice(reversed([*found]) if want.oldest_first else found, want.limit)
        return [brief_run(run) if want.brief else run for run in first]

    def successes(self, job: str, since: float, after: int, limit: int, wait: Step) -> list[Run]:
        seen = self._consumed(wait, f"job:{job}")
        found = (run for run in self._runs.newest_first(RunFilter(job=job)) if run.status is Status.SUCCEEDED)
        behind = (run for run in found if _end(run) > (since, after) and run.job == job and run.seq not in seen)
        return nsmallest(limit, behind, key=_end)

    def _is_under(self, run: Run, job: str | None) -> bool:
        parent = None if job is None or run.parent is None else self.run(run.parent)
        return parent is not None and parent.job == job

    def piece(self, run_id: str, step: str | None, field: str, start: int, size: int) -> str:
        found = self.run(run_id) if step is None else self.step(run_id, step)
        return (getattr(found, field, None) or "")[start : start + size]

    def count_runs(self) -> dict[tuple[str, str], int]:
        return {group: count for group, count in self._runs.counts.items() if count}

    def count_children(self) -> int:
        children = self._runs.children
        return sum(len(children.group(parent)) for parent in children.groups())

    def oldest(self) -> float | None:
        return min((run.created_at for run in self._runs.by_id.values() if not run.ended), default=None)

    def run_by_key(self, job: str, key: str) -> Run | None:
        return self._runs.newest(self._runs.keyed.group((job, key)))

    def run_by_debounce(self, debounce: str) -> Run | None:
        return self._runs.newest(self._runs.debounced.group(debounce))

    def ready(self, engine: str, jobs: Sequence[str], limit: int, suspects: bool = True) -> list[Run]:
        queues = [queue for job in set(jobs) if (queue := self._runs.ready.group(job))]
        if not queues:
            return []
        ours = (run for run in self._runs.at(merge(*queues)) if run.engine in (None, engine))
        return list(islice((run for run in ours if suspects or not run.crashes or run.cancel is not None), limit))

    def owned(self, engine: str) -> list[Run]:
        return list(self._runs.at(self._runs.owned.group(engine)))

    def executing(self, engine: str) -> list[str]:
        return [run.id for run in self.owned(engine) if run.status is Status.RUNNING]

    def asked(self, engine: str | None) -> list[Run]:
        return list(self._runs.at(self._runs.asked.group(engine)))

    def blocked_queues(self) -> list[str]:
        return self._runs.blocked.groups()

    def due_runs(self, engine: str, now: float, limit: int) -> list[Run]:
        due = takewhile(lambda item: item[0] <= now, merge(*self._runs.timers(engine)))
        once = dict.fromkeys(item[-1] for item in due)
        return [self._runs.by_id[run_id] for run_id in islice(once, limit)]

    def placed(self, lane: str) -> int:
        return len(self._runs.placed.group(lane))

    def holders(self, lane: str) -> list[Run]:
        return list(self._runs.at(self._runs.placed.group(lane)))

    def blocked(self, queue: str, limit: int, jobs: Sequence[str] | None = None) -> list[Run]:
        runs = self._runs.at(self._runs.blocked.group(queue))
        return list(islice((run for run in runs if jobs is None or run.job in jobs), limit))

    def drop_runs(self, run_ids: Sequence[str]) -> None:
        for run_id in run_ids:
            self.drop_steps(run_id, [step.key for step in self.steps(run_id)])
            if lines := self._logs.take(run_id):
                self._log.append(partial(self._logs.put_back, run_id, lines))
            if (run := self._runs.by_id.get(run_id)) is not None:
                self._change_run(run, None)

    def _change_run(self, old: Run | None, new: Run | None) -> None:
        self._runs.change(old, new)
        self._log.append(partial(self._runs.change, new, old))

    # ---- steps
    def put_step(self, step: Step) -> None:
        self._change_step(step.run, step.key, step)

    def step(self, run_id: str, key: str) -> Step | None:
        return self._steps.get(run_id, key)[1]

    def steps(self, run_id: str) -> list[Step]:
        return self._steps.of(run_id)

    def step_page(self, run_id: str, after: int, limit: int) -> list[tuple[int, Step]]:
        found = [(n, step) for n, step in self._steps.puts(run_id) if n > after]
        return [(n, brief_step(step)) for n, step in (found[:limit] if limit >= 0 else found[limit:])]

    def count_steps(self, run_id: str, most: int) -> tuple[int, int]:
        count, under_way = len(self.steps(run_id)), len(self.open_steps(run_id))
        return (count, under_way) if most < 0 else (min(count, most), min(under_way, most))

    def open_step(self, run_id: str) -> Step | None:
        return self._last(run_id, StepStatus.RUNNING)

    def failed_step(self, run_id: str) -> Step | None:
        return self._last(run_id, StepStatus.FAILED)

    def _last(self, run_id: str, status: StepStatus) -> Step | None:
        found = next((step for step in reversed(self.steps(run_id)) if step.status is status), None)
        return None if found is None else brief_step(found)

    def open_steps(self, run_id: str) -> list[Step]:
        return [step for step in self._steps.of(run_id) if not step.finished]

    def drop_steps(self, run_id: str, keys: Sequence[str]) -> None:
        for key in keys:
            if self.step(run_id, key) is not None:
                self._change_step(run_id, key, None)

    def due_steps(self, engine: str, now: float, limit: int) -> list[Step]:
        due = takewhile(lambda item: item[0] <= now, self._steps.timed.group(None))
        return list(islice(self._concerning(engine, due), limit))

    def waiting_steps(self, topic: str, limit: int | None = None) -> list[Step]:
        return list(islice(self._steps.at(self._steps.waiting.group(topic)), limit))

    def next_due(self, engine: str) -> float | None:
        runs = (next(iter(timer), (None,))[0] for timer in self._runs.timers(engine))
        steps = self._concerning(engine, self._steps.timed.group(None))
        step = next((step.wake_at for step in steps), None)
        return min((due for due in (*runs, step) if due is not None), default=None)

    def _concerning(self, engine: str, items: Iterable[Item]) -> Iterator[Step]:
        for step in self._steps.at(items):
            run = self._runs.by_id.get(step.run)
            if run is not None and not run.ended and run.engine in (None, engine):
                yield step

    def _change_step(self, run_id: str, key: str, step: Step | None) -> None:
        was = self._steps.get(run_id, key)
        n = was[0] or self._steps.next_n()
        self._steps.change(run_id, key, was, (n, step))
        self._log.append(partial(self._steps.change, run_id, key, (n, step), was))

    # ---- events
    def add_event(self, event: PipeEvent) -> PipeEvent:
        event = self._topics.add(event)
        self._log.append(partial(self._topics.pop, event.topic))
        return event

    def events(self, topic: str, since: float, after: int, limit: int, wait: Step | None = None) -> list[PipeEvent]:
        seen = self._consumed(wait, topic)
        events = (event for event in self._topics.read(topic, since, after) if event.seq not in seen)
        return list(islice(events, limit))

    def _consumed(self, wait: Step | None, topic: str) -> set[int]:
        """Returns what other waits of the run of a wait had taken of a topic before that one began."""
        if wait is None:
            return set()
        before = math.inf if wait.order is None else wait.order
        ended = (
            one for one in self._steps.of(wait.run) if one.status is StepStatus.SUCCEEDED and (one.order or 0) < before
        )
        taken = ((one.cursor, one.topic or "") for one in ended)
        return {cursor for cursor, of in taken if cursor is not None and of.partition("#")[0] == topic}

    def drop_events(self, before: float) -> None:
        if self._topics.has(before):
            self._log.append(partial(self._topics.put_back, self._topics.drop(before)))

    # ---- logs
    def add_logs(self, lines: Iterable[LogLine]) -> None:
        for line in lines:
            if self._logs.add(line):
                self._log.append(partial(self._logs.remove, line))

    def logs(self, run_id: str, after: int, limit: int) -> list[LogLine]:
        return self._logs.page(run_id, after, limit)

    def log_blocks(self, run_id: str, width: int) -> list[LogBlock]:
        return self._logs.blocks(run_id, width)

    def drop_logs(self, run_id: str, first: int, last: int) -> None:
        lines = self._logs.cut(run_id, first, last)
        if lines:
            self._log.append(partial(self._logs.put_lines_back, lines))

    def last_log(self, run_id: str) -> int:
        return self._logs.last(run_id)

    # ---- engines and small facts
    def put_engine(self, engine: Engine) -> None:
        self._set_engine(engine.id, engine)

    def engine(self, engine_id: str) -> Engine | None:
        return self._engines.get(engine_id)

    def engines(self, run_out: float | None = None) -> list[Engine]:
        found = (one for one in self._engines.values() if run_out is None or one.lease_until < run_out)
        return sorted(found, key=lambda engine: engine.id)

    def drop_engine(self, engine_id: str) -> None:
        if engine_id in self._engines:
            self._set_engine(engine_id, None)

    def get(self, key: str) -> str | None:
        return self._facts.get(key)

    def put(self, key: str, value: str | None) -> None:
        was = self._facts.get(key)
        if was is not None or value is not None:
            self._set_fact(key, was, value)
            self._log.append(partial(self._set_fact, key, value, was))

    def facts(self, prefix: str) -> dict[str, str]:
        keys = (key for (key,) in self._fact_keys.since((prefix,)))
        return {key: self._facts[key] for key in takewhile(lambda key: key.startswith(prefix), keys)}

    def _set_fact(self, key: str, was: str | None, value: str | None) -> None:
        if was is None and value is not None:
            self._fact_keys.add((key,))
        elif was is not None and value is None:
            self._fact_keys.remove((key,))
        _put(self._facts, key, value)

    def _set_engine(self, engine_id: str, engine: Engine | None) -> None:
        self._log.append(partial(_put, self._engines, engine_id, self._engines.get(engine_id)))
        _put(self._engines, engine_id, engine)


def fits(run: Run, want: RunFilter) -> bool:
    """Tells whether a listing wants a run."""
    return (
        (want.job is None or run.job == want.job)
        and (want.statuses is None or run.status in want.statuses)
        and (want.since is None or run.created_at >= want.since)
        and (want.until is None or (run.ended_at is not None and run.ended_at < want.until))
        and (want.parent is None or run.parent == want.parent)
        and (not want.roots or run.parent is None)
        and (not want.tags or _tagged(run, want.tags))
        and (want.before is None or run.seq < want.before)
        and (want.after is None or run.seq > want.after)
        and run.id.startswith(want.id_prefix or "")
        and run.id.endswith(want.id_suffix or "")
    )


def _end(run: Run) -> tuple[float, int]:
    return run.ended_at or 0.0, run.seq


def _tagged(run: Run, wanted: Sequence[tuple[str, str | None]]) -> bool:
    tags = tags_of(run)
    return all(name in tags and value in (None, tags[name]) for name, value in wanted)


def _put(table: dict[str, Any], key: str, value: Any) -> None:
    if value is None:
        table.pop(key, None)
    else:
        table[key] = value
