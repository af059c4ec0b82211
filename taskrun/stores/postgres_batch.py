"""One transaction in Postgres: what it has read, what it is to write, and how it keeps clear of those of other engines.

Transactions of several engines go side by side. A run's row stands for the run and its steps: who reads it to change it has it
locked, or has its `version` checked in the same round trip as the writes. What has no row (that there is no such fact, nobody
who waits for a topic) is locked by its name. Where two get into each other's way one is rolled back and executed again,
in the end alone: with the lock that all others share. Writes are gathered, and go out together.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence, Set
from enum import Enum, auto
from typing import Any, Final

import msgspec
import psycopg
from msgspec.structs import asdict, replace

from taskrun.model.records import LogLine, Run, Status, Step
from taskrun.stores.postgres_names import all_channel, engine_channel, job_channel, lock_number, ready_channel
from taskrun.stores.postgres_session import SQL, STANDSTILL, UNLOCKED, Session
from taskrun.stores.row_cache import RowCache
from taskrun.stores.rows import RUN_CHANGING

MOST_LOCKS: Final = 200  # by name that one transaction takes: a server has room for some thousand in all
ROUTE, TRIGGER = "route:", "trigger:"  # facts that other engines have to learn of
FOR_VALUES: Final = frozenset({"count_children", "count_runs", "events", "run_by_debounce"})
_encode = msgspec.json.Encoder().encode
_NUL, _SUBSTITUTE, _ESCAPED_NUL = "\0", "\x1a", b"\\u0000"


class Beside(Enum):
    """How a transaction goes beside those of others."""

    TRUSTING = auto()  # it takes known rows for true until they are checked, in its last round trip
    ASKING = auto()  # it asks for each row
    ALONE = auto()  # no other one is under way
    READING = auto()  # it only reads, one state of the journal, and is in nobody's way


class InTheWay(Exception):
    """Another transaction was in the way: roll back, and execute this one again."""


class Batch:
    """What one transaction knows and gathers.

    Parameters:
        known: what this connection knows of rows from one transaction to the next, with their versions.
        known_facts: the same of facts that hardly change, None where there is none.
        ours: ids of the engines that write through this connection.
        lost: ids of those that are to begin again.
    """

    def __init__(
        self,
        session: Session,
        schema: str,
        beside: Beside,
        known: RowCache,
        versions: dict[str, int],
        known_facts: dict[str, str | None],
        ours: set[str],
        lost: Set[str] = frozenset(),
    ) -> None:
        self.session = session
        self.beside = beside
        self.known = known
        self.versions = versions
        self.known_facts = known_facts
        self.ours = ours
        self.lost = lost
        self.runs: dict[str, Run | None] = {}  # as they are now
        self.mine: set[str] = set()  # runs whose engine is the one that writes
        self.facts: dict[str, str | None] = {}  # as they are now, each under its lock
        self.quiet: set[str] = set()  # topics that no step waits for
        self.offered: dict[tuple[object, ...], list[str]] = {}  # ready runs that were asked for, by the question
        self.none_ready: set[tuple[object, ...]] = set()  # questions without answers but those
        self.fence: set[str] = set()  # engines that must be there
        self.changed = 0  # rows
        self.writes = False
        self.took = False  # ready runs
        self._schema = schema
        self._begun = False
        self._read: dict[str, int] = {}  # versions of runs that are not locked
        self._check: dict[str, int] = {}
        self._check_facts: dict[str, str | None] = {}
        self._locks: dict[str, bool] = {}  # by name, whether nobody else may share it
        self._channels: set[str] = set()
        self._new: dict[str, Run] = {}
        self._saved: dict[str, Run] = {}
        self._touched: set[str] = set()
        self._steps: dict[tuple[str, str], Step] = {}
        self._logs: list[LogLine] = []
        self._facts: dict[str, str | None] = {}

    # ---- reading

    def ask(self, query: str, *values: Any) -> list[tuple[Any, ...]]:
        """Sends what was gathered, then a query; returns its rows."""
        text = (UNLOCKED if self.beside is Beside.READING else SQL)[query]
        if query in FOR_VALUES:
            return self.ask_text(text, values)
        self.seal()
        self._begin()
        return self.session.ask(text, values)

    def ask_text(self, text: str, values: Sequence[Any]) -> list[tuple[Any, ...]]:
        """Like `ask`, with the text of a query that is planned for its values."""
        self.seal()
        self._begin()
        return self.session.ask_for_values(text, values)

    def along(self, query: str, *values: Any) -> list[tuple[Any, ...]]:
        """Queues a query, to be sent with the next that is asked; returns a list that has its rows from then on."""
        rows: list[tuple[Any, ...]] = []
        self.seal()
        self._put(query, *values, result=lambda cursor: rows.extend(cursor.fetchall()))
        return rows

    def take(self, run: Run, version: int, locked: bool) -> Run:
        """Keeps a run that was read just now."""
        self.runs[run.id] = run
        if self.versions.get(run.id) != version:
            self.known.drop_run(run.id)
        if locked:
            self._read.pop(run.id, None)
            if self.known.run(run.id) is None:
                untouched = version == 0 and run.started_at is None
                self.known.keep_run(run, new=untouched)  # then it has no running steps
        else:
            self._read[run.id] = version
        self.versions[run.id] = version
        return run

    def sure(self, run_id: str) -> Run | None:
        """Returns a run that is known, if need be to be checked; None where it is not known."""
        run = self.runs.get(run_id)
        if run is not None:
            if (version := self._read.pop(run_id, None)) is not None:
                self._check[run_id] = version
            return run
        run = self.known.run(run_id) if self.beside is Beside.TRUSTING else None
        if run is not None:
            self.runs[run_id] = run
            self._check[run_id] = self.versions[run_id]
        return run

    def trust_fact(self, key: str) -> bool:
        """Takes a fact for what it was, if that is known, to be checked; its lock is taken. Returns whether it does."""
        if self.beside is not Beside.TRUSTING or key not in self.known_facts:
            return False
        self.facts[key] = self._check_facts[key] = self.known_facts[key]
        return True

    def pending_step(self, run_id: str, key: str) -> Step | None:
        """Returns a step that is still to be written."""
        return self._steps.get((run_id, key))

    # ---- locks

    def lock(self, name: str, shared: bool = False) -> None:
        """Locks a name until the transaction ends."""
        if (
            self.beside in (Beside.ALONE, Beside.READING)
            or self._locks.get(name, False)
            or (shared and name in self._locks)
        ):
            return
        if len(self._locks) >= MOST_LOCKS:
            raise InTheWay("it needs too many locks")
        self._locks[name] = not shared
        self._put("lock_shared" if shared else "lock", lock_number(self._schema, name))

    # ---- writing

    def add_run(self, run: Run) -> None:
        """Gathers a new run."""
        if run.id in self._new or self.runs.get(run.id) is not None:
            raise ValueError(f"a run {run.id} is there already")
        if run.id in self._saved:  # which changed nothing, since it was not there
            self.seal()
        self._note(run)
        self._new[run.id] = self.runs[run.id] = run
        self.versions[run.id] = 0
        self.known.keep_run(run, new=True)

    def save_run(self, run: Run) -> None:
        """Gathers the changing fields of a run."""
        before = self.runs.get(run.id)
        if before is not None:
            run = _merged(before, run)
            self.runs[run.id] = run
        else:
            self.runs.pop(run.id, None)
        self._note(run)
        if run.id in self._new:
            self._new[run.id] = run
        else:
            if run.id in self._saved and run.output is None:
                run = replace(run, output=self._saved[run.id].output)
            self._saved[run.id] = run
            if (version := self._read.pop(run.id, None)) is not None:
                self._check[run.id] = version
        self.known.save_run(run)

    def _note(self, run: Run) -> None:
        """Locks what a run counts in, and notes who has to hear of it."""
        if run.lane is not None:
            self.lock(f"lane {run.lane}")
        if run.status is Status.QUEUED and run.blocked is None:
            self.none_ready.clear()
            if run.engine is None:
                self._channels.add(ready_channel(self._schema, run.job))
        if run.engine is not None and run.engine not in self.ours:
            self._channels.add(engine_channel(self._schema, run.engine))

    def touch(self, run_id: str) -> None:
        """Lets whoever has read a run find out that something of it has changed, though not its row."""
        if run_id not in self._new:
            self._touched.add(run_id)

    def put_step(self, step: Step) -> None:
        """Gathers a step."""
        if step.run not in self.mine:
            self.touch(step.run)
            run = self.runs.get(step.run)
            if run is not None and run.engine is not None and run.engine not in self.ours:
                self._channels.add(engine_channel(self._schema, run.engine))
        self._steps.pop((step.run, step.key), None)
        self._steps[step.run, step.key] = step
        self.known.put_step(step)

    def add_logs(self, lines: Iterable[LogLine]) -> None:
        """Gathers log lines."""
        self._logs += lines

    def put_fact(self, key: str, value: str | None) -> None:
        """Gathers a small fact."""
        self.lock(f"fact {key}")
        self.facts[key] = self._facts[key] = value
        self.known_facts.pop(key, None)
        if value is None:
            return
        if key.startswith(TRIGGER):
            self._channels.add(all_channel(self._schema))
        elif key.startswith(ROUTE):
            self._channels.add(job_channel(self._schema, key.split(":")[1]))

    def change(self, query: str, *values: Any) -> None:
        """Queues a statement that writes, behind all that was gathered."""
        self.seal()
        self._write(query, *values)

    def seal(self) -> None:
        """Queues what was gathered; rows of runs first, in one order for everybody."""
        self._seal_checks()
        if self._new:
            self._write("add_runs", _json([{**asdict(run), "version": 0} for run in self._new.values()]))
            self._new = {}
        if self._saved:
            rows = [{field: getattr(run, field) for field in _SAVED} for _, run in sorted(self._saved.items())]
            self._write("save_runs", _json(rows), result=self._keep_versions)
            self._touched -= self._saved.keys()
            self._saved = {}
        if self._touched:
            self._write("touch_runs", sorted(self._touched), result=self._keep_versions)
            self._touched = set()
        if self._steps:
            self._write("put_steps", _json([asdict(step) for step in self._steps.values()]))
            self._steps = {}
        if self._logs:
            self._write("add_logs", _json([asdict(line) for line in _once(self._logs)]))
            self._logs = []
        self._seal_facts()

    def _seal_checks(self) -> None:
        for engine in self.fence:
            self._put("check_engine", engine)
        self.fence = set()
        if self._check:
            self._put("check_runs", [*self._check], [str(version) for version in self._check.values()])
            self._check = {}
        if self._check_facts:
            self._put("check_facts", [*self._check_facts], [*self._check_facts.values()])
            self._check_facts = {}

    def _seal_facts(self) -> None:
        kept = {key: value for key, value in self._facts.items() if value is not None}
        if kept:
            self._write("put_facts", [*kept], [*kept.values()])
        if len(kept) < len(self._facts):
            self._write("drop_facts", [key for key in self._facts if key not in kept])
        self._facts = {}

    # ---- the transaction

    def commit(self, writer: str, number: int) -> None:
        """Sends what was gathered, and commits."""
        self.seal()
        if not self._begun:
            return
        if self.writes:
            self._put("bump_batch", writer, str(number))
            if self._channels:
                self._put("notify", sorted(self._channels), writer)
        self.session.put("COMMIT", (), _committed)
        self.session.send()

    def flush(self) -> None:
        """Sends what was gathered."""
        self.seal()
        if self.session.queued:
            self.session.send()

    def savepoint(self, statement: str) -> None:
        """Queues a statement about a savepoint."""
        self._begin()
        self.session.put(statement)

    def undo(self) -> None:
        """Forgets what was gathered and read since the savepoint that was gone back to, and all that was known."""
        self.session.drop_queued()
        for gathered in (
            self._new,
            self._saved,
            self._steps,
            self._facts,
            self.runs,
            self.facts,
            self._check,
            self._check_facts,
            self._read,
            self.known_facts,
        ):
            gathered.clear()
        for names in (self._touched, self._logs, self.quiet, self.none_ready, self.mine, self.fence, self.versions):
            names.clear()
        self.offered.clear()
        self.known.clear()
        self._locks = {}  # those that were taken since are gone

    def _begin(self) -> None:
        if self._begun:
            return
        self._begun = True
        if self.beside is Beside.READING:
            self.session.put(SQL["begin_reading"])
            return
        self.session.put(SQL["begin"])
        if self.beside is Beside.ALONE:
            self.session.put(f"SET LOCAL lock_timeout = '{STANDSTILL:g}s'")
        name = "alone" if self.beside is Beside.ALONE else "beside_others"
        self.session.put(SQL[name], (str(lock_number(self._schema, "all")),))

    def _put(self, query: str, *values: Any, result: Any = None) -> None:
        self._begin()
        self.session.put(SQL[query], [_text(value) for value in values], result)

    def _write(self, query: str, *values: Any, result: Any = None) -> None:
        self.writes = True

        def counted(cursor: psycopg.Cursor[tuple[Any, ...]]) -> None:
            self.changed += max(cursor.rowcount, 0)
            if result is not None:
                result(cursor)

        self._put(query, *values, result=counted)

    def _keep_versions(self, cursor: psycopg.Cursor[tuple[Any, ...]]) -> None:
        for run_id, version, *_ in cursor:
            if self.versions.get(run_id) != version - 1:  # others have written since this connection knew it
                self.known.drop_run(run_id)
            self.versions[run_id] = version
            self._read.pop(run_id, None)


_SAVED: Final = ("id", *RUN_CHANGING)


def _merged(before: Run, run: Run) -> Run:
    if run.seq != before.seq:
        run = replace(before, **{field: getattr(run, field) for field in RUN_CHANGING})
    return replace(run, output=before.output) if run.output is None and before.output is not None else run


def _once(lines: list[LogLine]) -> list[LogLine]:
    """Returns the first line of each place: one statement may not insert two."""
    found: dict[tuple[str, int], LogLine] = {}
    for line in lines:
        found.setdefault((line.run, line.seq), line)
    return [*found.values()]


def _text(value: Any) -> Any:
    """Returns a number as text: one prepared statement serves however large it is."""
    return str(value) if type(value) is int or type(value) is float else value


def _json(rows: list[dict[str, Any]]) -> str:
    """Returns rows as JSON; Postgres knows no text with a NUL in it."""
    text = _encode(rows)
    if _ESCAPED_NUL in text:
        text = _encode([{field: _without_nul(value) for field, value in row.items()} for row in rows])
    return text.decode()


def _without_nul(value: Any) -> Any:
    return value.replace(_NUL, _SUBSTITUTE) if isinstance(value, str) else value


def _committed(cursor: psycopg.Cursor[tuple[Any, ...]]) -> None:
    """The server answers COMMIT after an error, which a function has swallowed, with ROLLBACK."""
    if cursor.statusmessage != "COMMIT":
        raise InTheWay(f"the transaction was over: {cursor.statusmessage}")
