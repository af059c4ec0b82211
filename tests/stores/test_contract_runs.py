"""The contract of every store: runs."""

from __future__ import annotations

from typing import Any

import pytest
from msgspec.structs import replace

from taskrun.model.records import ENDED, UNFINISHED, Run, RunFilter, Status
from taskrun.stores.base import Tx
from taskrun.stores.rows import RUN_CHANGING

from .records import ids, line, run, step

FULL_RUN = Run(
    id="whole",
    job="job",
    created_at=1.25,
    parent="p",
    key="k",
    source="pipe uploads",
    slot=60.0,
    retried_from="r",
    retry=0,
    priority=-7,
    timeout=2.5,
    lane="lane",
    lane_limit=3,
    lane_period=1.5,
    throttle="t",
    throttle_period=9.0,
    debounce="d",
    input='{"text": "süß \U0001f3b5 \\u0000"}',
    status=Status.WAITING,
    reason="sleep",
    attempt=4,
    engine="e",
    started_at=2.0,
    ended_at=3.0,
    wake_at=4.0,
    deadline=5.0,
    blocked="lane:l",
    placed=True,
    cancel="explicit",
    pause="user",
    crashes=2,
    progress="{}",
    failures="[]",
    error="{}",
    output="null",
    after='[{"run":"b"}]',
    awaited=True,
    tags='{"env":"süß"}',
    name="nightly",
    secrets="{}",
)


def add(tx: Tx, *runs: Run) -> list[Run]:
    return [tx.add_run(run) for run in runs]


@pytest.mark.parametrize("record", [FULL_RUN, run("bare")], ids=["every field", "only what must be"])
def test_a_run_comes_back_as_it_was_put(tx: Tx, record: Run) -> None:
    [added] = add(tx, record)
    assert added == replace(record, seq=added.seq)
    stored = tx.run(record.id)
    assert stored == added
    assert type(stored.status) is Status


def test_seqs_rise_and_none_is_used_again(tx: Tx) -> None:
    first, second = add(tx, run("a"), run("b"))
    tx.drop_runs(["b"])
    [third] = add(tx, run("c"))
    assert 0 < first.seq < second.seq < third.seq


def test_an_id_can_be_added_once(tx: Tx) -> None:
    [first] = add(tx, run("a", input='"first"'))
    with pytest.raises(Exception, match="a"):
        add(tx, run("a", input='"second"'))
    assert tx.run("a") == first


def test_saving_writes_the_changing_fields_and_no_other(tx: Tx) -> None:
    [added] = add(tx, run("a", key="k"))
    changed = replace(FULL_RUN, id="a", seq=added.seq)
    tx.save_run(changed)
    stored = tx.run("a")
    assert stored == replace(
        changed, **{field: getattr(added, field) for field in Run.__struct_fields__ if field not in RUN_CHANGING}
    )


def test_saving_can_empty_every_changing_field_but_the_output(tx: Tx) -> None:
    [added] = add(tx, FULL_RUN)
    plain = run("whole")
    bare = {field: getattr(plain, field) for field in RUN_CHANGING if field != "output"}
    tx.save_run(replace(added, **bare, output=None))
    assert tx.run("whole") == replace(added, **bare)


def test_saving_a_run_that_is_gone_brings_nothing_back(tx: Tx) -> None:
    tx.save_run(run("a"))
    assert tx.run("a") is None


def test_runs_are_listed_newest_first(tx: Tx) -> None:
    add(tx, run("b"), run("a"), run("c"))
    assert ids(tx.runs(RunFilter())) == ["c", "a", "b"]
    assert ids(tx.runs(RunFilter(limit=2))) == ["c", "a"]


FILTERS: list[tuple[RunFilter, list[str]]] = [
    (RunFilter(job="y"), ["run-3", "run-1"]),
    (RunFilter(job="nobody"), []),
    (RunFilter(statuses=(Status.QUEUED, Status.FAILED)), ["run-4", "run-2", "run-1"]),
    (RunFilter(statuses=(Status.SUCCEEDED, Status.FAILED)), ["run-3", "run-2"]),
    (RunFilter(statuses=(Status.FAILED,), limit=1), ["run-2"]),
    (RunFilter(statuses=()), []),
    (RunFilter(job="y", statuses=tuple(sorted(ENDED))), ["run-3"]),
    (RunFilter(since=3.0), ["run-4", "run-3"]),
    (RunFilter(until=30.0), ["run-2"]),
    (RunFilter(until=31.0, statuses=tuple(sorted(ENDED)), limit=1), ["run-3"]),
    (RunFilter(parent="run-1"), ["run-4"]),
    (RunFilter(parent="run-1", job="y"), []),
    (RunFilter(tags=(("env", None),)), ["run-4", "run-1"]),
    (RunFilter(tags=(("env", "prod"),)), ["run-1"]),
    (RunFilter(tags=(("env", "prod"), ("team", None)), job="y"), ["run-1"]),
    (RunFilter(tags=(("env", "test"), ("team", "a"))), []),
    (RunFilter(tags=(("en", None),)), []),
    (RunFilter(id_prefix="run-"), ["run-4", "run-3", "run-2", "run-1"]),
    (RunFilter(id_prefix="RUN"), []),
    (RunFilter(id_prefix="run_"), []),
    (RunFilter(id_suffix="-4"), ["run-4"]),
    (RunFilter(id_suffix="%4"), []),
    (RunFilter(id_prefix="run", id_suffix="run-2", job="x"), ["run-2"]),
]


@pytest.mark.parametrize(("want", "expected"), FILTERS, ids=[repr(want) for want, _ in FILTERS])
def test_a_filter_lets_through_what_fits_all_of_it(tx: Tx, want: RunFilter, expected: list[str]) -> None:
    add(
        tx,
        run("run-1", "y", created_at=1.0, tags='{"env":"prod","team":"a"}'),
        run("run-2", "x", created_at=2.0, status=Status.FAILED, ended_at=20.0),
        run("run-3", "y", created_at=3.0, status=Status.SUCCEEDED, ended_at=30.0),
        run("run-4", "x", created_at=4.0, parent="run-1", tags='{"env":"test"}'),
    )
    assert ids(tx.runs(want)) == expected


def test_a_listing_goes_on_before_a_seq(tx: Tx) -> None:
    added = add(tx, run("a"), run("b"), run("c"))
    assert ids(tx.runs(RunFilter(before=added[2].seq))) == ["b", "a"]


def test_children_are_counted_apart(tx: Tx) -> None:
    add(tx, run("a", "x"), run("b", "x", parent="a"), run("c", "y", parent="a"), run("d", "y", parent="b"))
    assert tx.count_children() == 3
    tx.drop_runs(["c"])
    assert tx.count_children() == 2


def test_runs_are_counted_by_job_and_status(tx: Tx) -> None:
    add(tx, run("a", "x"), run("b", "x"), run("c", "y", status=Status.SUCCEEDED), run("d", "x"))
    tx.save_run(run("b", "x", status=Status.SUCCEEDED))
    tx.save_run(run("d", "x", status=Status.FAILED))
    assert tx.count_runs() == {
        ("x", "queued"): 1,
        ("x", "succeeded"): 1,
        ("x", "failed"): 1,
        ("y", "succeeded"): 1,
    }
    tx.drop_runs(["c", "a"])
    assert tx.count_runs() == {("x", "succeeded"): 1, ("x", "failed"): 1}


def test_the_newest_run_of_a_key_is_found_within_its_job(tx: Tx) -> None:
    _, newest, *_ = add(tx, run("a", "x", key="k"), run("b", "x", key="k"), run("c", "y", key="k"), run("d", "x"))
    assert tx.run_by_key("x", "k") == newest
    assert tx.run_by_key("x", "other") is None


def test_the_oldest_run_is_the_first_that_is_not_finished(tx: Tx) -> None:
    assert tx.oldest() is None
    add(tx, run("a", created_at=1.0, status=Status.FAILED), run("b", created_at=3.0, status=Status.WAITING))
    add(tx, run("c", created_at=2.0))
    assert tx.oldest() == 2.0


def test_a_burst_is_found_while_its_run_is_scheduled(tx: Tx) -> None:
    bursts = run("a", debounce="d", status=Status.CANCELLED), run("b", debounce="d", status=Status.SCHEDULED)
    _, scheduled = add(tx, *bursts)
    assert tx.run_by_debounce("d") == scheduled
    tx.save_run(run("b", status=Status.QUEUED))
    assert tx.run_by_debounce("d") is None


# ---- what may start


def test_ready_runs_come_by_priority_then_by_age_and_cancelled_ones_before_all(tx: Tx) -> None:
    add(
        tx,
        run("low", priority=-1),
        run("first"),
        run("second", "other"),
        run("high", priority=5),
        run("cancelled", priority=-9, cancel="explicit"),
    )
    assert ids(tx.ready("e", ["job", "other"], 10)) == ["cancelled", "high", "first", "second", "low"]
    assert ids(tx.ready("e", ["job", "other"], 3)) == ["cancelled", "high", "first"]
    assert ids(tx.ready("e", ["other"], 3)) == ["second"]
    assert ids(tx.ready("e", ["other", "other"], 3)) == ["second"]
    assert tx.ready("e", [], 3) == []


def test_ready_leaves_out_what_may_not_start(tx: Tx) -> None:
    others = [run(str(status), status=status) for status in Status if status is not Status.QUEUED]
    add(tx, run("blocked", blocked="q"), run("theirs", engine="f"), run("mine", engine="e"), run("free"), *others)
    assert ids(tx.ready("e", ["job"], 20)) == ["mine", "free"]


def test_ready_skips_other_engines_runs_before_it_counts(tx: Tx) -> None:
    add(tx, *(run(f"theirs{n}", priority=1, engine="f") for n in range(5)), run("free"))
    assert ids(tx.ready("e", ["job"], 2)) == ["free"]


def test_ready_leaves_out_suspects_before_it_counts_but_for_cancelled_ones(tx: Tx) -> None:
    suspects = (run(f"suspect{n}", priority=1, crashes=1) for n in range(5))
    add(tx, *suspects, run("cancelled", crashes=1, cancel="explicit"), run("sound"))
    assert ids(tx.ready("e", ["job"], 2, False)) == ["cancelled", "sound"]
    assert ids(tx.ready("e", ["job"], 2)) == ["cancelled", "suspect0"]


def test_a_run_leaves_the_queue_when_it_starts_and_comes_back_when_it_is_let_go(tx: Tx) -> None:
    [added] = add(tx, run("a"))
    tx.save_run(replace(added, status=Status.RUNNING, engine="e"))
    assert tx.ready("e", ["job"], 5) == []
    tx.save_run(added)
    assert tx.ready("e", ["job"], 5) == [added]


def test_blocked_runs_of_a_lane_come_in_the_order_of_starting(tx: Tx) -> None:
    add(
        tx,
        run("a", blocked="l"),
        run("b", blocked="l", priority=2),
        run("c", blocked="m"),
        run("d", lane="l"),
        run("e", blocked="l", status=Status.PAUSED),
    )
    assert ids(tx.blocked("l", 5)) == ["b", "a"]
    assert ids(tx.blocked("l", 1)) == ["b"]
    assert ids(tx.blocked("l", 5, ["job"])) == ["b", "a"]
    assert ids(tx.blocked("l", 5, ["other"])) == []


def test_places_of_a_lane_are_counted_while_they_are_held(tx: Tx) -> None:
    first, *_ = add(
        tx,
        run("a", lane="l", placed=True, status=Status.RUNNING),
        run("b", lane="l", placed=True, status=Status.RUNNING),
        run("c", lane="l", status=Status.WAITING),
        run("d", lane="m", placed=True),
        run("e", placed=True),
    )
    assert tx.placed("l") == 2
    assert ids(tx.holders("l")) == ["a", "b"]
    tx.save_run(replace(first, placed=False))
    assert tx.placed("l") == 1
    assert tx.placed("none") == 0


def test_an_engine_owns_its_unfinished_runs(tx: Tx) -> None:
    add(tx, *(run(str(status), status=status, engine="e") for status in Status), run("theirs", engine="f"), run("free"))
    assert ids(tx.owned("e")) == [str(status) for status in Status if status in UNFINISHED]


# ---- what is due


def test_due_runs_come_earliest_first_by_wake_up_or_deadline(tx: Tx) -> None:
    add(
        tx,
        run("both", status=Status.SCHEDULED, wake_at=9.0, deadline=3.0),
        run("wakes", status=Status.SCHEDULED, wake_at=2.0),
        run("times out", status=Status.RUNNING, deadline=1.0),
        run("now", status=Status.SCHEDULED, wake_at=10.0),
        run("later", status=Status.SCHEDULED, wake_at=10.1),
    )
    assert ids(tx.due_runs("e", 10.0, 9)) == ["times out", "wakes", "both", "now"]
    assert ids(tx.due_runs("e", 10.0, 2)) == ["times out", "wakes"]


@pytest.mark.parametrize(
    "fields",
    [
        {"status": Status.WAITING, "wake_at": 1.0},
        {"status": Status.FAILED, "deadline": 1.0},
        {"status": Status.SCHEDULED, "wake_at": 1.0, "engine": "f"},
        {"status": Status.RUNNING, "deadline": 1.0, "engine": "f"},
        {"status": Status.SCHEDULED},
    ],
)
def test_runs_that_are_not_due_for_this_engine(tx: Tx, fields: dict[str, Any]) -> None:
    add(tx, run("a", **fields))
    assert tx.due_runs("e", 10.0, 9) == []
    assert tx.next_due("e") is None


def test_the_next_due_moment_is_the_earliest_of_all_kinds(tx: Tx) -> None:
    assert tx.next_due("e") is None
    add(tx, run("a", status=Status.SCHEDULED, wake_at=30.0))
    assert tx.next_due("e") == 30.0
    [mine] = add(tx, run("b", status=Status.RUNNING, deadline=20.0, engine="e"))
    assert tx.next_due("e") == 20.0
    assert tx.next_due("f") == 30.0
    tx.put_step(step("b", "sleep", wake_at=10.0))
    assert tx.next_due("e") == 10.0
    assert tx.next_due("f") == 30.0
    tx.save_run(replace(mine, status=Status.SUCCEEDED))
    assert tx.next_due("e") == 30.0


# ---- the end of a run's life


def test_a_dropped_run_takes_its_steps_and_log_along(tx: Tx) -> None:
    add(tx, run("a"), run("b"), run("c"))
    for run_id in ("a", "b", "c"):
        tx.put_step(step(run_id, "s", wake_at=1.0))
        tx.add_logs([line(run_id, 1)])
    tx.drop_runs(["a", "c", "never was"])
    for run_id, left in (("a", 0), ("b", 1), ("c", 0)):
        assert len(tx.steps(run_id)) == left
        assert tx.last_log(run_id) == left
    assert ids(tx.runs(RunFilter())) == ["b"]
    assert tx.ready("e", ["job"], 5) == [tx.run("b")]
    assert [due.run for due in tx.due_steps("e", 5.0, 5)] == ["b"]


@pytest.mark.parametrize("status", Status)
def test_an_engine_holds_its_own_unfinished_runs_and_no_others(tx: Tx, status: Status) -> None:
    add(
        tx, run("mine", status=status, engine="e"), run("theirs", status=status, engine="f"), run("free", status=status)
    )
    held = {run_id: tx.holds("e", run_id) for run_id in ("mine", "theirs", "free", "unknown")}
    assert held == {"mine": status in UNFINISHED, "theirs": False, "free": False, "unknown": False}
    assert {type(answer) for answer in held.values()} == {bool}
