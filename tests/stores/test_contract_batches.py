"""The contract of every store: batches. One transaction, in order; an fn that raises is as if it had never run."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import pytest
from msgspec.structs import replace

from taskrun.model.errors import EngineLost
from taskrun.model.records import Engine, RunFilter, Status, StepKind
from taskrun.stores.base import Store, Tx

from .conftest import Do
from .records import event, ids, line, run, step


def snapshot(tx: Tx) -> dict[str, Any]:
    """Everything that the verbs show of a store."""
    runs = tx.runs(RunFilter())
    return {
        "runs": runs,
        "counts": tx.count_runs(),
        "steps": [tx.steps(one.id) for one in runs],
        "logs": [(tx.logs(one.id, 0, 99), tx.last_log(one.id)) for one in runs],
        "ready": tx.ready("e", ["job"], 99),
        "owned": tx.owned("e"),
        "due": (tx.due_runs("e", 1e9, 99), tx.due_steps("e", 1e9, 99), tx.next_due("e")),
        "lane": (tx.placed("l"), tx.holders("l"), tx.blocked("l", 99)),
        "found": (tx.run_by_key("job", "k"), tx.run_by_debounce("d"), tx.runs(RunFilter(parent="a"))),
        "waiting": tx.waiting_steps("pipe:p"),
        "events": tx.events("pipe:p", 0.0, 0, 99),
        "engines": tx.engines(),
        "facts": tx.facts(""),
    }


def fill(tx: Tx) -> None:
    tx.add_run(run("a", key="k"))
    tx.add_run(run("b", parent="a", lane="l", placed=True, engine="e", status=Status.RUNNING, deadline=9.0))
    tx.add_run(run("c", status=Status.SCHEDULED, debounce="d", wake_at=5.0))
    tx.add_run(run("d", lane="l", blocked="l"))
    tx.put_step(step("b", "wait", StepKind.WAIT, topic="pipe:p", wake_at=3.0))
    tx.put_step(step("b", "run"))
    tx.add_event(event("e1"))
    tx.add_logs([line("b", 1), line("b", 2)])
    tx.put_engine(Engine(id="e", name="n", lease_until=1.0))
    tx.put("fact", "1")


Fn = Callable[[Tx], Any]

CHANGES: dict[str, tuple[Fn, ...]] = {
    "add_run": (lambda tx: tx.add_run(run("x", key="k", lane="l", parent="a")),),
    "save_run": (lambda tx: tx.save_run(run("b", status=Status.SUCCEEDED, ended_at=1.0, output="1")),),
    "save_run twice": (lambda tx: tx.save_run(run("c")), lambda tx: tx.save_run(run("c", status=Status.PAUSED))),
    "drop_runs": (lambda tx: tx.drop_runs(["b", "a", "d"]),),
    "put_step": (lambda tx: tx.put_step(step("b", "new", wake_at=1.0)),),
    "put_step again": (lambda tx: tx.put_step(step("b", "wait", StepKind.WAIT, topic="pipe:q")),),
    "drop_steps": (lambda tx: tx.drop_steps("b", ["wait"]),),
    "drop_steps and put": (lambda tx: tx.drop_steps("b", ["wait"]), lambda tx: tx.put_step(step("b", "wait"))),
    "add_event": (lambda tx: tx.add_event(event("e2")),),
    "drop_events": (lambda tx: tx.drop_events(1e9), lambda tx: tx.add_event(event("e3"))),
    "add_logs": (lambda tx: tx.add_logs([line("b", 2, "again"), line("b", 3), line("a", 1)]),),
    "drop_logs": (lambda tx: tx.drop_logs("b", 1, 2), lambda tx: tx.add_logs([line("b", 2, "marker")])),
    "put_engine": (lambda tx: tx.put_engine(Engine(id="f", name="n", lease_until=1.0)),),
    "put_engine again": (lambda tx: tx.put_engine(Engine(id="e", name="n", lease_until=2.0)),),
    "drop_engine": (lambda tx: tx.drop_engine("e"),),
    "put": (lambda tx: tx.put("fact", "2"), lambda tx: tx.put("other", "3")),
    "put none": (lambda tx: tx.put("fact", None),),
}
ALL = tuple(change for changes in CHANGES.values() for change in changes)


def failing(*changes: Fn) -> Fn:
    def fn(tx: Tx) -> None:
        for change in changes:
            change(tx)
        raise LookupError("on purpose")

    return fn


@pytest.mark.parametrize("changes", [*CHANGES.values(), ALL, ALL[::-1]], ids=[*CHANGES, "all", "all backwards"])
def test_an_fn_that_raises_leaves_no_trace(store: Store, do: Do, changes: tuple[Fn, ...]) -> None:
    do(fill)
    before = do(snapshot)
    answers = store.apply([failing(*changes), *map(failing, changes)])
    assert {type(error) for _, error in answers} == {LookupError}
    assert do(snapshot) == before


@pytest.mark.parametrize("changes", CHANGES.values(), ids=CHANGES)
def test_every_change_is_one(do: Do, changes: tuple[Fn, ...]) -> None:
    do(fill)
    before = do(snapshot)
    for change in changes:
        do(change)
    assert do(snapshot) != before


def test_the_others_of_a_batch_are_written_and_answered(store: Store, do: Do) -> None:
    fns: list[Fn] = [
        lambda tx: tx.add_run(run("a")).id,
        failing(lambda tx: tx.add_run(run("b"))),
        lambda tx: tx.add_run(run("c")).id,
        failing(lambda tx: tx.save_run(run("a", status=Status.FAILED))),
        lambda tx: tx.run("a").status,  # type: ignore[union-attr]
    ]
    answers = store.apply(fns)
    assert [value for value, _ in answers] == ["a", None, "c", None, Status.QUEUED]
    assert [type(error) for _, error in answers] == [type(None), LookupError, type(None), LookupError, type(None)]
    assert ids(do(lambda tx: tx.runs(RunFilter()))) == ["c", "a"]


def test_a_batch_runs_in_order_and_each_sees_what_those_before_wrote(store: Store) -> None:
    def append(letter: str) -> Fn:
        def fn(tx: Tx) -> str:
            tx.put("word", (tx.get("word") or "") + letter)
            return tx.get("word") or ""

        return fn

    assert [value for value, _ in store.apply([append(letter) for letter in "abc"])] == ["a", "ab", "abc"]


def test_an_fn_sees_its_own_writes(do: Do) -> None:
    def fn(tx: Tx) -> Any:
        added = tx.add_run(run("a"))
        tx.save_run(replace(added, status=Status.RUNNING, lane="l", placed=True, engine="e"))
        return tx.ready("e", ["job"], 9), ids(tx.owned("e")), tx.count_runs()

    assert do(fn) == ([], ["a"], {("job", "running"): 1})


def test_an_empty_batch_is_nothing(store: Store) -> None:
    assert store.apply([]) == []


@pytest.mark.parametrize("value", [2**63, "\ud800"], ids=["too large a number", "a lone surrogate"])
def test_values_that_a_store_may_not_know_spoil_only_their_fn(store: Store, do: Do, value: Any) -> None:
    fields = {"priority": value} if isinstance(value, int) else {"reason": value}
    answers = store.apply(
        [lambda tx: tx.put("a", "1"), lambda tx: tx.add_run(run("x", **fields)), lambda tx: tx.put("b", "1")]
    )
    assert (answers[0][1], answers[2][1]) == (None, None)
    assert do(lambda tx: tx.facts("")) == {"a": "1", "b": "1"}


def test_what_is_no_exception_but_an_interruption_undoes_the_batch_and_goes_through(store: Store, do: Do) -> None:
    def interrupted(tx: Tx) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        store.apply([lambda tx: tx.put("a", "1"), interrupted])
    assert do(lambda tx: tx.facts("")) == {}


def test_a_guard_that_raises_stops_the_batch(store: Store, do: Do) -> None:
    def guard(tx: Tx) -> None:
        tx.put("guard", "1")
        raise EngineLost("taken over")

    ran: list[str] = []
    with pytest.raises(EngineLost):
        store.apply([lambda tx: ran.append("ran")], guard)
    assert ran == []
    assert do(lambda tx: tx.facts("")) == {}


def test_a_guard_comes_before_all_else_also_beside_an_fn_that_raises(store: Store, do: Do) -> None:
    def guard(tx: Tx) -> None:
        tx.put("guard", "1")

    answers = store.apply([failing(lambda tx: None), lambda tx: tx.get("guard")], guard)
    assert answers[1] == ("1", None)
    assert do(lambda tx: tx.get("guard")) == "1"


def test_batches_of_several_threads_do_not_mix(store: Store, do: Do) -> None:
    def add_one(tx: Tx) -> None:
        tx.put("n", str(int(tx.get("n") or "0") + 1))

    threads = [threading.Thread(target=lambda: [store.apply([add_one] * 3) for _ in range(20)]) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert do(lambda tx: tx.get("n")) == "240"


def test_opening_is_counted(store: Store, do: Do) -> None:
    store.open()
    store.close()
    do(lambda tx: tx.put("a", "1"))
    assert do(lambda tx: tx.get("a")) == "1"


def test_a_store_that_is_opened_again_has_what_it_had(store: Store, do: Do) -> None:
    do(fill)
    before = do(snapshot)
    store.close()
    store.open()
    assert do(snapshot) == before


def test_its_own_writes_are_not_outside(store: Store, do: Do) -> None:
    token = store.outside()
    do(fill)
    assert store.outside() == token
