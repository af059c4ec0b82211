"""The verbs by which an engine looks after its runs, and what waits have consumed; on every store."""

from __future__ import annotations

import pytest

from taskrun.model.records import PLACE, Status, Step, StepKind, StepStatus
from taskrun.stores.base import Tx
from tests.stores.records import event, run


def test_executing_runs_are_those_of_the_engine_that_run(tx: Tx) -> None:
    tx.add_run(run("a", status=Status.RUNNING, engine="e"))
    tx.add_run(run("b", status=Status.RUNNING, engine="other"))
    tx.add_run(run("c", status=Status.WAITING, engine="e"))
    assert tx.executing("e") == ["a"]


def test_asked_runs_are_those_to_cancel_or_to_pause(tx: Tx) -> None:
    tx.add_run(run("a", status=Status.RUNNING, engine="e", cancel="stop"))
    tx.add_run(run("b", status=Status.WAITING, engine="e", pause="me"))
    tx.add_run(run("c", status=Status.RUNNING, engine="e"))
    tx.add_run(run("d", status=Status.RUNNING, engine="other", cancel="stop"))
    tx.add_run(run("e", status=Status.QUEUED, cancel="stop"))
    tx.add_run(run("f", status=Status.CANCELLED, ended_at=1.0))
    assert sorted(found.id for found in tx.asked("e")) == ["a", "b"]
    assert [found.id for found in tx.asked(None)] == ["e"]


def test_blocked_queues_are_named_once(tx: Tx) -> None:
    for name, queue in {"a": "window:x:1", "b": "window:x:1", "c": "window:y:1", "d": None}.items():
        tx.add_run(run(name, blocked=queue))
    assert sorted(tx.blocked_queues()) == ["window:x:1", "window:y:1"]


@pytest.mark.parametrize(
    ("topic", "status", "consumed"),
    [
        ("pipe:p", StepStatus.SUCCEEDED, True),
        ("pipe:p#address", StepStatus.SUCCEEDED, True),
        ("pipe:pq", StepStatus.SUCCEEDED, False),
        ("pipe:p", StepStatus.CANCELLED, False),
        ("pipe:p", StepStatus.RUNNING, False),
    ],
)
def test_a_succeeded_wait_has_consumed_its_event(tx: Tx, topic: str, status: StepStatus, consumed: bool) -> None:
    tx.add_run(run("a"))
    sent = tx.add_event(event("e"))
    tx.put_step(Step(run="a", key="w", name="w", kind=StepKind.WAIT, status=status, topic=topic, cursor=sent.seq))
    assert tx.events("pipe:p", 0.0, 0, 9, Step(run="a", key="v", name="v", kind=StepKind.WAIT)) == (
        [] if consumed else [sent]
    )


def test_a_step_says_what_it_waits_for() -> None:
    step = Step(run="a", key="w", name="w", kind=StepKind.RUN)
    assert not step.is_wait
    assert Step(run="a", key="w", name="w", kind=StepKind.RUN, topic=f"{PLACE}x").asks_place
    assert Step(run="a", key="w", name="w", kind=StepKind.SLEEP, wake_at=1.0).is_wait
