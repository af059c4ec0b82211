"""Code that blocks a worker's loop is named: file, line, function, and the run that it belongs to."""

from __future__ import annotations

import asyncio
import math
import threading
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from taskrun.daemon.workers import blocked_loop as module
from taskrun.daemon.workers.blocked_loop import LoopWatch
from taskrun.declarations.calls import caller
from taskrun.engine.messages import Blocked

HERE = Path(__file__)


def hold_up(free: threading.Event) -> None:
    free.wait(20)  # the line that is named


async def handler(run: str, free: threading.Event) -> None:
    caller.set(cast(Any, SimpleNamespace(current=SimpleNamespace(run_id=run))))
    hold_up(free)


async def test_who_blocks_is_named_and_then_that_it_is_over(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "BEAT", 0.01)
    monkeypatch.setattr(module, "LATE", 0.05)
    reports: list[Blocked] = []
    free, over = threading.Event(), asyncio.Event()
    loop = asyncio.get_running_loop()

    def report(blocked: Blocked) -> None:
        reports.append(blocked)
        if blocked.where:
            free.set()
        else:
            loop.call_soon_threadsafe(over.set)

    watch = LoopWatch(HERE.parent, report, lambda: math.inf)
    try:
        await asyncio.create_task(handler("r1", free))
        async with asyncio.timeout(20):
            await over.wait()
    finally:
        watch.close()
    line = next(n for n, text in enumerate(HERE.read_text().splitlines(), 1) if "the line that is named" in text)
    assert reports[0] == Blocked(run="r1", where=f"{HERE}:{line} in hold_up")
    assert reports[-1] == Blocked(run="r1", where="")


async def test_a_loop_that_only_sleeps_is_not_blocked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "BEAT", 0.01)
    reports: list[Blocked] = []
    watch = LoopWatch(HERE.parent, reports.append, lambda: math.inf)
    await asyncio.sleep(0.1)
    watch.close()
    assert reports == []
