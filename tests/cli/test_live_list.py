"""A live list: what it asks for and when, runs that have no step yet, and that a fault in a frame ends it."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from msgspec.structs import replace

import taskrun.cli.commands.list as module
from taskrun.cli.commands.list import FRESH, SOON, Listing, Table
from taskrun.cli.exit_codes import Code
from taskrun.cli.session import Session
from taskrun.model.records import Status
from tests.cli.fakes import FOREVER, FakeDaemon, FakeGate, FakeTerminal, a_run, typed


async def asked_at(screen: FakeTerminal, monkeypatch: pytest.MonkeyPatch, change: int | None) -> list[int]:
    """Returns the frames after which the totals were asked for, if a run changes before a frame."""
    monkeypatch.setattr(module, "pause_after", lambda begun: 0.0)
    daemon = FakeDaemon(runs=[])
    table = Table(Session(screen, FakeGate(daemon)), Listing())
    asked: list[int] = []
    frames: list[int] = []

    def paint(count: int) -> None:
        frames.append(count)
        if count == change:
            table.change({"kind": "run", "run": a_run("ab12cdefabcd", Status.SUCCEEDED)})
        if count > FRESH + SOON:
            raise asyncio.CancelledError

    monkeypatch.setattr(table, "_paint", paint)
    daemon.answers["overview"] = lambda: (
        asked.append(frames[-1]) or {"counts": [], "children": 0, "defaults": {}}  # type: ignore[func-returns-value]
    )
    with pytest.raises(asyncio.CancelledError):
        await table.tick()
    return asked


async def test_they_are_asked_for_now_and_then(screen: FakeTerminal, monkeypatch: pytest.MonkeyPatch) -> None:
    assert await asked_at(screen, monkeypatch, None) == [0, FRESH]


async def test_they_follow_soon_after_a_change(screen: FakeTerminal, monkeypatch: pytest.MonkeyPatch) -> None:
    assert await asked_at(screen, monkeypatch, 2) == [0, SOON, SOON + FRESH]


class Watched(FakeDaemon):
    """Streams runs as a change tells them; at the end of the stream Ctrl-C is pressed once `count` frames were asked about."""

    def __init__(self, screen: FakeTerminal, runs: list[dict[str, Any]], count: int = 3) -> None:
        told = [{"kind": "run", "run": run} for run in runs]
        super().__init__(runs=[], watch=[{"kind": "ready"}, *told, FOREVER], overview=self._looked)
        self._screen = screen
        self._left = count

    def _looked(self) -> dict[str, Any]:
        self._left -= 1
        if self._left == 0:
            self._screen.interrupt()
        return {"counts": [], "children": 0, "defaults": {}}


@pytest.fixture
def live(screen: FakeTerminal, monkeypatch: pytest.MonkeyPatch) -> FakeTerminal:
    monkeypatch.setattr(module, "pause_after", lambda begun: 0.0)
    screen.facts = replace(screen.facts, cursor=True)
    return screen


@pytest.mark.parametrize("status", Status)
async def test_a_run_without_a_step_stops_no_frames(live: FakeTerminal, status: Status) -> None:
    run = {name: value for name, value in a_run("ab12cdefabcd", status).items() if not name.startswith("step")}
    daemon = Watched(live, [run])
    daemon.answers["why"] = [{"id": run["id"], "causes": []}]
    assert await typed("list -w", live, daemon) == 0
    assert "ab12cd" in live.written


async def test_a_fault_in_a_frame_ends_it(live: FakeTerminal, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "runs_table", lambda *_: 1 / 0)
    async with asyncio.timeout(20):
        assert await typed("list -w", live, Watched(live, [])) == Code.FAULT
    assert "ZeroDivisionError" in live.chatter
