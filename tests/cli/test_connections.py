"""Commands that go on for days: however much they ask, they hold a few connections."""

from __future__ import annotations

import json
from typing import Any

import pytest

from taskrun.cli.app import execute
from taskrun.cli.backend import resumable_streams
from taskrun.cli.backend.resumable_streams import change_stream, log_stream
from taskrun.cli.commands import follow
from taskrun.cli.commands.list import Listing, Table
from taskrun.cli.commands.show import Drawn
from taskrun.cli.session import Backend, Session
from taskrun.model.config import Config
from taskrun.model.errors import DaemonError
from tests.cli.fakes import FakeDaemon, FakeGate, FakeTerminal, a_run

RUNS = [a_run(f"{number:02}abcdefabcd") for number in range(20)]


class CountingGate(FakeGate):
    """Counts connections; `most` is how many were open at once."""

    def __init__(self, daemon: FakeDaemon) -> None:
        super().__init__(daemon)
        self.opened = self.most = 0

    @property
    def open(self) -> int:
        return self.opened - [op for op, _ in self.fake.asked].count("close")

    async def daemon(self, config: Config, autostart: bool) -> Backend:
        self.opened += 1
        self.most = max(self.most, self.open)
        return self.fake

    async def reader(self, config: Config) -> Backend:
        return await self.daemon(config, False)


async def test_a_live_list_completes_large_runs_over_one_connection_and_another_once_that_is_lost(
    pipe: FakeTerminal,
) -> None:
    cut = [{"kind": "run", "run": {**run, "output": "[1", "cut": ["output"]}} for run in RUNS]
    asked: list[int] = []

    def piece(start: int, **_: Any) -> str:
        asked.append(start)
        if len(asked) == 7:
            raise DaemonError("gone")
        return {0: "[1,", 3: "2]"}.get(start, "")

    gate = CountingGate(FakeDaemon(watch=[*cut, ValueError("enough")], piece=piece))
    await execute(["list", "-w", "--json"], pipe, gate)
    assert [json.loads(line)["output"] for line in pipe.written.splitlines()[:-1]] == [[1, 2]] * len(RUNS)
    assert (gate.opened, gate.most) == (4, 3)


async def test_the_log_of_a_run_that_has_ended_needs_no_connection_any_more(pipe: FakeTerminal) -> None:
    gate = CountingGate(FakeDaemon(tail=[{"kind": "end", "run": RUNS[0]}, ValueError("not wanted")]))
    session = Session(pipe, gate)
    for _ in range(3):
        assert [message["kind"] async for message in log_stream(session, {RUNS[0]["id"]: 0})] == ["end"]
    assert (gate.opened, gate.open) == (3, 0)


async def test_a_stream_lets_go_of_the_daemons_that_it_lost(
    pipe: FakeTerminal, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(resumable_streams, "PAUSE", 0.0)
    gate = CountingGate(FakeDaemon(watch=[{"kind": "ready"}, DaemonError("gone")]))
    seen = 0
    async for _ in change_stream(Session(pipe, gate)):
        seen += 1
        if seen == 10:
            break
    assert (gate.opened, gate.most) == (10, 1)


async def test_looking_for_adopted_commands_needs_one_connection_at_a_time(
    pipe: FakeTerminal, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(follow, "PAUSE", 0.0)
    gate = CountingGate(FakeDaemon(why=[{"causes": []}]))
    session = Session(pipe, gate)
    await follow.tell_adopted(session, RUNS[0]["id"], follow.PlainView(session))
    assert (gate.opened, gate.most) == (follow.LOOKS, 1)


async def test_screens_let_go_of_a_connection_that_answers_with_an_error(screen: FakeTerminal) -> None:
    gate = CountingGate(FakeDaemon(runs=[], overview=DaemonError("odd"), logs=DaemonError("odd")))
    session = Session(screen, gate)
    for _ in range(3):
        await Table(session, Listing())._ask()
        await Drawn(session, RUNS[0]["id"])._look(RUNS[0])
    assert (gate.opened, gate.most) == (6, 1)
