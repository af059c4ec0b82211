"""What is folded where there are many steps or children, and that a failure is told once."""

from __future__ import annotations

import json
from typing import Any

import pytest

from taskrun.cli.screens.folds import Siblings, around, with_groups
from taskrun.cli.screens.look import Look, printed
from taskrun.cli.screens.run import end_line, live_steps, run_head, run_screen, step_line
from taskrun.engine.core.queries.views import step_view
from taskrun.model.records import ErrorRecord, Status, StepKind, StepStatus
from tests.cli.fakes import NOW, a_run, a_step, shown

LONG = "could not decode the stream: header is missing, the file seems to be truncated after 4096 bytes"


def error(message: str, kind: str = "ValueError") -> str:
    record = ErrorRecord(type=kind, message=message)
    return json.dumps({name: getattr(record, name) for name in record.__struct_fields__})


def child(at: int, status: StepStatus = StepStatus.SUCCEEDED, **fields: Any) -> dict[str, Any]:
    return step_view(a_step(f"item#{at}", status, kind=StepKind.CHILD, **{"name": "item", **fields}))


def steps(*words: str) -> list[dict[str, Any]]:
    return [step_view(a_step(f"s{at}", StepStatus(word))) for at, word in enumerate(words)]


def test_children_of_one_name_are_one_line_with_their_number_and_each_error_once() -> None:
    failed = [
        child(at, StepStatus.FAILED, error=error(f"run {at}abc failed: ValueError: no luck", "taskrun.RunFailed"))
        for at in range(2)
    ]
    (one,) = with_groups([*failed, *map(child, range(2, 50)), *(child(at, StepStatus.RUNNING) for at in range(50, 60))])
    assert one["status"] == "running"
    assert one["group"] == "50 of 60 · 2 failed · 2 × ValueError: no luck"
    assert len(with_groups([child(1), child(2), child(3)])) == 3
    line = printed(live_steps(a_run(), [*failed, child(2), child(3)], NOW, Look(80)), Look(80))
    assert line == "  ✗  item  10.0s  4 of 4 · 2 failed · 2 × ValueError: no luck\n"


def test_of_many_inputs_the_first_children_too_have_one_bar_and_nothing_says_that_it_waits_for_them() -> None:
    run = a_run(status=Status.WAITING, job="each", progress='{"done":0,"total":30,"note":"0/30"}')
    steps = [child(at, StepStatus.RUNNING) for at in range(2)]
    assert printed(live_steps(run, steps, NOW, Look(80)), Look(80)) == "  ⠹  item  50.0s                       0/30\n"
    alone = printed(live_steps(a_run(status=Status.WAITING), steps, NOW, Look(80)), Look(80))
    assert alone == "  ⠹  item#0  50.0s\n  ⠹  item#1  50.0s\n"


def test_of_children_that_are_commands_the_last_words_are_told() -> None:
    told = "run 7abc failed: taskrun.CommandFailed: `ffmpeg -i a.mov` ended with code 1\n  cannot decode"
    (one,) = with_groups([child(at, StepStatus.FAILED, error=error(told, "taskrun.RunFailed")) for at in range(4)])
    assert one["group"] == "4 of 4 · 4 failed · 4 × cannot decode (code 1)"


@pytest.mark.parametrize(
    ("states", "rows", "expected"),
    [
        (["succeeded"] * 3, 5, ["s0", "s1", "s2"]),
        (["succeeded"] * 9 + ["running"], 5, [7, "s7", "s8", "s9"]),
        (["succeeded"] * 4 + ["failed"] + ["succeeded"] * 5, 5, [3, "s3", "s4", "s5", 4]),
    ],
)
def test_ended_steps_are_folded_around_those_that_matter(states: list[str], rows: int, expected: list[Any]) -> None:
    kept = around(steps(*states), rows)
    assert [one if isinstance(one, int) else one["key"] for one in kept] == expected


def test_the_screen_of_a_run_fits_with_the_step_under_way_and_the_log() -> None:
    many = [a_step(f"part-{at}") for at in range(99)] + [a_step("part-99", StepStatus.RUNNING)]
    log = [
        {"seq": at, "at": "2027-01-15T08:00:00+00:00", "run": "r", "step": None, "stream": "log", "text": f"frame {at}"}
        for at in range(10)
    ]
    children = [a_run(f"{at:02}aaaaaaaaaa", Status.SUCCEEDED, ended_at=NOW) for at in range(60)]
    run = a_run(started_at=NOW - 50, progress='{"done":36,"total":100}', steps=many)
    screen = run_screen(shown(run, many, log=log, log_lines=10, children=children), NOW, Look(80), None, 24)
    text = printed(screen, Look(80))
    assert len(text.splitlines()) < 24
    for part in ("36/100 · about 1m left", "part-98", "part-99", "… 9", "frame 9", "  60 done"):
        assert part in text, text


def test_a_long_error_is_wrapped_at_words_and_told_once() -> None:
    failed = a_step("encode", StepStatus.FAILED, error=error(LONG))
    told = printed(step_line(step_view(failed), NOW, Look(60)), Look(60)).splitlines()
    assert len(told) > 1
    assert all(len(line) <= 60 for line in told)
    assert " ".join(line.strip() for line in told).endswith(LONG)
    run = a_run(status=Status.FAILED, error=error(LONG), ended_at=NOW, started_at=NOW - 1)
    assert LONG.split(":")[0] not in end_line(run, NOW, Look(80), {LONG}).plain
    screen = printed(run_screen(shown(run, [failed]), NOW, Look(80)), Look(80))
    assert screen.count("could not decode") == 1


def test_a_run_between_two_attempts_says_why_and_a_cancelled_one_by_whom() -> None:
    tried = [{"attempt": 1, "at": None, "started_at": None, "error": {"type": "ValueError", "message": "no luck"}}]
    run = {**a_run(status=Status.SCHEDULED, reason="retry", wake_at=NOW + 8), "failures": tried}
    assert printed(live_steps(run, [], NOW, Look(80)), Look(80)) == "  ↻ retry 8s  ValueError: no luck\n"
    cancelled = a_run(status=Status.CANCELLED, reason="explicit", started_at=NOW - 2, ended_at=NOW)
    assert end_line(cancelled, NOW, Look(80)).plain == "⊘ cancelled  7k3fq2 processFile  2.0s  by you"


def test_the_same_error_of_several_children_is_named_once() -> None:
    failed = [a_run(f"f{at}aaaaaaaaaa", Status.FAILED, error=error(LONG), ended_at=NOW) for at in range(5)]
    children = [*failed, *(a_run(f"d{at}aaaaaaaaaa", Status.SUCCEEDED, ended_at=NOW) for at in range(5))]
    text = printed(run_screen(shown(a_run(), children=children), NOW, Look(80)), Look(80))
    assert text.count("could not decode") == 1
    assert "5 × ValueError" in text
    assert "f0aaaa f1aaaa f2aaaa and 2 more" in text


def test_of_many_children_the_one_that_failed_is_named_with_its_input_and_error() -> None:
    failed = a_run("f0aaaaaaaaaa", Status.FAILED, error=error(LONG), ended_at=NOW, input='{"path":"3.mov"}')
    children = [failed, *(a_run(f"d{at}aaaaaaaaaa", Status.SUCCEEDED, ended_at=NOW) for at in range(6))]
    text = printed(run_screen(shown(a_run(), children=children), NOW, Look(400)), Look(400))
    (line,) = [line for line in text.splitlines() if "f0aaaa" in line]
    assert LONG.splitlines()[0] in line and line.endswith("path=3.mov")
    assert "… 6 done" in text


def test_many_inputs_show_what_they_were_given() -> None:
    given = '{"job":"convert","total":8,"max":3,"fail_after":%s}'
    assert run_head(a_run(job="each", input=given % "null"), NOW, Look(80)).plain.endswith("job=convert total=8 max=3")
    assert run_head(a_run(job="each", input=given % "2"), NOW, Look(80)).plain.endswith("max=3 fail_after=2")


def test_children_at_the_same_time_are_told_by_one_line_when_the_last_has_ended() -> None:
    siblings = Siblings()
    for at in range(5):
        siblings.began({"kind": "step", "step": child(at, StepStatus.RUNNING)})
    assert [siblings.ended(child(at)) for at in range(4)] == [None] * 4
    assert siblings.rest()[0]["group"] == "4 of 4"
    last = siblings.ended(child(4))
    assert last is not None
    assert last["group"] == "5 of 5"
    assert siblings.rest() == []
    alone = child(9)
    siblings.began({"kind": "step", "step": {**alone, "status": "running"}})
    assert siblings.ended(alone) == alone
