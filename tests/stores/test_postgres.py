"""What is Postgres' own: opening, unknown outcomes, others in the way."""

from __future__ import annotations

import os
import signal
import socket
import threading
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import psycopg
import pytest
from msgspec.structs import replace
from psycopg import sql
from psycopg._pipeline_base import BasePipeline

from taskrun.model.errors import JournalError, JournalNewer, JournalUnavailable
from taskrun.model.records import RunFilter, Status
from taskrun.stores import postgres, postgres_batch, rows
from taskrun.stores.base import Tx
from taskrun.stores.postgres import PostgresStorage
from taskrun.stores.postgres_batch import Beside
from taskrun.stores.postgres_listener import AT_ONCE, SOON
from taskrun.stores.postgres_names import lock_number
from taskrun.stores.postgres_open import MIGRATIONS, shown
from taskrun.stores.postgres_session import APPLICATION, SQL, Session, connect
from tests import postgres_server

from .records import event, run, step


@pytest.fixture
def schema() -> Iterator[str]:
    name = postgres_server.new_schema()
    yield name
    postgres_server.drop_schema(name)


def opened(schema: str) -> PostgresStorage:
    store = PostgresStorage(postgres_server.shared_dsn(), schema)
    store.open()
    return store


def connection(schema: str) -> psycopg.Connection[Any]:
    made = psycopg.connect(postgres_server.shared_dsn(), autocommit=True)
    made.execute(sql.SQL("SET search_path TO {}").format(sql.Identifier(schema)))
    return made


def one(store: PostgresStorage, fn: Callable[[Tx], Any]) -> Any:
    [(value, error)] = store.apply([fn])
    assert error is None
    return value


# ---- opening


def test_columns_are_the_fields_of_the_records(schema: str) -> None:
    store = opened(schema)
    with connection(schema) as looking:
        for table, fields in (
            ("runs", (*rows.RUN_FIELDS, "version")),
            ("steps", (*rows.STEP_FIELDS, "n")),
            ("events", rows.EVENT_FIELDS),
            ("logs", rows.LOG_FIELDS),
            ("engines", rows.ENGINE_FIELDS),
        ):
            found = looking.execute(f"SELECT * FROM {table}").description
            assert [column.name for column in found or ()] == list(fields)
    store.close()


def test_several_starters_make_one_journal(schema: str) -> None:
    stores = [PostgresStorage(postgres_server.shared_dsn(), schema) for _ in range(6)]
    faults: list[BaseException] = []

    def start(store: PostgresStorage) -> None:
        try:
            store.open()
        except BaseException as error:
            faults.append(error)

    threads = [threading.Thread(target=start, args=(store,)) for store in stores]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert faults == []
    with connection(schema) as looking:
        assert looking.execute("SELECT n FROM migrations").fetchall() == [(number,) for number in MIGRATIONS]
    for store in stores:
        store.close()


def test_a_newer_journal_is_refused(schema: str) -> None:
    opened(schema).close()
    with connection(schema) as writing:
        writing.execute("INSERT INTO migrations (n) VALUES (999)")
    with pytest.raises(JournalNewer, match="upgrade taskrun"):
        opened(schema)


def test_a_server_that_acknowledges_what_it_may_lose_is_told_not_to(schema: str) -> None:
    dsn = postgres_server.shared_dsn()
    options = "&options=-csynchronous_commit%3Doff" if "?" in dsn else "?options=-csynchronous_commit%3Doff"
    store = PostgresStorage(dsn + options, schema)
    store.open()
    assert store._session is not None
    assert store._session.ask("SELECT current_setting('synchronous_commit')", ()) == [("on",)]
    store.close()


def test_a_pooler_that_gives_each_transaction_another_session_is_refused(
    schema: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each statement outside a transaction is answered by another process, as behind pgbouncer in transaction mode."""
    others = [psycopg.connect(postgres_server.shared_dsn(), autocommit=True) for _ in range(2)]
    real, asked = psycopg.Connection.execute, []

    def execute(self: psycopg.Connection[Any], query: Any, *args: Any, **options: Any) -> Any:
        if query == "SELECT pg_backend_pid()":
            asked.append(query)
            return real(others[len(asked) % 2], query)
        return real(self, query, *args, **options)

    monkeypatch.setattr(psycopg.Connection, "execute", execute)
    with pytest.raises(JournalError, match="pool_mode = session"):
        opened(schema)
    for other in others:
        other.close()


def test_a_password_is_not_shown() -> None:
    assert shown("postgresql://me:hush@host:5433/db") == "postgresql://me@host:5433/db"
    with pytest.raises(JournalUnavailable) as refused:
        PostgresStorage("postgresql://me:hush@127.0.0.1:1/db").open()
    assert "hush" not in str(refused.value)


# ---- plans


@pytest.mark.parametrize(
    ("query", "values"),
    [
        ("check_runs", "('{a}', '{0}')"),
        ("touch_runs", "('{a}')"),
        ("lock_runs", "('{a}')"),
        ("due_runs", "(1.0, 'engine', 10)"),
        ("due_steps", "(1.0, 'engine', 10)"),
        ("drop_runs", "('{a}')"),
        ("drop_steps_of_runs", "('{a}')"),
    ],
)
def test_a_plan_that_was_made_while_the_tables_were_empty_reads_none_of_them_whole(
    schema: str, query: str, values: str
) -> None:
    opened(schema).close()
    with connect(postgres_server.shared_dsn(), schema) as session:
        session.execute(f"PREPARE q AS {SQL[query]}".encode(), prepare=False)
        plan = "\n".join(line for (line,) in session.execute(f"EXPLAIN EXECUTE q {values}".encode(), prepare=False))
        assert session.execute(SQL["plan_mode"].encode()).fetchall() == [("force_generic_plan",)]
    assert "Seq Scan" not in plan


def test_a_list_is_planned_for_its_values_and_nothing_else_is(schema: str, monkeypatch: pytest.MonkeyPatch) -> None:
    store = opened(schema)
    modes = []
    ask = Session.ask

    def asked(self: Session, query: str, values: Any) -> Any:
        modes.append(ask(self, SQL["plan_mode"], ())[0][0])
        return ask(self, query, values)

    monkeypatch.setattr(Session, "ask", asked)
    store.apply([lambda tx: (tx.run("a"), tx.runs(RunFilter()), tx.run("b"))])
    assert modes == ["force_generic_plan", "force_custom_plan", "force_generic_plan"]
    store.close()


def test_a_server_that_knows_nothing_of_plans_does(schema: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(SQL, "plan_once", "SELECT set_config('no_such_setting', 'on', $1::boolean)")
    store = opened(schema)
    one(store, lambda tx: tx.add_run(run("a")))
    assert [found.id for found in one(store, lambda tx: tx.runs(RunFilter()))] == ["a"]
    store.close()


# ---- a COMMIT whose answer is lost


@pytest.mark.parametrize("seen", [True, False], ids=["seen", "not seen"])
@pytest.mark.parametrize("written", [True, False], ids=["written", "not written"])
def test_what_was_written_without_an_answer_is_not_written_again(
    schema: str, monkeypatch: pytest.MonkeyPatch, written: bool, seen: bool
) -> None:
    """Parameters: seen: psycopg has noticed that the connection is lost; now and then it takes a broken one for alive."""
    store = opened(schema)
    one(store, lambda tx: tx.put("n", "0"))
    ran: list[int] = []

    def add_one(tx: Tx) -> int:
        ran.append(1)
        tx.put("n", str(int(tx.get("n") or "0") + 1))
        return len(ran)

    send = Session.send

    def lose(self: Session) -> None:
        if self._queue[-1][0] == "COMMIT":
            monkeypatch.setattr(Session, "send", send)
            if written:
                send(self)
            if seen:
                self.connection.close()
            raise psycopg.OperationalError("cannot exit pipeline mode while busy")
        send(self)

    monkeypatch.setattr(Session, "send", lose)
    with pytest.raises(JournalUnavailable, match="is not known"):
        store.apply([add_one])
    [(value, error)] = store.apply([add_one])
    assert (value, error, len(ran)) == ((1, None, 1) if written else (2, None, 2))
    assert one(store, lambda tx: tx.get("n")) == "1"
    store.close()


def test_what_the_server_has_skipped_after_a_failure_is_not_taken_for_prepared() -> None:
    session = Session(connect(postgres_server.shared_dsn(), "public"))

    def fail(*skipped: str) -> None:
        for statement in ("BEGIN", "SELECT 1 / 0", *skipped):
            session.put(statement)
        with pytest.raises(psycopg.errors.DivisionByZero):
            session.send()
        session.roll_back()

    fail()
    fail()
    session.ask("SELECT 1", ())
    fail("SELECT 1")
    assert session.ask("SELECT 1", ()) == [(1,)]
    session.close()


def test_a_session_that_has_lost_what_was_prepared_is_made_anew(schema: str) -> None:
    store = opened(schema)
    one(store, lambda tx: tx.add_run(run("a")))
    assert store._session is not None
    store._session.connection.pgconn.exec_(b"DEALLOCATE ALL")
    with pytest.raises(JournalUnavailable, match="prepared statement"):
        store.apply([lambda tx: tx.add_run(run("b"))])
    one(store, lambda tx: tx.add_run(run("b")))
    assert one(store, lambda tx: tx.run("b")) is not None
    store.close()


def test_answers_that_never_come_are_no_success(schema: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """psycopg ends a pipeline without an error where no more results come; then nobody has said that it was written."""
    store = opened(schema)

    def unanswered(self: Session) -> None:
        with monkeypatch.context() as patched:
            patched.setattr(BasePipeline, "_process_results", lambda *args: None)
            send(self)

    def send_event(tx: Tx) -> None:
        tx.add_event(event("e", "pipe:p"))
        if send is Session.send:
            monkeypatch.setattr(Session, "send", unanswered)

    send = Session.send
    with pytest.raises(JournalUnavailable, match="is not known"):
        store.apply([send_event])
    monkeypatch.setattr(Session, "send", send)
    assert store.apply([send_event]) == [(None, None)]
    with connection(schema) as looking:
        assert looking.execute("SELECT count(*) FROM events").fetchall() == [(1,)]
    store.close()


@pytest.mark.skipif(
    "TASKRUN_TEST_POSTGRES" in os.environ, reason="the server's processes are to be those of this machine"
)
def test_a_commit_that_the_server_reads_too_late_is_not_written_beside_its_repetition(schema: str) -> None:
    """The server stands still, and the connection is lost: what was sent lies there and is read once the server goes on."""
    store = opened(schema)
    one(store, lambda tx: tx.put("n", "0"))
    session = store._session
    assert session is not None
    [(backend,)] = session.ask("SELECT pg_backend_pid()", ())
    stopped: list[int] = []

    def cut(line: socket.socket) -> None:
        line.shutdown(socket.SHUT_RDWR)
        line.close()

    def send_event(tx: Tx) -> None:
        tx.add_event(event("e", "pipe:p"))
        if not stopped:
            os.kill(backend, signal.SIGSTOP)
            stopped.append(backend)
            line = socket.socket(fileno=os.dup(session.connection.fileno()))
            threading.Timer(0.3, cut, [line]).start()

    try:
        with pytest.raises(JournalUnavailable, match="is not known"):
            store.apply([send_event])
        [(_, error)] = store.apply([send_event])
        assert error is None
    finally:
        os.kill(backend, signal.SIGCONT)
    with connection(schema) as looking:
        while looking.execute("SELECT 1 FROM pg_stat_activity WHERE pid = %s", (backend,)).fetchall():
            pass
        assert looking.execute("SELECT count(*) FROM events").fetchall() == [(1,)]
    store.close()


# ---- others in the way


def test_a_run_that_another_has_changed_is_read_again(schema: str) -> None:
    first, second = opened(schema), opened(schema)
    one(first, lambda tx: tx.add_run(run("a")))

    def crash(tx: Tx) -> int:
        found = tx.run("a")
        assert found is not None
        tx.save_run(run("a", crashes=found.crashes + 1, seq=found.seq))
        return found.crashes

    assert [one(store, crash) for store in (first, second, second, first, first, second)] == [0, 1, 2, 3, 4, 5]
    first.close()
    second.close()


def test_a_fact_that_hardly_changes_is_known_until_another_has_changed_it(
    schema: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    ours, other = opened(schema), opened(schema)
    asked: list[str] = []
    put = Session.put

    def noted(self: Session, query: str, *rest: Any) -> None:
        asked.append(query)
        put(self, query, *rest)

    def put_fact(tx: Tx, value: str | None) -> None:
        tx.put("paused:job", value)

    def write_with_it(tx: Tx) -> str | None:
        seen = tx.get("paused:job")
        tx.put("seen", str(seen))
        return seen

    assert one(ours, write_with_it) is None
    monkeypatch.setattr(Session, "put", noted)
    assert one(ours, write_with_it) is None
    assert SQL["check_facts"] in asked and SQL["get"] not in asked
    for value in ("by another", None):
        one(other, partial(put_fact, value=value))
        assert one(ours, write_with_it) == value
        assert one(other, lambda tx: tx.get("seen")) == str(value)
    for store in (ours, other):
        store.close()


def test_two_that_want_each_others_locks_both_get_through(schema: str) -> None:
    stores = [opened(schema), opened(schema)]
    meet = threading.Barrier(2)
    first_time = [True, True]

    def both(which: int) -> Callable[[Tx], None]:
        def fn(tx: Tx) -> None:
            names = ["throttle:x", "throttle:y"][:: 1 if which else -1]
            tx.put(names[0], str(int(tx.get(names[0]) or "0") + 1))
            if first_time[which]:
                first_time[which] = False
                meet.wait(10)
            tx.put(names[1], str(int(tx.get(names[1]) or "0") + 1))

        return fn

    threads = [threading.Thread(target=one, args=(store, both(which))) for which, store in enumerate(stores)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert one(stores[0], lambda tx: tx.facts("throttle:")) == {"throttle:x": "2", "throttle:y": "2"}
    for store in stores:
        store.close()


def test_one_that_stands_still_within_a_pipeline_is_cut_off(schema: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """As a process that is stopped leaves it: the server has done some of it, and waits for the rest as `active`."""
    for module in (postgres, postgres_batch):
        monkeypatch.setattr(module, "STANDSTILL", 0.5)
    store = opened(schema)
    one(store, lambda tx: tx.add_run(run("a")))
    with connection(schema) as stopped:
        stopped.execute("SELECT set_config('application_name', %s, false)", [APPLICATION])
        with pytest.raises(psycopg.OperationalError), stopped.pipeline():
            stopped.execute("BEGIN")
            stopped.execute("SELECT pg_advisory_xact_lock_shared(%s)", [lock_number(schema, "all")])
            stopped.execute(f"SELECT 1 FROM {schema}.runs FOR UPDATE").fetchall()
            one(store, lambda tx: tx.save_run(run("a", crashes=1)))
            stopped.execute("COMMIT")
    assert one(store, lambda tx: tx.run("a")).crashes == 1
    store.close()


def test_each_ready_run_is_given_to_one_of_two(schema: str) -> None:
    stores = [opened(schema), opened(schema)]
    for number in range(40):
        one(stores[0], lambda tx, name=f"r{number:02}": tx.add_run(run(name)))  # type: ignore[misc]
    taken: list[str] = []

    def claim(store: PostgresStorage, engine: str) -> None:
        def fn(tx: Tx) -> list[str]:
            found = tx.ready(engine, ["job"], 3)
            for each in found:
                tx.save_run(run(each.id, engine=engine, status=Status.RUNNING, seq=each.seq))
            return [each.id for each in found]

        empty = 0
        while empty < 3:
            got = one(store, fn)
            taken.extend(got)
            empty = 0 if got else empty + 1

    threads = [threading.Thread(target=claim, args=(store, f"e{n}")) for n, store in enumerate(stores)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(taken) == [f"r{number:02}" for number in range(40)]
    for store in stores:
        store.close()


def test_ready_runs_that_another_looks_at_are_passed_over_and_not_forgotten(schema: str) -> None:
    stores = [opened(schema), opened(schema)]
    for name in ("a", "b", "c"):
        one(stores[0], lambda tx, name=name: tx.add_run(run(name)))  # type: ignore[misc]

    def look(tx: Tx) -> tuple[int, int]:
        return len(tx.ready("e1", ["job"], 4)), len(tx.ready("e1", ["job"], 1))

    def look_beside(tx: Tx) -> tuple[int, int]:
        assert len(tx.ready("e0", ["job"], 4)) == 3
        return one(stores[1], look)  # type: ignore[no-any-return]

    assert one(stores[0], look_beside) == (0, 1)
    assert one(stores[1], look) == (3, 1)
    for store in stores:
        store.close()


def test_one_of_a_wait_and_an_event_sees_the_other(schema: str) -> None:
    stores = [opened(schema), opened(schema)]
    for number in range(30):
        one(stores[0], lambda tx, name=f"r{number}": tx.add_run(run(name)))  # type: ignore[misc]
        seen: list[bool] = []
        meet = threading.Barrier(2)

        def wait(tx: Tx, name: str = f"r{number}") -> bool:
            tx.put_step(step(name, "wait", topic=f"pipe:{name}"))
            return bool(tx.events(f"pipe:{name}", 0.0, 0, 9))

        def send(tx: Tx, name: str = f"r{number}") -> bool:
            tx.put("some", "thing")
            added = tx.add_event(event(f"e-{name}", f"pipe:{name}"))
            return bool(tx.waiting_steps(added.topic))

        def act(store: PostgresStorage, fn: Callable[[Tx], bool]) -> None:
            meet.wait(10)  # noqa: B023
            seen.append(one(store, fn))  # noqa: B023

        threads = [threading.Thread(target=act, args=pair) for pair in zip(stores, (wait, send), strict=True)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert any(seen)
    for store in stores:
        store.close()


def test_too_many_locks_are_taken_alone(schema: str) -> None:
    store = opened(schema)
    tried: list[Beside] = []

    def fn(tx: Any) -> None:
        tried.append(tx.batch.beside)
        for number in range(300):
            tx.put(f"intent:{number}", "1")

    one(store, fn)
    assert tried == [Beside.TRUSTING, Beside.ASKING, Beside.ALONE]
    assert len(one(store, lambda tx: tx.facts("intent:"))) == 300
    store.close()


# ---- hearing of others


class Follower:
    """A store that follows one job, and what it hears of."""

    def __init__(self, schema: str) -> None:
        self.store = opened(schema)
        self.changed, self.ready = threading.Event(), threading.Event()
        self.store.follow("other", ["job"], self.changed.set, self.ready.set)
        assert self.changed.wait(10)  # it listens
        self.changed.clear()


def test_a_ready_run_is_heard_of_as_that_alone(schema: str) -> None:
    writing, follower = opened(schema), Follower(schema)
    one(writing, lambda tx: tx.add_run(run("r1", status=Status.QUEUED)))
    assert follower.ready.wait(10)
    assert not follower.changed.is_set()
    for store in (writing, follower.store):
        store.close()


def test_a_ready_run_that_is_taken_at_once_wakes_nobody_who_waits_longer(
    schema: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who was the last to take one looks first, and does not ask."""
    writing, follower = opened(schema), Follower(schema)
    follower.store._listener._patience = SOON
    asked, taken = threading.Event(), threading.Event()
    ask = follower.store._listener._ask

    def ask_late(connection: psycopg.Connection[Any]) -> None:
        assert taken.wait(10)
        ask(connection)
        asked.set()

    monkeypatch.setattr(follower.store._listener, "_ask", ask_late)
    added = one(writing, lambda tx: tx.add_run(run("r1", status=Status.QUEUED)))
    one(writing, lambda tx: tx.save_run(replace(added, status=Status.RUNNING, engine="me")))
    taken.set()
    assert asked.wait(10)
    assert not follower.ready.is_set()
    assert follower.store._listener._patience > SOON
    one(follower.store, lambda tx: tx.add_run(run("r2", status=Status.QUEUED)))
    assert [found.id for found in one(follower.store, lambda tx: tx.ready("other", ["job"], 9))] == ["r2"]
    assert follower.store._listener._patience == AT_ONCE
    for store in (writing, follower.store):
        store.close()
