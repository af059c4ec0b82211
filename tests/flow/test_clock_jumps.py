"""Schedules under a wall clock that jumps: none stops, no slot is lost for a jump of less than a minute, none fires twice."""

from __future__ import annotations

import asyncio
import datetime as dt
import random
from typing import Any

import pytest

from taskrun import Concurrency, Cron, Throttle, current, job, pipe, run
from taskrun.declarations.job import Job
from taskrun.engine.core.schedule_kept import MOST_STRETCHES, Kept
from taskrun.rules.cron import CronRule
from taskrun.stores.base import Store
from taskrun.testing import TestQueue, VirtualClock

START = dt.datetime(2026, 3, 1, 12, tzinfo=dt.UTC)
YEAR = 365 * 86_400.0


class WallClock(VirtualClock):
    """A clock whose wall time can be set, while what waits goes by elapsed time, at most 30 s at once as the machine's does."""

    offset = 0.0

    def now(self) -> float:
        return self.time + self.offset

    async def sleep(self, seconds: float) -> None:
        await super().sleep(min(seconds, 30.0))


@pytest.fixture(autouse=True)
def _wall_clock(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("taskrun.testing.VirtualClock", WallClock)


slots: list[dt.datetime] = []


@pytest.fixture(autouse=True)
def _no_slots() -> None:
    slots.clear()


def ticking(cron: str | Cron) -> Job:
    @job(cron=cron)
    async def tick() -> None:
        slots.append(current().slot)  # type: ignore[arg-type]

    return tick


class Ticking(TestQueue):
    """A queue whose wall clock can be set."""

    async def set_clock(self, offset: float) -> None:
        """Sets the clock to be so many seconds ahead of what it should be."""
        assert isinstance(self.clock, WallClock)
        self.clock.offset = offset
        await self.settle()

    async def elapse(self, seconds: float) -> None:
        """Lets time pass, whatever the clock says."""
        target = self.clock.time + seconds
        await self.settle()
        while self.clock.ring(target):
            await self.settle()
        self.clock.time = target
        await self.settle()


def at(*minutes: float) -> list[dt.datetime]:
    return [START + dt.timedelta(minutes=minute) for minute in minutes]


@pytest.mark.parametrize("catch_up", ["skip", "one"])
async def test_a_clock_that_was_ahead_stops_no_schedule(storage: Store, catch_up: Any) -> None:
    async with Ticking([ticking(Cron("*/5 * * * *", catch_up=catch_up))], storage=storage, start=START) as queue:
        await queue.elapse(6 * 60)
        await queue.set_clock(YEAR)
        await queue.elapse(60)
        await queue.set_clock(0.0)
        await queue.elapse(10 * 60)
    present = [slot for slot in slots if slot.year == START.year]
    assert present == at(5, 10, 15)


async def test_nor_does_one_that_is_right_again_after_a_restart(storage: Store) -> None:
    tick = ticking("*/5 * * * *")
    async with Ticking([tick], storage=storage, start=START + dt.timedelta(seconds=YEAR)) as queue:
        await queue.elapse(6 * 60)
        [ahead] = await queue.core.schedules.views()
    async with Ticking([tick], storage=storage, start=START + dt.timedelta(minutes=1)) as queue:
        await queue.elapse(60)
        [right] = await queue.core.schedules.views()
        await queue.elapse(6 * 60)
    assert (ahead["next"][:16], right["next"][:16]) == ("2027-03-01T12:10", "2026-03-01T12:05")
    assert slots[1:] == at(5)


async def test_what_was_used_ahead_of_time_is_not_used_again_when_its_time_comes(storage: Store) -> None:
    tick = ticking("*/5 * * * *")
    async with Ticking([tick], storage=storage, start=START) as queue:
        await queue.set_clock(59 * 60)
        await queue.elapse(7 * 60)
        assert slots == at(60, 65)
        await queue.set_clock(0.0)
        await queue.elapse(30 * 60)
    async with Ticking([tick], storage=storage, start=START + dt.timedelta(minutes=37)) as queue:
        [view] = await queue.core.schedules.views()
        assert view["next"][:16] == "2026-03-01T12:40"
        await queue.elapse(40 * 60)
    assert sorted(slots) == at(*range(10, 80, 5))  # 12:05 came and went while the clock said 13:04


async def test_a_clock_that_is_set_back_repeats_nothing(storage: Store) -> None:
    async with Ticking([ticking("*/10 * * * *")], storage=storage, start=START) as queue:
        await queue.elapse(35 * 60)
        await queue.set_clock(-30 * 60)
        await queue.elapse(60 * 60)
    assert slots == at(10, 20, 30, 40, 50, 60)


@pytest.mark.parametrize("ahead", [1.0, 30.0, 58.0])
async def test_a_jump_of_less_than_a_minute_loses_no_slot(storage: Store, ahead: float) -> None:
    async with Ticking([ticking("*/10 * * * * *")], storage=storage, start=START) as queue:
        await queue.elapse(15)
        await queue.set_clock(ahead)
        await queue.elapse(75)
    seconds = [(slot - START).total_seconds() for slot in slots]
    assert seconds == [10.0 * n for n in range(1, len(seconds) + 1)]
    assert seconds[-1] == (90 + ahead) // 10 * 10


async def test_a_slot_that_is_over_a_minute_late_is_missed(storage: Store) -> None:
    tick = ticking("0 * * * *")
    async with Ticking([tick], storage=storage, start=START + dt.timedelta(minutes=59)) as queue:
        await queue.settle()
    async with Ticking([tick], storage=storage, start=START + dt.timedelta(minutes=61)) as queue:
        await queue.elapse(60)
    assert slots == []


@pytest.mark.parametrize("seed", range(8))
async def test_however_it_jumps_no_slot_fires_twice_and_a_clock_that_is_right_fires_all(
    storage: Store, seed: int
) -> None:
    chance = random.Random(seed)
    tick = ticking(Cron("*/5 * * * *", catch_up=chance.choice(["skip", "one", "all"])))
    offset = 0.0
    start = START
    for _ in range(3):
        async with Ticking([tick], storage=storage, start=start) as queue:
            for _ in range(6):
                offset = chance.choice([0.0, 30.0, 400.0, 3600.0, -3600.0, 7200.0, offset])
                await queue.set_clock(offset)
                await queue.elapse(chance.choice([20, 300, 900]))
            await queue.set_clock(0.0)
            start = queue.now
    assert len(set(slots)) == len(slots)
    async with Ticking([tick], storage=storage, start=start) as queue:
        await queue.elapse(2.5 * 3600)  # beyond all that it was ahead
    assert len(set(slots)) == len(slots)
    first = (start + dt.timedelta(minutes=5)).replace(second=0)
    wanted = [first + dt.timedelta(minutes=n - first.minute % 5) for n in range(0, 140, 5)]
    assert not set(wanted) - set(slots)


def test_what_is_kept_of_used_slots_does_not_grow() -> None:
    rule, kept = CronRule("0 * * * *", "UTC"), Kept(job="j", cron="0 * * * *", seen=0.0, used=((0.0, 0.0),))
    for day in range(50):
        kept = kept.with_used(rule, [day * 86_400.0 + hour * 3600 for hour in (1, 2, 3, 12)])
    assert len(kept.used) == MOST_STRETCHES
    assert kept.used[-2:] == ((49 * 86_400.0 + 3600, 49 * 86_400.0 + 3 * 3600), (49 * 86_400.0 + 12 * 3600,) * 2)
    assert kept.upcoming(rule, 49 * 86_400.0) == 49 * 86_400.0 + 4 * 3600


def test_a_slot_that_joins_two_stretches_makes_them_one() -> None:
    rule, kept = CronRule("0 * * * *", "UTC"), Kept(job="j", cron="0 * * * *", seen=0.0)
    for hour in (1, 3, 2):
        kept = kept.with_used(rule, [hour * 3600.0])
    assert kept.used == ((3600.0, 3 * 3600.0),)


async def test_engines_whose_clocks_differ_use_no_slot_twice_and_lose_none(storage: Store) -> None:
    tick = ticking("*/5 * * * *")
    async with (
        Ticking([tick], storage=storage, start=START) as right,
        Ticking([tick], storage=storage, start=START) as ahead,
    ):
        await ahead.set_clock(3600.0 + 7.0)
        for _ in range(90):
            await right.elapse(60)
            await ahead.elapse(60)
    assert len(set(slots)) == len(slots)
    assert set(at(*range(5, 150, 5))) <= set(slots)


@pytest.mark.parametrize("back", [0.5, 5.0, 59.0])
async def test_an_event_after_the_trigger_is_seen_though_the_clock_was_set_back_between_them(
    storage: Store, back: float
) -> None:
    @job
    async def waits() -> Any:
        await run("before", ready.wait)
        return await news.wait_for()

    news, ready = pipe("news"), asyncio.Event()
    async with Ticking([waits], [news], storage=storage, start=START) as queue:
        first = await queue.jobs.waits.start()
        await queue.set_clock(-back)
        await queue.pipes.news.send(n=1)
        second = await queue.jobs.waits.start()
        ready.set()
        await queue.settle()
        assert [await one.status() for one in (first, second)] == ["succeeded", "waiting"]
        await queue.pipes.news.send(n=2)
        assert await second.result() == {"n": 2}


RATES: list[dict[str, Any]] = [
    {"throttle": Throttle("x", 60, "queue")},
    {"concurrency": Concurrency("x", "1/m")},
    {"throttle": Throttle("x", 60, "queue"), "concurrency": Concurrency("x", "1/m")},
]


async def once_a_clock_that_was_ahead_is_right(ping: Job, storage: Store, how: str, done: list[int]) -> None:
    """Triggers a job while the clock is a year ahead, and returns once that has been right for a while."""
    async with Ticking([ping], storage=storage, start=START) as queue:
        await queue.set_clock(YEAR)
        for n in range(4):
            await queue.jobs.ping.start(n=n)
        await queue.elapse(61)
        assert done == [0, 1]
        if how == "at once":
            await queue.set_clock(0.0)
            await queue.elapse(200)
    if how == "after a restart":
        async with Ticking([ping], storage=storage, start=START) as queue:
            await queue.elapse(200)


@pytest.mark.parametrize("how", ["at once", "after a restart"])
@pytest.mark.parametrize("terms", RATES)
async def test_a_limit_on_starts_opens_once_a_clock_that_was_ahead_is_right(
    storage: Store, terms: Any, how: str
) -> None:
    @job(**terms)
    async def ping(n: int) -> None:
        done.append(n)

    done: list[int] = []
    await once_a_clock_that_was_ahead_is_right(ping, storage, how, done)
    assert done == [0, 1, 2, 3]


@pytest.mark.parametrize("how", ["at once", "after a restart"])
async def test_a_limit_on_starts_of_a_step_opens_once_a_clock_that_was_ahead_is_right(storage: Store, how: str) -> None:
    @job
    async def ping(n: int) -> None:
        await run("call", call, n, concurrency="1/m")

    def call(n: int) -> None:
        done.append(n)

    done: list[int] = []
    await once_a_clock_that_was_ahead_is_right(ping, storage, how, done)
    assert done == [0, 1, 2, 3]
