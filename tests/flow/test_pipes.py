"""Pipes: no event is lost or seen twice, whenever it comes and whoever waits."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import Any

import pytest

from taskrun import InputInvalid, MemoryStorage, Queue, WaitTimeout, job, pipe, run, sleep
from taskrun.engine.core import waits
from taskrun.engine.core.transaction import EngineState, Transaction
from taskrun.model import records
from taskrun.model.records import PipeEvent, Status, Step, StepKind
from taskrun.stores.base import Store, Tx
from taskrun.testing import TestQueue
from tests.flow.look import Log, counted


@dataclass
class Point:
    x: int
    y: int = 0


p = pipe("p")
points = pipe("points", input=Point)


async def test_an_event_that_comes_just_before_the_wait_is_not_lost(storage: Store) -> None:
    @job
    async def waits() -> Any:
        await run("before", ready.wait)
        return await p.wait_for()

    ready = asyncio.Event()
    async with TestQueue([waits], [p], storage=storage) as queue:
        started = await queue.jobs.waits.start()
        await queue.settle()
        await queue.pipes.p.send(n=1)
        ready.set()
        assert await started.result() == {"n": 1}


async def test_an_event_from_before_the_trigger_is_not_seen(storage: Store) -> None:
    @job
    async def waits() -> Any:
        return await p.wait_for()

    async with TestQueue([waits], [p], storage=storage) as queue:
        await queue.pipes.p.send(n=0)
        started = await queue.jobs.waits.start()
        await queue.settle()
        assert await started.status() == "waiting"
        await queue.pipes.p.send(n=1)
        assert await started.result() == {"n": 1}


@pytest.mark.parametrize("early", [0, 3, 6])
async def test_a_loop_of_waits_gets_successive_events(storage: Store, early: int) -> None:
    @job
    async def loop() -> list[int]:
        await run("before", ready.wait)
        return [(await p.wait_for())["n"] for _ in range(6)]

    ready = asyncio.Event()
    async with TestQueue([loop], [p], storage=storage) as queue:
        started = await queue.jobs.loop.start()
        await queue.settle()
        for n in range(6):
            if n == early:
                ready.set()
            await queue.pipes.p.send(n=n)
            await queue.settle()
        ready.set()
        assert await started.result() == list(range(6))


async def test_a_loop_of_judged_waits_gets_successive_events(storage: Store) -> None:
    @job
    async def loop() -> list[int]:
        return [(await p.wait_for(lambda event: event["n"] % 2))["n"] for _ in range(4)]

    async with TestQueue([loop], [p], storage=storage) as queue:
        started = await queue.jobs.loop.start()
        await asyncio.gather(*(queue.pipes.p.send(n=n) for n in range(8)))
        assert await started.result() == [1, 3, 5, 7]


async def test_two_waiters_of_one_event_both_get_it(storage: Store) -> None:
    @job
    async def waits(n: int) -> Any:
        return await p.wait_for({"to": "all"})

    async with TestQueue([waits], [p], storage=storage) as queue:
        runs = [await queue.jobs.waits.start(n=n) for n in range(2)]
        await queue.settle()
        await queue.pipes.p.send(to="all")
        assert [await run.result() for run in runs] == [{"to": "all"}] * 2


async def test_two_waits_of_one_run_at_the_same_time_both_get_it(storage: Store) -> None:
    @job
    async def waits() -> list[int]:
        events = await asyncio.gather(p.wait_for(), p.wait_for({"n": 1}))
        return [event["n"] for event in events]

    async with TestQueue([waits], [p], storage=storage) as queue:
        started = await queue.jobs.waits.start()
        await queue.settle()
        await queue.pipes.p.send(n=1)
        assert await started.result() == [1, 1]


@pytest.mark.parametrize("replay", [False, True])
async def test_a_predicate_judges_what_another_wait_of_its_run_takes_meanwhile(storage: Store, replay: bool) -> None:
    """With a coroutine it is told of the event; without one it finds it, as a later wait of the run does not."""

    @job
    async def waits() -> list[int]:
        events = await asyncio.gather(p.wait_for({"n": 1}), p.wait_for(lambda event: event["n"] > 0))
        return [*(event["n"] for event in events), (await p.wait_for())["n"]]

    async with TestQueue([waits], [p], storage=storage, replay=replay) as queue:
        started = await queue.jobs.waits.start()
        await queue.settle()
        for n in (1, 2):
            await queue.pipes.p.send(n=n)
            await queue.settle()
        assert await started.result(timeout=5) == [1, 1, 2]


async def test_a_mapping_is_matched_deeply_and_partially(storage: Store) -> None:
    @job
    async def waits(match: dict[str, Any]) -> int:
        return int((await p.wait_for(match))["n"])

    async with TestQueue([waits], [p], storage=storage) as queue:
        deep = await queue.jobs.waits.start(match={"user": {"id": 7}, "ok": True})
        listed = await queue.jobs.waits.start(match={"tags": ["a", "b"]})
        await queue.settle()
        events: list[dict[str, Any]] = [
            {"user": {"id": 8}, "ok": True},
            {"user": {"id": 7}, "ok": 1},
            {"user": {"id": 7.0, "name": "x"}, "ok": True},
            {"tags": ["a"]},
            {"tags": ["a", "b"]},
        ]
        for n, event in enumerate(events):
            await queue.pipes.p.send({**event, "n": n})
        assert (await deep.result(), await listed.result()) == (2, 4)


async def test_a_predicate_gets_the_validated_value(storage: Store) -> None:
    @job
    async def waits() -> int:
        found = await points.wait_for(lambda point: isinstance(point, Point) and point.x > 1 and point.y == 0)
        return int(found.x)

    async with TestQueue([waits], [points], storage=storage) as queue:
        started = await queue.jobs.waits.start()
        for x in range(4):
            await queue.pipes.points.send(x=x)
        with pytest.raises(InputInvalid):
            await queue.pipes.points.send(x="two")
        assert await started.result() == 2


async def test_a_predicate_that_raises_fails_the_run(storage: Store) -> None:
    @job(retry=0)
    async def waits() -> Any:
        return await p.wait_for(lambda event: event["missing"])

    async with TestQueue([waits], [p], storage=storage) as queue:
        started = await queue.jobs.waits.start()
        await queue.pipes.p.send(n=1)
        await queue.settle()
        assert (await started.info()).error.type == "KeyError"


async def test_a_predicate_that_is_async_is_refused() -> None:
    async def judges(event: Any) -> bool:
        return bool(event)

    @job(retry=0)
    async def waits() -> Any:
        return await p.wait_for(judges)

    async with TestQueue([waits], [p]) as queue:
        started = await queue.jobs.waits.start()
        await queue.settle()
        assert "not an async one" in (await started.info()).error.message


@pytest.mark.parametrize("replay", [False, True])
async def test_what_a_predicate_raises_is_recorded_and_the_same_on_replay(replay: bool) -> None:
    judged: list[int] = []

    def judges(event: Any) -> bool:
        judged.append(event["n"])
        return bool(event["missing"])

    @job(retry=0)
    async def waits() -> str:
        try:
            await p.wait_for(judges, timeout="1m")
        except KeyError:
            await sleep("1h")
            return "caught"
        return "taken"

    async with TestQueue([waits], [p], replay=replay) as queue:
        started = await queue.jobs.waits.start()
        await queue.pipes.p.send(n=1)
        await queue.advance("2h")
        assert await started.result(timeout=1) == "caught"
        assert judged == [1]


async def test_job_wait_for_reads_successes_by_the_page(storage: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(waits, "FEW", 2)
    monkeypatch.setattr(waits, "PAGE", 3)

    @job
    async def makes(n: int) -> int:
        return n

    @job
    async def wants() -> list[int]:
        await gate.wait()
        matched = [await makes.wait_for({"n": 7}), await makes.wait_for(lambda made: made["n"] > 4)]
        return [*matched, *[await makes.wait_for() for _ in range(7)]]

    gate = asyncio.Event()
    async with TestQueue([makes, wants], storage=storage) as queue:
        started = await queue.jobs.wants.start()
        for n in range(9):
            await queue.jobs.makes.run(n=n)
            await queue.advance(1)
        gate.set()
        assert await started.result(timeout=5) == [7, 5, 0, 1, 2, 3, 4, 6, 8]


async def test_a_timeout_is_recorded_and_the_same_on_replay(storage: Store) -> None:
    @job
    async def waits() -> str:
        try:
            await p.wait_for(timeout=10)
        except WaitTimeout:
            seen.append("timeout")
        await run("hold", free.wait)
        return "done"

    seen: list[str] = []
    free = asyncio.Event()
    async with TestQueue([waits], [p], storage=storage) as queue:
        started = await queue.jobs.waits.start()
        await queue.advance(10)
        assert [(step.kind, step.status) for step in await started.steps()][:1] == [("wait", "failed")]
        start = queue.now
    free.set()
    async with TestQueue([waits], [p], storage=storage, start=start) as queue:
        await queue.pipes.p.send(n=1)
        assert await (await queue.get(started.id)).result() == "done"
    assert seen == ["timeout", "timeout"]


async def test_a_wait_outlives_the_queue_and_its_event_comes_to_another(storage: Store) -> None:
    @job
    async def waits() -> Any:
        return await p.wait_for({"n": 2})

    async with TestQueue([waits], [p], storage=storage) as queue:
        started = await queue.jobs.waits.start()
        await queue.settle()
        start = queue.now
    async with TestQueue([], [p], storage=storage, start=start) as queue:
        await queue.pipes.p.send(n=2)
    async with TestQueue([waits], [p], storage=storage, start=start) as queue:
        assert await (await queue.get(started.id)).result() == {"n": 2}


@pytest.mark.parametrize("match", [None, {"n": 1}, lambda event: event["n"] == 1], ids=["any", "mapping", "predicate"])
@pytest.mark.parametrize("busy", [False, True])
async def test_an_event_sent_in_another_queue_wakes_the_wait(storage: Store, match: Any, busy: bool) -> None:
    @job
    async def waits() -> Any:
        async def besides() -> None:
            if busy:
                await run("besides", got.wait)

        async def wait() -> Any:
            try:
                return await p.wait_for(match)
            finally:
                got.set()

        return (await asyncio.gather(wait(), besides()))[0]

    got = asyncio.Event()
    async with Queue([waits], [p], storage=storage) as one, Queue([], [p], storage=storage) as two:
        started = await one.jobs.waits.start()
        while not [step for step in await started.steps() if step.kind == "wait"]:
            await asyncio.sleep(0.01)
        await two.pipes.p.send(n=1)
        assert await started.result(timeout=10) == {"n": 1}


async def test_an_event_sent_from_a_handler_is_one_event(storage: Store) -> None:
    @job(retry=1, backoff=1)
    async def sends() -> None:
        await p.send(n=1)
        if not tries:
            tries.append(1)
            raise ValueError

    @job
    async def waits() -> list[Any]:
        first = await p.wait_for()
        try:
            return [first, await p.wait_for(timeout=60)]
        except WaitTimeout:
            return [first]

    tries: list[int] = []
    async with TestQueue([sends, waits], [p], storage=storage) as queue:
        started = await queue.jobs.waits.start()
        await queue.settle()
        await queue.jobs.sends.start()
        await queue.advance(100)
        assert await started.result() == [{"n": 1}]


async def test_a_thousand_sends_and_waits_raced_lose_no_wake_up(storage: Store) -> None:
    count = 1_000

    @job
    async def waits(n: int) -> int:
        await sleep(0)
        return int((await p.wait_for({"n": n}))["n"])

    async with TestQueue([waits], [p], storage=storage) as queue:
        for begin in range(0, count, 500):
            some = range(begin, begin + 500)
            await asyncio.gather(*(queue.jobs.waits.start(n=n) for n in some))
            await asyncio.gather(*(queue.pipes.p.send(n=n) for n in some))
        await queue.settle()
        assert await counted(queue) == {"succeeded": count}


async def test_job_wait_for_sees_the_output_of_the_run_whose_input_matches(storage: Store) -> None:
    @job
    async def make(n: int) -> str:
        return f"made {n}"

    @job
    async def waits() -> list[str]:
        mapped = await make.wait_for({"n": 2})
        judged = await make.wait_for(lambda made: made["n"] > 2)
        return [mapped, judged]

    async with TestQueue([make, waits], storage=storage) as queue:
        started = await queue.jobs.waits.start()
        for n in range(5):
            await queue.jobs.make.run(n=n)
        assert await started.result() == ["made 2", "made 3"]


async def test_job_wait_for_sees_successes_in_the_order_in_which_they_came(storage: Store) -> None:
    @job
    async def make(n: int) -> int:
        await sleep(100 - n)
        return n

    @job
    async def waits() -> list[int]:
        return [await make.wait_for(lambda made: made["n"] != 2) for _ in range(3)]

    async with TestQueue([make, waits], storage=storage) as queue:
        started = await queue.jobs.waits.start()
        for n in range(4):
            await queue.jobs.make.start(n=n)
        await queue.advance(100)
        assert await started.result() == [3, 1, 0]


async def test_jobs_trigger_jobs_with_their_outputs_and_none_skips(storage: Store) -> None:
    @job
    async def first(n: int) -> int:
        return n

    @job(trigger=[first.into(lambda n: {"n": n * 10} if n % 2 else None)])
    async def second(n: int) -> None:
        done(n)

    @job(trigger=[second.into(lambda out: {"n": -1})])
    async def third(n: int) -> None:
        done(n)

    async with TestQueue([first, second, third], storage=storage) as queue:
        done = Log(queue)
        for n in range(4):
            await queue.jobs.first.start(n=n)
        await queue.settle()
        assert sorted(done.what) == [-1, -1, 10, 30]


async def test_a_failed_run_triggers_nothing(storage: Store) -> None:
    @job(retry=0)
    async def first() -> None:
        raise ValueError

    @job(trigger=[first.into(lambda out: {})])
    async def second() -> None:
        done("second")

    async with TestQueue([first, second], storage=storage) as queue:
        done = Log(queue)
        await queue.jobs.first.start()
        await queue.settle()
        assert done.what == []


async def test_an_event_triggers_each_job_once_over_two_queues(storage: Store) -> None:
    @job(trigger=[p.into(lambda event: {"n": event["n"]})])
    async def hears(n: int) -> None:
        seen.append(n)

    seen: list[int] = []
    async with Queue([hears], storage=storage) as one, Queue([hears], storage=storage) as two:
        for n in range(50):
            await (one, two)[n % 2].pipes.p.send(n=n)
        for _ in range(500):
            if len(seen) >= 50 and (await counted(one)).get("succeeded") == 50:
                break
            await asyncio.sleep(0.01)
        assert sorted(seen) == list(range(50))
        assert await counted(one) == {"succeeded": 50}


async def test_an_event_sent_where_the_job_is_not_triggers_it_where_it_is(storage: Store) -> None:
    @job(trigger=[p.into(lambda event: {"n": event["n"]})])
    async def hears(n: int) -> None:
        seen.append(n)

    seen: list[int] = []
    async with TestQueue([hears], storage=storage) as queue:
        start = queue.now
    async with TestQueue([], [p], storage=storage, start=start) as queue:
        await queue.pipes.p.send(n=1)
    async with TestQueue([hears], storage=storage, start=start) as queue:
        await queue.settle()
        assert seen == [1]


async def test_a_trigger_that_raises_leaves_the_others_alone(storage: Store, caplog: pytest.LogCaptureFixture) -> None:
    @job(trigger=[p.into(lambda event: event["missing"])])
    async def broken(n: int) -> None: ...

    @job(trigger=[p.into(lambda event: {"n": event["n"]})])
    async def hears(n: int) -> None:
        done(n)

    async with TestQueue([broken, hears], storage=storage) as queue:
        done = Log(queue)
        await queue.pipes.p.send(n=1)
        await queue.settle()
        assert done.what == [1]
    assert "pipe:p" in caplog.text


async def test_whoever_sends_an_event_hears_what_it_starts_and_wakes(storage: Store) -> None:
    @job(trigger=[p.into(lambda event: {"n": event["n"]} if event["n"] > 1 else None)])
    async def takes(n: int) -> int:
        return n

    @job
    async def waits() -> Any:
        return await p.wait_for({"n": 2})

    async with TestQueue([takes, waits], [p, points], storage=storage) as queue:
        waiting = await queue.jobs.waits.start()
        await queue.settle()
        nobody = await queue.core.send("points", '{"x": 1}')
        assert (nobody.woke, nobody.jobs, await queue.core.triggers.started(nobody)) == ((), (), {})
        skipped = await queue.core.send("p", '{"n": 1}')
        assert (skipped.woke, await queue.core.triggers.started(skipped)) == ((), {"takes": ([], None)})
        taken = await queue.core.send("p", '{"n": 2}')
        (run_id,) = (await queue.core.triggers.started(taken))["takes"].runs
        assert taken.woke == (waiting.id,)
        assert await (await queue.get(run_id)).result() == 2
        assert await waiting.result() == {"n": 2}
        assert await queue.core.triggers.started(taken) == {}  # it was done long ago


def test_an_event_that_was_committed_after_a_later_one_is_judged_by_another_engine_too() -> None:
    store = MemoryStorage()
    store.open()

    def seen(tx: Tx) -> list[str | None]:
        here, there = EngineState(), EngineState()
        here.id, there.id = "here", "there"
        late, judged = (tx.add_event(PipeEvent(id=name, topic="pipe:p", at=2.0, data=name)) for name in ("1", "2"))
        tx.add_run(records.Run(id="r", job="j", created_at=1.0, status=Status.WAITING, engine="there"))
        tx.put_step(Step(run="r", key="w", name="w", kind=StepKind.WAIT, topic="pipe:p", cursor=judged.seq))
        assert waits.announce(Transaction(tx, here, 3.0), late) == ["r"]
        return [step.output for step in waits.take_news(Transaction(tx, there, 4.0), "r")]

    assert store.apply([seen]) == [(["1"], None)]
    store.close()
