"""The duties of an engine go on after a failure, and say what it was."""

from __future__ import annotations

import asyncio
import errno
import os
from pathlib import Path
from typing import Any

import pytest

from taskrun import MemoryStorage
from taskrun.engine.core.lease import Lease
from taskrun.engine.core.timers import Timers
from taskrun.engine.core.transaction import EngineState
from taskrun.model.clock import SystemClock
from taskrun.processes.liveness_lock import LivenessLock


class Failing:
    """Fails at first."""

    def __init__(self) -> None:
        self.calls = 0
        self.over = asyncio.Event()

    async def __call__(self) -> None:
        self.calls += 1
        if self.calls == 1:
            raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))
        self.over.set()


async def test_the_clock_goes_on_after_a_failure(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("taskrun.engine.core.timers.AGAIN", 0.0)
    fire = Failing()
    timers = Timers(SystemClock(), fire)
    timers.start()
    async with asyncio.timeout(10):
        await fire.over.wait()
    await timers.stop()
    assert "could not be fired" in caplog.text


async def test_the_look_for_the_dead_goes_on_after_a_failure(caplog: pytest.LogCaptureFixture) -> None:
    store, take_over = MemoryStorage(), Failing()
    store.open()
    lease = Lease(store, EngineState(), "default", 0.01, alone=False, heartbeat=True)
    watch = asyncio.create_task(lease.watch(lambda: None, take_over))
    async with asyncio.timeout(10):
        await take_over.over.wait()
    watch.cancel()
    assert "failed" in caplog.text
    store.close()


def test_a_lock_that_cannot_be_looked_at_is_taken_for_held(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*args: Any) -> int:
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))

    assert LivenessLock.free(tmp_path / "none")
    (tmp_path / "lock").touch()
    monkeypatch.setattr(os, "open", fail)
    assert not LivenessLock.free(tmp_path / "lock")
