"""`taskrun journal copy`: there and back, with runs in flight."""

from __future__ import annotations

import json
import sqlite3
import threading
import time
from pathlib import Path

import psycopg
import pytest

from taskrun.model.errors import JournalUnavailable
from taskrun.model.records import Engine, Run, Status
from taskrun.stores.journal_copy import COLUMNS, InUse, SqliteSide, copy
from taskrun.stores.postgres import PostgresStorage
from taskrun.stores.postgres_copy import PostgresSide
from taskrun.stores.postgres_names import lock_number
from taskrun.stores.postgres_open import SCHEMA
from taskrun.stores.sqlite import SqliteStorage
from tests.faults.conftest import Project
from tests.waiting import until


def tables(path: Path) -> dict[str, list[tuple[object, ...]]]:
    connection = sqlite3.connect(path)
    names = {table: ", ".join(f'"{name}"' for name in columns) for table, columns in COLUMNS.items()}
    found = {
        table: connection.execute(f"SELECT {names[table]} FROM {table} ORDER BY 1, 2").fetchall() for table in names
    }
    connection.close()
    return found


def test_runs_in_flight_go_on_in_postgres_and_back_in_sqlite(project: Project, database: str) -> None:
    del project.env["TASKRUN_JOURNAL"]
    done = json.loads(project.cli("run", "hello", "--json").out)["id"]
    nap = project.cli("start", "nap", "--seconds", "2", "-q").id
    steps = project.cli("start", "steps", "--name", "s", "--count", "60", "-q").id
    delayed = project.cli("start", "hello", "--name", "late", "--in", "1s", "-q").id
    until(lambda: len(project.traced()) > 3)
    project.kill()
    copied = project.cli("journal", "copy", ".taskrun/journal.db", database, "--json")
    assert copied.code == 0, copied.err
    assert json.loads(copied.out)["rows"]["runs"] == 4
    project.env["TASKRUN_JOURNAL"] = database
    for run in (nap, steps, delayed, done):
        assert project.cli("wait", run).code == 0
    assert sorted(set(project.traced())) == sorted(
        ["hello-you", "hello-late", "nap", *(f"s-{number}" for number in range(60))]
    )
    more = project.cli("start", "nap", "--seconds", "1", "-q").id
    assert project.cli("journal", "copy", database, "back.db").code == 5  # the daemon runs
    assert project.cli("daemon", "stop").code == 0
    back = project.cli("journal", "copy", database, "back.db")
    assert back.code == 0, back.err
    project.env["TASKRUN_JOURNAL"] = "back.db"
    assert project.cli("wait", more).code == 0
    assert {run["id"] for run in project.runs()} == {nap, steps, delayed, done, more}


def test_what_comes_back_is_what_was_there(project: Project, database: str, tmp_path: Path) -> None:
    del project.env["TASKRUN_JOURNAL"]
    for name in ("a", "b\u00e4\U0001f600", "c"):
        assert project.cli("run", "parent", "--count", "2", "--tag", f"name={name}").code == 0
    assert project.cli("daemon", "stop").code == 0
    assert project.cli("journal", "copy", ".taskrun/journal.db", database).code == 0
    assert project.cli("journal", "copy", database, str(tmp_path / "back.db")).code == 0
    assert tables(project.journal) == tables(tmp_path / "back.db")


def test_a_journal_on_a_server_is_not_copied_away_from_under_a_command(
    project: Project, database: str, tmp_path: Path
) -> None:
    run = project.cli("exec", "-q", "--", "sleep", "300").id
    until(lambda: "running" in project.cli("show", run, "--json").out and project.with_word(b"sleep"))
    assert project.cli("daemon", "stop").code == 0
    refused = project.cli("journal", "copy", database, str(tmp_path / "new.db"))
    assert (refused.code, f"of run {run} goes on" in refused.err) == (5, True), refused
    assert project.cli("daemon", "stop", "--kill").code == 0
    outside = tmp_path / "outside"
    outside.mkdir()
    copied = project.cli("journal", "copy", database, str(tmp_path / "new.db"), cwd=outside)
    assert copied.code == 0, copied


def test_a_target_that_is_not_empty_and_a_source_that_is_not_there_are_refused(project: Project, database: str) -> None:
    assert project.cli("run", "hello").code == 0
    assert project.cli("daemon", "stop").code == 0
    assert project.cli("journal", "copy", "nothing.db", database).code == 3
    assert project.cli("journal", "copy", database, "new.db").code == 0
    again = project.cli("journal", "copy", database, "new.db")
    assert (again.code, "not empty" in again.err) == (5, True)


def test_a_copy_that_differs_is_noticed_and_leaves_nothing(
    project: Project, database: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = SqliteStorage(tmp_path / "one.db")
    store.open()
    store.apply([lambda tx: tx.add_run(Run(id="a", job="j", created_at=1.0, status=Status.QUEUED))])
    store.close()
    source, target = SqliteSide(str(tmp_path / "one.db"), True), SqliteSide(str(tmp_path / "two.db"), False)
    fill = target.fill
    monkeypatch.setattr(target, "fill", lambda table, rows: fill(table, list(rows)[:-1]))
    with pytest.raises(Exception, match="runs has 0 rows of 1"):
        copy(source, target, lambda *_: None)
    source.close()
    target.close()
    assert tables(tmp_path / "two.db")["runs"] == []


def test_an_engine_is_alive_by_the_servers_clock(database: str, monkeypatch: pytest.MonkeyPatch) -> None:
    store = PostgresStorage(database)
    store.open()
    store.apply([lambda tx: tx.put_engine(Engine(id="e", name="e", lease_until=store.now() + 15, host="far", pid=7))])
    store.close()
    now = time.time()
    monkeypatch.setattr(time, "time", lambda: now + 60)
    with pytest.raises(InUse, match="pid 7 on far"):
        PostgresSide(database, source=True)


def test_a_copy_has_what_it_has_waited_for(database: str) -> None:
    store = PostgresStorage(database)
    store.open()
    store.close()
    with psycopg.connect(database) as other:
        other.execute("SELECT pg_advisory_xact_lock_shared(%s)", (lock_number(SCHEMA, "all"),))
        other.execute("INSERT INTO taskrun.facts VALUES ('k', '1')")
        threading.Timer(0.1, other.commit).start()
        side = PostgresSide(database, source=True)
        assert side.count("facts") == 1
        side.close()


@pytest.mark.parametrize("call", ["count", "rows", "fill", "finish"])
def test_a_server_that_goes_during_a_copy_is_unavailable(database: str, call: str) -> None:
    side = PostgresSide(database, source=False)
    with psycopg.connect(database) as other:
        other.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'taskrun journal copy'"
        )
    calls = {
        "count": lambda: side.count("runs"),
        "rows": lambda: list(side.rows("runs")),
        "fill": lambda: side.fill("facts", [("k", "1")]),
        "finish": side.finish,
    }
    with pytest.raises(JournalUnavailable, match="begin again"):
        calls[call]()
    side.close()


def test_every_table_of_a_journal_is_copied(database: str, project: Project, tmp_path: Path) -> None:
    kept_apart = {"batches", "commits", "migrations", "sqlite_sequence"}
    SqliteSide(str(tmp_path / "a.db"), False).close()
    connection = sqlite3.connect(tmp_path / "a.db")
    found = {name for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
    connection.close()
    assert found - kept_apart == set(COLUMNS)
    assert project.cli("run", "hello").code == 0
    with psycopg.connect(database) as looking:
        rows = looking.execute("SELECT tablename FROM pg_tables WHERE schemaname = 'taskrun'").fetchall()
    assert {name for (name,) in rows} - kept_apart == set(COLUMNS)
