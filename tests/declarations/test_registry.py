"""What a queue is given: names, twins, triggers and routes."""

from __future__ import annotations

from types import ModuleType
from typing import Any

import pytest

from taskrun.declarations.job import Job, job
from taskrun.declarations.pipe import pipe
from taskrun.declarations.registry import Registry
from taskrun.model.errors import DefinitionError
from taskrun.rules.policies import Routed

uploads = pipe("uploads")


def a_job(name: str, **options: Any) -> Job:
    made: Job = job(name=name, **options)(lambda n=0: n)
    return made


def test_jobs_come_as_a_list_a_dict_or_a_module() -> None:
    one, two = a_job("one"), a_job("two", trigger=uploads)
    module = ModuleType("m")
    vars(module).update({"one": one, "two": two, "again": one, "p": pipe("p"), "x": 5})
    assert list(Registry([one, two]).jobs) == ["one", "two"]
    assert list(Registry({"one": one}).jobs) == ["one"]
    registry = Registry(module)
    assert (list(registry.jobs), set(registry.pipes)) == (["one", "two"], {"uploads", "p"})


def test_pipes_of_triggers_are_found_by_themselves() -> None:
    registry = Registry([a_job("a", trigger=[uploads.into(lambda e: e)])], pipes=[uploads, pipe("other")])
    assert set(registry.pipes) == {"uploads", "other"}


def test_two_jobs_of_one_name_are_refused_with_both_places() -> None:
    one, two = a_job("same"), a_job("same")
    with pytest.raises(DefinitionError) as error:
        Registry([one, two])
    assert f"{one.file}:{one.line} and {two.file}:{two.line}" in str(error.value)


def test_two_pipes_of_one_name_are_refused() -> None:
    with pytest.raises(DefinitionError, match='two pipes are named "uploads"'):
        Registry([a_job("a", trigger=uploads)], pipes=[pipe("uploads")])


def test_the_same_job_twice_is_one() -> None:
    one = a_job("one", trigger=uploads)
    registry = Registry([one, one])
    assert len(registry.route("pipe:uploads", "{}", "one").starts) == 1


def test_a_key_that_differs_from_the_name_is_refused() -> None:
    with pytest.raises(DefinitionError, match='key "b" differs from the name "a"'):
        Registry({"b": a_job("a")})


def test_what_is_no_job_is_refused() -> None:
    with pytest.raises(DefinitionError, match="is not a job"):
        Registry([print])  # type: ignore[list-item]


def test_a_job_that_cannot_work_is_refused_and_not_kept() -> None:
    registry = Registry()
    broken = job(name="b", cron="@daily", trigger=uploads)(lambda n: n)
    with pytest.raises(DefinitionError, match="n: is required"):
        registry.add_job(broken)
    assert (registry.jobs, registry.topics()) == ({}, [])


def test_an_event_is_routed_to_the_jobs_it_starts() -> None:
    source = a_job("source")
    registry = Registry(
        [
            source,
            a_job("plain", trigger=uploads),
            a_job("mapped", trigger=[uploads.into(lambda e: {"n": e["n"] + 1}), source.into(lambda out: {"n": out})]),
            a_job("skips", trigger=uploads.into(lambda e: None)),
        ]
    )
    assert registry.topics() == ["pipe:uploads", "job:source"]
    routed = {name: registry.route("pipe:uploads", '{"n":1}', name) for name in ("plain", "mapped", "skips")}
    assert {name: [made.input for made in one.starts] for name, one in routed.items()} == {
        "plain": ['{"n":1}'],
        "mapped": ['{"n":2}'],
        "skips": [],
    }
    assert [made.input for made in registry.route("job:source", "7", "mapped").starts] == ['{"n":7}']
    assert registry.route("pipe:other", "{}", "plain") == Routed([])


def test_a_trigger_that_fails_is_logged_and_leaves_the_others_alone(caplog: pytest.LogCaptureFixture) -> None:
    registry = Registry(
        [
            a_job("raises", trigger=uploads.into(lambda e: e["missing"])),
            a_job("refuses", trigger=uploads.into(lambda e: {"unknown": 1})),
            a_job("works", trigger=uploads),
        ]
    )
    routed = {name: registry.route("pipe:uploads", '{"n":1}', name) for name in ("raises", "refuses", "works")}
    assert [made.job for made in routed["works"].starts] == ["works"]
    assert routed["raises"] == Routed([], "its trigger failed: KeyError: 'missing'")
    assert routed["refuses"] == Routed([], "invalid input for refuses: unknown: unknown field, valid fields: n")
    assert "does not start raises" in caplog.text
    assert "does not start refuses" in caplog.text


def test_schedules_are_listed_with_their_jobs() -> None:
    nightly = a_job("nightly", cron=["@daily", "@hourly"])
    assert [(one.name, cron.expr) for one, cron in Registry([nightly]).crons()] == [
        ("nightly", "@daily"),
        ("nightly", "@hourly"),
    ]
