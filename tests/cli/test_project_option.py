"""What a command names to type next means the project that its own option chose, so that it works when it is pasted."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from taskrun.cli.project_option import for_project, project_option
from taskrun.model.errors import DaemonStopped, RunNotFound
from taskrun.model.records import Status, StepStatus
from tests.cli.fakes import NOW, FakeDaemon, FakeTerminal, a_run, a_step, shown, typed

ERROR = '{"type":"ValueError","message":"no","traceback":""}'
FAILED = a_run(status=Status.FAILED, error=ERROR, started_at=NOW - 9, ended_at=NOW - 2)
CAUSE = {"kind": "event", "text": "it waits; go on: taskrun resume 7k3fq2", "command": "taskrun send uploads"}


@pytest.mark.parametrize(
    ("user", "file", "text", "wanted"),
    [
        (True, None, "see it: taskrun show @last", "see it: taskrun --user show @last"),
        (False, "my jobs/taskrun.toml", "taskrun list", "taskrun --config 'my jobs/taskrun.toml' list"),
        (False, None, "see it: taskrun show @last", "see it: taskrun show @last"),
        (
            True,
            None,
            "a   taskrun tail x   b   taskrun cancel x",
            "a   taskrun --user tail x   b   taskrun --user cancel x",
        ),
        (True, None, "taskrun --user list", "taskrun --user list"),
        (True, None, "`taskrun init` makes one", "`taskrun init` makes one"),
        (True, None, "of taskrun 1.2, in /srv/taskrun list", "of taskrun 1.2, in /srv/taskrun list"),
    ],
)
def test_commands_in_a_text_get_the_option_and_nothing_else_does(
    user: bool, file: str | None, text: str, wanted: str
) -> None:
    assert for_project(text, project_option(user, file)) == wanted


def daemon() -> FakeDaemon:
    """A daemon whose every answer leads to a hint."""
    held = a_run(status=Status.WAITING)
    return FakeDaemon(
        start={"run": held, "created": True},
        find=FAILED["id"],
        runs=[FAILED],
        show=shown(FAILED, [a_step("fetch"), a_step("store", StepStatus.FAILED)], steps_left_out=3),
        why=[{"id": FAILED["id"], "status": "waiting", "causes": [CAUSE]}],
        retry={"run": held, "created": True},
        pause=[{"id": FAILED["id"], "status": "paused"}],
        cancel=RunNotFound("no run"),
        slots=[],
        send=DaemonStopped("the daemon was stopped"),
    )


@pytest.mark.parametrize(
    "line",
    [
        "start processFile --path a",
        "start nothing",
        "startt processFile",
        "list",
        "list --job other",
        "show @last",
        "why @last",
        "retry @last",
        "cancel @last",
        "cancel --job processFile --path b",
        "jobs processFile",
        "jobs nothing",
        "schedule processFile",
        "exec",
        "daemon status",
        "doctor",
        "config nothing",
    ],
)
async def test_every_command_that_is_named_means_the_same_project(line: str, tmp_path: Path) -> None:
    terminal = FakeTerminal(tmp_path, env={"HOME": str(tmp_path)}, in_tty=True, out_tty=True, err_tty=True, width=200)
    await typed(f"--user {line}", terminal, daemon())
    said = terminal.chatter + terminal.written
    named = re.findall(r"taskrun (?:--user )?[a-z]+\b", said)
    assert named, said
    assert [one for one in named if "--user" not in one] == [], said
