"""That a command was adopted, found again after its daemon or worker had died, is said wherever its run is shown."""

from __future__ import annotations

from typing import Any

import pytest

from taskrun.cli.backend.held_reasons import explained
from taskrun.cli.commands import follow
from taskrun.cli.screens.look import Look, printed
from taskrun.cli.screens.run import run_screen
from taskrun.cli.screens.runs import runs_table
from taskrun.cli.session import Session
from taskrun.engine.core.queries.views import rfc3339
from taskrun.model.records import Status, StepKind, StepStatus
from tests.cli.fakes import NOW, FakeDaemon, FakeGate, FakeTerminal, a_run, a_step, shown, typed

COMMAND = a_step("encode", StepStatus.RUNNING, kind=StepKind.SHELL)
RUN = a_run(steps=[COMMAND], started_at=NOW - 60)
CAUSE = {"kind": "step", "text": "it runs", "step": "encode", "pid": 7}
ADOPTED = CAUSE | {"adopted": rfc3339(NOW - 30)}


def why(*causes: dict[str, Any]) -> list[dict[str, Any]]:
    return [{"id": RUN["id"], "status": "running", "causes": list(causes)}]


@pytest.mark.parametrize(
    ("run", "causes", "told"),
    [
        (RUN, [ADOPTED], {"adopted": {"encode": ADOPTED["adopted"]}}),
        (RUN, [CAUSE | {"adopted": None}], {"adopted": {}}),
        (RUN | {"held": True}, [ADOPTED], {"why": ["it runs"]}),
        (a_run(status=Status.QUEUED), [CAUSE], {"why": ["it runs"]}),
    ],
)
async def test_a_run_gets_what_was_adopted_or_why_it_is_held(
    run: dict[str, Any], causes: list[dict[str, Any]], told: dict[str, Any]
) -> None:
    (found,) = await explained(FakeDaemon(why=why(*causes)), [run])
    assert {name: found[name] for name in found.keys() - run.keys()} == told


async def test_nothing_is_asked_of_a_run_that_is_at_no_command() -> None:
    daemon = FakeDaemon()
    run = a_run(steps=[a_step("fetch", StepStatus.RUNNING)])
    assert await explained(daemon, [run, a_run(status=Status.SUCCEEDED)]) == [run, a_run(status=Status.SUCCEEDED)]
    assert daemon.asked == []


@pytest.mark.parametrize(("status", "said"), [(Status.RUNNING, True), (Status.SUCCEEDED, False)])
def test_the_screens_say_it_as_long_as_the_run_runs(status: Status, said: bool) -> None:
    ended = NOW if status is Status.SUCCEEDED else None
    run = {**RUN, "status": status.value, "ended_at": None if ended is None else rfc3339(ended)}
    run["adopted"] = {"encode": ADOPTED["adopted"]}
    table = printed(runs_table([run], NOW, Look(100)), Look(100))
    screen = printed(run_screen(shown(run, [COMMAND]), NOW, Look(100)), Look(100))
    assert ("encode (adopted)" in table) is said
    assert ("adopted encode, 30s ago" in screen) is said


async def test_list_and_show_ask_for_it(screen: FakeTerminal) -> None:
    daemon = FakeDaemon(find=RUN["id"], runs=[RUN], show=shown(RUN, [COMMAND]), why=why(ADOPTED))
    assert await typed("list", screen, daemon) == 0
    assert "encode (adopted)" in screen.written
    assert await typed("show @last", screen, daemon) == 0
    assert "adopted encode" in screen.written


async def test_who_follows_a_run_over_the_death_of_a_daemon_is_told_once(
    pipe: FakeTerminal, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(follow, "PAUSE", 0.0)
    answers = iter([why(CAUSE), why(ADOPTED)])
    daemon = FakeDaemon(why=lambda runs: next(answers))
    session = Session(pipe, FakeGate(daemon))
    await follow.tell_adopted(session, RUN["id"], follow.PlainView(session))
    assert pipe.chatter == "── adopted: encode ──\n"
