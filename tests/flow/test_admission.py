"""Keys, delays, and the order of the rules between a trigger and its run."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from taskrun import Debounce, InputInvalid, Run, Throttle, job
from taskrun.engine.api.queue import Queue
from taskrun.engine.core.admit import Trigger, new_id
from taskrun.stores.base import Store
from taskrun.testing import TestQueue
from tests.flow.look import Log, counted, outcomes


async def delayed(queue: Queue, job: str, data: str, seconds: float) -> Run:
    """Triggers as `taskrun start --in` does."""
    prepared = await queue.core.prepare(job, data)
    trigger = Trigger(prepared=prepared, id=new_id(), delay_until=queue.core.clock.now() + seconds)
    return queue.handle(await queue.core.trigger(trigger))


async def test_a_key_finds_the_run_while_it_is_unfinished_and_for_its_time_after_success(storage: Store) -> None:
    @job(key=lambda pay: pay["order"], key_ttl=60)
    async def pay(order: str) -> None:
        done(order)

    async with TestQueue([pay], storage=storage) as queue:
        done = Log(queue)
        runs = [await queue.jobs.pay.start(order="a") for _ in range(3)]
        await queue.jobs.pay.start(order="b")
        await queue.advance(59)
        runs.append(await queue.jobs.pay.start(order="a"))
        assert {run.id for run in runs} == {runs[0].id}
        await queue.advance(1)
        assert (await queue.jobs.pay.start(order="a")).id != runs[0].id
        await queue.settle()
        assert done.what == ["a", "b", "a"]


async def test_a_failed_run_does_not_answer_for_its_key(storage: Store) -> None:
    @job(key=lambda pay: "k", retry=0)
    async def pay() -> None:
        if not tries:
            tries.append(1)
            raise ValueError

    tries: list[int] = []
    async with TestQueue([pay], storage=storage) as queue:
        first = await queue.jobs.pay.start()
        await queue.settle()
        second = await queue.jobs.pay.start()
        await queue.settle()
        assert await outcomes([first, second]) == ["failed", "succeeded"]


async def test_a_key_belongs_to_its_job(storage: Store) -> None:
    @job(key=lambda one: "k")
    async def one() -> None: ...

    @job(key=lambda two: "k")
    async def two() -> None: ...

    async with TestQueue([one, two], storage=storage) as queue:
        assert (await queue.jobs.one.start()).id != (await queue.jobs.two.start()).id


async def test_a_race_for_one_key_makes_one_run(storage: Store) -> None:
    @job(key=lambda pay: "k")
    async def pay() -> None: ...

    async with TestQueue([pay], storage=storage) as queue:
        runs = await asyncio.gather(*(queue.jobs.pay.start() for _ in range(100)))
        assert len({run.id for run in runs}) == 1


async def test_a_delayed_run_starts_at_its_moment(storage: Store) -> None:
    @job
    async def later(n: int) -> None:
        done(n)

    async with TestQueue([later], storage=storage) as queue:
        done = Log(queue)
        run = await delayed(queue, "later", '{"n": 1}', 300)
        await delayed(queue, "later", '{"n": 2}', 100)
        assert await outcomes([run]) == ["scheduled/delay"]
        await queue.advance("1h")
        assert done.entries == [(100.0, 2), (300.0, 1)]


async def test_a_delayed_run_queues_at_the_throttle_when_its_moment_comes(storage: Store) -> None:
    @job(throttle=Throttle(duration=10, mode="queue"))
    async def later(n: int) -> None:
        done(n)

    async with TestQueue([later], storage=storage) as queue:
        done = Log(queue)
        await delayed(queue, "later", '{"n": 1}', 5)
        await queue.jobs.later.start(n=2)
        await queue.jobs.later.start(n=3)
        await queue.advance("1h")
        assert done.entries == [(0.0, 2), (10.0, 1), (20.0, 3)]  # in the order of triggers


async def test_bad_input_is_refused_before_anything_is_recorded(storage: Store) -> None:
    @job(key=lambda pay: "k", throttle=60, debounce=10)
    async def pay(amount: int) -> None: ...

    async with TestQueue([pay], storage=storage) as queue:
        with pytest.raises(InputInvalid):
            await queue.jobs.pay.start(amount="much")
        assert await counted(queue) == {}
        run = await queue.jobs.pay.start(amount=1)
        assert await outcomes([run]) == ["scheduled/debounce"]  # the refused one has used up no start


async def test_a_known_key_uses_up_no_start_and_joins_no_burst(storage: Store) -> None:
    @job(key=lambda pay: str(pay["n"]), throttle=60, debounce=Debounce(duration=100))
    async def pay(n: int) -> None: ...

    async with TestQueue([pay], storage=storage) as queue:
        first = await queue.jobs.pay.start(n=1)
        await queue.advance(50)
        assert (await queue.jobs.pay.start(n=1)).id == first.id
        await queue.advance(50)
        assert await outcomes([first]) == ["succeeded"]
        assert await outcomes([await queue.jobs.pay.start(n=2)]) == ["scheduled/debounce"]


async def test_a_discarded_trigger_joins_no_burst(storage: Store) -> None:
    @job(throttle=60, debounce=10)
    async def save(n: int) -> None: ...

    async with TestQueue([save], storage=storage) as queue:
        runs: list[Any] = [await queue.jobs.save.start(n=n) for n in range(2)]
        await queue.advance(10)
        assert await outcomes(runs) == ["succeeded", "discarded/throttle"]
