"""Cron: each slot starts one run, whoever looks after it, in the right zone, and missed ones as `catch_up` says."""

from __future__ import annotations

import asyncio
import datetime as dt
from types import SimpleNamespace
from typing import Any, cast

import pytest

from taskrun import Cron, DefinitionError, MemoryStorage, current, job, sleep
from taskrun.engine.core.schedule_due import Entry
from taskrun.engine.core.schedule_kept import SCHEDULES, Kept
from taskrun.engine.core.schedules import Active, _keep
from taskrun.engine.core.transaction import EngineState, Transaction
from taskrun.model.errors import DaemonError, EngineLost
from taskrun.rules.cron import CronRule
from taskrun.rules.policies import Prepared
from taskrun.stores.base import Store, Tx
from taskrun.testing import TestQueue
from tests.flow.look import Log, counted

START = dt.datetime(2026, 3, 1, tzinfo=dt.UTC)
HOUR = 3600.0


async def test_each_slot_starts_one_run_that_knows_it(storage: Store) -> None:
    @job(cron="0 */6 * * *")
    async def tick() -> None:
        done(current().slot)

    async with TestQueue([tick], storage=storage, start=START + dt.timedelta(hours=1)) as queue:
        done = Log(queue)
        await queue.advance("1d")
        assert done.what == [START + dt.timedelta(hours=hours) for hours in (6, 12, 18, 24)]
        assert done.when == [5 * HOUR, 11 * HOUR, 17 * HOUR, 23 * HOUR]


async def test_seconds_and_several_expressions_and_inputs(storage: Store) -> None:
    @job(cron=["*/20 * * * * *", Cron("@hourly", input={"what": "hour"})])
    async def tick(what: str = "third") -> None:
        done(what)

    async with TestQueue([tick], storage=storage, start=START + dt.timedelta(seconds=1)) as queue:
        done = Log(queue)
        await queue.advance("1m")
        assert done.entries == [(19.0, "third"), (39.0, "third"), (59.0, "third")]
        await queue.advance("1h")
        assert done.what.count("hour") == 1


async def test_a_schedule_without_a_zone_has_that_of_the_queue(storage: Store) -> None:
    @job(cron="0 3 * * *")
    async def here() -> None:
        done(("here", current().slot))

    @job(cron=Cron("0 3 * * *", timezone="Asia/Tokyo"))
    async def there() -> None:
        done(("there", current().slot))

    async with TestQueue([here, there], storage=storage, start=START, timezone="America/New_York") as queue:
        done = Log(queue)
        await queue.advance("1d")
        assert done.what == [
            ("here", START.replace(hour=8)),
            ("there", START.replace(hour=18)),
        ]


@pytest.mark.parametrize(
    ("start", "slots"),
    [
        (
            dt.datetime(2026, 3, 28, 12),
            ["2026-03-29T01:00", "2026-03-30T00:30"],
        ),  # 02:30 is skipped: right after the gap
        (dt.datetime(2026, 10, 24, 12), ["2026-10-25T00:30", "2026-10-26T01:30"]),  # 02:30 comes twice: the first one
    ],
    ids=["gap", "overlap"],
)
async def test_a_change_of_the_clock_neither_loses_nor_doubles_a_slot(start: dt.datetime, slots: list[str]) -> None:
    @job(cron=Cron("30 2 * * *", timezone="Europe/Berlin"))
    async def tick() -> None:
        done(current().slot)

    async with TestQueue([tick], start=start.replace(tzinfo=dt.UTC)) as queue:
        done = Log(queue)
        await queue.advance("2d")
        assert [slot.strftime("%Y-%m-%dT%H:%M") for slot in done.what] == slots


@pytest.mark.parametrize(("catch_up", "made_up"), [("skip", []), ("one", [5]), ("all", [2, 3, 4, 5])])
async def test_slots_missed_while_nobody_was_there(storage: Store, catch_up: Any, made_up: list[int]) -> None:
    @job(cron=Cron("0 * * * *", catch_up=catch_up))
    async def tick() -> None:
        slots.append(current().slot)

    slots: list[Any] = []
    async with TestQueue([tick], storage=storage, start=START) as queue:
        await queue.advance("90m")
    async with TestQueue([tick], storage=storage, start=START + dt.timedelta(hours=5.5)) as queue:
        await queue.settle()
        assert [slot.hour for slot in slots] == [1, *made_up]
        await queue.advance("1h")
        assert [slot.hour for slot in slots] == [1, *made_up, 6]


async def test_many_missed_slots_are_all_made_up_for(storage: Store) -> None:
    @job(cron=Cron("* * * * *", catch_up="all"))
    async def tick() -> None: ...

    async with TestQueue([tick], storage=storage, start=START) as queue:
        await queue.settle()
    async with TestQueue([tick], storage=storage, start=START + dt.timedelta(hours=5)) as queue:
        await queue.settle()
        assert await counted(queue) == {"succeeded": 300}


async def test_two_queues_on_one_journal_fire_each_slot_once(storage: Store) -> None:
    @job(cron="*/10 * * * * *")
    async def tick() -> None:
        slots.append(current().slot)

    slots: list[Any] = []
    async with (
        TestQueue([tick], storage=storage, start=START) as one,
        TestQueue([tick], storage=storage, start=START) as two,
    ):
        for _ in range(12):
            await asyncio.gather(one.advance(5), two.advance(5))
        await asyncio.gather(one.settle(), two.settle())
        assert sorted(slots) == [START + dt.timedelta(seconds=10 * n) for n in range(1, 7)]


async def test_a_restart_at_the_slot_does_not_fire_it_again(storage: Store) -> None:
    @job(cron="0 * * * *")
    async def tick() -> None:
        slots.append(current().slot)

    slots: list[Any] = []
    async with TestQueue([tick], storage=storage, start=START) as queue:
        await queue.advance("1h")
    async with TestQueue([tick], storage=storage, start=START + dt.timedelta(hours=1)) as queue:
        await queue.advance("59m")
        assert len(slots) == 1


async def test_timers_and_slots_fire_in_their_order() -> None:
    @job(cron="*/10 * * * * *")
    async def tick() -> None:
        done("tick")

    @job(debounce=15)
    async def naps() -> None:
        done("begins")
        await sleep(9)
        done("ends")

    async with TestQueue([tick, naps], start=START) as queue:
        done = Log(queue)
        await queue.jobs.naps.start()
        await queue.advance(35)
        assert done.entries == [(10.0, "tick"), (15.0, "begins"), (20.0, "tick"), (24.0, "ends"), (30.0, "tick")]


async def test_schedules_of_the_configuration_can_change_while_it_runs(storage: Store) -> None:
    @job
    async def backup(path: str) -> None:
        done(path)

    def entry(path: str, cron: str = "0 * * * *") -> Entry:
        return Entry(job="backup", cron=cron, input=f'{{"path": "{path}"}}')

    async with TestQueue([backup], storage=storage, start=START) as queue:
        done = Log(queue)
        await queue.core.schedules.set([entry("/a"), entry("/b")])
        await queue.advance("1h")
        await queue.core.schedules.set([entry("/b"), entry("/c", "30 * * * *")])
        await queue.advance("1h")
        assert sorted(done.what[:2]) == ["/a", "/b"]
        assert done.entries[2:] == [(5400.0, "/c"), (7200.0, "/b")]
        with pytest.raises(DefinitionError, match=r'backup.*minute field "61"'):
            await queue.core.schedules.set([entry("/d", "61 * * * *")])
        await queue.advance("1h")
        assert done.what[4:] == ["/c", "/b"]


async def test_a_schedule_whose_input_is_refused_is_logged_and_tried_at_its_next_slot(
    caplog: pytest.LogCaptureFixture,
) -> None:
    @job
    async def backup(path: str) -> None:
        done(path)

    async with TestQueue([backup], start=START) as queue:
        done = Log(queue)
        await queue.core.schedules.set([Entry(job="backup", cron="0 * * * *")])
        await queue.advance("2h")
        assert done.what == []
    assert caplog.text.count("could not start backup") == 2


async def test_a_slot_whose_worker_gives_no_answer_is_used_a_second_later(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    @job(cron="0 * * * *")
    async def tick() -> None:
        done(current().slot)

    async with TestQueue([tick], start=START) as queue:
        done = Log(queue)
        answers: list[Exception] = [DaemonError("the worker gave no answer"), EngineLost("its lease had run out")]
        schedules, prepared = queue.core.schedules, queue.core.schedules._prepared

        async def asked(entry: Entry) -> Prepared | str:
            if answers:
                raise answers.pop(0)
            return await prepared(entry)

        monkeypatch.setattr(schedules, "_prepared", asked)
        await queue.advance("61m")
        assert done.entries == [(HOUR + 2, START + dt.timedelta(hours=1))]
    told = [record for record in caplog.records if "could not start tick yet" in record.getMessage()]
    assert [(record.levelname, record.exc_info) for record in told] == [("WARNING", None)] * 2


async def test_the_schedules_are_shown_with_their_next_and_last_slot(storage: Store) -> None:
    @job(cron="0 * * * *")
    async def tick() -> None: ...

    async with TestQueue([tick], storage=storage, start=START) as queue:
        [before] = await queue.core.schedules.views()
        assert before == {
            "job": "tick",
            "cron": "0 * * * *",
            "timezone": "UTC",
            "next": "2026-03-01T01:00:00.000+00:00",
            "last": None,
            "last_run": None,
            "last_status": None,
            "paused": False,
            "missed": 0,
        }
        await queue.advance("1h")
        [after] = await queue.core.schedules.views()
        run = await anext(queue.runs())
        assert (after["next"], after["last"]) == ("2026-03-01T02:00:00.000+00:00", "2026-03-01T01:00:00.000+00:00")
        assert (after["last_run"], after["last_status"]) == (run.id, "succeeded")


async def test_a_schedule_that_the_code_no_longer_has_is_forgotten() -> None:
    @job(name="tick", cron=Cron("0 * * * *", catch_up="all"))
    async def old() -> None: ...

    @job(name="tick")
    async def new() -> None: ...

    storage = MemoryStorage()
    async with TestQueue([old], storage=storage, start=START) as queue:
        await queue.settle()
    async with TestQueue([new], storage=storage, start=START) as queue:
        await queue.advance("3h")
        assert await queue.core.schedules.views() == []
        assert await counted(queue) == {}


def test_a_schedule_that_two_engines_write_down_at_once_keeps_what_the_first_has_used() -> None:
    store, state = MemoryStorage(), EngineState()
    store.open()
    rule = CronRule("* * * * *", "UTC")
    active = Active(Entry(job="tick", cron="* * * * *"), rule)

    def both(tx: Tx) -> tuple[Kept, Kept]:
        _keep(Transaction(tx, state, 30.0), "code", {"code:tick:1": active}, None)
        used = SCHEDULES.all(tx)["code:tick:1"].with_used(rule, [60.0])
        SCHEDULES.put(tx, "code:tick:1", used)
        late = cast("Tx", SimpleNamespace(facts=lambda prefix: {}, get=tx.get, put=tx.put))  # it has looked before
        return used, _keep(Transaction(late, state, 30.5), "code", {"code:tick:1": active}, None)["code:tick:1"]

    [(found, error)] = store.apply([both])
    assert error is None
    assert found[0] == found[1]
    store.close()
