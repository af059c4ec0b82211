"""Mechanisms that make whole kinds of fault impossible: two sides, slots, one reader of rows, one judge of parking, a rescuer."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any

import pytest
from msgspec.structs import replace

from taskrun import MemoryStorage, Queue, RunFailed, SqliteStorage, WaitTimeout, job, pipe, run, sleep
from taskrun.engine import messages as m
from taskrun.engine.core import rescuer
from taskrun.engine.core.attempts import Phase
from taskrun.engine.core.facts import JOBS
from taskrun.engine.core.journal import Journal
from taskrun.engine.core.outbox import RunChanged, RunOver
from taskrun.engine.core.slots import Slots
from taskrun.engine.core.transaction import EngineState, Transaction
from taskrun.engine.executor.attempt_state import AttemptState
from taskrun.engine.executor.executor import Executor
from taskrun.engine.executor.replay import Replay
from taskrun.model import records
from taskrun.model.clock import SystemClock
from taskrun.model.errors import EngineLost, JournalUnavailable
from taskrun.model.records import Cause, Engine, Status, Step, StepKind, StepStatus
from taskrun.rules import transitions
from taskrun.stores.base import Store, Tx
from taskrun.testing import TestQueue


def journal_of(store: Store, guard: Any = None) -> Journal:
    journal = Journal(store, SystemClock(), EngineState(), guard)
    journal.open()
    return journal


# ---- one judge of parking


async def test_an_attempt_parks_though_a_wait_ended_just_before_it_was_looked_at() -> None:
    """The look was asked for before: nobody asks for another one once the handler has gone on."""

    async def handler() -> None:
        await state.waits["first"]
        del state.waits["first"]
        await state.waits["second"]

    told: list[m.Told] = []
    row = records.Run(id="r", job="j", created_at=1.0)
    state = AttemptState(row, SimpleNamespace(tell=told.append), Replay(row, []), None, lambda _: None)  # type: ignore[arg-type]
    state.waits = {key: asyncio.get_running_loop().create_future() for key in ("first", "second")}
    state.task = asyncio.create_task(handler())
    await asyncio.sleep(0)
    state.look_soon()
    state.deliver([Step(run="r", key="first", name="first", kind=StepKind.WAIT, status=StepStatus.SUCCEEDED)])
    for _ in range(5):
        await asyncio.sleep(0)
    assert told == [m.Park(run="r", heard=1)]
    state.task.cancel()


# ---- entries are applied in the order in which they came


async def test_a_deferred_entry_comes_behind_those_that_were_there_before_it(storage: Store) -> None:
    journal, order = journal_of(storage), list[str]()
    journal.defer(lambda t: order.append("deferred first"))
    journal.post(lambda t: order.append("posted"))
    journal.defer(lambda t: order.append("deferred last"))
    await journal.flush()
    await journal.close()
    assert order == ["deferred first", "posted", "deferred last"]


async def test_what_is_deferred_while_the_disk_refuses_comes_behind_what_was_refused(
    storage: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Such as two bursts of a log: the newest position in a command's output is the one that counts."""
    journal, order, apply = journal_of(storage), list[str](), storage.apply
    refused = asyncio.Event()
    loop = asyncio.get_running_loop()

    def refuse(*args: Any) -> Any:
        if not refused.is_set():
            loop.call_soon_threadsafe(refused.set)
            raise JournalUnavailable("the disk is full")
        return apply(*args)

    monkeypatch.setattr(storage, "apply", refuse)
    journal.defer(lambda t: order.append("refused"))
    await refused.wait()
    while journal.fault is None:
        await asyncio.sleep(0)
    journal.defer(lambda t: order.append("deferred meanwhile"))
    await journal.flush()
    await journal.close()
    assert order == ["refused", "deferred meanwhile"]


# ---- a journal entry has two sides


async def test_an_entry_that_is_durable_is_committed_and_never_failed(storage: Store) -> None:
    journal, sides = journal_of(storage), list[str]()
    value = await journal.do(
        lambda t: 7, lambda value: sides.append(f"committed {value}"), lambda _: sides.append("failed")
    )
    assert (value, sides) == (7, ["committed 7"])
    await journal.close()


async def test_an_entry_that_raises_is_failed_and_the_others_are_committed(storage: Store) -> None:
    journal, sides = journal_of(storage), list[str]()

    def wrong(t: Transaction) -> None:
        raise ValueError("no")

    journal.post(wrong, lambda _: sides.append("committed"), lambda error: sides.append(str(error)))
    await journal.do(lambda t: t.tx.put("k", "1"), lambda _: sides.append("other"))
    assert sides == ["no", "other"]
    await journal.close()


async def test_a_claim_sees_all_that_goes_into_its_commit(storage: Store) -> None:
    journal, seen = journal_of(storage), list[str | None]()
    journal.claim(lambda t: t.tx.get("k"), seen.append, lambda _: None)
    await journal.do(lambda t: t.tx.put("k", "1"))
    await journal.flush()
    assert seen == ["1"]
    await journal.close()


async def test_a_lost_lease_fails_every_entry_of_its_batch(storage: Store) -> None:
    def lost(tx: Tx) -> None:
        raise EngineLost("gone")

    journal, failed = journal_of(storage, lost), list[str]()
    futures = [journal.do(lambda t: None, None, lambda error: failed.append(str(error))) for _ in range(3)]
    assert [type(one) for one in await asyncio.gather(*futures, return_exceptions=True)] == [EngineLost] * 3
    assert failed == ["gone"] * 3
    await journal.close()


async def test_a_closed_journal_fails_what_comes_later() -> None:
    journal, failed = journal_of(MemoryStorage()), list[Exception]()
    await journal.close()
    journal.post(lambda t: None, None, failed.append)
    assert failed == []  # not within the call that made it
    await asyncio.sleep(0)
    assert [type(error) for error in failed] == [JournalUnavailable]
    assert journal.pending == 0


async def test_a_close_whose_own_write_is_the_first_that_the_disk_refuses_ends(
    storage: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    @job
    async def work() -> None:
        await sleep("1h")

    queue = Queue(jobs=[work], storage=storage)
    await queue.start()
    await (await queue.jobs.work.start()).status()
    await queue.core.journal.flush()

    def refuse(*_: object) -> None:
        raise JournalUnavailable("full")

    monkeypatch.setattr(storage, "apply", refuse)
    async with asyncio.timeout(10):
        await queue.close(grace=0)


async def test_a_follower_that_raises_hides_nothing_from_the_others(caplog: pytest.LogCaptureFixture) -> None:
    journal, seen = journal_of(MemoryStorage()), list[str]()

    def broken(event: RunChanged) -> None:
        raise RuntimeError("a fault of ours")

    journal.follow(RunChanged, broken)
    journal.follow(RunChanged, lambda event: seen.append(event.run.id))

    def act(t: Transaction) -> None:
        t.add(records.Run(id="a", job="j", created_at=1.0))
        t.set("a", attempt=2)

    await journal.do(act)
    assert seen == ["a"]
    assert "a fault of ours" in caplog.text
    await journal.close()


# ---- slots are tokens


def test_a_slot_is_handed_out_once_and_taken_back_once() -> None:
    freed: list[int] = []
    slots = Slots(2, lambda: freed.append(1))
    reserved = slots.reserve(5)
    assert (len(reserved), slots.free()) == (2, False)
    slot = reserved.take()
    reserved.release()
    assert (slots.used, slots.free(), len(slots.reserve(5))) == (1, True, 1)
    slot.release()
    with pytest.raises(AssertionError):
        slot.release()
    assert len(freed) == 2


def test_no_more_slots_are_used_than_were_reserved() -> None:
    reserved = Slots(None, lambda: None).reserve(1)
    reserved.take()
    with pytest.raises(AssertionError):
        reserved.take()


async def test_all_slots_are_back_when_nothing_runs(storage: Store) -> None:
    @job(retry=0)
    async def work(n: int) -> int:
        if n % 5 == 0:
            raise ValueError(n)
        if n % 5 == 1:
            await sleep("1s")
        return await run("body", lambda: n)

    async with TestQueue(jobs=[work], storage=storage, concurrency=2) as queue:
        handles = [await queue.jobs.work.start(n=n) for n in range(20)]
        await handles[3].cancel()
        await queue.advance("1m")
        assert all([await handle.status() in ("succeeded", "failed", "cancelled") for handle in handles])
        assert (queue.core.slots.used, queue.core.claims.suspects.used) == (0, 0)


async def test_what_is_heard_while_a_claim_is_under_way_is_looked_at(
    storage: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The claim has looked already, and finds nothing; another engine writes, and says so, before the answer is there."""

    @job
    async def noop() -> None: ...

    monkeypatch.setattr(rescuer, "EVERY", 3_600.0)
    async with Queue([noop], storage=storage) as queue:
        loop, claims, apply = asyncio.get_running_loop(), queue.core.claims, storage.apply
        written = asyncio.Event()

        def overtaken(fns: Any, guard: Any = None) -> Any:
            monkeypatch.setattr(storage, "apply", apply)
            answers = apply(fns, guard)
            ready = records.Run(id="ready", job="noop", created_at=1.0, status=Status.QUEUED, input="{}")
            apply([lambda tx: tx.add_run(ready)])
            for call in (claims.look_again, written.set):
                loop.call_soon_threadsafe(call)
            return answers

        monkeypatch.setattr(storage, "apply", overtaken)
        claims.look_again()
        await written.wait()
        await (await queue.get("ready")).result(timeout=20)


# ---- rows are read where they are written


async def test_a_loop_never_writes_back_what_an_earlier_turn_has_changed(storage: Store) -> None:
    """A takeover: of three runs of a lane one executes, one sleeps, and one stands in the lane's queue."""

    def rows(tx: Tx) -> None:
        tx.put_engine(Engine(id="dead", name="x", lease_until=0.0))
        lane: dict[str, Any] = {
            "lane": "narrow",
            "lane_limit": 1,
            "engine": "dead",
            "started_at": 1.0,
            "created_at": 1.0,
        }
        lane["retry"] = 0
        tx.add_run(records.Run(id="a", job="narrow", status=Status.RUNNING, placed=True, **lane))
        tx.add_run(records.Run(id="b", job="narrow", status=Status.WAITING, **lane))
        tx.put_step(Step(run="b", key="sleep", name="sleep", kind=StepKind.SLEEP, wake_at=2e9, call="3600.0 s"))
        tx.add_run(records.Run(id="c", job="narrow", status=Status.QUEUED, blocked="window:narrow:1", **lane))
        tx.put("queues:window:narrow", '{"window:narrow:1":""}')

    storage.open()
    storage.apply([rows])

    @job(concurrency=1, retry=0)
    async def narrow() -> None: ...

    async with TestQueue(jobs=[narrow], storage=storage) as queue:
        await queue.settle()
        assert [await (await queue.get(run_id)).status() for run_id in "ac"] == ["succeeded", "succeeded"]
    storage.close()


async def test_a_transition_reads_its_run_in_the_transaction_that_writes_it(storage: Store) -> None:
    journal = journal_of(storage)

    def act(t: Transaction) -> list[Status]:
        t.add(records.Run(id="a", job="j", created_at=1.0))
        stale = list(t.tx.ready(t.engine, ["j"], 9))
        t.change("a", transitions.start, "e", t.now)
        return [now.status for now in t.each(stale)]

    assert await journal.do(act) == [Status.RUNNING]
    await journal.close()


# ---- parking has one judge


@pytest.mark.parametrize("beside", ["value", "await"])
async def test_no_body_begins_while_a_park_is_on_its_way(tmp_path: Any, beside: str) -> None:
    from taskrun import random

    door = pipe("door")
    live: set[int] = set()
    most = 0

    async def work(n: int) -> None:
        nonlocal most
        live.add(n)
        most = max(most, len(live))
        await asyncio.sleep(0.005)
        live.discard(n)

    @job(concurrency=1, retry=0)
    async def narrow(n: int) -> None:
        async def waits() -> None:
            try:
                await door.wait_for({"never": n}, timeout=0.2)
            except WaitTimeout:
                pass

        async def works() -> None:
            if beside == "value":
                random()
            else:
                for _ in range(n % 7):
                    await asyncio.sleep(0)
            await run("work", work, n)

        await asyncio.gather(waits(), works())

    async with Queue(
        jobs=[narrow], pipes=[door], storage=SqliteStorage(tmp_path / "j.db", synchronous="normal")
    ) as queue:
        handles = [await queue.jobs.narrow.start(n=n) for n in range(30)]
        await asyncio.gather(*(handle.result(timeout=60) for handle in handles))
    assert most == 1


async def test_a_run_parks_only_when_its_attempt_has_heard_all_that_has_ended(storage: Store) -> None:
    @job
    async def work() -> None:
        await asyncio.gather(sleep("1h"), run("hold", hold.wait))

    hold = asyncio.Event()
    async with TestQueue(jobs=[work], storage=storage) as queue:
        handle = await queue.jobs.work.start()
        await queue.settle()
        attempts, journal = queue.core.attempts, queue.core.journal
        attempt = attempts.get(handle.id)
        assert attempt is not None

        async def parked(heard: int, delivering: bool = False) -> bool:
            if delivering:
                journal.post(lambda t: t.state.delivering.add(handle.id))
            attempts.park(attempt.peer, m.Park(run=handle.id, heard=heard))
            await journal.flush()
            return await handle.status() == "waiting"

        assert not await parked(attempt.told - 1), "a message is on its way to it"
        assert not await parked(attempt.told, delivering=True), "a commit under way is about to tell it"
        assert await parked(attempt.told)
        hold.set()
        await queue.advance("1h")
        await handle.result()


async def test_a_step_that_fails_for_good_beside_a_wait_fails_the_attempt(storage: Store) -> None:
    calls = 0

    async def flaky() -> str:
        nonlocal calls
        calls += 1
        if calls == 1:
            raise ValueError("the first time")
        return "ok"

    @job(retry=2, backoff=1)
    async def work() -> str:
        first, _ = await asyncio.gather(run("flaky", flaky, retry=0), sleep("1h"))
        return str(first)

    async with TestQueue(jobs=[work], storage=storage) as queue:
        handle = await queue.jobs.work.start()
        await queue.advance("2h")
        assert await handle.result() == "ok"


@pytest.mark.parametrize("resident", [0, 3, 1_000])
async def test_at_most_so_many_coroutines_are_kept_the_longest_parked_go_first(resident: int) -> None:
    begun: list[int] = []

    @job
    async def nap(n: int) -> int:
        begun.append(n)
        await sleep("1h")
        return n

    async with TestQueue(jobs=[nap], resident=resident) as queue:
        handles = [await queue.jobs.nap.start(n=n) for n in range(6)]
        await queue.settle()
        kept = min(resident, 6)
        assert (
            sorted(context.current.input["n"] for context in queue.executor.contexts.values())
            == list(range(6))[6 - kept :]
        )
        await queue.advance("1h")
        assert [await handle.result() for handle in handles] == list(range(6))
        assert len(begun) == 6 + (6 - kept)


async def test_a_handler_in_a_task_group_is_evicted_and_goes_on() -> None:
    @job
    async def nap() -> int:
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(sleep_and_give(n)) for n in range(3)]
        return sum(task.result() for task in tasks)

    async def sleep_and_give(n: int) -> int:
        await sleep("1h")
        return int(await run("give", lambda: n))

    async with TestQueue(jobs=[nap], resident=0) as queue:
        handle = await queue.jobs.nap.start()
        await queue.settle()
        assert not queue.executor.contexts
        await queue.advance("1h")
        assert await handle.result() == 3


async def test_a_handler_that_waits_for_something_besides_stays_and_gives_up_its_slot() -> None:
    begun: list[str] = []

    @job
    async def listening() -> None:
        begun.append("listening")
        await asyncio.gather(sleep("1h"), heard.wait())  # an event of asyncio, which no journal knows

    @job
    async def nap() -> None:
        begun.append("nap")
        await sleep("1h")

    heard = asyncio.Event()
    async with TestQueue(jobs=[listening, nap], resident=0, concurrency=1) as queue:
        first, second = await queue.jobs.listening.start(), await queue.jobs.nap.start()
        await queue.settle()
        assert [context.run.job for context in queue.executor.contexts.values()] == ["listening"]
        assert [await first.status(), await second.status()] == ["waiting", "waiting"]
        heard.set()
        await queue.advance("1h")
        await asyncio.gather(first.result(), second.result())
        assert begun == ["listening", "nap", "nap"]


async def test_a_handler_that_stays_goes_on_where_its_run_has_started_meanwhile() -> None:
    begun: list[int] = []

    @job
    async def listening() -> None:
        begun.append(1)
        await asyncio.gather(sleep("1h"), heard.wait())
        await run("last", lambda: None)

    heard = asyncio.Event()
    async with TestQueue(jobs=[listening], resident=0) as queue:
        handle = await queue.jobs.listening.start()
        await queue.settle()
        attempt = queue.core.attempts.get(handle.id)
        assert attempt is not None
        attempt.phase = Phase.EVICTING  # it was asked, and has not answered when its wait ends
        await queue.advance("1h")
        assert attempt.started
        queue.core.attempts.stay(attempt.peer, handle.id)
        heard.set()
        await queue.settle()
        await handle.result()
        assert begun == [1]


# ---- the rescuer


async def test_a_healthy_engine_gives_the_rescuer_nothing_to_do(storage: Store) -> None:
    @job(concurrency=1)
    async def work() -> None:
        await sleep("1s")

    async with TestQueue(jobs=[work], storage=storage) as queue:
        handles = [await queue.jobs.work.start() for _ in range(5)]
        await queue.settle()
        assert await queue.core.rescuer.look() == []
        await queue.advance("10s")
        assert await queue.core.rescuer.look() == []
        assert [await handle.status() for handle in handles] == ["succeeded"] * 5


async def test_the_rescuer_heals_what_stands_still_and_says_so(
    storage: Store, caplog: pytest.LogCaptureFixture
) -> None:
    @job(retry=0)
    async def work() -> int:
        return 1

    def break_it(t: Transaction) -> None:
        row: dict[str, Any] = {"job": "work", "created_at": 1.0, "started_at": 1.0, "retry": 0}
        t.tx.add_run(records.Run(id="lost", status=Status.RUNNING, engine=t.engine, **row))
        t.tx.add_run(records.Run(id="waits", status=Status.WAITING, **row))
        t.tx.add_run(records.Run(id="backoff", status=Status.SCHEDULED, cause=Cause.BACKOFF, **row))
        t.tx.add_run(
            records.Run(id="blocked", job="work", created_at=1.0, lane="x", lane_limit=1, blocked="window:x:1", retry=0)
        )

    async with TestQueue(jobs=[work], storage=storage) as queue:
        await queue.core.journal.do(break_it)
        found = await queue.core.rescuer.look()
        await queue.settle()
        assert sorted(finding.run for finding in found) == ["backoff", "blocked", "lost", "waits"]
        assert queue.core.rescuer.found == 4
        for finding in found:
            assert await (await queue.get(finding.run)).status() == "succeeded"
    assert "stood still" in caplog.text


# ---- always an end


async def test_an_attempt_that_cannot_be_told_to_an_executor_fails_and_hurts_nobody(
    storage: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    @job(retry=0)
    async def work(n: int) -> int:
        return n

    async with TestQueue(jobs=[work], storage=storage, concurrency=1) as queue:
        hear = Executor.hear

        def refuse(self: Executor, peer: m.Peer, message: m.Told) -> None:
            if isinstance(message, m.Execute) and '"n":1' in message.run.input:
                raise ValueError("a frame that is too large")
            hear(self, peer, message)

        monkeypatch.setattr(Executor, "hear", refuse)
        handles = [await queue.jobs.work.start(n=n) for n in range(3)]
        await queue.settle()
        assert [await handle.status() for handle in handles] == ["succeeded", "failed", "succeeded"]
        with pytest.raises(RunFailed, match="too large"):
            await handles[1].result()
        assert queue.core.slots.used == 0


async def test_a_run_between_two_moments_is_not_left_when_its_engine_dies(storage: Store) -> None:
    """The backoff of a step was given up, and the engine died before the run was woken."""

    @job(retry=0)
    async def patient() -> str:
        return "gave up"

    def rows(tx: Tx) -> None:
        tx.put_engine(Engine(id="dead", name="x", lease_until=0.0))
        row = records.Run(id="r", job="patient", created_at=1.0, status=Status.SCHEDULED, engine="dead", started_at=1.0)
        tx.add_run(replace(row, reason="backoff", cause=Cause.BACKOFF, retry=0))
        tx.put_step(Step(run="r", key="call", name="call", kind=StepKind.RUN, status=StepStatus.CANCELLED, attempt=2))

    storage.open()
    storage.apply([rows])
    async with TestQueue(jobs=[patient], storage=storage) as queue:
        await queue.settle()
        assert await (await queue.get("r")).result() == "gave up"
    storage.close()


async def test_a_started_run_whose_job_no_engine_has_ends_at_once_when_it_is_cancelled(storage: Store) -> None:
    @job
    async def gone() -> None:
        await sleep("1d")

    async with TestQueue(jobs=[gone], storage=storage) as queue:
        handle = await queue.jobs.gone.start()
        await queue.settle()
        later = queue.now
    async with TestQueue(storage=storage, start=later) as queue:
        left = await queue.get(handle.id)
        assert await left.cancel("no use") is True
        assert (await left.info()).status == "cancelled"
        assert (await left.info()).reason == "no use"


async def test_a_cancel_that_waits_for_an_engine_with_the_job_ends_the_run_when_that_engine_is_dead(
    storage: Store,
) -> None:
    @job
    async def other() -> None: ...

    async with TestQueue(jobs=[other], storage=storage) as queue:
        until = queue.now.timestamp() + 5.0

        def rows(tx: Tx) -> None:
            tx.put_engine(Engine(id="dying", name="x", lease_until=until))
            JOBS.put(tx, "dying", ["gone"])
            tx.add_run(records.Run(id="r", job="gone", created_at=1.0, status=Status.QUEUED, started_at=1.0, crashes=1))

        [(_, error)] = storage.apply([rows])
        assert error is None
        left = await queue.get("r")
        await left.cancel("no use")
        await queue.settle()
        assert await left.status() == "queued"  # the other engine may yet run its `finally` blocks
        await queue.advance(60)
        await queue.core._take_over_the_dead()
        assert ((await left.info()).status, (await left.info()).reason) == ("cancelled", "no use")


@pytest.mark.parametrize("how", ["closed", "killed"])
async def test_a_cancel_under_way_at_the_end_of_an_engine_goes_on_with_the_next(storage: Store, how: str) -> None:
    """So that the steps of its `finally` blocks are executed."""
    done: list[str] = []
    forever = asyncio.Event()

    async def slow() -> None:
        await forever.wait()

    @job(retry=0)
    async def work() -> None:
        try:
            await sleep("1d")
        finally:
            if not done:
                done.append("begun")
                await run("hang", slow)
            await run("clean", lambda: done.append("clean"))

    storage.open()
    first = TestQueue(jobs=[work], storage=storage)
    await first.start()
    handle = await first.jobs.work.start()
    await first.settle()
    await handle.cancel()
    await first.core.journal.flush()
    while not done:
        await asyncio.sleep(0)
    later = first.now
    if how == "closed":
        await first.close()
    else:
        first.core.journal._closed = True  # it writes nothing any more
        [(_, error)] = storage.apply([lambda tx: tx.put_engine(replace(tx.engines()[0], lease_until=0.0))])
        assert error is None
    async with TestQueue(jobs=[work], storage=storage, start=later) as queue:
        await queue.settle()
        assert await (await queue.get(handle.id)).status() == "cancelled"
        assert done == ["begun", "clean"]
    if how == "killed":
        await first.executor.close()  # it captures what is printed, for all of this process
    storage.close()


async def test_moments_of_parent_and_child_that_are_due_together_end_each_once() -> None:
    ends: list[str] = []

    @job(timeout="1h", retry=0)
    async def child() -> None:
        await sleep("2h")

    @job(timeout="1h", retry=0)
    async def parent() -> None:
        await child.run()

    async with TestQueue(jobs=[parent, child]) as queue:
        queue.core.journal.follow(RunOver, lambda event: ends.append(event.run.job))
        handle = await queue.jobs.parent.start()
        await queue.settle()
        queue.clock.time += 7_200  # both deadlines and the sleep have passed at once
        await queue.advance(1)
        await queue.advance("1m")
        assert await handle.status() == "failed"
        assert sorted(ends) == ["child", "parent"]


def test_what_a_user_writes_as_a_reason_decides_nothing() -> None:
    run = records.Run(id="a", job="j", created_at=1.0, status=Status.RUNNING)
    asked = transitions.ask_to_cancel(run, "timeout", Cause.USER)
    assert (asked.cancel, asked.cancel_cause) == ("timeout", Cause.USER)
    assert transitions.hold(run, "retry", Cause.USER).cause is Cause.USER
