"""The contract of every store: steps, events, logs, engines and small facts."""

from __future__ import annotations

import pytest
from msgspec.structs import replace

from taskrun.model.records import Engine, LogBlock, LogLine, PipeEvent, Status, Step, StepKind, StepStatus
from taskrun.stores.base import Tx

from .records import event, ids, keys, line, run, step

FULL_STEP = Step(
    run="a",
    key="2/fetch#3",
    name="fetch",
    kind=StepKind.SHELL,
    status=StepStatus.FAILED,
    attempt=3,
    started_at=1.5,
    ended_at=2.5,
    wake_at=3.5,
    order=7,
    topic="pipe:p",
    match='{"a": 1}',
    cursor=9,
    child="c",
    failures="[]",
    error="{}",
    output="null",
)


# ---- steps


@pytest.mark.parametrize("record", [FULL_STEP, step("a", "bare")], ids=["every field", "only what must be"])
def test_a_step_comes_back_as_it_was_put(tx: Tx, record: Step) -> None:
    tx.put_step(record)
    stored = tx.step("a", record.key)
    assert stored == record
    assert (type(stored.kind), type(stored.status)) == (StepKind, StepStatus)
    assert tx.steps("a") == [record]


def test_a_step_is_known_by_run_and_key(tx: Tx) -> None:
    tx.put_step(step("a", "s"))
    assert tx.step("a", "other") is None
    assert tx.step("b", "s") is None
    assert tx.steps("b") == []


def test_putting_again_replaces_the_whole_step_and_keeps_its_place(tx: Tx) -> None:
    for key in ("z", "a", "m"):
        tx.put_step(replace(FULL_STEP, key=key))
    tx.put_step(step("a", "z"))
    assert keys(tx.steps("a")) == ["z", "a", "m"]
    assert tx.step("a", "z") == step("a", "z")


def test_a_dropped_step_that_is_put_again_comes_last(tx: Tx) -> None:
    for key in ("x", "y", "z"):
        tx.put_step(step("a", key))
    tx.drop_steps("a", ["x", "z", "never was"])
    assert keys(tx.steps("a")) == ["y"]
    tx.put_step(step("a", "x"))
    assert keys(tx.steps("a")) == ["y", "x"]


def test_due_steps_come_earliest_first(tx: Tx) -> None:
    tx.add_run(run("a", status=Status.WAITING))
    wakes = {"late": 3.0, "early": 1.0, "now": 10.0, "tie": 3.0, "later": 10.5}
    for key, wake_at in wakes.items():
        tx.put_step(step("a", key, StepKind.SLEEP, wake_at=wake_at))
    tx.put_step(step("a", "no time", StepKind.WAIT))
    tx.put_step(step("a", "over", StepKind.SLEEP, wake_at=1.0, status=StepStatus.SUCCEEDED))
    assert keys(tx.due_steps("e", 10.0, 9)) == ["early", "late", "tie", "now"]
    assert keys(tx.due_steps("e", 10.0, 2)) == ["early", "late"]


def test_due_steps_are_those_of_unfinished_runs_that_the_engine_may_touch(tx: Tx) -> None:
    owners = {"mine": "e", "theirs": "f", "free": None}
    for run_id, engine in owners.items():
        tx.add_run(run(run_id, engine=engine, status=Status.RUNNING))
    tx.add_run(run("over", status=Status.CANCELLED))
    for run_id in (*owners, "over", "unknown"):
        tx.put_step(step(run_id, "s", StepKind.SLEEP, wake_at=1.0))
    assert [due.run for due in tx.due_steps("e", 5.0, 9)] == ["mine", "free"]
    assert [due.run for due in tx.due_steps("f", 5.0, 1)] == ["theirs"]


def test_waiting_steps_of_a_topic_come_in_the_order_they_were_put(tx: Tx) -> None:
    for run_id in ("b", "a"):
        tx.put_step(step(run_id, "w", StepKind.WAIT, topic="pipe:p"))
    tx.put_step(step("c", "w", StepKind.WAIT, topic="pipe:q"))
    tx.put_step(step("c", "send", StepKind.SEND, topic="pipe:p", status=StepStatus.SUCCEEDED))
    tx.put_step(step("b", "w", StepKind.WAIT, topic="pipe:p", attempt=2))
    assert [waiting.run for waiting in tx.waiting_steps("pipe:p")] == ["b", "a"]
    tx.put_step(step("b", "w", StepKind.WAIT, topic="pipe:p", status=StepStatus.SUCCEEDED))
    assert [waiting.run for waiting in tx.waiting_steps("pipe:p")] == ["a"]


# ---- events


def test_an_event_comes_back_as_it_was_added(tx: Tx) -> None:
    sent = PipeEvent(id="e", topic="job:x", at=1.5, data='{"a": null}', input="{}")
    added = tx.add_event(sent)
    assert added == replace(sent, seq=added.seq)
    assert tx.events("job:x", 0.0, 0, 9) == [added]


def test_events_come_oldest_first_from_a_moment_and_a_cursor_on(tx: Tx) -> None:
    sent = [event("a", at=1.0), event("b", at=2.0), event("other", "pipe:q", at=2.0), event("c", at=3.0)]
    first, second, _, _ = [tx.add_event(one) for one in sent]
    assert ids(tx.events("pipe:p", 0.0, 0, 9)) == ["a", "b", "c"]
    assert ids(tx.events("pipe:p", 2.0, 0, 9)) == ["b", "c"]
    assert ids(tx.events("pipe:p", 0.0, second.seq, 9)) == ["c"]
    assert ids(tx.events("pipe:p", 3.0, first.seq, 9)) == ["c"]
    assert ids(tx.events("pipe:p", 0.0, 0, 1)) == ["a"]
    assert tx.events("pipe:none", 0.0, 0, 9) == []


wait = Step(run="r", key="wait", name="w", kind=StepKind.WAIT)


def test_events_that_a_run_has_consumed_are_left_out_for_it(tx: Tx) -> None:
    first, second, third = [tx.add_event(event(name, at=1.0)) for name in "abc"]
    tx.add_run(run("r"))
    for key, topic, seq in (
        ("one", "pipe:p", first.seq),
        ("two", "pipe:p#x", third.seq),
        ("else", "pipe:q", second.seq),
    ):
        ended = {"status": StepStatus.SUCCEEDED, "topic": topic, "cursor": seq}
        tx.put_step(Step(run="r", key=key, name="w", kind=StepKind.WAIT, **ended))  # type: ignore[arg-type]
    for after in (0, first.seq):
        assert ids(tx.events("pipe:p", 0.0, after, 9, wait)) == ["b"]
        assert ids(tx.events("pipe:p", 0.0, after, 9, replace(wait, run="another"))) == ["a", "b", "c"][after > 0 :]


def test_a_wait_is_not_denied_what_others_of_its_run_have_taken_since_it_began(tx: Tx) -> None:
    sent = tx.add_event(event("e"))
    made = tx.add_run(run("made", job="j", status=Status.SUCCEEDED, ended_at=1.0))
    tx.add_run(run("r"))
    for topic, seq in (("pipe:p", sent.seq), ("job:j", made.seq)):
        ended = {"status": StepStatus.SUCCEEDED, "topic": topic, "cursor": seq, "order": 7}
        tx.put_step(Step(run="r", key=topic, name="w", kind=StepKind.WAIT, **ended))  # type: ignore[arg-type]
    for order, free in [(6, True), (7, True), (8, False), (None, False)]:
        begun = replace(wait, order=order)
        assert ids(tx.events("pipe:p", 0.0, 0, 9, begun)) == (["e"] if free else [])
        assert ids(tx.successes("j", 0.0, 0, 9, begun)) == (["made"] if free else [])


def test_successes_come_by_their_ends_without_those_that_a_run_has_consumed(tx: Tx) -> None:
    ends = {"a": 3.0, "b": 2.0, "c": 2.0, "d": 5.0, "e": 9.0}
    seqs = {name: tx.add_run(run(name, job="j", status=Status.SUCCEEDED, ended_at=at)).seq for name, at in ends.items()}
    tx.add_run(run("failed", job="j", status=Status.FAILED, ended_at=4.0))
    tx.add_run(run("other", job="k", status=Status.SUCCEEDED, ended_at=4.0))
    tx.add_run(run("r", job="w"))
    done = {"status": StepStatus.SUCCEEDED, "topic": "job:j", "cursor": seqs["d"]}
    tx.put_step(Step(run="r", key="w", name="w", kind=StepKind.WAIT, **done))  # type: ignore[arg-type]
    assert ids(tx.successes("j", 0.0, 0, 9, wait)) == ["b", "c", "a", "e"]
    assert ids(tx.successes("j", 0.0, 0, 9, replace(wait, run="another"))) == ["b", "c", "a", "d", "e"]
    assert ids(tx.successes("j", 2.0, seqs["b"], 2, wait)) == ["c", "a"]
    assert tx.successes("none", 0.0, 0, 9, wait) == []


def test_events_keep_their_order_over_a_jump_of_the_clock(tx: Tx) -> None:
    for sent in (event("a", at=50.0), event("b", at=10.0), event("c", at=60.0), event("d", at=20.0)):
        tx.add_event(sent)
    assert ids(tx.events("pipe:p", 20.0, 0, 9)) == ["a", "c", "d"]
    assert ids(tx.events("pipe:p", 20.0, 0, 2)) == ["a", "c"]
    assert ids(tx.events("pipe:p", 15.0, 2, 9)) == ["c", "d"]


def test_old_events_are_dropped_and_their_seqs_never_used_again(tx: Tx) -> None:
    for at in (1.0, 2.0, 3.0):
        last = tx.add_event(event(f"at {at}", at=at))
    tx.drop_events(3.0)
    assert ids(tx.events("pipe:p", 0.0, 0, 9)) == ["at 3.0"]
    tx.drop_events(9.0)
    assert tx.add_event(event("new")).seq > last.seq


# ---- logs


def test_log_lines_are_read_from_a_cursor_on(tx: Tx) -> None:
    tx.add_logs(line("a", seq) for seq in range(1, 6))
    tx.add_logs([line("b", 1)])
    read = [[one.seq for one in tx.logs("a", *at)] for at in ((0, 2), (2, 9), (5, 9), (0, 0))]
    assert read == [[1, 2], [3, 4, 5], [], []]


def test_a_negative_limit_reads_the_end_of_a_log(tx: Tx) -> None:
    tx.add_logs([line("a", seq) for seq in range(1, 6)])
    read = [[one.seq for one in tx.logs("a", *at)] for at in ((0, -2), (4, -2), (0, -9))]
    assert read == [[4, 5], [5], [1, 2, 3, 4, 5]]


def test_a_log_line_that_is_there_stays_as_it_is(tx: Tx) -> None:
    full = LogLine(run="a", seq=2, at=1.5, text="tab\tand \x1b[2J", stream="stderr", step="s")
    tx.add_logs([full])
    tx.add_logs([line("a", 1), line("a", 2, "again"), line("a", 3)])
    assert tx.logs("a", 0, 9) == [line("a", 1), full, line("a", 3)]


def test_log_lines_in_the_middle_can_go(tx: Tx) -> None:
    tx.add_logs([line("r", seq) for seq in range(1, 7)])
    tx.drop_logs("r", 2, 4)
    assert [kept.seq for kept in tx.logs("r", 0, 9)] == [1, 5, 6]
    tx.add_logs([line("r", 2)])
    assert [kept.seq for kept in tx.logs("r", 0, 9)] == [1, 2, 5, 6]


def test_a_log_is_measured_in_stretches_and_in_bytes(tx: Tx) -> None:
    assert tx.log_blocks("r", 10) == []
    tx.add_logs([line("r", seq, "\x00é") for seq in (1, 2, 9, 10, 11, 35)])
    tx.add_logs([line("other", 3)])
    assert tx.log_blocks("r", 10) == [LogBlock(1, 9, 3, 9), LogBlock(10, 11, 2, 6), LogBlock(35, 35, 1, 3)]


def test_the_last_log_seq_is_0_without_a_line(tx: Tx) -> None:
    tx.add_logs([line("a", 1), line("a", 2), line("b", 7)])
    assert [tx.last_log(run_id) for run_id in "abc"] == [2, 7, 0]


# ---- engines and small facts


def test_engines_are_put_replaced_and_dropped(tx: Tx) -> None:
    first = Engine(id="e", name="default", lease_until=5.5, host="h", pid=7, leash="/l")
    other = Engine(id="f", name="default", lease_until=6.5)
    tx.put_engine(other)
    tx.put_engine(first)
    assert tx.engines() == [first, other]
    assert tx.engines(6.5) == [first]
    tx.put_engine(replace(first, pid=9, leash=None))
    assert tx.engine("e") == replace(first, pid=9, leash=None)
    tx.drop_engine("e")
    tx.drop_engine("never was")
    assert tx.engine("e") is None
    assert tx.engines() == [other]


def test_facts_are_put_read_and_deleted(tx: Tx) -> None:
    assert tx.get("k") is None
    tx.put("k", "null")
    assert tx.get("k") == "null"
    tx.put("k", "2")
    assert tx.get("k") == "2"
    tx.put("k", None)
    tx.put("k", None)
    assert tx.get("k") is None


def test_facts_are_found_by_the_letter_of_their_prefix(tx: Tx) -> None:
    for key in ("slot:a", "slot:ü\U0001f3b5", "slot", "slot;", "Slot:b", "slo%:"):
        tx.put(key, '"x"')
    assert list(tx.facts("slot:")) == ["slot:a", "slot:ü\U0001f3b5"]
    assert tx.facts("slo%") == {"slo%:": '"x"'}
    assert len(tx.facts("")) == 6
    assert tx.facts("none") == {}
