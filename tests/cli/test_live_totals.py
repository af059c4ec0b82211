"""The totals beneath a live table: asked for now and then, and soon once a run has changed."""

from __future__ import annotations

import asyncio

import pytest

import taskrun.cli.commands.list as module
from taskrun.cli.commands.list import FRESH, SOON, Listing, Table
from taskrun.cli.session import Session
from taskrun.model.records import Status
from tests.cli.fakes import FakeDaemon, FakeGate, FakeTerminal, a_run


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
