"""Throttle: one start per period and id, whether what comes too early is discarded or waits its turn."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from taskrun import Concurrency, RunDiscarded, Throttle, job, sleep
from taskrun.engine.core.outbox import RunChanged
from taskrun.stores.base import Store
from taskrun.testing import TestQueue
from tests.flow.look import Log, counted, outcomes
from tests.flow.test_admission import delayed


async def busy(queue: TestQueue, seconds: float) -> None:
    """Takes time without a step, so that the run keeps its place."""
    over = asyncio.Event()
    queue.clock.alarm(seconds, over.set)
    await over.wait()


async def test_a_trigger_within_the_period_is_discarded(storage: Store) -> None:
    @job(throttle=60)
    async def ping(n: int) -> int:
        return n

    async with TestQueue([ping], storage=storage) as queue:
        runs = []
        for n in range(4):
            runs.append(await queue.jobs.ping.start(n=n))
            await queue.advance(30)
        assert await outcomes(runs) == ["succeeded", "discarded/throttle"] * 2
        with pytest.raises(RunDiscarded):
            await runs[1].result()


async def test_a_parent_whose_child_is_discarded_gets_the_error(storage: Store) -> None:
    @job(throttle="1/m")
    async def ping() -> None: ...

    @job
    async def parent() -> str:
        await ping.run()
        try:
            await ping.run()
        except RunDiscarded as error:
            return type(error).__name__
        return "both"

    async with TestQueue([ping, parent], storage=storage) as queue:
        assert await queue.jobs.parent.run() == "RunDiscarded"


async def test_a_queue_starts_one_per_period_in_the_order_of_triggers(storage: Store) -> None:
    @job(throttle=Throttle(duration=5, mode="queue"))
    async def ping(n: int) -> None:
        done(n)

    async with TestQueue([ping], storage=storage) as queue:
        done = Log(queue)
        for n in range(5):
            await queue.jobs.ping.start(n=n)
        await queue.advance(30)
        assert done.entries == [(5.0 * n, n) for n in range(5)]


async def test_the_better_priority_goes_first_though_it_came_last(storage: Store) -> None:
    @job(throttle=Throttle(duration=5, mode="queue"), priority=lambda ping: ping["n"] // 10)
    async def ping(n: int) -> None:
        done(n)

    async with TestQueue([ping], storage=storage) as queue:
        done = Log(queue)
        for n in (0, 1, 2, 13, 14, 25):
            await queue.jobs.ping.start(n=n)
        await queue.advance(60)
        assert done.entries == [(0.0, 0), (5.0, 25), (10.0, 13), (15.0, 14), (20.0, 1), (25.0, 2)]


@pytest.mark.parametrize(
    ("given", "order"),
    [
        (
            [(2, 0)],
            [0, 1, 2],
        ),  # n and priority of what comes between the moment of the head and the timer that calls it
        ([(2, 0), (3, 0)], [0, 1, 2, 3]),
        ([(2, 1)], [0, 2, 1]),
        ([(2, 0), (3, 1)], [0, 3, 1, 2]),
    ],
)
@pytest.mark.parametrize("terms", [{"throttle": Throttle("x", 60, "queue")}, {"concurrency": Concurrency("x", "1/m")}])
async def test_who_comes_when_a_limit_has_just_opened_is_behind_those_who_wait(
    storage: Store, terms: Any, given: list[tuple[int, int]], order: list[int]
) -> None:
    @job(**terms, priority=lambda ping: ping["priority"])
    async def ping(n: int, priority: int = 0) -> None:
        done(n)

    async with TestQueue([ping], storage=storage) as queue:
        done = Log(queue)
        for n in range(2):
            await queue.jobs.ping.start(n=n)
        await queue.settle()
        queue.clock.time += 60.5  # no alarm rings
        for n, priority in given:
            await queue.jobs.ping.start(n=n, priority=priority)
        await queue.settle()
        await queue.advance("1h")
        assert done.what == order


async def test_a_run_that_is_resumed_when_a_limit_has_just_opened_is_behind_those_ahead_of_it(storage: Store) -> None:
    @job(throttle=Throttle(duration=60, mode="queue"))
    async def ping(n: int) -> None:
        done(n)

    async with TestQueue([ping], storage=storage) as queue:
        done = Log(queue)
        runs = [await queue.jobs.ping.start(n=n) for n in range(3)]
        await queue.settle()
        await runs[2].pause()
        queue.clock.time += 60.5  # no alarm rings
        await runs[2].resume()
        await queue.settle()
        await queue.advance("1h")
        assert done.what == [0, 1, 2]


@pytest.mark.parametrize("how", ["cancel", "pause"])
async def test_the_turn_of_a_run_that_is_held_goes_to_the_next(storage: Store, how: str) -> None:
    @job(throttle=Throttle(duration=5, mode="queue"))
    async def ping(n: int) -> None:
        done(n)

    async with TestQueue([ping], storage=storage) as queue:
        done = Log(queue)
        runs = [await queue.jobs.ping.start(n=n) for n in range(5)]
        await queue.advance(1)
        await getattr(runs[1], how)()
        await getattr(runs[3], how)()
        await queue.advance(30)
        assert done.entries == [(0.0, 0), (5.0, 2), (10.0, 4)]
        if how == "pause":
            await runs[3].resume()
            await queue.settle()
            assert done.entries[-1] == (31.0, 3)


async def test_jobs_that_share_an_id_share_its_starts_each_by_its_own_period(storage: Store) -> None:
    @job(throttle=Throttle("api", 10, "queue"))
    async def slow(n: int) -> None:
        done(f"slow {n}")

    @job(throttle=Throttle("api", 2, "queue"))
    async def quick(n: int) -> None:
        done(f"quick {n}")

    async with TestQueue([slow, quick], storage=storage) as queue:
        done = Log(queue)
        await queue.jobs.slow.start(n=1)
        await queue.advance(1)
        await queue.jobs.slow.start(n=2)
        await queue.jobs.quick.start(n=1)
        await queue.jobs.quick.start(n=2)
        await queue.advance(60)
        assert done.entries == [(0.0, "slow 1"), (2.0, "quick 1"), (4.0, "quick 2"), (14.0, "slow 2")]


async def test_a_run_held_back_elsewhere_does_not_hold_up_others_behind_its_throttle(storage: Store) -> None:
    @job(throttle=Throttle("api", 10, "queue"), concurrency=1)
    async def narrow(n: int) -> None:
        done(f"narrow {n}")
        await busy(queue, 100)

    @job(throttle=Throttle("api", 10, "queue"))
    async def free(n: int) -> None:
        done(f"free {n}")

    async with TestQueue([narrow, free], storage=storage) as queue:
        done = Log(queue)
        for n in (1, 2):
            await queue.jobs.narrow.start(n=n)
        await queue.advance(11)  # the second has had its turn, and waits for the place of the first
        for n in (1, 2):
            await queue.jobs.free.start(n=n)
        await queue.advance(30)
        assert done.entries == [(0.0, "narrow 1"), (11.0, "free 1"), (21.0, "free 2")]
        await queue.advance(100)
        assert done.entries[3:] == [(100.0, "narrow 2")]


async def test_a_place_that_a_throttled_run_cannot_take_goes_to_the_next(storage: Store) -> None:
    lane = Concurrency("disk", 1)

    @job(throttle=Throttle("api", 100, "queue"), concurrency=lane)
    async def throttled(n: int) -> None:
        done(f"throttled {n}")
        await busy(queue, 30)

    @job(throttle=Throttle("api", 100, "queue"))
    async def other() -> None:
        done("other")

    @job(concurrency=lane)
    async def plain(n: int) -> None:
        done(f"plain {n}")
        await busy(queue, 50)

    async with TestQueue([throttled, other, plain], storage=storage) as queue:
        done = Log(queue)
        await queue.jobs.plain.start(n=1)
        await queue.jobs.throttled.start(n=1)  # may start, but for its place
        await queue.settle()
        await queue.jobs.other.start()  # uses the throttle meanwhile
        await queue.settle()
        await queue.jobs.plain.start(n=2)
        await queue.advance(200)
        assert done.entries == [(0.0, "plain 1"), (0.0, "other"), (50.0, "plain 2"), (100.0, "throttled 1")]


async def test_a_retry_is_no_further_start(storage: Store) -> None:
    @job(throttle=Throttle(duration=60, mode="queue"), retry=1, backoff=1)
    async def ping() -> None:
        done("ping")
        if len(done.entries) == 1:
            raise ValueError

    async with TestQueue([ping], storage=storage) as queue:
        done = Log(queue)
        await queue.jobs.ping.start()
        await queue.advance(5)
        assert done.when == [0.0, 1.0]


async def test_a_function_of_the_input_gives_each_its_own_throttle(storage: Store) -> None:
    @job(throttle=lambda ping: Throttle(ping["host"], 10, "queue"))
    async def ping(host: str) -> None:
        done(host)

    async with TestQueue([ping], storage=storage) as queue:
        done = Log(queue)
        for host in "aabb":
            await queue.jobs.ping.start(host=host)
        await queue.advance(30)
        assert done.entries == [(0.0, "a"), (0.0, "b"), (10.0, "a"), (10.0, "b")]


async def test_the_turns_go_on_after_a_restart(storage: Store) -> None:
    @job(throttle=Throttle(duration=10, mode="queue"))
    async def ping(n: int) -> None:
        seen.append((queue.now, n))

    seen: list[tuple[object, int]] = []
    async with TestQueue([ping], storage=storage) as queue:
        for n in range(4):
            await queue.jobs.ping.start(n=n)
        await queue.advance(12)
        start = queue.now
    async with TestQueue([ping], storage=storage, start=start) as queue:
        await queue.settle()
        assert len(seen) == 2
        await queue.advance(18)
        assert [n for _, n in seen] == [0, 1, 2, 3]


async def test_a_thousand_behind_one_throttle_cost_a_period_no_more_than_a_few_changes(storage: Store) -> None:
    @job(throttle=Throttle(duration=1, mode="queue"))
    async def ping(n: int) -> None: ...

    async with TestQueue([ping], storage=storage) as queue:
        await asyncio.gather(*(queue.jobs.ping.start(n=n) for n in range(1_000)))
        await queue.settle()
        changes = 0

        def count(_: RunChanged) -> None:
            nonlocal changes
            changes += 1

        queue.core.journal.follow(RunChanged, count)
        await queue.advance(20)
        assert (await counted(queue))["succeeded"] == 21
        assert changes <= 20 * 6


async def test_a_throttled_run_that_waits_gives_others_no_further_start(storage: Store) -> None:
    @job(throttle=Throttle(duration=5, mode="queue"))
    async def nap(n: int) -> None:
        done(n)
        await sleep(50)

    async with TestQueue([nap], storage=storage) as queue:
        done = Log(queue)
        for n in range(3):
            await queue.jobs.nap.start(n=n)
        await queue.advance(300)
        assert done.entries == [(0.0, 0), (5.0, 1), (10.0, 2)]
        assert await counted(queue) == {"succeeded": 3}


@pytest.mark.parametrize("delay", [0.5, 1, 1.5, 2, 3, 5, 11])
async def test_the_heads_of_two_queues_do_not_wait_for_each_other(storage: Store, delay: float) -> None:
    """A delayed run comes past the queue of the first limit, becomes the head of the second, and is held by the first."""

    @job(concurrency=Concurrency(None, "2 per 10s"), throttle=Throttle(None, 1, "queue"))
    async def work(n: int) -> None: ...

    async with TestQueue([work], storage=storage) as queue:
        for n in range(6):
            await queue.jobs.work.start(n=n)
        await delayed(queue, "work", '{"n": 6}', delay)
        for n in range(7, 10):
            await queue.jobs.work.start(n=n)
        await queue.advance("5m")
        assert await counted(queue) == {"succeeded": 10}
