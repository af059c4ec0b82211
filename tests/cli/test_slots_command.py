"""`taskrun schedule JOB`: the last slots of a job."""

from __future__ import annotations

import json
from typing import Any

import pytest

from taskrun.cli.exit_codes import Code
from taskrun.cli.screens.look import Look, printed
from taskrun.cli.screens.run import run_screen
from taskrun.model.records import Status
from tests.cli.fakes import NOW, FakeDaemon, FakeTerminal, a_run, shown, typed

RUN = "7k3fq2aaaaaa"


def slot(hour: int, state: str, run: str | None = None, lag: float | None = None) -> dict[str, Any]:
    at = f"2027-01-15T{hour:02}:00:00.000+00:00"
    status = "succeeded" if run else None
    return {"cron": "0 * * * *", "slot": at, "state": state, "run": run, "lag": lag, "status": status}


SLOTS = [
    slot(4, "late", RUN, 75.25),
    slot(3, "missed"),
    slot(2, "skipped"),
    slot(1, "ran", RUN, 0.012),
]


async def test_the_last_slots_are_a_table_on_a_screen_and_lines_in_a_pipe(
    screen: FakeTerminal, pipe: FakeTerminal
) -> None:
    daemon = FakeDaemon(slots=SLOTS)
    assert await typed("schedule processFile", screen, daemon) == Code.DONE
    head, *rows = screen.written.splitlines()
    assert head.split() == ["SLOT", "STATE", "LAG", "RESULT", "SCHEDULE"]
    assert [row.split()[2:4] for row in rows] == [["↻", "late"], ["✗", "missed"], ["⊘", "skipped"], ["✓", "ran"]]
    assert "1m 15s" in rows[0]
    assert "7k3fq2" in rows[0]
    assert await typed("schedule processFile", pipe, daemon) == Code.DONE
    assert [line.split("\t") for line in pipe.written.splitlines()][:2] == [
        ["0 * * * *", SLOTS[0]["slot"], "late", RUN, "75.25"],
        ["0 * * * *", SLOTS[1]["slot"], "missed", "", ""],
    ]


@pytest.mark.parametrize("line", ["schedule processFile --json", "schedule --json processFile"])
async def test_json_has_five_fields(pipe: FakeTerminal, line: str) -> None:
    assert await typed(line, pipe, FakeDaemon(slots=SLOTS)) == Code.DONE
    found = json.loads(pipe.written)
    assert found[1] == {"cron": "0 * * * *", "slot": SLOTS[1]["slot"], "state": "missed", "run": None, "lag": None}
    assert [list(one) for one in found] == [["cron", "slot", "state", "run", "lag"]] * 4


@pytest.mark.parametrize(
    ("line", "limit"),
    [("processFile", 20), ("processFile -n 3", 3), ("-n 3 processFile", 3), ("--last=3 processFile", 3)],
)
async def test_how_many_is_an_option(pipe: FakeTerminal, line: str, limit: int) -> None:
    daemon = FakeDaemon(slots=SLOTS)
    assert await typed(f"schedule {line}", pipe, daemon) == Code.DONE
    assert daemon.asked[0] == ("slots", {"job": "processFile", "limit": limit})


@pytest.mark.parametrize(
    ("line", "code", "said"),
    [
        ("schedule procesFile", Code.NOT_FOUND, "did you mean  processFile"),
        ("schedule -n 3", Code.USAGE, "whose slots?"),
        ("schedule processFile other", Code.USAGE, "other"),
        ("schedule processFile -n 0", Code.USAGE, "0"),
    ],
)
async def test_what_is_wrong_is_said(pipe: FakeTerminal, line: str, code: Code, said: str) -> None:
    assert await typed(line, pipe, FakeDaemon(slots=[], schedule=[])) == code
    assert said in pipe.chatter


async def test_a_job_without_slots_says_so(screen: FakeTerminal) -> None:
    assert await typed("schedule processFile", screen, FakeDaemon(slots=[], schedule=[])) == Code.DONE
    assert "processFile has had no slot yet" in screen.chatter


async def test_help_tells_both_uses(screen: FakeTerminal) -> None:
    assert await typed("schedule --help", screen, FakeDaemon()) == Code.DONE
    assert "[JOB | COMMAND]" in screen.written
    assert "--last" in screen.written


@pytest.mark.parametrize(
    ("started", "said"), [(NOW - 50, "started 1m 10s after it"), (None, "not started 2m after it")]
)
def test_a_run_of_a_slot_says_how_long_after_it_it_started(started: float | None, said: str) -> None:
    run = a_run(slot=NOW - 120, started_at=started, status=Status.RUNNING if started else Status.QUEUED)
    text = printed(run_screen(shown(run), NOW, Look(200)), Look(200))
    (line,) = [line for line in text.splitlines() if line.startswith("slot    ")]
    assert line.endswith(said)
