"""How a run looks as JSON, and which run a short id means."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from typing import Any

import pytest

from taskrun.engine.core.queries import views
from taskrun.model.errors import AmbiguousRun, RunNotFound
from taskrun.model.records import LogLine, Run, Status, Step, StepKind, StepStatus
from taskrun.stores.base import Tx
from taskrun.stores.memory import MemoryStorage

CONTRACT = [
    "id",
    "job",
    "status",
    "reason",
    "input",
    "output",
    "error",
    "attempt",
    "priority",
    "created_at",
    "started_at",
    "ended_at",
    "parent",
    "progress",
]
IDS = ["aaaabbbbcccc", "aaaaddddeeee", "zzzzddddeeee"]


@pytest.fixture
def store() -> MemoryStorage:
    """A journal with three runs, of two jobs."""
    storage = MemoryStorage()
    storage.open()

    def fill(tx: Tx) -> None:
        for at, run_id in enumerate(IDS):
            tx.add_run(Run(id=run_id, job=f"job{at % 2}", created_at=float(at), parent=IDS[0] if at else None))
        tx.put_step(Step(run=IDS[0], key="a", name="a", kind=StepKind.RUN, status=StepStatus.SUCCEEDED, started_at=1.0))
        tx.put_step(Step(run=IDS[0], key="b", name="b", kind=StepKind.RUN, started_at=2.0))
        tx.add_logs([LogLine(run=IDS[0], seq=seq, at=1.0, text=f"line {seq}") for seq in range(1, 15)])

    read(storage, fill)
    return storage


def read(store: MemoryStorage, fn: Callable[[Tx], Any]) -> Any:
    ((value, error),) = store.apply([fn])
    if error is not None:
        raise error
    return value


def test_a_run_has_every_field_of_the_contract_and_null_where_there_is_nothing() -> None:
    view = views.run_view(Run(id="a", job="j", created_at=0.0))
    assert list(view)[: len(CONTRACT)] == CONTRACT
    assert view["output"] is view["error"] is view["started_at"] is view["progress"] is None
    assert view["input"] == {}


def test_times_have_their_zone() -> None:
    assert datetime.fromisoformat(str(views.rfc3339(0.5))).timestamp() == 0.5
    assert str(views.rfc3339(0)).endswith("+00:00")
    assert views.rfc3339(None) is None


def test_a_listing_is_newest_first_and_knows_the_current_step(store: MemoryStorage) -> None:
    runs = read(store, views.list_runs)
    assert [run["id"] for run in runs] == IDS[::-1]
    assert runs[-1]["step"]["key"] == "b"
    assert runs[-1]["steps_ended"] == 1
    assert [run["id"] for run in read(store, lambda tx: views.list_runs(tx, "job1", [Status.QUEUED], 0.0, 1))] == [
        IDS[1]
    ]


def test_show_adds_steps_children_in_order_and_the_end_of_the_log(store: MemoryStorage) -> None:
    shown = read(store, lambda tx: views.show(tx, IDS[0]))
    assert [step["key"] for step in shown["steps"]] == ["a", "b"]
    assert [child["id"] for child in shown["children"]] == IDS[1:]
    assert [line["seq"] for line in shown["log"]] == list(range(5, 15))
    assert shown["log_lines"] == 14
    assert list(shown["log"][0]) == ["seq", "at", "run", "step", "stream", "text"]


@pytest.mark.parametrize(
    ("ref", "run"),
    [
        (IDS[0], IDS[0]),
        ("aaaab", IDS[0]),
        ("zzzz", IDS[2]),
        ("cccc", IDS[0]),
        ("@last", IDS[0]),  # the others are its children
        ("job0@last", IDS[2]),
        ("job1@last", IDS[1]),
    ],
)
def test_a_run_is_meant_by_its_id_a_part_of_it_or_the_last(ref: str, run: str, store: MemoryStorage) -> None:
    assert read(store, lambda tx: views.resolve(tx, ref)) == run


@pytest.mark.parametrize("ref", ["aaa", "nothing", "", "jobx@last"])
def test_what_leads_nowhere_is_not_found(ref: str, store: MemoryStorage) -> None:
    with pytest.raises(RunNotFound):
        read(store, lambda tx: views.resolve(tx, ref))


def test_a_command_with_a_name_is_meant_by_it_where_no_job_has_that_name(store: MemoryStorage) -> None:
    def add(tx: Tx) -> None:
        for run_id, name in (("eeeeaaaaaaaa", "encode"), ("eeeebbbbbbbb", "job1"), ("eeeecccccccc", "encode")):
            tx.add_run(Run(id=run_id, job="exec", created_at=9.0, name=name))

    read(store, add)
    assert read(store, lambda tx: views.resolve(tx, "encode@last")) == "eeeecccccccc"
    assert read(store, lambda tx: views.resolve(tx, "job1@last")) == IDS[1]


def test_the_last_run_of_a_misspelt_job_says_which_job_was_meant(store: MemoryStorage) -> None:
    with pytest.raises(RunNotFound, match="did you mean  job1@last"):
        read(store, lambda tx: views.resolve(tx, "jobb1@last"))


def test_what_fits_several_lists_them_newest_first(store: MemoryStorage) -> None:
    with pytest.raises(AmbiguousRun) as raised:
        read(store, lambda tx: views.resolve(tx, "aaaa"))
    assert [run for run, _, _ in raised.value.candidates] == [IDS[1], IDS[0]]
    with pytest.raises(AmbiguousRun):
        read(store, lambda tx: views.resolve(tx, "deeee"))


def test_a_wait_beyond_the_calendar_is_shown_to_end_with_it() -> None:
    run = Run(id="r", job="j", status=Status.SCHEDULED, created_at=1.0, wake_at=1e19, deadline=3e17)
    view = views.run_view(run)
    assert view["wake_at"] == view["deadline"] == "9999-01-01T00:00:00.000+00:00"
