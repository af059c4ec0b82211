"""The verbs of a transaction in SQLite: each is a named query of `sqlite.sql` and a conversion. It decides nothing."""

from __future__ import annotations

import math
import sqlite3
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, Final, TypeVar

import msgspec

from taskrun.model.records import Engine, LogBlock, LogLine, PipeEvent, Run, RunFilter, Status, Step
from taskrun.stores.queries import named_queries, numbered
from taskrun.stores.row_cache import RowCache
from taskrun.stores.rows import (
    ENGINE_FIELDS,
    EVENT_FIELDS,
    LOG_FIELDS,
    RUN_CHANGING,
    RUN_NEW,
    STEP_FIELDS,
    Row,
    engine_of,
    event_of,
    log_of,
    run_of,
    step_of,
    values_of,
)

SQL: Final = named_queries("sqlite.sql")
ORDERS: Final = numbered(SQL)  # of the values, where a statement uses one of them more than once

_new_run = values_of(RUN_NEW)
_saved_run = values_of((*RUN_CHANGING, "id"))
_step = values_of(STEP_FIELDS)
_event = values_of(EVENT_FIELDS[:-1])
_log = values_of(LOG_FIELDS)
_engine = values_of(ENGINE_FIELDS)

# Python's sqlite3 sends every None through its adapters, at six times the cost of any value; SQLite takes NaN for NULL.
_NULL: Final = float("nan")

T = TypeVar("T")


class SqliteTx:
    """Implements `Tx` on a connection that is inside a transaction."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._cursor = connection.cursor()
        self._execute = self._cursor.execute
        self._known = RowCache()

    def forget(self) -> None:
        """Forgets what it knows of rows: something was rolled back, or another connection has written."""
        self._known.clear()

    # ---- runs
    def add_run(self, run: Run) -> Run:
        self._write("add_run", _new_run(run))
        added = msgspec.structs.replace(run, seq=self._cursor.lastrowid)
        self._known.keep_run(added, new=True)
        return added

    def run(self, run_id: str) -> Run | None:
        run = self._known.run(run_id)
        if run is None and (run := self._one(run_of, "run", run_id)) is not None:
            self._known.keep_run(run)
        return run

    def holds(self, engine: str, run_id: str) -> bool:
        if (run := self._known.run(run_id)) is not None:
            return run.engine == engine
        return bool(self._value("holds", run_id, engine))

    def save_run(self, run: Run) -> None:
        self._write("save_run", _saved_run(run))
        self._known.save_run(run)

    def runs(self, want: RunFilter) -> list[Run]:
        query, values = listing(want)
        return [run_of(row) for row in self._execute(query, values)]

    def successes(self, job: str, since: float, after: int, limit: int, wait: Step) -> list[Run]:
        return self._all(run_of, "successes", job, since, after, limit, wait.run, wait.order)

    def piece(self, run_id: str, step: str | None, field: str, start: int, size: int) -> str:
        if step is None:
            return self._one(_first, "run_piece", run_id, field, start + 1, size) or ""
        return self._one(_first, "step_piece", run_id, step, field, start + 1, size) or ""

    def count_runs(self) -> dict[tuple[str, str], int]:
        succeeded = dict(self._execute(SQL["count_by_job"]))
        counts: dict[tuple[str, str], int] = {}
        for job, status, count in self._execute(SQL["count_by_status"]):
            counts[job, status] = count
            succeeded[job] -= count
        return counts | {(job, str(Status.SUCCEEDED)): count for job, count in succeeded.items() if count}

    def count_children(self) -> int:
        return int(self._value("count_children"))

    def oldest(self) -> float | None:
        moment: float | None = self._value("oldest")
        return moment

    def run_by_key(self, job: str, key: str) -> Run | None:
        return self._one(run_of, "run_by_key", job, key)

    def run_by_debounce(self, debounce: str) -> Run | None:
        return self._one(run_of, "run_by_debounce", debounce)

    def ready(self, engine: str, jobs: Sequence[str], limit: int, suspects: bool = True) -> list[Run]:
        if self._execute(SQL["any_ready"]).fetchone() is None:  # the usual case: no run of any job is ready
            return []
        runs = self._all(run_of, "ready", _json(set(jobs)), engine, limit, suspects)
        for run in runs:
            self._known.keep_run(run)
        return runs

    def owned(self, engine: str) -> list[Run]:
        return self._all(run_of, "owned", engine)

    def executing(self, engine: str) -> list[str]:
        return self._all(_first, "executing", engine)

    def asked(self, engine: str | None) -> list[Run]:
        return self._all(run_of, "asked", engine)

    def blocked_queues(self) -> list[str]:
        return self._all(_first, "blocked_queues")

    def due_runs(self, engine: str, now: float, limit: int) -> list[Run]:
        return self._all(run_of, "due_runs", now, engine, limit)

    def placed(self, lane: str) -> int:
        return int(self._value("placed", lane))

    def holders(self, lane: str) -> list[Run]:
        return self._all(run_of, "holders", lane)

    def blocked(self, queue: str, limit: int, jobs: Sequence[str] | None = None) -> list[Run]:
        if jobs is None:
            return self._all(run_of, "blocked", queue, limit)
        return self._all(run_of, "blocked_of_jobs", queue, _json(jobs), limit)

    def drop_runs(self, run_ids: Sequence[str]) -> None:
        for run_id in run_ids:
            self._known.drop_run(run_id)
            for query in ("drop_run", "drop_steps_of_run", "drop_logs_of_run"):
                self._execute(SQL[query], (run_id,))

    # ---- steps
    def put_step(self, step: Step) -> None:
        self._write("put_step", _step(step))
        self._known.put_step(step)

    def step(self, run_id: str, key: str) -> Step | None:
        return self._one(step_of, "step", run_id, key)

    def steps(self, run_id: str) -> list[Step]:
        return self._all(step_of, "steps", run_id)

    def step_page(self, run_id: str, after: int, limit: int) -> list[tuple[int, Step]]:
        query = "step_page" if limit >= 0 else "last_step_page"
        return self._all(lambda row: (row[-1], step_of(row)), query, run_id, after, abs(limit))

    def count_steps(self, run_id: str, most: int) -> tuple[int, int]:
        counts: tuple[int, int] = self._rows("count_steps", (run_id, most)).fetchone()
        return counts

    def open_step(self, run_id: str) -> Step | None:
        return self._one(step_of, "open_step", run_id)

    def failed_step(self, run_id: str) -> Step | None:
        return self._one(step_of, "failed_step", run_id)

    def open_steps(self, run_id: str) -> list[Step]:
        known = self._known.open_steps(run_id)
        return self._all(step_of, "open_steps", run_id) if known is None else known

    def drop_steps(self, run_id: str, keys: Sequence[str]) -> None:
        for key in keys:
            self._known.drop_step(run_id, key)
            self._execute(SQL["drop_step"], (run_id, key))

    def due_steps(self, engine: str, now: float, limit: int) -> list[Step]:
        return self._all(step_of, "due_steps", now, engine, limit)

    def waiting_steps(self, topic: str, limit: int | None = None) -> list[Step]:
        if topic in self._known.quiet:
            return []
        steps = self._all(step_of, "waiting_steps", topic, -1 if limit is None else limit)
        if not steps and limit != 0:
            self._known.keep_quiet(topic)
        return steps

    def next_due(self, engine: str) -> float | None:
        due: float | None = self._value("next_due", engine)
        return due

    # ---- events
    def add_event(self, event: PipeEvent) -> PipeEvent:
        self._write("add_event", _event(event))
        return msgspec.structs.replace(event, seq=self._cursor.lastrowid)

    def events(self, topic: str, since: float, after: int, limit: int, wait: Step | None = None) -> list[PipeEvent]:
        query = "events_after" if after > 0 else "events_since"
        run, order = (None, None) if wait is None else (wait.run, wait.order)
        return self._all(event_of, query, topic, since, after, limit, run, order)

    def drop_events(self, before: float) -> None:
        self._execute(SQL["drop_events"], (before,))

    # ---- logs
    def add_logs(self, lines: Iterable[LogLine]) -> None:
        self._cursor.executemany(SQL["add_logs"], map(_log, lines))

    def logs(self, run_id: str, after: int, limit: int) -> list[LogLine]:
        return self._all(log_of, "logs" if limit >= 0 else "last_logs", run_id, after, abs(limit))

    def log_blocks(self, run_id: str, width: int) -> list[LogBlock]:
        return self._all(lambda row: LogBlock(*row), "log_blocks", run_id, width)

    def drop_logs(self, run_id: str, first: int, last: int) -> None:
        self._execute(SQL["drop_logs"], (run_id, first, last))

    def last_log(self, run_id: str) -> int:
        return self._value("last_log", run_id) or 0

    # ---- engines and small facts
    def put_engine(self, engine: Engine) -> None:
        self._write("put_engine", _engine(engine))

    def engine(self, engine_id: str) -> Engine | None:
        return self._one(engine_of, "engine", engine_id)

    def engines(self, run_out: float | None = None) -> list[Engine]:
        return self._all(engine_of, "engines", math.inf if run_out is None else run_out)

    def drop_engine(self, engine_id: str) -> None:
        self._execute(SQL["drop_engine"], (engine_id,))

    def get(self, key: str) -> str | None:
        if key in self._known.facts:
            return self._known.facts[key]
        value: str | None = self._one(_first, "get", key)
        self._known.keep_fact(key, value)
        return value

    def put(self, key: str, value: str | None) -> None:
        if value is None:
            self._execute(SQL["unput"], (key,))
        else:
            self._execute(SQL["put"], (key, value))
        self._known.keep_fact(key, value)

    def facts(self, prefix: str) -> dict[str, str]:
        return dict(self._rows("facts", (prefix,)))

    # ---- a query
    def _write(self, query: str, values: Row) -> None:
        self._execute(SQL[query], [_NULL if value is None else value for value in values])

    def _rows(self, query: str, values: Sequence[Any]) -> sqlite3.Cursor:
        order = ORDERS.get(query)
        return self._execute(SQL[query], values if order is None else [values[at] for at in order])

    def _all(self, record: Callable[[Row], T], query: str, *values: Any) -> list[T]:
        return [record(row) for row in self._rows(query, values).fetchall()]

    def _one(self, record: Callable[[Row], T], query: str, *values: Any) -> T | None:
        row = self._rows(query, values).fetchone()
        return None if row is None else record(row)

    def _value(self, query: str, *values: Any) -> Any:
        return self._rows(query, values).fetchone()[0]


def listing(want: RunFilter) -> tuple[str, list[Any]]:
    """Returns the query of a listing, and the values for its clauses and its limit."""
    clauses = list(_clauses(want)) or [("runs_all", ())]
    where = " AND ".join(SQL[name] for name, _ in clauses)
    order = "runs_oldest_first" if want.oldest_first else "runs_newest_first"
    query = " ".join((SQL["runs_brief" if want.brief else "runs"], where, SQL[order]))
    return query, [
        *(value for _, values in clauses for value in values),
        -1 if want.limit is None else want.limit,
    ]


def _clauses(want: RunFilter) -> Iterator[tuple[str, tuple[Any, ...]]]:
    for field in ("id", "job", "parent", "not_under", "before", "after", "since", "until"):
        if (value := getattr(want, field)) is not None:
            yield f"runs_{field}", (value,)
    if want.roots:
        yield "runs_roots", ()
    if want.statuses is not None:
        bulk = Status.SUCCEEDED in want.statuses
        yield "runs_status_any" if bulk else "runs_status_rare", (_json(want.statuses),)
    for tag in want.tags:
        yield "runs_tag", tag
    if want.id_prefix:
        yield "runs_id_prefix", (want.id_prefix, want.id_prefix)
    if want.id_suffix:
        yield "runs_id_suffix", (want.id_suffix, want.id_suffix)


def _json(texts: Iterable[str]) -> str:
    return msgspec.json.encode(list(texts)).decode()


def _first(row: Row) -> Any:
    return row[0]
