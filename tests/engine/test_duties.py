"""The duties of an engine go on after a failure, and say what it was."""

from __future__ import annotations

import asyncio
import errno
import os
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from msgspec.structs import replace

from taskrun import Cron, MemoryStorage, job
from taskrun.engine.core import run_lifecycle
from taskrun.engine.core.lease import Lease
from taskrun.engine.core.timers import Timers
from taskrun.engine.core.transaction import EngineState, Transaction
from taskrun.model.clock import SystemClock
from taskrun.model.errors import JournalUnavailable
from taskrun.model.records import Engine
from taskrun.processes.liveness_lock import LivenessLock
from taskrun.stores.base import Answer
from taskrun.testing import TestQueue

HOUR = 3_600.0


class Failing:
    """Fails at first."""

    def __init__(self) -> None:
        self.calls = 0
        self.over = asyncio.Event()

    async def __call__(self, *_: Any) -> None:
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


async def test_the_clock_rests_while_an_engine_that_drains_fires_no_slots_and_tells_nothing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    turns, fire, over = 0, run_lifecycle.fire, asyncio.Event()
    begun: list[int] = []

    @job(cron=Cron("0 * * * *", slow="30m"))
    async def tick() -> None:
        begun.append(queue.now.hour)
        await over.wait()

    def counted(t: Transaction, set_back: bool) -> float | None:
        nonlocal turns
        turns += 1
        return fire(t, set_back=set_back)

    monkeypatch.setattr(run_lifecycle, "fire", counted)
    async with TestQueue([tick], start=0.0) as queue:
        await queue.advance("1h")
        for starter in queue.core.starters:
            starter.open = False
        turns = 0
        queue.clock.time += 3 * HOUR  # it is due that the first run is slow, and a slot
        while queue.clock.ring(queue.clock.time):
            pass
        for _ in range(200):
            await asyncio.sleep(0)
        assert turns <= 2
        queue.core._open(True)
        over.set()
        await queue.advance("1h")
        assert begun == [1, 4, 5]


async def test_the_look_for_the_dead_goes_on_after_a_failure(caplog: pytest.LogCaptureFixture) -> None:
    store, take_over = MemoryStorage(), Failing()
    store.open()
    lease = Lease(store, EngineState(), "default", 0.01, alone=False, heartbeat=True)
    watch = asyncio.create_task(lease.watch(lambda: None, lambda: None, take_over))
    async with asyncio.timeout(10):
        await take_over.over.wait()
    watch.cancel()
    assert "failed" in caplog.text
    store.close()


class Refusing(MemoryStorage):
    """May refuse to write."""

    refuses = False

    def apply(self, fns: Any, guard: Any = None) -> list[Answer]:
        if self.refuses:
            raise JournalUnavailable("the server does not answer")
        return super().apply(fns, guard)


@pytest.mark.parametrize("how", ["refused", "stopped"])
def test_who_could_not_renew_its_own_lease_gives_others_time_to_renew_theirs(
    monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    moment = 1_000.0
    clock = SimpleNamespace(monotonic=lambda: moment, time=lambda: moment)
    monkeypatch.setattr("taskrun.engine.core.lease.time", clock)
    store, state = Refusing(), EngineState()
    store.open()
    state.id = "own"
    lease = Lease(store, state, "default", 15.0, alone=False, heartbeat=True)
    other = Engine(id="other", name="default", lease_until=900.0)
    assert lease.dead(other)
    store.refuses = how == "refused"
    if store.refuses:
        assert not lease.renew()
    else:
        moment += 60
    assert not lease.dead(other)
    store.refuses = False
    assert lease.renew()
    assert not lease.dead(other)
    for _ in range(3):
        moment += 5
        assert lease.renew()
    assert lease.dead(other)
    store.close()


@pytest.mark.parametrize("first", ["looks", "renews"])
@pytest.mark.parametrize("jump", [HOUR, 16.0])
def test_an_engine_that_slept_with_its_machine_takes_no_other_for_dead(
    monkeypatch: pytest.MonkeyPatch, first: str, jump: float
) -> None:
    moment, ahead = 1_000.0, 1e9
    clock = SimpleNamespace(monotonic=lambda: moment, time=lambda: moment + ahead)
    monkeypatch.setattr("taskrun.engine.core.lease.time", clock)
    store, state = MemoryStorage(), EngineState()
    store.open()
    state.id = "own"
    lease = Lease(store, state, "default", 15.0, alone=False, heartbeat=True)
    other = Engine(id="other", name="default", lease_until=clock.time() + 15.0)
    dead = replace(other, lease_until=clock.time() - HOUR - 60)
    assert lease.dead(dead)
    ahead += jump  # the monotonic clock stood still
    if first == "renews":
        assert lease.renew()
    for _ in range(3):
        assert not lease.dead(other)
        moment += 4
        assert lease.renew()
    moment += 4
    assert lease.dead(dead)
    store.close()


def test_a_lock_that_cannot_be_looked_at_is_taken_for_held(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*args: Any) -> int:
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))

    assert LivenessLock.free(tmp_path / "none")
    (tmp_path / "lock").touch()
    monkeypatch.setattr(os, "open", fail)
    assert not LivenessLock.free(tmp_path / "lock")
