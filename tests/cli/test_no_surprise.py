"""What a command must not keep to itself: what does not fire, what nobody waits for, what a number leaves out."""

from __future__ import annotations

import json
import stat
from pathlib import Path
from typing import Any

import pytest

from taskrun.cli.backend.all_schedules import merged, obstacles
from taskrun.cli.commands.daemon import status_screen
from taskrun.cli.commands.send import outcome
from taskrun.cli.exit_codes import Code
from taskrun.cli.session import Session
from tests.cli.fakes import JOB, NOW, FakeDaemon, FakeGate, FakeTerminal, typed
from tests.cli.test_commands import DONE, ending, starting

NIGHTLY: dict[str, Any] = {
    "job": "processFile",
    "cron": "0 3 * * *",
    "timezone": None,
    "next": None,
    "last": None,
    "last_run": None,
    "last_status": None,
    "paused": False,
}
SENT: dict[str, Any] = {"started": [], "woke": [], "skipped": [], "refused": {}, "later": []}
NO_DAEMON = ("none fires while no daemon runs", "start it: taskrun daemon start")
PAUSED = ("processFile is paused: its slots are skipped", "let it go on: taskrun resume processFile")

MISSED = ("processFile missed its last 3 slots", "see them: taskrun schedule processFile")


class FakeJournal(FakeDaemon):
    """Answers as the journal does while no daemon runs."""

    live = False


# ---- schedules


@pytest.mark.parametrize(
    ("entries", "live", "found"),
    [
        ([], False, []),
        ([NIGHTLY], True, []),
        ([NIGHTLY], False, [NO_DAEMON]),
        ([{**NIGHTLY, "paused": True}] * 2, True, [PAUSED]),
        ([NIGHTLY, {**NIGHTLY, "paused": True}], False, [NO_DAEMON, PAUSED]),
        ([{**NIGHTLY, "missed": 2}, {**NIGHTLY, "missed": 1}], True, [MISSED]),
    ],
)
def test_what_keeps_schedules_from_starting_anything_is_known(
    entries: list[dict[str, Any]], live: bool, found: list[tuple[str, str]]
) -> None:
    assert obstacles(entries, live) == found


def test_a_schedule_is_paused_with_its_job() -> None:
    jobs = [{**JOB, "paused": True, "schedules": [{"cron": "@hourly", "timezone": None}]}]
    found = merged([NIGHTLY], [], jobs, NOW)
    assert [(one["cron"], one["paused"]) for one in found] == [("@hourly", True), ("0 3 * * *", True)]


@pytest.mark.parametrize(("daemon", "said"), [(FakeJournal, [NO_DAEMON, PAUSED]), (FakeDaemon, [PAUSED])])
async def test_schedule_and_doctor_say_what_does_not_fire(
    pipe: FakeTerminal, daemon: type[FakeDaemon], said: list[tuple[str, str]]
) -> None:
    jobs = {"jobs": [{**JOB, "paused": True}], "pipes": [], "problems": [], "inputs": {}}
    fake = daemon(schedule=[{**NIGHTLY, "paused": True}], jobs=jobs)
    assert await typed("schedule", pipe, fake) == Code.DONE
    for what, hint in said:
        assert f"{what}\n  {hint}\n" in pipe.chatter
    pipe.written = pipe.chatter = ""
    await typed("doctor --json", pipe, fake)
    (check,) = [one for one in json.loads(pipe.written) if one["check"] == "schedules"]
    assert check["ok"] is fake.live
    assert check["text"] == "; ".join(["1", *(what for what, _ in said)])
    assert check["hint"] == "; ".join(hint for _, hint in said)


async def test_schedules_of_the_code_are_listed_before_a_daemon_has_run(pipe: FakeTerminal) -> None:
    jobs = {"jobs": [{**JOB, "schedules": [{"cron": "0 3 * * *", "timezone": None}]}], "pipes": [], "problems": []}
    assert await typed("schedule --json", pipe, FakeJournal(schedule=[], jobs={**jobs, "inputs": {}})) == Code.DONE
    assert [one["cron"] for one in json.loads(pipe.written)] == ["0 3 * * *"]


# ---- code


@pytest.mark.parametrize("command", ["start processFile --path a", "run processFile --path a", "send up --input 1"])
async def test_what_starts_with_old_code_says_so(pipe: FakeTerminal, command: str) -> None:
    kept = {"file": "jobs/a.py", "line": 3, "text": "SyntaxError: invalid syntax", "kept": True}
    older = {"file": "jobs/b.py", "line": 1, "text": "it never was good"}
    described = {"jobs": [JOB], "pipes": [{"name": "up", "input_schema": {}}], "problems": [kept, older]}
    daemon = starting(tail=ending(DONE), jobs=described, send={"id": "e", **SENT})
    assert await typed(command, pipe, daemon) == Code.DONE
    warning = "warning: jobs/a.py:3: SyntaxError: invalid syntax; its last good version is used\n"
    assert pipe.chatter.startswith(warning)
    assert "never was good" not in pipe.chatter


# ---- events


def brief(run: str, job: str, status: str = "queued") -> dict[str, str]:
    return {"id": run * 12, "job": job, "status": status}


@pytest.mark.parametrize(
    ("event", "said"),
    [
        ({}, ["nobody waits for this"]),
        ({"skipped": ["a", "b"]}, ["nobody waits for this: a, b skipped it"]),
        ({"refused": {"a": "n: is required"}, "skipped": ["b"]}, ["a refused it: n: is required"]),
        ({"started": [brief("x", "a")]}, ["started xxxxxx a", "see it: taskrun show xxxxxx"]),
        (
            {"started": [brief("x", "a", "discarded")], "woke": [brief("y", "b")], "skipped": ["c"]},
            ["started xxxxxx a (discarded)", "woke yyyyyy b", "see them: taskrun list"],
        ),
        ({"later": ["a"]}, ["a is started later: no worker has answered yet", "see them: taskrun list"]),
        (
            {"woke": [brief("x", "a")] * 7},
            [*["woke xxxxxx a"] * 5, "and 2 more", "see them: taskrun list"],
        ),
    ],
)
def test_an_event_tells_what_became_of_it(event: dict[str, Any], said: list[str]) -> None:
    assert outcome(SENT | event) == said


async def test_a_script_gets_the_id_and_hears_that_nobody_waits(pipe: FakeTerminal) -> None:
    pipes = [{"name": "up", "input_schema": {}}]
    described = {"jobs": [], "pipes": pipes, "problems": []}
    for command, sent, said in (
        ("send up", {}, "nobody waits for this\n"),
        ("send up -q", {}, ""),
        ("send up", {"woke": [brief("x", "a")]}, ""),
    ):
        pipe.written = pipe.chatter = ""
        daemon = FakeDaemon(jobs=described, send={"id": "event", **SENT, **sent})
        assert await typed([*command.split(), "--input", "{}"], pipe, daemon) == Code.DONE
        assert (pipe.written, pipe.chatter) == ("event\n", said)


# ---- filters


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ("", "no runs; start one: taskrun start JOB"),
        ("--status done", "no runs match: succeeded\n"),
        ("--job nosuch --status failed,running", "no runs match: of job nosuch, failed or running\n"),
        ("--since 90m", "no runs match: triggered in the last 1h 30m\n"),
    ],
)
async def test_a_filter_without_hits_says_so(screen: FakeTerminal, options: str, said: str) -> None:
    assert await typed(f"list {options}", screen, FakeDaemon(runs=[])) == Code.DONE
    assert screen.chatter.startswith(said)


# ---- files


async def test_init_makes_a_folder_for_the_journal_that_is_the_users_alone(pipe: FakeTerminal, project: Path) -> None:
    for _ in range(2):
        assert await typed("init new/project", pipe, FakeDaemon()) == Code.DONE
    folder = project / "new" / "project" / ".taskrun"
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert (folder / ".gitignore").read_text() == "*\n"


def test_the_size_of_the_journal_counts_its_log(screen: FakeTerminal, project: Path) -> None:
    journal = project / "journal.db"
    journal.write_bytes(b"x" * 4096)
    Path(f"{journal}-wal").write_bytes(b"x" * 2_000_000)
    found = {"running": False, "journal": str(journal)}
    shown = status_screen(found, Session(screen, FakeGate(FakeDaemon())))
    assert f"journal  {journal}  1.9 MB" in str(shown)
