"""The queries of the SQLite store: columns are fields, and no verb reads all runs."""

from __future__ import annotations

import re
import sqlite3
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from taskrun.model.records import ENDED, EXCERPT, WHOLE, RunFilter, Status
from taskrun.stores import rows, sqlite_tx
from taskrun.stores.queries import migrations, named_queries, statements
from taskrun.stores.sqlite_open import migrate
from taskrun.stores.sqlite_tx import SQL, listing


@pytest.fixture
def connection() -> Iterator[sqlite3.Connection]:
    made = sqlite3.connect(":memory:", isolation_level=None)
    migrate(made)
    yield made
    made.close()


@pytest.mark.parametrize(
    ("table", "fields", "more"),
    [
        ("runs", rows.RUN_FIELDS, []),
        ("steps", rows.STEP_FIELDS, ["n"]),
        ("events", rows.EVENT_FIELDS, []),
        ("logs", rows.LOG_FIELDS, []),
        ("engines", rows.ENGINE_FIELDS, []),
    ],
)
def test_columns_stand_in_the_order_of_fields(
    connection: sqlite3.Connection, table: str, fields: tuple[str, ...], more: list[str]
) -> None:
    columns = [row[1] for row in connection.execute(f"PRAGMA table_info({table})")]
    assert columns == [*fields, *more]


def test_a_new_run_and_a_saved_run_bind_every_column_in_order() -> None:
    inserted = re.findall(r"\w+", SQL["add_run"].partition("(")[2].partition(")")[0])
    assert tuple(inserted) == rows.RUN_NEW
    assert tuple(re.findall(r"(\w+) = (?:\?|coalesce)", SQL["save_run"].partition("WHERE")[0])) == rows.RUN_CHANGING


def test_a_put_step_binds_and_replaces_every_column() -> None:
    inserted = re.findall(r"\w+", SQL["put_step"].partition("(")[2].partition(")")[0])
    replaced = re.findall(r'"?(\w+)"? = excluded', SQL["put_step"])
    assert (inserted, replaced) == ([*rows.STEP_FIELDS], [*rows.STEP_FIELDS[2:]])


def plan(connection: sqlite3.Connection, query: str) -> list[str]:
    numbered = [int(number) for number in re.findall(r"\?(\d)", query)]
    values = ["1"] * (max(numbered) if numbered else query.count("?"))
    return [row[3] for row in connection.execute("EXPLAIN QUERY PLAN " + query, values)]


BIG_SCAN = re.compile(r"^SCAN (runs|steps|events|logs|r|s)\b")
WHOLE_INDEX = {"count_by_job", "count_by_status", "drop_events"}  # these read a whole index, and no row


@pytest.mark.parametrize("name", [name for name in SQL if not name.startswith("runs")])
def test_no_verb_scans_a_table(connection: sqlite3.Connection, name: str) -> None:
    scans = [step for step in plan(connection, SQL[name]) if BIG_SCAN.match(step)]
    if name == "any_ready":
        assert scans == ["SCAN runs USING INDEX runs_ready"]  # up to its first entry
    elif name in WHOLE_INDEX:
        assert all("COVERING INDEX" in scan for scan in scans)
    else:
        assert scans == []


@pytest.mark.parametrize(
    "name", ["run_by_key", "placed", "blocked", "waiting_steps", "due_steps", "events_after", "logs"]
)
def test_hot_reads_come_in_the_order_of_their_index(connection: sqlite3.Connection, name: str) -> None:
    assert not [step for step in plan(connection, SQL[name]) if "TEMP B-TREE" in step]


def test_the_queue_is_read_by_job_from_its_front(connection: sqlite3.Connection) -> None:
    steps = plan(connection, SQL["ready"])
    assert "SEARCH runs USING INDEX runs_ready (job=?)" in steps
    assert [step for step in steps if "TEMP B-TREE" in step] == ["USE TEMP B-TREE FOR ORDER BY"]  # of the picked ones


LISTINGS = [
    (RunFilter(job="x"), "runs_job (job=?)"),
    (RunFilter(job="x", before=9), "runs_job (job=? AND rowid<?)"),
    (RunFilter(statuses=(Status.FAILED, Status.RUNNING)), "runs_active (status=?)"),
    (RunFilter(until=1.0, statuses=tuple(sorted(ENDED))), "runs_ended (ended_at<?)"),
    (RunFilter(parent="x"), "runs_parent (parent=?)"),
    (RunFilter(parent="x", after=9, oldest_first=True, brief=True), "runs_parent (parent=? AND rowid>?)"),
    (RunFilter(id="x", brief=True), "(id=?)"),
    (RunFilter(id_prefix="x"), "(id>? AND id<?)"),
    (RunFilter(before=9), "INTEGER PRIMARY KEY (rowid<?)"),
]


@pytest.mark.parametrize(("want", "index"), LISTINGS, ids=[repr(want) for want, _ in LISTINGS])
def test_a_listing_goes_through_the_index_of_its_filter(
    connection: sqlite3.Connection, want: RunFilter, index: str
) -> None:
    query, values = listing(want)
    steps = [row[3] for row in connection.execute("EXPLAIN QUERY PLAN " + query, values)]
    assert any(index in step for step in steps), steps
    assert not [step for step in steps if BIG_SCAN.match(step)]


def test_a_running_step_that_waits_for_nothing_enters_no_index_but_its_own(connection: sqlite3.Connection) -> None:
    predicates = dict(
        connection.execute("SELECT name, sql FROM sqlite_master WHERE type = 'index' AND sql IS NOT NULL")
    )
    assert [name for name, sql in predicates.items() if "ON steps" in sql and "WHERE" not in sql] == []
    assert [name for name, sql in predicates.items() if "ON runs" in sql and "WHERE" not in sql] == ["runs_job"]


def test_the_step_that_a_run_is_at_is_found_without_reading_its_steps(connection: sqlite3.Connection) -> None:
    assert plan(connection, SQL["open_step"]) == ["SEARCH steps USING INDEX steps_open (run=?)"]
    assert plan(connection, SQL["failed_step"]) == ["SEARCH steps USING INDEX steps_failed (run=?)"]
    counted = [step for step in plan(connection, SQL["count_steps"]) if step.startswith("SEARCH")]
    assert [step.partition(" USING ")[2] for step in counted] == [
        "COVERING INDEX sqlite_autoindex_steps_1 (run=?)",
        "INDEX steps_open (run=?)",
    ]


@pytest.mark.parametrize("name", ["step_page", "last_step_page"])
def test_a_page_of_steps_is_picked_from_an_index_and_nothing_else_is_read(
    connection: sqlite3.Connection, name: str
) -> None:
    searches = [step for step in plan(connection, SQL[name]) if step.startswith("SEARCH")]
    assert searches == [
        "SEARCH steps USING INTEGER PRIMARY KEY (rowid=?)",
        "SEARCH steps USING COVERING INDEX sqlite_autoindex_steps_1 (run=?)",
    ]


@pytest.mark.parametrize(("name", "fields"), [("runs_brief", rows.RUN_FIELDS), ("step_page", [*rows.STEP_FIELDS, "n"])])
def test_a_brief_record_has_its_columns_in_the_order_of_fields(name: str, fields: tuple[str, ...]) -> None:
    columns = SQL[name].partition("SELECT")[2].partition("FROM")[0]
    cut = re.sub(r"CASE WHEN length\((\w+)\) > (\d+) THEN .*? ELSE \1 END", r"\1", columns)
    assert [column.strip(' \n"') for column in cut.split(",")] == [*fields]
    assert {int(size) for size in re.findall(r"length\((?:input|output|failures)\) > (\d+)", columns)} == {WHOLE}
    assert {int(size) for size in re.findall(r"substr\(\w+, 1, (\d+)\)", columns)} == {EXCERPT}


def test_every_named_query_is_used() -> None:
    code = Path(sqlite_tx.__file__).read_text() + Path(sqlite_tx.__file__).with_name("sqlite.py").read_text()
    fields = {f"runs_{field}" for field in msgspec.structs.asdict(RunFilter())}
    assert [name for name in SQL if f'"{name}"' not in code and name not in fields] == []


def test_a_script_is_split_at_the_ends_of_statements() -> None:
    script = "-- a; comment\nCREATE TABLE a (\n b -- not yet;\n);\n\nCREATE TRIGGER t AFTER INSERT ON a BEGIN\nSELECT 1;\nEND;\n"
    assert [part.strip().splitlines()[-1] for part in statements(script)] == [");", "END;"]


def test_migrations_are_numbered_without_gaps() -> None:
    found = migrations("migrations")
    assert [*found] == [*range(1, len(found) + 1)]
    assert all(found.values())


def test_a_query_is_named_by_the_line_above_it() -> None:
    assert named_queries("sqlite.sql")["commits"] == "SELECT n FROM commits"
