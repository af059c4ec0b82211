"""What people are told of, by the tables `[[notify]]`: each event once, and nothing of what tells them."""

from __future__ import annotations

import asyncio
import datetime as dt
import json
from copy import copy
from typing import Any

import pytest

from taskrun import Cron, Debounce, Fatal, MemoryStorage, current, job, sleep
from taskrun.builtins.notify import notify as builtin
from taskrun.declarations.job import Job
from taskrun.engine.core import notices, schedule_watch
from taskrun.engine.core.admit import Trigger, new_id
from taskrun.engine.core.core import Core
from taskrun.engine.core.facts import FAILING, LIMITS, NOTICES
from taskrun.engine.core.queries.views import resolve
from taskrun.engine.core.schedule_due import Entry
from taskrun.engine.core.transaction import Transaction
from taskrun.model.errors import DaemonError
from taskrun.model.notify_config import EVENTS, NotifyTable, Way
from taskrun.stores.base import Store
from taskrun.testing import TestQueue

START = dt.datetime(2026, 3, 1, tzinfo=dt.UTC)
HOUR = dt.timedelta(hours=1)
DESKTOP = Way(desktop=True)
HOOK = Way(webhook="https://example.com/secret/path", secret="env:KEY")


class Told:
    """A job `notify` that keeps what it is asked to tell."""

    def __init__(self) -> None:
        self.messages: list[dict[str, Any]] = []
        self.failing = False

        @job(name="notify", input=dict[str, Any], retry=0)
        async def notify(message: dict[str, Any]) -> None:
            self.messages.append(message)
            if self.failing:
                raise Fatal("no way")

        self.job: Job = notify

    @property
    def events(self) -> list[tuple[str, str]]:
        return [(message["event"], message["job"]) for message in self.messages]


@pytest.fixture
def told() -> Told:
    return Told()


def queue_of(
    told: Told, *jobs: Job, on: tuple[str, ...] = EVENTS, start: dt.datetime = START, storage: Store | None = None
) -> TestQueue:
    """Returns a queue that tells of these events from its start."""
    queue = TestQueue([told.job, *jobs], start=start, storage=storage or MemoryStorage())
    new_core = queue._new_core

    def telling() -> Core:
        core = new_core()
        core.notify_runs.set([NotifyTable(on, (), (DESKTOP,))])
        return core

    queue._new_core = telling  # type: ignore[assignment]
    return queue


@job(retry=1, backoff="1m")
async def work(fail: bool = False) -> str:
    if fail:
        raise ValueError("no luck")
    return "fine"


async def test_a_run_tells_once_that_it_failed_for_good_and_when_the_job_works_again(
    storage: Store, told: Told
) -> None:
    async with queue_of(told, work, storage=storage) as queue:
        failed = await queue.jobs.work.start(fail=True)
        await queue.settle()
        assert told.messages == [], "there is a retry to come"
        await queue.advance("1h")
        assert told.events == [("failed", "work")]
        await queue.jobs.work.start(fail=True)
        await queue.advance("1h")
        for _ in range(2):
            await queue.jobs.work.run()
        await queue.advance("1m")
        assert [event for event, _ in told.events] == ["failed", "failed", "recovered", "succeeded", "succeeded"]
        assert told.messages[0] == {
            "event": "failed",
            "job": "work",
            "run": failed.id,
            "status": "failed",
            "reason": None,
            "error": {"type": "ValueError", "message": "no luck"},
            "title": "work failed, after 2 attempts",
            "text": "ValueError: no luck",
            "at": "2026-03-01T00:01:00.000+00:00",
            "to": "desktop",
            "way": {"desktop": True},
        }
        assert told.messages[2]["title"] == "work works again"
        assert told.messages[2]["text"] == "It had failed for 1h 59m."


async def test_only_what_a_table_asks_for_is_told_and_each_way_has_a_run_of_its_own(told: Told) -> None:
    @job(retry=0)
    async def backup() -> None:
        raise ValueError

    @job(retry=0)
    async def sync_photos() -> None:
        raise ValueError

    async with TestQueue([told.job, backup, sync_photos, work]) as queue:
        queue.core.notify_runs.set(
            [
                NotifyTable(("failed",), ("backup", "sync*"), (DESKTOP, HOOK)),
                NotifyTable(("failed", "succeeded"), ("sync*",), (HOOK,)),
                NotifyTable(("succeeded",), (), (Way(command="mail"),)),
            ]
        )
        for each in (backup, sync_photos, work):
            await queue.jobs[each.name].start()
        await queue.settle()
        assert sorted((message["job"], message["to"]) for message in told.messages) == [
            ("backup", "desktop"),
            ("backup", "webhook https://example.com/***"),
            ("sync_photos", "desktop"),
            ("sync_photos", "webhook https://example.com/***"),
            ("work", "command"),
        ]
        assert len([run async for run in queue.runs(job="notify")]) == 5
        queue.core.notify_runs.set([])
        await queue.jobs.backup.start()
        await queue.settle()
        assert len(told.messages) == 5


async def test_its_own_failures_are_told_to_nobody(told: Told) -> None:
    told.failing = True
    async with queue_of(told, work) as queue:
        await queue.jobs.work.run()
        await queue.advance("1d")
        assert [run.job async for run in queue.runs()] == ["notify", "work"]
        assert told.events == [("succeeded", "work")]


async def test_the_last_run_is_not_the_one_that_tells_of_it(told: Told) -> None:
    async with queue_of(told, work) as queue:
        for _ in range(30):
            await queue.jobs.work.run(fail=False)
        await queue.settle()

        async def last(ref: str) -> str:
            return (await queue.get(await queue.core.read(lambda tx: resolve(tx, ref)))).job

        assert [await last(ref) for ref in ("@last", "work@last", "notify@last")] == ["work", "work", "notify"]
        (newest,) = [run async for run in queue.runs(limit=1)]
        assert newest.job == "notify"
        assert (await newest.info()).tags["run"] == await queue.core.read(lambda tx: resolve(tx, "@last"))
    async with TestQueue([told.job]) as queue:
        run = await queue.jobs.notify.start({})
        assert await queue.core.read(lambda tx: resolve(tx, "@last")) == run.id


async def test_children_are_not_told_but_those_of_each_count_for_their_job(told: Told) -> None:
    @job(retry=0)
    async def parent() -> None:
        await asyncio.gather(work.run(), work.run(fail=True), return_exceptions=True)

    @job(name="each", retry=0)
    async def each() -> None:
        await asyncio.gather(work.run(), work.run(fail=True), return_exceptions=True)

    async with queue_of(told, work, parent, each) as queue:
        await queue.jobs.parent.start()
        await queue.advance("1h")
        assert told.events == [("succeeded", "parent")]
        await queue.jobs.each.start()
        await queue.advance("1h")
        assert sorted(told.events[1:]) == [("failed", "work"), ("succeeded", "each"), ("succeeded", "work")]


async def test_cancelled_and_paused_runs(told: Told) -> None:
    @job(on_exhausted="pause", retry=0)
    async def stuck() -> None:
        raise ValueError("full")

    @job(debounce=Debounce(duration="1m"))
    async def burst() -> None: ...

    @job
    async def long() -> None:
        await sleep("1d")
        await sleep("1d")

    async with queue_of(told, stuck, burst, long, on=("cancelled", "paused")) as queue:
        await queue.jobs.stuck.start()
        for _ in range(3):
            await queue.jobs.burst.start()
        run = await queue.jobs.long.start()
        await queue.advance("1h")
        for _ in range(2):
            await run.pause()
            await queue.settle()
            await run.resume()
            await queue.settle()
        await run.cancel(reason="enough")
        await queue.core.jobs.pause("burst")
        await queue.jobs.burst.start()
        await queue.advance("1h")
        assert told.events == [("paused", "stuck"), ("paused", "long"), ("paused", "long"), ("cancelled", "long")]
        assert told.messages[0]["text"].startswith("ValueError: full\nResume it: taskrun resume ")
        assert told.messages[1]["text"].startswith("Paused by hand.\nResume it: taskrun resume ")
        assert (told.messages[3]["text"], told.messages[3]["reason"]) == ("Cancelled: enough.", "enough")


async def test_a_command_works_again_when_one_of_its_name_does(told: Told) -> None:
    @job(name="exec", retry=0)
    async def command(fail: bool) -> None:
        if fail:
            raise ValueError

    async with queue_of(told, command, on=("recovered",)) as queue:

        async def execute(fail: bool, name: str | None) -> None:
            prepared = await queue.core.prepare("exec", json.dumps({"fail": fail}))
            await queue.core.trigger(Trigger(prepared=prepared, id=new_id(), name=name))
            await queue.settle()

        for fail, name in ((True, "a"), (True, None), (False, None), (False, "b"), (False, "a"), (False, "a")):
            await execute(fail, name)
        assert [message["title"] for message in told.messages] == ["a works again"]
        assert await queue.core.read(FAILING.all) == {}


async def test_many_inputs_of_one_job_work_again_when_those_of_the_same_job_do(told: Told) -> None:
    @job(name="each", retry=0)
    async def each(job: str, fail: bool) -> None:
        if fail:
            raise ValueError

    async with queue_of(told, each, on=("recovered",)) as queue:
        for of, fail in (("encode", True), ("upload", False), ("encode", False)):
            await queue.jobs.each.start(job=of, fail=fail)
            await queue.settle()
        assert [message["title"] for message in told.messages] == ["each of encode works again"]
        assert await queue.core.read(FAILING.all) == {}


# ---- schedules


async def test_an_outage_is_told_once_for_a_job_with_the_count(storage: Store, told: Told) -> None:
    @job(cron=["0 * * * *", "30 * * * *"])
    async def tick() -> None: ...

    @job(cron=Cron("0 * * * *", catch_up="one"))
    async def tock() -> None: ...

    async with queue_of(told, tick, tock, storage=storage, on=("missed",)) as queue:
        await queue.advance("90m")
    assert told.messages == []
    async with queue_of(told, tick, tock, storage=storage, on=("missed",), start=START + 5.75 * HOUR) as queue:
        await queue.core.schedules.set([Entry(job="tick", cron="15 * * * *")])
        await queue.advance("10m")
        assert sorted(message["title"] for message in told.messages) == ["tick missed 8 slots", "tock missed 3 slots"]
        (tick_told,) = [message for message in told.messages if message["job"] == "tick"]
        assert tick_told["text"].endswith("05:30; nothing was there to run it.")
        assert (tick_told["run"], tick_told["status"], tick_told["error"]) == (None, None, None)
    async with queue_of(told, tick, tock, storage=storage, on=("missed",), start=START + 8.25 * HOUR) as queue:
        await queue.advance("10m")
        assert len(told.messages) == 4, "it is another outage"


async def test_a_job_that_refuses_its_input_is_told_once(told: Told, caplog: pytest.LogCaptureFixture) -> None:
    wrong = [True]

    def key(input: Any) -> str | None:
        if wrong:
            raise ValueError("odd")
        return None

    @job(cron="0 * * * *", key=key)
    async def tick() -> None: ...

    async with queue_of(told, tick, on=("missed",)) as queue:
        await queue.advance("3h 5m")
        (message,) = told.messages
        assert message["text"].endswith(
            "the job refused its input: job tick, option key: its function raised ValueError: odd."
        )
        wrong.clear()
        await queue.advance("1h")
        wrong.append(True)
        await queue.advance("2h")
        assert len(told.messages) == 2


async def test_a_run_is_told_to_be_late_when_it_is_and_slow_when_that_limit_is_crossed(
    storage: Store, told: Told
) -> None:
    @job(cron=Cron("0 * * * *", late="10m", slow="30m"), concurrency=1)
    async def tick() -> None:
        slot = current().slot
        assert slot is not None
        await wakes[slot.hour].wait()

    wakes = {hour: asyncio.Event() for hour in range(24)}
    async with queue_of(told, tick, storage=storage, on=("late", "slow")) as queue:
        await queue.advance("89m")
        assert told.messages == []
        await queue.advance("1m")
        assert told.events == [("slow", "tick")]
        await queue.advance("40m")
        assert told.events == [("slow", "tick")], "the second slot is late after 10 minutes, not at once"
        await queue.advance("1m")
        assert told.events == [("slow", "tick"), ("late", "tick")]
        assert told.messages[1]["text"].endswith("it is not started yet, 10m after that.")
        wakes[1].set()
        wakes[2].set()
        await queue.advance("45m")
        assert len(told.events) == 2
        assert await queue.core.read(LIMITS.all) == {}


async def test_a_look_that_fails_is_repeated(
    storage: Store, told: Told, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    @job(cron=Cron("0 * * * *", slow="30m"), concurrency=1)
    async def tick() -> None:
        await sleep("50m")

    look, faults = schedule_watch.look, [ValueError("a fault of taskrun")]

    def may_fail(t: Transaction, run: str) -> float | None:
        if faults and t.now >= (START + 1.5 * HOUR).timestamp():
            raise faults.pop()
        return look(t, run)

    monkeypatch.setattr(schedule_watch, "look", may_fail)
    async with queue_of(told, tick, storage=storage, on=("slow",)) as queue:
        await queue.advance("90m")
        assert (told.events, faults) == ([], [])
        assert "could not be looked at" in caplog.text
        await queue.advance("1m")
        assert told.events == [("slow", "tick")]


async def test_what_crossed_its_limit_while_nothing_ran_is_told_at_the_next_start(storage: Store, told: Told) -> None:
    @job(cron=Cron("0 * * * *", slow="30m", catch_up="one", late="10m"))
    async def tick() -> None:
        await sleep("3h")

    async with queue_of(told, tick, storage=storage, on=("late", "slow")) as queue:
        await queue.advance("61m")
    async with queue_of(told, tick, storage=storage, on=("late", "slow"), start=START + 2.5 * HOUR) as queue:
        await queue.advance("1s")
        assert sorted(told.events) == [("late", "tick"), ("slow", "tick")]
        await queue.advance("1s")
        await queue.core.schedules.set([])
    async with queue_of(told, tick, storage=storage, on=("late", "slow"), start=START + 2.6 * HOUR) as queue:
        await queue.advance("1s")
        assert len(told.events) == 2


async def test_a_run_that_takes_as_long_as_it_may_is_not_slow_and_children_neither(told: Told) -> None:
    @job(cron=Cron("0 * * * *", slow="30m"))
    async def tick() -> None:
        await sleep("29m")

    async with queue_of(told, tick, on=("slow",)) as queue:
        await queue.advance("4h 45m")
        assert told.messages == []
        assert await queue.core.read(LIMITS.all) == {}


# ---- crashes


async def test_what_was_not_told_yet_is_told_by_the_next_engine_once(storage: Store, told: Told) -> None:
    async with TestQueue([work], storage=storage) as queue:  # nothing here can tell
        queue.core.notify_runs.set([NotifyTable(EVENTS, (), (DESKTOP, HOOK))])
        await queue.jobs.work.start(fail=True)
        await queue.advance("1h")
        assert [*await queue.core.read(NOTICES.all)] != []
    async with TestQueue([work, told.job], storage=storage) as queue:
        await queue.settle()
        assert [message["event"] for message in told.messages] == ["failed", "failed"]
        assert await queue.core.read(NOTICES.all) == {}
    async with TestQueue([work, told.job], storage=storage) as queue:
        await queue.settle()
        assert len(told.messages) == 2


async def test_two_engines_tell_it_once(storage: Store, told: Told) -> None:
    async with queue_of(told, work, storage=storage) as one, queue_of(told, work, storage=storage) as other:
        await one.jobs.work.start()
        for _ in range(5):
            await one.advance("1s")
            await other.advance("1s")
        assert told.events == [("succeeded", "work")]


async def test_what_more_comes_while_a_notice_is_prepared_is_told_with_it(
    storage: Store, told: Told, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with queue_of(told, work, storage=storage, on=("missed",)) as queue:
        monkeypatch.setattr(notices, "SETTLED", 0.0)
        prepared = queue.core.notify_runs._prepared
        more = [1]

        async def slowly(*args: Any) -> Any:
            found = await prepared(*args)
            if more:
                more.clear()
                await queue.core.journal.do(lambda t: notices.missed(t, "work", 2, 7200.0, 10_000, "why"))
            return found

        monkeypatch.setattr(queue.core.notify_runs, "_prepared", slowly)
        await queue.core.journal.do(lambda t: notices.missed(t, "work", 1, 3600.0, 10_000, "why"))
        await queue.settle()
        assert [message["title"] for message in told.messages] == ["work missed 3 slots"]


async def test_when_the_worker_that_is_asked_has_died_another_one_is(
    told: Told, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async with queue_of(told, work) as queue:
        executors, notifier = queue.core.executors, queue.core.notify_runs
        prepared, with_job = notifier._prepared, executors.with_job
        (peer,) = executors.peers
        gone = [copy(peer)]

        async def dies(asked: Any, *args: Any) -> Any:
            if asked is not peer:
                gone.clear()
                raise DaemonError("the worker has died")
            return await prepared(asked, *args)

        monkeypatch.setattr(notifier, "_prepared", dies)
        monkeypatch.setattr(executors, "with_job", lambda job: gone[0] if gone and job == "notify" else with_job(job))
        await queue.jobs.work.run()
        await queue.settle()
        assert told.events == [("succeeded", "work")]
        assert "is told later: the worker has died" in caplog.text


async def test_an_executor_that_answers_too_late_is_asked_again_what_to_tell(
    told: Told, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with queue_of(told, work) as queue:

        async def give_up(*_: Any) -> Any:
            raise DaemonError("the worker gave no answer within 8 seconds")

        with monkeypatch.context() as patch:
            patch.setattr(queue.core.notify_runs, "_prepared", give_up)
            await queue.jobs.work.run()
            await queue.advance("3s")
        assert told.events == []
        await queue.advance("2s")
        assert told.events == [("succeeded", "work")]


async def test_nothing_is_kept_of_failures_that_nobody_is_told_of(told: Told) -> None:
    async with TestQueue([work, told.job]) as queue:
        await queue.jobs.work.start(fail=True)
        await queue.advance("1h")
        assert await queue.core.read(FAILING.all) == {}


def test_the_job_that_comes_with_taskrun_takes_what_the_core_gives() -> None:
    prepared = builtin.prepare(
        {
            "event": "missed",
            "job": "work",
            "run": None,
            "status": None,
            "reason": None,
            "error": None,
            "title": "a",
            "text": "b",
            "at": "c",
            "to": HOOK.label,
            "way": {"webhook": HOOK.webhook, "secret": HOOK.secret},
        }
    )
    assert "secret/path" not in prepared.input
    assert "KEY" not in prepared.input
    assert (prepared.terms.retry, prepared.terms.priority) == (5, 100)
