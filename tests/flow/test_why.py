"""`why`: for every state in which a run is not running, the exact cause, who holds what, and when it ends."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from typing import Any

import pytest

from taskrun import Concurrency, Debounce, MemoryStorage, Queue, Run, RunNotFound, Throttle, job, pipe, run, sleep
from taskrun.stores.base import Store
from taskrun.testing import TestQueue
from tests.flow.test_admission import delayed

p = pipe("p")


@pytest.fixture(autouse=True)
def utc(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Clock times are local: here those of UTC."""
    monkeypatch.setenv("TZ", "UTC")
    time.tzset()
    yield
    monkeypatch.undo()
    time.tzset()


async def causes(queue: Queue, run: Run) -> list[dict[str, Any]]:
    found = await queue.core.why(run.id)
    assert set(found) == {"id", "status", "causes"}
    assert (found["id"], found["status"]) == (run.id, await run.status())
    return list(found["causes"])


async def cause(queue: Queue, run: Run) -> dict[str, Any]:
    """The only cause there is."""
    [only] = await causes(queue, run)
    return only


async def test_a_full_lane_names_its_holders_and_who_is_ahead(storage: Store) -> None:
    @job(concurrency=Concurrency("disk", 1))
    async def work(n: int) -> None:
        await run("hold", free.wait)

    free = asyncio.Event()
    async with TestQueue([work], storage=storage) as queue:
        runs = [await queue.jobs.work.start(n=n) for n in range(4)]
        await queue.advance(12)
        found = await cause(queue, runs[3])
        assert (found["kind"], found["id"], found["limit"]) == ("concurrency", "disk", 1)
        assert (found["held_by"], found["ahead"]) == ([runs[0].id], 2)
        assert found["text"] == (
            f'concurrency "disk" is full: 1 of 1, held by {runs[0].id[:6]} work (running 12s); '
            "2 runs are ahead of it; a place gets free when one of them ends or waits"
        )
        assert "it is next in line" in (await cause(queue, runs[1]))["text"]
        free.set()


async def test_of_one_id_with_two_limits_each_says_what_is_true_for_it(storage: Store) -> None:
    @job(concurrency=lambda given: Concurrency("disk", given["limit"]))
    async def work(limit: int) -> None:
        await run("hold", free.wait)

    free = asyncio.Event()
    async with TestQueue([work], storage=storage) as queue:
        runs = [await queue.jobs.work.start(limit=limit) for limit in (2, 2, 1, 2)]
        await queue.settle()
        one, two = [(await cause(queue, waits))["text"] for waits in runs[2:]]
        assert 'concurrency "disk" is full: 2 places are taken under a higher limit; with its own, 1, ' in one
        assert "it starts once none of them is left, held by" in one
        assert "a place gets free" not in one
        assert 'concurrency "disk" is full: 2 of 2, held by' in two
        free.set()


async def test_a_throttle_says_when_the_next_starts_and_who_is_ahead(storage: Store) -> None:
    @job(throttle=Throttle("mail", 60, "queue"))
    async def work(n: int) -> None: ...

    async with TestQueue([work], storage=storage) as queue:
        runs = [await queue.jobs.work.start(n=n) for n in range(4)]
        await queue.advance(20)
        head, last = await cause(queue, runs[1]), await cause(queue, runs[3])
        assert head["text"] == 'throttle "mail" allows one start a minute; next in 40s; it is next in line'
        assert (last["kind"], last["ahead"], last["until"]) == ("throttle", 2, "2026-01-01T00:01:00.000+00:00")


async def test_a_rate_says_when_the_next_starts(storage: Store) -> None:
    @job(concurrency=Concurrency("api", "2/m"))
    async def work(n: int) -> None: ...

    async with TestQueue([work], storage=storage) as queue:
        runs = [await queue.jobs.work.start(n=n) for n in range(5)]
        await queue.advance(15)
        found = await cause(queue, runs[4])
        assert found["text"] == 'concurrency "api" allows 2 starts a minute; next in 45s; 2 runs are ahead of it'


async def test_delay_debounce_and_retry_say_until_when(storage: Store) -> None:
    @job
    async def later() -> None: ...

    @job(debounce=Debounce("save", 30))
    async def save() -> None: ...

    @job(retry=3, backoff=90)
    async def fails() -> None:
        raise ValueError("no luck")

    async with TestQueue([later, save, fails], storage=storage) as queue:
        runs = [await delayed(queue, "later", "{}", 300), await queue.jobs.save.start(), await queue.jobs.fails.start()]
        await queue.advance(10)
        found = [await cause(queue, run) for run in runs]
        assert [(one["kind"], one["text"]) for one in found] == [
            ("delay", "it was triggered for later: it starts in 4m 50s, at 00:05"),
            ("debounce", 'debounce "save": it starts in 20s unless a newer trigger takes its place'),
            ("retry", "attempt 1 of 4 failed: ValueError: no luck; the next starts in 1m 20s, at 00:01"),
        ]
        assert [one["until"][14:19] for one in found] == ["05:00", "00:30", "01:30"]


async def test_waits_say_what_for_since_when_and_until_when(storage: Store) -> None:
    @job
    async def child() -> None:
        await sleep(1000)

    @job
    async def parent() -> None:
        await child.run()

    @job
    async def waits() -> None:
        await p.wait_for({"n": 55}, timeout="1h")

    @job
    async def tries() -> None:
        await run("fetch", fetch, retry=2, backoff=100)

    async def fetch() -> None:
        raise OSError("gone")

    async with TestQueue([child, parent, waits, tries], [p], storage=storage) as queue:
        runs = [await queue.jobs[name].start() for name in ("child", "parent", "waits", "tries")]
        await queue.advance(40)
        slept, waited, event, tried = [await cause(queue, run) for run in runs]
        assert (slept["kind"], slept["text"]) == ("sleep", "it sleeps, wakes in 16m, at 00:16")
        assert (waited["kind"], waited["status"]) == ("child", "waiting")
        assert waited["run"] == (await anext(queue.runs(job="child"))).id
        assert event["topic"] == "pipe:p"
        assert (
            event["text"]
            == 'it has waited 40s for an event of pipe "p" that matches {"n":55}; it times out in 59m 20s, at 01:00'
        )
        assert event["command"] == """taskrun send p --input '{"n":55}'"""
        assert waited["command"] == f"taskrun why {waited['run'][:6]}"
        assert (tried["kind"], tried["text"]) == (
            "backoff",
            'step "fetch" failed (OSError: gone); try 2 begins in 1m, at 00:01',
        )


async def test_a_step_that_waits_for_its_place_says_who_has_it(storage: Store) -> None:
    @job
    async def work(n: int) -> None:
        await run("disk", free.wait, concurrency=1)

    free = asyncio.Event()
    async with TestQueue([work], storage=storage) as queue:
        runs = [await queue.jobs.work.start(n=n) for n in range(3)]
        await queue.settle()
        found = await cause(queue, runs[2])
        assert (found["kind"], found["held_by"], found["ahead"]) == ("step-concurrency", [runs[0].id], 1)
        free.set()


async def test_a_full_engine_names_what_it_executes(storage: Store) -> None:
    @job
    async def work(n: int) -> None:
        await run("hold", free.wait)

    free = asyncio.Event()
    async with TestQueue([work], storage=storage, concurrency=2) as queue:
        runs = [await queue.jobs.work.start(n=n) for n in range(4)]
        await queue.settle()
        found = await cause(queue, runs[3])
        assert (found["kind"], found["limit"], found["ahead"]) == ("engine-full", 2, 1)
        assert sorted(found["held_by"]) == sorted(run.id for run in runs[:2])
        free.set()


async def test_a_run_whose_job_no_engine_has_says_so() -> None:
    @job
    async def gone() -> None: ...

    @job
    async def other() -> None: ...

    storage = MemoryStorage()
    async with TestQueue([gone], storage=storage, concurrency=1) as queue:
        queue.core.slots.limit = 0
        started = await queue.jobs.gone.start()
    async with TestQueue([other], storage=storage) as queue:
        assert (await cause(queue, await queue.get(started.id)))["kind"] == "no-job"
    async with TestQueue([], storage=storage) as queue:  # as while the workers of a daemon load their files
        assert (await cause(queue, await queue.get(started.id)))["kind"] == "no-worker"


async def test_paused_cancelled_and_ended_runs_say_so(storage: Store) -> None:
    @job(retry=0, on_exhausted="pause")
    async def fails() -> None:
        raise ValueError("broken")

    @job
    async def naps() -> None:
        try:
            await sleep(100)
        finally:
            await run("clean", free.wait)

    free = asyncio.Event()
    async with TestQueue([fails, naps], storage=storage) as queue:
        runs = [await queue.jobs.fails.start(), await queue.jobs.naps.start(), await queue.jobs.naps.start()]
        await queue.settle()
        await runs[1].pause()
        await runs[2].cancel()
        await queue.settle()
        found = [(await causes(queue, run))[0] for run in runs]
        assert [one["kind"] for one in found] == ["exhausted", "paused", "cancelling"]
        assert "ValueError: broken" in found[0]["text"]
        free.set()
        await queue.settle()
        assert (await cause(queue, runs[2]))["text"] == "cancelled 0s ago by you"
        with pytest.raises(RunNotFound):
            await queue.core.why("nosuchrun")


async def test_a_failed_run_says_its_error_and_a_long_wait_its_day() -> None:
    @job(retry=0)
    async def fails() -> None:
        raise ValueError("no luck")

    @job
    async def naps() -> None:
        await sleep("2d")

    async with TestQueue([fails, naps]) as queue:
        failed, napping = await queue.jobs.fails.start(), await queue.jobs.naps.start()
        await queue.advance(17)
        assert (await cause(queue, failed))["text"] == "failed 17s ago: ValueError: no luck"
        assert (await cause(queue, napping))["text"] == "it sleeps, wakes in 1d 23h, on 2026-01-03 at 00:00"


async def test_every_unfinished_run_has_a_cause() -> None:
    """Whatever a busy queue is in the middle of."""

    @job(concurrency=2, throttle=Throttle(duration=3, mode="queue"), retry=2, backoff=5)
    async def work(n: int) -> None:
        await run("step", asyncio.sleep, 0, concurrency=1)
        await sleep(n % 7)
        if n % 3 == 0:
            raise ValueError

    async with TestQueue([work], concurrency=3) as queue:
        for n in range(30):
            await queue.jobs.work.start(n=n)
        for _ in range(60):
            await queue.advance(2)
            async for one in queue.runs():
                assert await causes(queue, one), await one.info()
