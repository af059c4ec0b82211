"""A paused job records and holds its runs; resume releases them."""

from __future__ import annotations

import asyncio

import pytest

from taskrun import Concurrency, Debounce, JobNotFound, Throttle, job, run, sleep
from taskrun.stores.base import Store
from taskrun.testing import TestQueue
from tests.flow.look import Log, counted, outcomes
from tests.flow.test_admission import delayed


async def test_queued_and_new_runs_are_held_until_the_job_is_resumed(storage: Store) -> None:
    @job(concurrency=1)
    async def work(n: int) -> None:
        done(n)
        await run("hold", free.wait)

    free = asyncio.Event()
    async with TestQueue([work], storage=storage) as queue:
        done = Log(queue)
        runs = [await queue.jobs.work.start(n=n) for n in range(3)]
        await queue.settle()
        assert await queue.core.jobs.pause("work", "me") == {"job": "work", "paused": True, "runs": 2}
        assert await queue.core.jobs.pause("work") is None
        runs.append(await queue.jobs.work.start(n=3))
        free.set()
        await queue.settle()
        assert await outcomes(runs) == ["succeeded", "paused/job", "paused/job", "paused/job"]
        [why] = (await queue.core.why(runs[3].id))["causes"]
        assert (why["kind"], why["by"], why["job"]) == ("job-paused", "me", "work")
        assert await queue.core.jobs.resume("work") == {"job": "work", "paused": False, "runs": 3}
        assert await queue.core.jobs.resume("work") is None
        await queue.settle()
        assert done.what == [0, 1, 2, 3]
        assert await counted(queue) == {"succeeded": 4}


async def test_runs_in_flight_go_on(storage: Store) -> None:
    @job(retry=1, backoff=5)
    async def work() -> int:
        await sleep(10)
        if not tries:
            tries.append(1)
            raise ValueError
        return 1

    tries: list[int] = []
    async with TestQueue([work], storage=storage) as queue:
        started = await queue.jobs.work.start()
        await queue.settle()
        await queue.core.jobs.pause("work")
        await queue.advance(60)
        assert await started.result() == 1


async def test_delays_and_bursts_are_held_when_their_moment_has_come(storage: Store) -> None:
    @job(debounce=Debounce(duration=10))
    async def save(n: int) -> None:
        done(n)

    @job
    async def later() -> None: ...

    async with TestQueue([save, later], storage=storage) as queue:
        done = Log(queue)
        runs = [await queue.jobs.save.start(n=0), await delayed(queue, "later", "{}", 20)]
        await queue.core.jobs.pause("save")
        await queue.core.jobs.pause("later")
        runs.append(await queue.jobs.save.start(n=1))
        assert await outcomes(runs) == ["cancelled/debounce", "scheduled/delay", "scheduled/debounce"]
        await queue.advance(60)
        assert await outcomes(runs[1:]) == ["paused/job", "paused/job"]
        await queue.core.jobs.resume("save")
        await queue.core.jobs.resume("later")
        await queue.settle()
        assert done.what == [1]
        assert await outcomes(runs[1:]) == ["succeeded", "succeeded"]


async def test_its_turns_and_places_go_to_the_jobs_that_share_them(storage: Store) -> None:
    options = {"concurrency": Concurrency("one", 1)}

    @job(throttle=Throttle("t", 5, "queue"), concurrency=options["concurrency"])
    async def held(n: int) -> None:
        done(f"held {n}")

    @job(throttle=Throttle("t", 5, "queue"), concurrency=options["concurrency"])
    async def other(n: int) -> None:
        done(f"other {n}")

    async with TestQueue([held, other], storage=storage) as queue:
        done = Log(queue)
        for n in range(2):
            await queue.jobs.held.start(n=n)
        for n in range(2):
            await queue.jobs.other.start(n=n)
        await queue.settle()
        await queue.core.jobs.pause("held")
        await queue.advance(30)
        assert done.entries == [(0.0, "held 0"), (5.0, "other 0"), (10.0, "other 1")]
        await queue.core.jobs.resume("held")
        await queue.settle()
        assert done.entries[-1] == (30.0, "held 1")


async def test_a_pause_outlives_a_restart_and_a_job_that_there_is_not_is_refused(storage: Store) -> None:
    @job
    async def work() -> None: ...

    async with TestQueue([work], storage=storage) as queue:
        await queue.core.jobs.pause("work")
        with pytest.raises(JobNotFound):
            await queue.core.jobs.pause("wrok")
    async with TestQueue([work], storage=storage) as queue:
        started = await queue.jobs.work.start()
        await queue.settle()
        assert await outcomes([started]) == ["paused/job"]
        await queue.core.jobs.resume("work")
        await queue.settle()
        assert await outcomes([started]) == ["succeeded"]
