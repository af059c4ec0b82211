"""What a notification says of a run that failed: what matters to a person comes first."""

from __future__ import annotations

import json

import pytest

from taskrun.model.byte_escapes import escaped
from taskrun.model.records import Run, Status
from taskrun.rules.notice_texts import failed, paused

LATIN = escaped("caf\udce9")  # as a name that is no UTF-8 stands in the journal
COMMAND = "`ffmpeg -i a.mov` ended with code 1"


def run(kind: str, message: str, **more: str) -> Run:
    error = json.dumps({"type": kind, "message": message, "traceback": ""})
    return Run(**{"id": "aaaabbbbcccc", "job": "encode", **more}, created_at=0.0, status=Status.FAILED, error=error)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("run", "title", "text"),
    [
        (run("ValueError", "no luck"), "encode failed", "ValueError: no luck"),
        (run("taskrun.CommandFailed", f"{COMMAND}\n  a\n  b"), "encode failed", f"a\nb\n{COMMAND}"),
        (run("taskrun.CommandFailed", COMMAND), "encode failed", COMMAND),
        (run("taskrun.Fatal", "no such order", name="order 7"), "order 7 failed", "no such order"),
        (run("E", "m", job="exec", input='{"command":["cp","a b","c"]}'), "cp 'a b' c failed", "E: m"),
        (run("E", "m", job="exec", input='{"command":"make\\n  all"}'), "make all failed", "E: m"),
        (run("E", "m", job="exec", input='{"command":"a"}', name="b"), "b failed", "E: m"),
        (run("E", "m", job="exec", input=f'{{"command":"{"x" * 99}"}}'), f"{'x' * 59}… failed", "E: m"),
        (
            run("E", f"no {LATIN}", job="exec", input=f'{{"command":"cat {LATIN}"}}'),
            r"cat caf\xe9 failed",
            r"E: no caf\xe9",
        ),
        (run("taskrun.Fatal", ""), "encode failed", "Fatal"),
        (
            run("taskrun.Fatal", "1 of 5 runs failed", job="each", input='{"job":"encode","total":5}'),
            "each of encode failed",
            "1 of 5 runs failed",
        ),
    ],
)
def test_the_reason_comes_first(run: Run, title: str, text: str) -> None:
    assert failed(run) == (title, text)


@pytest.mark.parametrize(
    ("option", "command"),
    [("", "taskrun resume aaaabbbbcccc"), ("--config '/my jobs/taskrun.toml'", "taskrun {} resume aaaabbbbcccc")],
)
def test_a_paused_run_goes_on_by_a_command_for_its_project(option: str, command: str) -> None:
    held = Run(id="aaaabbbbcccc", job="encode", created_at=0.0, status=Status.PAUSED, reason="explicit")
    said = ("encode is paused", f"Paused by hand.\nResume it: {command.format(option)}")
    assert paused(held, option) == said
