"""`taskrun notify test`: every way is tried, and the one that is closed is named."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from taskrun.cli.exit_codes import Code
from taskrun.model.records import Status
from tests.cli.fakes import FakeDaemon, FakeTerminal, a_run, typed

TABLES = """
[[notify]]
desktop = true
webhook = "https://example.com/secret/path"
[[notify]]
on = ["succeeded"]
desktop = true
"""


def telling(*ends: Status) -> FakeDaemon:
    started: list[dict[str, Any]] = []

    def start(**params: Any) -> Any:
        started.append(params)
        return {"run": a_run(str(len(started)) * 12), "created": True}

    error = {"type": "NotDelivered", "message": "https://example.com/*** answered 404 Not Found", "traceback": ""}
    runs = [
        {**a_run(str(n) * 12, end, ended_at=1.0), "error": error if end is Status.FAILED else None}
        for n, end in enumerate(ends, 1)
    ]
    return FakeDaemon(start=start, wait=runs[::-1])


@pytest.fixture
def tables(project: Path) -> None:
    (project / "taskrun.toml").write_text(TABLES)


@pytest.mark.usefixtures("tables")
async def test_each_way_is_tried_once_and_the_closed_one_named(pipe: FakeTerminal) -> None:
    daemon = telling(Status.SUCCEEDED, Status.FAILED)
    assert await typed("notify test", pipe, daemon) == Code.FAILED
    assert "done desktop\n" in pipe.chatter
    assert "failed webhook https://example.com/***: https://example.com/*** answered 404 Not Found\n" in pipe.chatter
    assert "taskrun show 222222" in pipe.chatter
    inputs = [json.loads(params["input"]) for op, params in daemon.asked if op == "start"]
    assert [one["way"] for one in inputs] == [{"desktop": True}, {"webhook": "https://example.com/secret/path"}]
    assert {(one["event"], one["title"]) for one in inputs} == {("test", "taskrun: a test")}


@pytest.mark.usefixtures("tables")
async def test_of_a_command_its_last_words_say_why(pipe: FakeTerminal) -> None:
    daemon = telling(Status.FAILED, Status.SUCCEEDED)
    message = "`notify-send -- a b` ended with code 127\n  notify-send: command not found"
    daemon.answers["wait"][-1]["error"] = {"type": "taskrun.CommandFailed", "message": message, "traceback": ""}
    assert await typed("notify test", pipe, daemon) == Code.FAILED
    assert "failed desktop: notify-send: command not found (code 127)\n" in pipe.chatter


@pytest.mark.usefixtures("tables")
async def test_json_and_the_exit_code_when_all_are_open(pipe: FakeTerminal) -> None:
    assert await typed("notify test --json", pipe, telling(Status.SUCCEEDED, Status.SUCCEEDED)) == Code.DONE
    assert json.loads(pipe.written) == [
        {"way": "desktop", "run": "1" * 12, "status": "succeeded", "error": None},
        {"way": "webhook https://example.com/***", "run": "2" * 12, "status": "succeeded", "error": None},
    ]


async def test_without_a_table_there_is_nothing_to_test(pipe: FakeTerminal) -> None:
    assert await typed("notify test", pipe, FakeDaemon()) == Code.USAGE
    assert "there is no [[notify]]" in pipe.chatter


@pytest.mark.usefixtures("tables")
async def test_config_shows_neither_paths_of_webhooks_nor_secrets_unless_asked(
    pipe: FakeTerminal, project: Path
) -> None:
    (project / "taskrun.toml").write_text(TABLES + 'webhook = "https://a:b@h:8/p"\nsecret = "tell nobody"\n')
    assert await typed("config", pipe, FakeDaemon()) == Code.DONE
    assert 'webhook = "https://example.com/***"' in pipe.written
    assert 'webhook = "https://h:8/***"' in pipe.written
    assert 'secret = "***"' in pipe.written
    assert await typed("config --reveal", pipe, FakeDaemon()) == Code.DONE
    assert "https://a:b@h:8/p" in pipe.written
    assert "tell nobody" in pipe.written


@pytest.mark.usefixtures("tables")
@pytest.mark.parametrize(
    ("runs", "ok", "text"),
    [
        ([], True, "desktop, webhook https://example.com/***; 0 told lately, none lost"),
        ([a_run("1" * 12, Status.FAILED, input='{"event":"test"}')], True, "0 told lately, none lost"),
        ([a_run("1" * 12, Status.FAILED), a_run("2" * 12, Status.SUCCEEDED)], False, "1 of the last 2 could not be"),
    ],
)
async def test_doctor_says_whether_what_was_told_has_arrived(
    pipe: FakeTerminal, runs: list[dict[str, Any]], ok: bool, text: str
) -> None:
    daemon = FakeDaemon(runs=runs, schedule=[])
    await typed("doctor --json", pipe, daemon)
    (check,) = [one for one in json.loads(pipe.written) if one["check"] == "notifications"]
    assert (check["ok"], text in check["text"]) == (ok, True)
    assert ("runs", {"job": "notify", "limit": 20}) in daemon.asked
    assert ("taskrun show 111111" in (check["hint"] or "")) is not ok
