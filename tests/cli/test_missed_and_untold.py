"""What `why` names beside the state of a run: missed slots of its schedule, and notifications about it that did not arrive."""

from __future__ import annotations

import json
from typing import Any

import pytest

from taskrun.cli.backend.missed_and_untold import missed, untold
from taskrun.cli.screens.look import Look, printed
from taskrun.cli.screens.run import run_screen
from taskrun.cli.screens.runs import runs_table
from taskrun.cli.screens.why import why_screen
from taskrun.model.records import Status
from tests.cli.fakes import NOW, FakeDaemon, FakeTerminal, a_run, shown, typed

RUN = "7k3fq2aaaaaa"
MAIL = {"title": "t", "text": "x", "to": "command mail", "event": "failed", "at": "2027-01-15T08:00:00Z"}
FAILURE = {"at": NOW, "started_at": NOW, "attempt": 1}
ERROR = {"type": "taskrun.CommandFailed", "message": "`mail me` ended with code 4\n  no mail here", "traceback": ""}


def slot(minute: int, state: str, run: str | None = None, cron: str = "* * * * *") -> dict[str, Any]:
    return {"cron": cron, "slot": f"2027-01-15T08:{minute:02}:00+00:00", "state": state, "run": run, "lag": None}


def slots(states: str, other: str = "") -> list[dict[str, Any]]:
    """Returns slots, newest first: `R` is that of the run, `r` ran, `m` was missed, `o` is of another schedule."""
    words = {"R": ("ran", RUN), "r": ("ran", "other"), "m": ("missed", None), "o": ("missed", None)}
    found = [(59 - at, *words[one], "0 9 * * *" if one == "o" else "* * * * *") for at, one in enumerate(states)]
    return [slot(*one) for one in found]


@pytest.mark.parametrize(
    ("states", "told"),
    [
        ("rRmmr", "the 2 slots before it were missed (* * * * *): "),
        ("Rmrmm", "the slot before it was missed (* * * * *): "),
        ("Rommor", "the 2 slots before it were missed (* * * * *): "),
        ("Rmmmmmm", " and 3 earlier"),
        ("Rrmm", None),
        ("mRr", None),
        ("R", None),
        ("rmm", None),
        ("", None),
    ],
)
def test_missed_slots_right_before_that_of_a_run_are_named(states: str, told: str | None) -> None:
    causes = missed({"id": RUN, "job": "backup"}, slots(states), NOW)
    assert [told in cause["text"] for cause in causes] == ([] if told is None else [True]), causes
    assert [cause["command"] for cause in causes] == ["taskrun schedule backup"] * len(causes)


def notification(run_id: str, status: Status, **more: Any) -> dict[str, Any]:
    ended = NOW if status in (Status.FAILED, Status.SUCCEEDED) else None
    tags = json.dumps({"event": more.pop("event", "failed"), "run": RUN})
    return a_run(run_id, status, job="notify", input=json.dumps(MAIL), ended_at=ended, tags=tags, **more)


@pytest.mark.parametrize(
    ("notifications", "told"),
    [
        ([], []),
        ([notification("aaaaaaaaaaaa", Status.SUCCEEDED)], []),
        (
            [notification("aaaaaaaaaaaa", Status.FAILED, error=json.dumps(ERROR))],
            [
                "the notification that it failed, by command mail, did not arrive: no mail here (code 4)|taskrun retry aaaaaa"
            ],
        ),
        (
            [
                notification(
                    "aaaaaaaaaaaa", Status.SCHEDULED, event="slow", failures=json.dumps([FAILURE | {"error": ERROR}])
                )
            ],
            [
                "the notification that it is slow, by command mail, has not arrived yet: no mail here (code 4)|taskrun why aaaaaa"
            ],
        ),
        (
            [
                notification("bbbbbbbbbbbb", Status.SUCCEEDED, retried_from="aaaaaaaaaaaa"),
                notification("aaaaaaaaaaaa", Status.FAILED, error=json.dumps(ERROR)),
            ],
            [],
        ),
    ],
)
def test_notifications_that_did_not_arrive_are_named(notifications: list[dict[str, Any]], told: list[str]) -> None:
    assert [f"{cause['text']}|{cause['command']}" for cause in untold(notifications)] == told


async def test_why_names_them_after_how_the_run_ended(screen: FakeTerminal) -> None:
    failed = a_run(status=Status.FAILED, error=json.dumps(ERROR), ended_at=NOW, slot=NOW)
    lost = notification("aaaaaaaaaaaa", Status.FAILED, error=json.dumps(ERROR))
    ended = {"kind": "ended", "text": f"failed 1s ago: {ERROR['type']}: {ERROR['message']}"}
    daemon = FakeDaemon(
        find=RUN,
        show=shown(failed),
        why=[{"id": RUN, "status": "failed", "causes": [ended]}],
        slots=slots("Rmr"),
        runs=[lost],
    )
    assert await typed("why @last", screen, daemon) == 0
    head, missed_line, _, untold_line, *_ = screen.written.splitlines()
    assert head == "✗ 7k3fq2 processFile failed 1s ago: no mail here (code 4)"
    assert missed_line.startswith("  the slot before it was missed")
    assert untold_line.startswith("  the notification that it failed, by command mail")
    screen.written = ""
    assert await typed("why @last --json", screen, daemon) == 0
    assert [cause["kind"] for cause in json.loads(screen.written)["causes"]] == ["ended", "missed", "untold"]


def test_a_paused_run_says_its_error_as_on_every_screen_and_what_to_type_for_its_project() -> None:
    text = (
        f"its retries are used up; last error: {ERROR['type']}: {ERROR['message']}; after a fix: taskrun resume 7k3fq2"
    )
    run = a_run(status=Status.PAUSED, reason="exhausted", error=json.dumps(ERROR)) | {"why": [text]}
    look = Look(200, project="--user")
    assert "last error: no mail here (code 4); after a fix: taskrun --user resume 7k3fq2" in printed(
        run_screen(shown(run), NOW, look), look
    )
    assert "  last error: no mail here (code 4); after" in printed(runs_table([run], NOW, look), look)


def test_the_error_of_an_attempt_is_said_as_on_every_screen() -> None:
    failures = json.dumps([FAILURE | {"error": ERROR}])
    run = a_run(status=Status.SCHEDULED, reason="retry", failures=failures, attempt=2)
    cause = {
        "kind": "retry",
        "text": f"attempt 1 of 2 failed: {ERROR['type']}: {ERROR['message']}; the next starts now",
    }
    text = printed(why_screen(shown(run), [cause], NOW, Look(100)), Look(100))
    assert "  attempt 1 of 2 failed: no mail here (code 4); the next starts now\n" in text
