"""What a disk does to a SQLite journal: nothing acknowledged is lost, and work goes on when the fault is over."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator
from itertools import product
from pathlib import Path
from typing import Any

import pytest

from taskrun.model.errors import EngineLost, JournalUnavailable
from taskrun.model.records import RunFilter
from taskrun.stores import sqlite_open
from taskrun.stores.base import Tx
from taskrun.stores.highwater import HighWater
from taskrun.stores.sqlite import SqliteStorage

from . import children
from .files import add_runs, closed_journal, killed_journal, write
from .records import ids, run


@pytest.fixture
def store(tmp_path: Path) -> Iterator[SqliteStorage]:
    made = SqliteStorage(tmp_path / "journal.db")
    made.open()
    yield made
    made.close()


def runs_in(store: SqliteStorage) -> list[str]:
    [(runs, _)] = store.apply([lambda tx: tx.runs(RunFilter())])
    return ids(runs)


class Faulty:
    """A connection whose next COMMIT fails, `written` or not."""

    def __init__(self, connection: sqlite3.Connection, written: bool) -> None:
        self._connection = connection
        self._written = written

    def __getattr__(self, name: str) -> Any:
        return getattr(self._connection, name)

    def execute(self, query: str, *values: Any) -> sqlite3.Cursor:
        if query == "COMMIT":
            if self._written:
                self._connection.execute("COMMIT")
            raise sqlite3.OperationalError("disk I/O error")
        return self._connection.execute(query, *values)


@pytest.mark.parametrize("written", [True, False])
def test_a_failed_commit_has_an_unknown_outcome_that_can_be_read_afterwards(
    store: SqliteStorage, written: bool
) -> None:
    assert store._connection is not None
    store._connection = Faulty(store._connection, written)  # type: ignore[assignment]
    with pytest.raises(JournalUnavailable, match="not known"):
        store.apply([lambda tx: tx.add_run(run("a"))])
    assert runs_in(store) == (["a"] if written else [])
    add_runs(store, 1)
    assert len(runs_in(store)) == 1 + written


class Commits(SqliteStorage):
    """A journal whose next COMMITs fail, each written or not."""

    outcomes: list[bool]

    def _commit(self, connection: Any, fns: Any, answers: Any) -> None:
        super()._commit(Faulty(connection, self.outcomes.pop(0)) if self.outcomes else connection, fns, answers)  # type: ignore[arg-type]


def count_up(key: str) -> Callable[[Tx], int]:
    def fn(tx: Tx) -> int:
        tx.put(key, str(n := int(tx.get(key) or "0") + 1))
        return n

    return fn


def failing(tx: Tx) -> None:
    tx.put("never", "1")
    raise LookupError("on purpose")


@pytest.mark.parametrize("outcomes", [faults for n in range(1, 5) for faults in product([True, False], repeat=n)])
@pytest.mark.parametrize("grows", [True, False], ids=["the batch grows", "the batch stays"])
def test_any_number_of_commits_that_fail_in_a_row_apply_nothing_twice(
    tmp_path: Path, outcomes: tuple[bool, ...], grows: bool
) -> None:
    store = Commits(tmp_path / "journal.db")
    store.outcomes = list(outcomes)
    store.open()
    twice = count_up("twice")  # two entries may have the same function
    fns: list[Callable[[Tx], Any]] = [count_up("first"), twice, failing, twice]
    while True:
        try:
            answers = store.apply(fns)
            break
        except JournalUnavailable:
            fns += [count_up(f"later {len(fns)}")] if grows else []
    assert [value for value, _ in answers] == [1, 1, None, 2] + [1] * (len(fns) - 4)
    assert isinstance(answers[2][1], LookupError)
    [(facts, _)] = store.apply([lambda tx: tx.facts("")])
    assert facts == {"first": "1", "twice": "2"} | {f"later {n}": "1" for n in range(4, len(fns))}
    assert store.apply([twice])[0] == (3, None)  # what was answered is not remembered
    store.close()


def test_a_commit_that_failed_though_written_is_kept_while_others_write_and_read(tmp_path: Path) -> None:
    store = Commits(tmp_path / "journal.db")
    store.outcomes = [True, False]
    store.open()
    mine, other = count_up("mine"), count_up("other")
    for fn in (mine, other):
        with pytest.raises(JournalUnavailable):
            store.apply([fn])
    assert store.apply([lambda tx: tx.facts("")])[0][0] == {"mine": "1"}
    assert [store.apply([fn])[0][0] for fn in (other, mine)] == [1, 1]
    store.close()


def test_a_batch_that_the_guard_refuses_is_forgotten(tmp_path: Path) -> None:
    store = Commits(tmp_path / "journal.db")
    store.outcomes = [True]
    store.open()
    fn = count_up("n")
    with pytest.raises(JournalUnavailable):
        store.apply([fn])

    def guard(tx: Tx) -> None:
        raise EngineLost("taken over")

    with pytest.raises(EngineLost):
        store.apply([fn], guard)
    assert store._outcomes._done == []
    store.close()


def test_a_journal_that_cannot_be_reopened_yet_is_unavailable_until_it_can(store: SqliteStorage) -> None:
    add_runs(store, 2)
    path = Path(store.place)
    away = path.rename(path.with_name("away"))
    store._connection = Faulty(store._connection, written=False)  # type: ignore[arg-type, assignment]
    for says in ("not known", "no bytes of it are left"):
        with pytest.raises(JournalUnavailable, match=says):
            store.apply([lambda tx: tx.add_run(run("a"))])
    away.rename(path)
    assert len(runs_in(store)) == 2


def test_the_error_names_what_sqlite_said_and_the_journal(store: SqliteStorage) -> None:
    other = sqlite3.connect(store.place, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    assert store._connection is not None
    store._connection.execute("PRAGMA busy_timeout = 20")
    with pytest.raises(JournalUnavailable, match=r"journal\.db: nothing of this was written \(SQLITE_BUSY") as caught:
        store.apply([lambda tx: tx.add_run(run("a"))])
    assert isinstance(caught.value.__cause__, sqlite3.OperationalError)
    other.execute("ROLLBACK")
    other.close()
    add_runs(store, 1)
    assert len(runs_in(store)) == 1


def test_an_fn_that_swallowed_the_end_of_its_transaction_is_found_out(store: SqliteStorage) -> None:
    def ended(tx: Tx) -> None:
        tx._cursor.execute("ROLLBACK")  # type: ignore[attr-defined]

    with pytest.raises(JournalUnavailable, match="the transaction is over"):
        store.apply([lambda tx: tx.put("a", "1"), ended, lambda tx: tx.put("b", "1")])
    write(store, lambda tx: tx.put("c", "1"))
    assert store.apply([lambda tx: tx.facts("")])[0][0] == {"c": "1"}


FULL_DISK = """
    import resource
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    store = SqliteStorage(path, exclusive=sys.argv[2] == "True")
    store.open()
    kept = []
    def add(n):
        name = f"run-{n}"
        [(_, error)] = store.apply([lambda tx: tx.add_run(Run(id=name, job="job", created_at=1.0, input='"' + "x" * 3000 + '"'))])
        assert error is None, error
        kept.append(name)
    add(0)
    resource.setrlimit(resource.RLIMIT_FSIZE, (300_000, limits[1]))
    refused = 0
    for n in range(1, 200):
        try:
            add(n)
        except JournalUnavailable as error:
            refused += 1
            assert "SQLITE_" in str(error), error
    assert refused > 50, refused
    assert len(kept) > 10, kept
    [(there, _)] = store.apply([lambda tx: [tx.run(name) is not None for name in kept]])
    assert all(there)
    resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    add(1000)
    store.close()
    store.open()
    [(there, _)] = store.apply([lambda tx: [tx.run(name) is not None for name in kept]])
    assert all(there) and kept[-1] == "run-1000"
    store.close()
    """


@pytest.mark.parametrize("exclusive", [True, False])
def test_a_full_disk_loses_nothing_acknowledged_and_work_goes_on_when_there_is_space(
    tmp_path: Path, exclusive: bool
) -> None:
    children.run(FULL_DISK, tmp_path / "journal.db", exclusive)


NO_SPACE = """
    import resource
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, resource.RLIM_INFINITY))
    store = SqliteStorage(path, exclusive=True)
    store.open()
    [(run, _)] = store.apply([lambda tx: tx.run("run-000001")])
    try:
        store.apply([lambda tx: tx.save_run(run)])
    except JournalUnavailable:
        print(run.id, "can be read")
    store.close()
    """


@pytest.mark.parametrize("killed", [True, False])
def test_a_journal_on_a_full_disk_can_be_opened_exclusively_and_read(tmp_path: Path, killed: bool) -> None:
    path = (killed_journal if killed else closed_journal)(tmp_path / "journal.db")
    assert children.run(NO_SPACE, path) == "run-000001 can be read\n"


@pytest.mark.parametrize("killed", [True, False])
def test_a_shorter_journal_is_found_also_on_a_full_disk(tmp_path: Path, killed: bool) -> None:
    path = (killed_journal if killed else closed_journal)(tmp_path / "journal.db")
    HighWater(str(path)).write(99)
    code = NO_SPACE.replace("store.open()", "try: store.open()\n    except JournalDamaged: sys.exit()")
    assert children.run(code, path) == ""


def test_a_transaction_waits_for_others_for_ten_seconds() -> None:
    assert sqlite_open.BUSY == 10.0
