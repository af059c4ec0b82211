"""The verbs of a transaction in Postgres: a query of `postgres.sql`, what it locks, and a conversion. They decide nothing."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, Final, TypeVar

import msgspec

from taskrun.model.records import (
    PLACE,
    PLACED,
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
from taskrun.stores.postgres_batch import Batch
from taskrun.stores.postgres_session import SQL
from taskrun.stores.rows import Row, engine_of, event_of, log_of, run_of, step_of

# Facts that everybody reads and hardly anybody writes: read under a lock that others share. A hint, nothing depends on it.
READ_MOSTLY: Final = ("paused:", "paths:", "jobs:", "refused:", "trigger:", "subscribed:")
RUN = "run:"  # a topic whose lock is the run's own row

T = TypeVar("T")


class PostgresTx:
    """Implements `Tx` on one transaction.

    Parameters:
        next_seq: gives the order of triggering.
    """

    def __init__(self, batch: Batch, next_seq: Callable[[], int]) -> None:
        self.batch = batch
        self.guarding = False  # while a guard looks whether its engine is there
        self._next_seq = next_seq

    # ---- runs
    def add_run(self, run: Run) -> Run:
        added = msgspec.structs.replace(run, seq=self._next_seq())
        self.batch.add_run(added)
        return added

    def run(self, run_id: str) -> Run | None:
        batch = self.batch
        run = batch.sure(run_id)
        if run is None and run_id not in batch.runs and (run := self._locked_run("run", run_id)) is None:
            batch.runs[run_id] = None
        return run

    def holds(self, engine: str, run_id: str) -> bool:
        batch = self.batch
        run = batch.sure(run_id)
        known = run is not None and run.engine == engine and not run.ended
        held = known if run is not None else bool(batch.ask("holds", run_id, engine))
        if held:
            batch.mine.add(run_id)
        return held

    def save_run(self, run: Run) -> None:
        self.batch.save_run(run)

    def runs(self, want: RunFilter) -> list[Run]:
        query, values = listing(want)
        rows = self.batch.ask_text(query, values)
        if want.brief:
            return [brief_run(run_of(row)) for row in rows]
        return [self.batch.take(run_of(row), row[-1], locked=False) for row in rows]

    def successes(self, job: str, since: float, after: int, limit: int, wait: Step) -> list[Run]:
        return self._runs("successes", False, job, since, str(after), str(limit), *_bounds(wait))

    def piece(self, run_id: str, step: str | None, field: str, start: int, size: int) -> str:
        if step is None:
            return self._one(_first, "run_piece", run_id, field, str(start + 1), str(size)) or ""
        return self._one(_first, "step_piece", run_id, step, field, str(start + 1), str(size)) or ""

    def count_runs(self) -> dict[tuple[str, str], int]:
        return {(job, status): count for job, status, count in self.batch.ask("count_runs")}

    def count_children(self) -> int:
        return int(self._value("count_children"))

    def oldest(self) -> float | None:
        moment: float | None = self._value("oldest")
        return moment

    def run_by_key(self, job: str, key: str) -> Run | None:
        self.batch.lock(f"key {job} {key}")
        return self._locked_run("run_by_key", job, key)

    def run_by_debounce(self, debounce: str) -> Run | None:
        self.batch.lock(f"debounce {debounce}")
        return self._locked_run("run_by_debounce", debounce)

    def ready(self, engine: str, jobs: Sequence[str], limit: int, suspects: bool = True) -> list[Run]:
        batch, asked = self.batch, (engine, tuple(jobs), suspects)
        offered = (batch.runs.get(run_id) for run_id in batch.offered.get(asked, ()))
        left = [run for run in offered if run and run.status is Status.QUEUED and run.blocked is None][:limit]
        if asked in batch.none_ready or (left and limit == 1):
            return left
        # Who asks for one only looks whether there is any: whoever starts some asks for more.
        query, locked = ("any_ready", False) if limit <= 1 else ("ready", True)
        values = (sorted(set(jobs)), engine, str(limit), suspects)
        there = batch.along("count_ready", *values) if locked else []
        found = self._runs(query, locked, *values)
        if locked:
            batch.offered[asked] = [run.id for run in found]
            batch.took = batch.took or bool(found)
        # Those that another transaction has locked are passed over, and may be left over by it.
        passed_over = bool(there) and min(there[0][0], limit) > len(found)
        if len(found) < limit and not passed_over and (locked or not found):
            batch.none_ready.add(asked)  # but for those found, as long as they are
        return found

    def owned(self, engine: str) -> list[Run]:
        return self._runs("owned", True, engine)

    def executing(self, engine: str) -> list[str]:
        return self._all(_first, "executing", engine)

    def asked(self, engine: str | None) -> list[Run]:
        if engine is None:
            return self._runs("asked_of_none", False)
        return self._runs("asked", False, engine)

    def blocked_queues(self) -> list[str]:
        return self._all(_first, "blocked_queues")

    def due_runs(self, engine: str, now: float, limit: int) -> list[Run]:
        return self._runs("due_runs", True, now, engine, str(limit))

    def placed(self, lane: str) -> int:
        self.batch.lock(f"lane {lane}")
        return int(self._value("placed", lane))

    def holders(self, lane: str) -> list[Run]:
        return self._runs("holders", False, lane)

    def blocked(self, queue: str, limit: int, jobs: Sequence[str] | None = None) -> list[Run]:
        if jobs is None:
            return self._runs("blocked", True, queue, str(limit))
        return self._runs("blocked_of_jobs", True, queue, str(limit), list(jobs))

    def drop_runs(self, run_ids: Sequence[str]) -> None:
        for run_id in run_ids:
            self.batch.known.drop_run(run_id)
        if run_ids:
            for query in ("drop_runs", "drop_steps_of_runs", "drop_logs_of_runs"):
                self.batch.change(query, sorted(run_ids))
            for run_id in run_ids:
                self.batch.runs.pop(run_id, None)

    # ---- steps
    def put_step(self, step: Step) -> None:
        batch = self.batch
        if step.topic is not None and step.status is StepStatus.RUNNING:
            self._lock_topic(step.topic, shared=False)
            batch.quiet.discard(step.topic)
            if step.topic.startswith(RUN):
                batch.touch(step.topic.removeprefix(RUN))
        batch.put_step(step)

    def step(self, run_id: str, key: str) -> Step | None:
        return self.batch.pending_step(run_id, key) or self._one(step_of, "step", run_id, key)

    def steps(self, run_id: str) -> list[Step]:
        return self._all(step_of, "steps", run_id)

    def step_page(self, run_id: str, after: int, limit: int) -> list[tuple[int, Step]]:
        query = "step_page" if limit >= 0 else "last_step_page"
        return self._all(lambda row: (row[-1], brief_step(step_of(row))), query, run_id, str(after), str(abs(limit)))

    def count_steps(self, run_id: str, most: int) -> tuple[int, int]:
        [(steps, running)] = self.batch.ask("count_steps", run_id, None if most < 0 else str(most))
        return steps, running

    def open_step(self, run_id: str) -> Step | None:
        return self._brief_step("open_step", run_id)

    def failed_step(self, run_id: str) -> Step | None:
        return self._brief_step("failed_step", run_id)

    def open_steps(self, run_id: str) -> list[Step]:
        if self.batch.sure(run_id) is not None:
            known = self.batch.known.open_steps(run_id)
            if known is not None:
                return known
        return self._all(step_of, "open_steps", run_id)

    def drop_steps(self, run_id: str, keys: Sequence[str]) -> None:
        for key in keys:
            self.batch.known.drop_step(run_id, key)
        if run_id not in self.batch.mine:
            self.batch.touch(run_id)
        self.batch.change("drop_steps", run_id, list(keys))

    def due_steps(self, engine: str, now: float, limit: int) -> list[Step]:
        return self._all(step_of, "due_steps", now, engine, str(limit))

    def waiting_steps(self, topic: str, limit: int | None = None) -> list[Step]:
        self._lock_topic(topic, shared=True)
        if topic in self.batch.quiet:
            return []
        asked = (topic, None if limit is None else str(limit))
        steps = self._all(step_of, "waiting_steps", *asked)
        if steps:  # now with their runs locked, so that their engines do nothing to them meanwhile
            self.batch.ask("lock_runs", sorted({step.run for step in steps}))
            return self._all(step_of, "waiting_steps", *asked)
        if limit != 0:
            self.batch.quiet.add(topic)
        return steps

    def next_due(self, engine: str) -> float | None:
        due: float | None = self._value("next_due", engine)
        return due

    def _lock_topic(self, topic: str, shared: bool) -> None:
        """Of one who waits and one who ends waits, one sees what the other wrote; those who end waits share the lock."""
        if topic.startswith((PLACE, PLACED)):
            self.batch.lock(f"place {topic.partition(':')[2]}")
        elif not topic.startswith(RUN):
            self.batch.lock(f"topic {topic.partition('#')[0]}", shared)

    # ---- events
    def add_event(self, event: PipeEvent) -> PipeEvent:
        self.batch.lock(f"topic {event.topic}", shared=True)
        self.batch.writes = True
        values = (event.id, event.topic, event.at, event.data, event.input)
        [(seq,)] = self.batch.ask("add_event", *values)
        self.batch.changed += 1
        return msgspec.structs.replace(event, seq=seq)

    def events(self, topic: str, since: float, after: int, limit: int, wait: Step | None = None) -> list[PipeEvent]:
        return self._all(event_of, "events", topic, since, str(after), str(limit), *_bounds(wait))

    def drop_events(self, before: float) -> None:
        self.batch.change("drop_events", before)

    # ---- logs
    def add_logs(self, lines: Iterable[LogLine]) -> None:
        self.batch.add_logs(lines)

    def logs(self, run_id: str, after: int, limit: int) -> list[LogLine]:
        return self._all(log_of, "logs" if limit >= 0 else "last_logs", run_id, str(after), str(abs(limit)))

    def log_blocks(self, run_id: str, width: int) -> list[LogBlock]:
        return self._all(lambda row: LogBlock(*row), "log_blocks", run_id, str(width))

    def drop_logs(self, run_id: str, first: int, last: int) -> None:
        self.batch.change("drop_logs", run_id, first, last)

    def last_log(self, run_id: str) -> int:
        return self._value("last_log", run_id) or 0

    # ---- engines and small facts
    def put_engine(self, engine: Engine) -> None:
        self.batch.ours.add(engine.id)
        self.batch.change(
            "put_engine", engine.id, engine.name, engine.lease_until, engine.host, engine.pid, engine.leash
        )

    def engine(self, engine_id: str) -> Engine | None:
        if engine_id in self.batch.lost:
            return None
        if self.guarding and engine_id in self.batch.ours:
            self.batch.fence.add(engine_id)  # found out in the same round trip as the writes
            return Engine(id=engine_id, name="", lease_until=0.0)
        return self._one(engine_of, "engine", engine_id)

    def engines(self, run_out: float | None = None) -> list[Engine]:
        return self._all(engine_of, "engines", math.inf if run_out is None else run_out)

    def drop_engine(self, engine_id: str) -> None:
        self.batch.change("drop_engine", engine_id)

    def get(self, key: str) -> str | None:
        facts = self.batch.facts
        if key not in facts:
            self.batch.lock(f"fact {key}", shared=key.startswith(READ_MOSTLY))
            if not self.batch.trust_fact(key):
                facts[key] = self._one(_first, "get", key)
                if key.startswith(READ_MOSTLY):
                    self.batch.known_facts[key] = facts[key]
        return facts[key]

    def put(self, key: str, value: str | None) -> None:
        self.batch.put_fact(key, value)

    def facts(self, prefix: str) -> dict[str, str]:
        return dict(self.batch.ask("facts", prefix))

    # ---- a query
    def _runs(self, query: str, locked: bool, *values: Any) -> list[Run]:
        return [self.batch.take(run_of(row), row[-1], locked) for row in self.batch.ask(query, *values)]

    def _locked_run(self, query: str, *values: Any) -> Run | None:
        return next(iter(self._runs(query, True, *values)), None)

    def _brief_step(self, query: str, run_id: str) -> Step | None:
        step = self._one(step_of, query, run_id)
        return None if step is None else brief_step(step)

    def _all(self, record: Callable[[Row], T], query: str, *values: Any) -> list[T]:
        return [record(row) for row in self.batch.ask(query, *values)]

    def _one(self, record: Callable[[Row], T], query: str, *values: Any) -> T | None:
        row = next(iter(self.batch.ask(query, *values)), None)
        return None if row is None else record(row)

    def _value(self, query: str, *values: Any) -> Any:
        return self.batch.ask(query, *values)[0][0]


def listing(want: RunFilter) -> tuple[str, list[Any]]:
    """Returns the query of a listing, and its values."""
    clauses = list(_clauses(want)) or [("runs_all", ())]
    order = "runs_oldest_first" if want.oldest_first else "runs_newest_first"
    text = " AND ".join(SQL[name] for name, _ in clauses)
    values = [value for _, values in clauses for value in values] + [None if want.limit is None else str(want.limit)]
    numbers = iter(range(1, len(values) + 1))
    text = re.sub(r"\?", lambda _: f"${next(numbers)}", f"{SQL['runs']} {text} {SQL[order]} ?::bigint")
    return text, values


def _clauses(want: RunFilter) -> Iterator[tuple[str, tuple[Any, ...]]]:
    for field in ("id", "job", "parent", "not_under", "before", "after", "since", "until"):
        if (value := getattr(want, field)) is not None:
            yield f"runs_{field}", (str(value) if type(value) is int else value,)
    if want.roots:
        yield "runs_roots", ()
    if want.statuses is not None:
        bulk = Status.SUCCEEDED in want.statuses
        yield "runs_status_any" if bulk else "runs_status_rare", ([str(status) for status in want.statuses],)
    for name, value in want.tags:
        yield "runs_tag", (name, value, name)
    if want.id_prefix:
        yield "runs_id_prefix", (want.id_prefix,)
    if want.id_suffix:
        yield "runs_id_suffix", (want.id_suffix, want.id_suffix)


def _bounds(wait: Step | None) -> tuple[str | None, str | None]:
    """Returns the run of a wait, and the order below which its waits have taken what this one does not get."""
    return (None, None) if wait is None else (wait.run, None if wait.order is None else str(wait.order))


def _first(row: Row) -> Any:
    return row[0]
