"""What becomes of the slots of a schedule: ran, late, missed or skipped, as the journal keeps it."""

from __future__ import annotations

import asyncio
import datetime as dt
from typing import Any

import pytest

from taskrun import Cron, MemoryStorage, Throttle, job, sleep
from taskrun.engine.core import retention, schedule_due
from taskrun.engine.core.schedule_due import Entry, due, passed
from taskrun.engine.core.schedule_kept import Kept, slot_views
from taskrun.model.errors import DurationInvalid
from taskrun.rules.cron import CronRule
from taskrun.stores.base import Store
from taskrun.testing import TestQueue

START = dt.datetime(2026, 3, 1, tzinfo=dt.UTC)
HOUR = dt.timedelta(hours=1)


async def slots(queue: TestQueue, job: str = "tick") -> list[dict[str, Any]]:
    """Returns the slots of a job, the oldest first."""
    found = await queue.core.read(lambda tx: slot_views(tx, job, 1000, queue.now.timestamp()))
    return found[::-1]


def brief(found: list[dict[str, Any]]) -> list[tuple[str, str]]:
    return [(slot["slot"][11:16], slot["state"]) for slot in found]


@pytest.mark.parametrize(
    ("cron", "states"),
    [
        (Cron("0 * * * *"), ["ran", "missed", "missed", "missed", "missed", "ran"]),
        (Cron("0 * * * *", catch_up="one"), ["ran", "missed", "missed", "missed", "ran", "ran"]),
        (Cron("0 * * * *", catch_up="all"), ["ran", "ran", "ran", "ran", "ran", "ran"]),
        (Cron("0 * * * *", catch_up="all", within="2h"), ["ran", "missed", "missed", "ran", "ran", "ran"]),
        (Cron("0 * * * *", catch_up="one", within="10m"), ["ran", "missed", "missed", "missed", "missed", "ran"]),
        (Cron("0 * * * *", catch_up="one", within="30m"), ["ran", "missed", "missed", "missed", "ran", "ran"]),
        (Cron("0 * * * *", catch_up="one", late="10m"), ["ran", "missed", "missed", "missed", "late", "ran"]),
        (Cron("0 * * * *", catch_up="one", late="1h"), ["ran", "missed", "missed", "missed", "ran", "ran"]),
        (Cron("0 * * * *", late="2h"), ["ran", "missed", "missed", "ran", "ran", "ran"]),
        (Cron("0 * * * *", late="1s"), ["ran", "missed", "missed", "missed", "missed", "ran"]),
    ],
)
async def test_slots_of_a_downtime_are_missed_unless_they_are_caught_up(
    storage: Store, cron: Cron, states: list[str]
) -> None:
    @job(cron=cron)
    async def tick() -> None: ...

    async with TestQueue([tick], storage=storage, start=START) as queue:
        await queue.advance("90m")
    async with TestQueue([tick], storage=storage, start=START + 5.5 * HOUR) as queue:
        await queue.advance("1h")
        found = await slots(queue)
        runs = [run.id async for run in queue.runs(job="tick")]
    assert brief(found) == [(f"0{hour}:00", state) for hour, state in enumerate(states, 1)]
    assert all((slot["lag"] is None) == (slot["state"] == "missed") == (slot["run"] is None) for slot in found)
    assert sorted(slot["run"] for slot in found if slot["run"]) == sorted(runs)
    assert found[0] == {
        "cron": "0 * * * *",
        "slot": "2026-03-01T01:00:00.000+00:00",
        "state": "ran",
        "run": runs[-1],
        "lag": 0.0,
        "status": "succeeded",
    }


async def test_the_lag_is_that_of_the_start_and_waiting_for_a_limit_makes_a_slot_late(storage: Store) -> None:
    @job(cron=Cron("0 * * * *", late="10m"), concurrency=1)
    async def tick() -> None:
        await free.wait()

    free = asyncio.Event()
    async with TestQueue([tick], storage=storage, start=START) as queue:
        await queue.advance("2h 5m")
        assert brief(await slots(queue)) == [("01:00", "ran"), ("02:00", "ran")]
        await queue.advance("10m")
        assert [(slot["state"], slot["lag"]) for slot in await slots(queue)] == [("ran", 0.0), ("late", 900.0)]
        free.set()
        await queue.advance("1h")
        assert [slot["state"] for slot in await slots(queue)] == ["ran", "late", "ran"]
        assert (await slots(queue))[1]["lag"] == 900.0


async def test_a_paused_job_skips_its_slots_and_records_no_run(storage: Store) -> None:
    @job(cron=Cron("0 * * * *", catch_up="all"))
    async def tick() -> None: ...

    async with TestQueue([tick], storage=storage, start=START) as queue:
        await queue.advance("90m")
        await queue.core.jobs.pause("tick")
        await queue.advance("2h")
    async with TestQueue([tick], storage=storage, start=START + 5.5 * HOUR) as queue:
        await queue.advance("1h")
        assert [run.status async for run in _records(queue)] == ["succeeded"]
        await queue.core.jobs.resume("tick")
        await queue.advance("1h")
        assert [slot["state"] for slot in await slots(queue)] == ["ran", *["skipped"] * 5, "ran"]
        assert [run.status async for run in _records(queue)] == ["succeeded"] * 2


async def _records(queue: TestQueue) -> Any:
    async for run in queue.runs(job="tick"):
        yield await queue.core.get(run.id)


async def test_what_a_downtime_missed_before_a_pause_is_missed_all_the_same() -> None:
    rule = CronRule("0 * * * *", "UTC")
    kept = Kept(job="tick", cron="0 * * * *", seen=0.0)
    what = due(kept, rule, Entry(job="tick", cron="0 * * * *", catch_up="all"), 4 * 3600.0, paused_since=2.5 * 3600)
    assert (what.run, what.missed.newest, what.skipped.newest) == ([], [3600.0, 7200.0], [10800.0, 14400.0])


async def test_a_slot_that_a_throttle_holds_back_is_skipped(storage: Store) -> None:
    @job(cron="*/20 * * * *", throttle=Throttle(duration="30m"))
    async def tick() -> None: ...

    async with TestQueue([tick], storage=storage, start=START) as queue:
        await queue.advance("65m")
        found = await slots(queue)
    assert [(slot["state"], slot["status"], slot["lag"]) for slot in found] == [
        ("ran", "succeeded", 0.0),
        ("skipped", "discarded", None),
        ("ran", "succeeded", 0.0),
    ]


async def test_a_slot_whose_run_was_cancelled_before_it_could_start_is_skipped(storage: Store) -> None:
    @job(cron="0 * * * *", concurrency=1)
    async def tick() -> None:
        await sleep("3h")

    @job(cron="30 * * * *", concurrency=1)
    async def tock() -> None:
        await never.wait()

    never = asyncio.Event()
    async with TestQueue([tick, tock], storage=storage, start=START) as queue:
        await queue.advance("1h 40m")
        second = (await slots(queue, "tock"))[1]["run"]
        await (await queue.get(second)).cancel()
        assert [slot["state"] for slot in await slots(queue, "tock")] == ["ran", "skipped"]
        assert [slot["state"] for slot in await slots(queue)] == ["ran"]
        never.set()


async def test_a_new_schedule_has_no_past(storage: Store) -> None:
    @job
    async def tick() -> None: ...

    async with TestQueue([tick], storage=storage, start=START) as queue:
        await queue.advance("5h")
        await queue.core.schedules.set([Entry(job="tick", cron="0 * * * *", catch_up="all")])
        await queue.advance("1h")
        assert brief(await slots(queue)) == [("06:00", "ran")]


async def test_slots_are_kept_as_long_as_runs_are_and_a_thousand_of_a_job(
    storage: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    @job(cron="0 * * * *")
    async def tick() -> None: ...

    async with TestQueue([tick], storage=storage, start=START) as queue:
        await queue.advance("6h")
        await queue.core.retention.prune(3.5 * 3600)
        assert brief(await slots(queue)) == [("03:00", "ran"), ("04:00", "ran"), ("05:00", "ran"), ("06:00", "ran")]
        monkeypatch.setattr(retention, "MOST_SLOTS", 2)
        await queue.core.retention.prune(10 * 3600)
        assert brief(await slots(queue)) == [("05:00", "ran"), ("06:00", "ran")]


def test_a_great_many_missed_slots_are_counted_up_to_a_limit_and_the_newest_kept() -> None:
    rule, kept = CronRule("* * * * * *", "UTC"), Kept(job="tick", cron="* * * * * *", seen=0.0)
    month = 30 * 86_400.0
    what = passed(kept, rule, 0.0, month)
    assert what.number == schedule_due.MOST_COUNTED
    assert what.newest == [month - 99 + n for n in range(100)]
    monthly = CronRule("0 0 1 * *", "UTC")
    assert passed(kept, monthly, 0.0, 365 * 86_400.0).number == 12


@pytest.mark.parametrize(
    ("late", "states"), [(None, ["ran", "ran"]), ("10s", ["ran", "missed"]), ("1s", ["ran", "missed"])]
)
async def test_within_late_a_slot_is_run_however_it_came_to_be_overdue(late: Any, states: list[str]) -> None:
    @job(cron=Cron("0 * * * *", late=late))
    async def tick() -> None: ...

    storage = MemoryStorage()
    async with TestQueue([tick], storage=storage, start=START) as queue:
        await queue.advance("90m")
    async with TestQueue([tick], storage=storage, start=START + 2 * HOUR + dt.timedelta(seconds=30)) as queue:
        await queue.advance("1s")
        assert [slot["state"] for slot in await slots(queue)] == states


@pytest.mark.parametrize("wrong", [{"within": "soon"}, {"late": -1}, {"slow": "5"}])
def test_what_is_no_duration_is_refused_where_it_is_written(wrong: dict[str, Any]) -> None:
    with pytest.raises(DurationInvalid, match=f"{next(iter(wrong))} of Cron"):
        Cron("0 * * * *", **wrong)
