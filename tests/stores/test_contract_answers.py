"""The contract of every store: each verb's answer where there is nothing, and the same answers from every kind of store."""

from __future__ import annotations

import itertools
import random
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from taskrun.model.records import WHOLE, Engine, PipeEvent, Run, RunFilter, Status, StepKind, StepStatus
from taskrun.stores.base import Store, Tx
from taskrun.stores.memory import MemoryStorage
from taskrun.stores.postgres import PostgresStorage
from taskrun.stores.rows import RUN_CHANGING
from taskrun.stores.sqlite import SqliteStorage
from tests import postgres_server

from .records import event, line, run, step

NOTHING: dict[str, tuple[tuple[Any, ...], Any]] = {
    "run": (("x",), None),
    "holds": (("e", "x"), False),
    "runs": ((RunFilter(),), []),
    "count_runs": ((), {}),
    "count_children": ((), 0),
    "oldest": ((), None),
    "run_by_key": (("job", "k"), None),
    "run_by_debounce": (("d",), None),
    "ready": (("e", ["job"], 9), []),
    "owned": (("e",), []),
    "executing": (("e",), []),
    "asked": (("e",), []),
    "blocked_queues": ((), []),
    "successes": (("x", 0.0, 0, 9, step("x", "x")), []),
    "due_runs": (("e", 1e9, 9), []),
    "placed": (("l",), 0),
    "holders": (("l",), []),
    "blocked": (("l", 9, ["job"]), []),
    "step": (("x", "s"), None),
    "steps": (("x",), []),
    "step_page": (("x", 0, 9), []),
    "count_steps": (("x", 9), (0, 0)),
    "open_step": (("x",), None),
    "failed_step": (("x",), None),
    "piece": (("x", None, "output", 0, 9), ""),
    "open_steps": (("x",), []),
    "due_steps": (("e", 1e9, 9), []),
    "waiting_steps": (("pipe:p", 9), []),
    "next_due": (("e",), None),
    "events": (("pipe:p", 0.0, 0, 9), []),
    "logs": (("x", 0, 9), []),
    "log_blocks": (("x", 10), []),
    "last_log": (("x",), 0),
    "engine": (("e",), None),
    "engines": ((), []),
    "get": (("f",), None),
    "facts": (("",), {}),
}
CHANGES_NOTHING: dict[str, tuple[Any, ...]] = {
    "save_run": (run("x"),),
    "drop_runs": (["x"],),
    "drop_steps": ("x", ["s"]),
    "drop_events": (1e9,),
    "add_logs": ([],),
    "drop_logs": ("x", 1, 9),
    "drop_engine": ("e",),
    "put": ("f", None),
}
ADDS = {"add_run", "put_step", "add_event", "put_engine"}


def test_every_verb_is_asked() -> None:
    verbs = {name for name in vars(Tx) if not name.startswith("_")}
    assert verbs == {*NOTHING, *CHANGES_NOTHING, *ADDS}


def test_a_verb_that_finds_nothing_says_so(tx: Tx) -> None:
    for _ in range(2):
        found = {verb: getattr(tx, verb)(*values) for verb, (values, _) in NOTHING.items()}
        assert found == {verb: answer for verb, (_, answer) in NOTHING.items()}
        tx.add_run(run("other", "other", status=Status.SUCCEEDED))
        tx.drop_runs(["other"])


def test_a_batch_that_changes_nothing_is_not_counted(store: Store) -> None:
    asked = {verb: values for verb, (values, _) in NOTHING.items()}
    for verb, values in (asked | CHANGES_NOTHING).items():
        before = store.written
        [(_, error)] = store.apply([lambda tx, verb=verb, values=values: getattr(tx, verb)(*values)])  # type: ignore[misc]
        assert (verb, error, store.written) == (verb, None, before)
    store.apply([lambda tx: tx.put("f", "1")])
    assert store.written == before + 1


# ---- the same from every kind


class Life:
    """Random changes, and questions about what they led to; the same for the same seed."""

    def __init__(self, seed: int) -> None:
        self._random = random.Random(seed)
        self._n = 0

    def batch(self) -> list[Callable[[Tx], Any]]:
        """Some functions of a transaction, some of which raise after they wrote."""
        return [self._fn() for _ in range(self._random.randint(1, 6))]

    def _fn(self) -> Callable[[Tx], Any]:
        changes = [self._change() for _ in range(self._random.randint(1, 3))]
        fails = self._random.random() < 0.05

        def fn(tx: Tx) -> Any:
            answers = [
                change_run(tx, *values) if verb == "change_run" else getattr(tx, verb)(*values)
                for verb, values in changes
            ]
            if fails:
                raise LookupError("on purpose")
            return answers

        return fn

    def _change(self) -> tuple[str, tuple[Any, ...]]:
        pick = self._random.choice
        made: list[Callable[[], tuple[str, tuple[Any, ...]]]] = [
            lambda: ("add_run", (self._run(self._new_id()),)),
            lambda: ("add_run", (self._run(self._new_id()),)),
            lambda: ("save_run", (self._run(self._id()),)),
            lambda: ("change_run", (self._run(self._id()),)),
            lambda: ("change_run", (self._run(self._id()),)),
            lambda: ("drop_runs", ([self._id() for _ in range(pick((0, 1, 2)))],)),
            lambda: ("put_step", (self._step(),)),
            lambda: ("put_step", (self._step(),)),
            lambda: ("drop_steps", (self._id(), pick(("a", "bc", "abc")))),
            lambda: ("add_event", (event(self._new_id(), pick(TOPICS), self._moment()),)),
            lambda: ("drop_events", (self._moment(),)),
            lambda: ("add_logs", ([line(self._id(), pick(range(1, 9))) for _ in range(3)],)),
            lambda: ("drop_logs", (self._id(), pick(range(1, 4)), pick(range(1, 9)))),
            lambda: ("put_engine", (Engine(id=pick("ef"), name="n", lease_until=self._moment()),)),
            lambda: ("drop_engine", (pick("ef"),)),
            lambda: ("put", (pick(("f:a", "f:b", "g")), pick(("1", "null", None)))),
        ]
        return pick(made)()

    def _new_id(self) -> str:
        self._n += 1
        return f"r{self._n}"

    def _id(self) -> str:
        return f"r{self._random.randint(1, min(self._n + 1, CHANGED))}"

    def _moment(self) -> float:
        return float(self._random.randint(0, 20))

    def _maybe(self, *values: Any) -> Any:
        return self._random.choice([None, *values])

    def _run(self, run_id: str) -> Run:
        status = self._random.choice(list(Status))
        plain = run(run_id, self._random.choice("jk"), created_at=self._moment(), status=status)
        return replace(
            plain,
            parent=self._maybe("r1", "r2"),
            key=self._maybe("k"),
            priority=self._random.randint(-1, 1),
            lane=self._maybe("l", "m"),
            debounce=self._maybe("d"),
            engine=self._maybe("e", "f"),
            ended_at=self._moment() if plain.ended else None,
            wake_at=self._maybe(self._moment()),
            deadline=self._maybe(self._moment()),
            blocked=self._maybe("l"),
            placed=self._random.random() < 0.5,
            cancel=self._maybe("explicit"),
            crashes=self._random.choice((0, 0, 1)),
            input=self._random.choice(("{}", LARGE)),
            output=self._maybe("1", LARGE),
        )

    def _step(self) -> Any:
        return step(
            f"r{self._random.randint(0, min(self._n, CHANGED))}",  # no run gets one before it is there
            self._random.choice("abc"),
            self._random.choice(list(StepKind)),
            status=self._random.choice(list(StepStatus)),
            wake_at=self._maybe(self._moment()),
            topic=self._maybe(*TOPICS),
            output=self._maybe("1", LARGE),
            failures=self._maybe("[]", LARGE),
        )


def change_run(tx: Tx, like: Run) -> Any:
    """Changes a run as the engine does: reads it, and writes what became of it."""
    before = tx.run(like.id)
    if before is not None:
        changed = {field: getattr(like, field) for field in RUN_CHANGING if field != "output"}
        tx.save_run(replace(before, **changed))


CHANGED = 12  # so many runs are changed again and again, and asked about one by one
TOPICS = ("pipe:p", "pipe:q")
LARGE = '"' + "é" * WHOLE + '"'
FILTERS = (
    RunFilter(),
    RunFilter(job="j", limit=2),
    RunFilter(job="j", statuses=(Status.QUEUED, Status.SUCCEEDED)),
    RunFilter(statuses=(Status.FAILED, Status.WAITING)),
    RunFilter(since=5.0, until=12.0),
    RunFilter(parent="r1", job="k"),
    RunFilter(roots=True, job="j"),
    RunFilter(not_under="j"),
    RunFilter(not_under="k", limit=3),
    RunFilter(id_prefix="r1", limit=0),
    RunFilter(id_suffix="1"),
    RunFilter(id="r1"),
    RunFilter(brief=True, limit=20),
    RunFilter(parent="r1", after=3, limit=2, oldest_first=True, brief=True),
)


def questions(tx: Tx) -> Iterator[tuple[str, Any]]:
    """Every verb that answers, with values that fit much, some and nothing."""
    yield from ((f"runs {want}", tx.runs(want)) for want in FILTERS)
    yield from {
        "counts": tx.count_runs(),
        "children": tx.count_children(),
        "oldest": tx.oldest(),
        "engines": tx.engines(),
        "get": tx.get("g"),
    }.items()
    for prefix in ("", "f:", "none"):
        yield f"facts {prefix}", list(tx.facts(prefix).items())
    for engine in ("e", "f", "none"):
        yield f"engine {engine}", (tx.engine(engine), tx.owned(engine), tx.next_due(engine))
        for limit in (0, 3, 99):
            yield f"due {engine} {limit}", (tx.due_runs(engine, 10.0, limit), tx.due_steps(engine, 10.0, limit))
            yield (
                f"ready {engine} {limit}",
                [tx.ready(engine, ["j", "k", "j"], limit, suspects) for suspects in (True, False)],
            )
    for name in ("l", "m", "none"):
        yield f"lane {name}", (tx.placed(name), tx.holders(name), tx.blocked(name, 9), tx.blocked(name, 2, ["j"]))
    for topic in (*TOPICS, "none"):
        yield f"topic {topic}", (tx.waiting_steps(topic), tx.waiting_steps(topic, 1))
        yield f"events {topic}", [tx.events(topic, since, after, 3) for since in (0.0, 9.0) for after in (0, 2)]
    for job in ("j", "k", "none"):
        yield f"key {job}", (tx.run_by_key(job, "k"), tx.run_by_key(job, "none"), tx.run_by_debounce("d"))
    for run_id in (f"r{n}" for n in range(1, CHANGED + 1)):
        yield f"run {run_id}", (tx.run(run_id), tx.holds("e", run_id), tx.steps(run_id), tx.open_steps(run_id))
        yield f"step {run_id}", [tx.step(run_id, key) for key in "abc"]
        pages = [tx.step_page(run_id, after, limit) for after in (0, 20) for limit in (2, -2)]
        yield f"steps {run_id}", [[step for _, step in page] for page in pages[:2]]
        yield f"last steps {run_id}", (tx.open_step(run_id), tx.failed_step(run_id))
        yield f"counts {run_id}", [tx.count_steps(run_id, most) for most in (-1, 0, 1)]
        yield f"pieces {run_id}", [tx.piece(run_id, key, "output", 1, 20_001) for key in (None, "a")]
        yield (
            f"logs {run_id}",
            (tx.last_log(run_id), [tx.logs(run_id, after, limit) for after in (0, 3) for limit in (0, 2, -2)]),
        )


@pytest.mark.parametrize("seed", range(12))
def test_all_kinds_of_store_answer_alike(tmp_path: Path, seed: int) -> None:
    stores: list[Store] = [MemoryStorage(), SqliteStorage(tmp_path / "journal.db", "normal", exclusive=True)]
    for store in stores:
        store.open()
    lives = [Life(seed), Life(seed)]
    for _ in range(60):
        answers = [store.apply(life.batch()) for store, life in zip(stores, lives, strict=True)]
        said = [[(value, error is None) for value, error in answer] for answer in answers]
        assert said[0] == said[1]
        [(memory, _)], [(sqlite, _)] = [store.apply([lambda tx: dict(questions(tx))]) for store in stores]
        assert {name: (memory[name], sqlite[name]) for name in memory if memory[name] != sqlite[name]} == {}
        assert stores[0].written == stores[1].written
    for store in stores:
        store.close()


@pytest.mark.parametrize("seed", range(100, 104))
def test_what_one_connection_knows_holds_only_until_another_has_written(tmp_path: Path, seed: int) -> None:
    oracle = MemoryStorage()
    shared: list[Store] = [SqliteStorage(tmp_path / "journal.db", "normal") for _ in range(2)]
    for store in (oracle, *shared):
        store.open()
    lives, turns = [Life(seed), Life(seed)], random.Random(seed)
    for _ in range(40):
        oracle.apply(lives[0].batch())
        turns.choice(shared).apply(lives[1].batch())
        [(expected, _)] = oracle.apply([lambda tx: dict(questions(tx))])
        for store in shared:
            [(found, _)] = store.apply([lambda tx: dict(questions(tx))])
            assert {name: (expected[name], found[name]) for name in expected if expected[name] != found[name]} == {}
    for store in (oracle, *shared):
        store.close()


# ---- Postgres, whose numbers are others


def unnumbered(value: Any) -> Any:
    """The same answer without the order of triggering and of sending, which has gaps and is not the same twice."""
    if isinstance(value, list | tuple):
        return [unnumbered(one) for one in value]
    if isinstance(value, Run | PipeEvent):
        return replace(value, seq=0)
    return value


def asked(tx: Tx) -> dict[str, Any]:
    """The answers that do not depend on these numbers."""
    numbered = [f"runs {want}" for want in FILTERS if want.before is not None or want.after is not None]
    found = {name: unnumbered(answer) for name, answer in questions(tx) if name not in numbered}
    return {name: answer for name, answer in found.items() if not name.startswith("events")}


@pytest.mark.parametrize("seed", range(200, 202))
def test_what_two_connections_to_postgres_know_is_what_is_there(seed: int) -> None:
    schema = postgres_server.new_schema()
    oracle = MemoryStorage()
    shared = [PostgresStorage(postgres_server.shared_dsn(), schema) for _ in range(2)]
    seqs = itertools.count(1)
    for store in shared:
        store._next_seq = seqs.__next__  # type: ignore[method-assign]  # by the clock two connections may differ by a moment
    stores: list[Store] = [oracle, *shared]
    for each in stores:
        each.open()
    lives, turns = [Life(seed), Life(seed)], random.Random(seed)
    for _ in range(30):
        answers = [oracle.apply(lives[0].batch()), turns.choice(shared).apply(lives[1].batch())]
        said = [[(unnumbered(value), error is None) for value, error in answer] for answer in answers]
        assert said[0] == said[1]
        [(expected, _)] = oracle.apply([asked])
        for store in shared:
            [(found, error)] = store.apply([asked])
            assert error is None
            assert {name: (expected[name], found[name]) for name in expected if expected[name] != found[name]} == {}
    assert oracle.written <= sum(
        store.written for store in shared
    )  # here a step that is dropped and was not there counts
    for each in stores:
        each.close()
    postgres_server.drop_schema(schema)
