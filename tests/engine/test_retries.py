"""Retries of steps and of runs: how often, after which waits, and what happens when they are used up."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from taskrun import Backoff, RunFailed, job, run, sleep
from taskrun.engine.core.queries import views
from taskrun.stores.base import Store
from taskrun.testing import TestQueue


class Failing:
    """Fails `times` times and remembers when it was called."""

    def __init__(self, times: int) -> None:
        self.times = times
        self.at: list[float] = []
        self.clock: Any = None

    def __call__(self) -> str:
        self.at.append(self.clock.now())
        if len(self.at) <= self.times:
            raise ValueError(f"no {len(self.at)}")
        return "at last"

    @property
    def waits(self) -> list[float]:
        return [round(later - earlier, 3) for earlier, later in zip(self.at, self.at[1:], strict=False)]


BACKOFFS: list[tuple[Any, list[float]]] = [
    (5, [5, 5, 5]),
    ("2m", [120, 120, 120]),
    ([1, "5s", 30], [1, 5, 30]),
    ([1, 2], [1, 2, 2]),
    (Backoff(1), [1, 2, 4]),
    (Backoff("10s", max="15s", factor=3), [10, 15, 15]),
    (Backoff(7, factor=1), [7, 7, 7]),
    (lambda attempt: attempt * 10, [10, 20, 30]),
    (0, [0, 0, 0]),
]
IDS = ["number", "text", "list", "last-repeats", "exponential", "capped", "constant", "function", "none"]


@pytest.mark.parametrize(("backoff", "waits"), BACKOFFS, ids=IDS)
async def test_a_step_waits_as_its_backoff_says(backoff: Any, waits: list[float]) -> None:
    failing = Failing(3)

    @job
    async def handler() -> str:
        return await run("failing", failing, retry=3, backoff=backoff)

    async with TestQueue(jobs=[handler]) as queue:
        failing.clock = queue.clock
        handle = await queue.jobs.handler.start()
        await queue.advance("1d")
        assert await handle.result() == "at last"
        assert failing.waits == waits


@pytest.mark.parametrize(("backoff", "waits"), BACKOFFS, ids=IDS)
async def test_a_run_waits_as_its_backoff_says(backoff: Any, waits: list[float]) -> None:
    failing = Failing(3)

    @job(retry=3, backoff=backoff)
    async def handler() -> str:
        return failing()

    async with TestQueue(jobs=[handler]) as queue:
        failing.clock = queue.clock
        handle = await queue.jobs.handler.start()
        await queue.advance("1d")
        assert await handle.result() == "at last"
        assert failing.waits == waits


async def test_by_default_a_run_is_retried_three_times_from_one_second_doubling() -> None:
    failing = Failing(99)

    @job
    async def handler() -> str:
        return failing()

    async with TestQueue(jobs=[handler]) as queue:
        failing.clock = queue.clock
        handle = await queue.jobs.handler.start()
        await queue.advance("1d")
        with pytest.raises(RunFailed, match="no 4"):
            await handle.result()
        assert failing.waits == [1, 2, 4]


async def test_a_step_without_a_backoff_takes_its_jobs() -> None:
    failing = Failing(2)

    @job(backoff="10s")
    async def handler() -> str:
        return await run("failing", failing)

    async with TestQueue(jobs=[handler]) as queue:
        failing.clock = queue.clock
        handle = await queue.jobs.handler.start()
        await queue.advance("1m")
        assert await handle.result() == "at last"
        assert failing.waits == [10, 10]


async def test_backoff_and_retry_may_depend_on_the_input() -> None:
    failing = Failing(2)

    @job(retry=lambda input: input["tries"], backoff=lambda attempt, input: attempt * input["wait"])
    async def handler(tries: int, wait: int) -> str:
        return failing()

    async with TestQueue(jobs=[handler]) as queue:
        failing.clock = queue.clock
        handle = await queue.jobs.handler.start(tries=2, wait=7)
        await queue.advance("1h")
        assert await handle.result() == "at last"
        assert failing.waits == [7, 14]


async def test_there_is_no_wait_after_the_last_attempt() -> None:
    failing = Failing(99)

    @job(retry=1, backoff="1h")
    async def handler() -> str:
        return failing()

    async with TestQueue(jobs=[handler]) as queue:
        failing.clock = queue.clock
        handle = await queue.jobs.handler.start()
        await queue.advance("1h")
        assert await handle.status() == "failed"
        assert failing.waits == [3600]


async def test_backoff_attempts_caps_the_retries() -> None:
    failing = Failing(99)

    @job(retry=10, backoff=Backoff(1, attempts=2))
    async def handler() -> str:
        return failing()

    async with TestQueue(jobs=[handler]) as queue:
        failing.clock = queue.clock
        handle = await queue.jobs.handler.start()
        await queue.advance("1d")
        assert await handle.status() == "failed"
        assert len(failing.at) == 3


async def test_jitter_stays_within_its_fraction() -> None:
    failing = Failing(20)

    @job(retry=20, backoff=Backoff(100, factor=1, jitter=0.1))
    async def handler() -> str:
        return failing()

    async with TestQueue(jobs=[handler]) as queue:
        failing.clock = queue.clock
        await queue.jobs.handler.start()
        await queue.advance("1d")
    assert len(failing.waits) == 20
    assert all(90 <= wait <= 110 for wait in failing.waits)
    assert len(set(failing.waits)) > 1


async def test_used_up_step_errors_are_not_retried_by_the_job() -> None:
    failing = Failing(99)

    @job
    async def handler() -> str:
        return await run("failing", failing, backoff=0)

    async with TestQueue(jobs=[handler]) as queue:
        failing.clock = queue.clock
        handle = await queue.jobs.handler.start()
        await queue.advance("1d")
        with pytest.raises(RunFailed, match="no 4"):
            await handle.result()
        assert len(failing.at) == 4


async def test_unless_the_job_sets_retry_itself() -> None:
    failing = Failing(5)

    @job(retry=2, backoff=0)
    async def handler() -> str:
        return await run("failing", failing, retry=2)

    async with TestQueue(jobs=[handler]) as queue:
        failing.clock = queue.clock
        handle = await queue.jobs.handler.start()
        await queue.advance("1d")
        assert await handle.result() == "at last"
        assert len(failing.at) == 6
        assert (await handle.info()).attempt == 2


async def test_the_next_attempt_keeps_finished_steps_and_starts_failed_ones_afresh(storage: Store) -> None:
    failing, good = Failing(1), Failing(0)

    @job(retry=1, backoff="1m")
    async def handler() -> list[str]:
        return [await run("good", good), await run("failing", failing, retry=0)]

    async with TestQueue(jobs=[handler], storage=storage) as queue:
        failing.clock = good.clock = queue.clock
        handle = await queue.jobs.handler.start()
        await queue.advance("30s")
        assert await handle.status() == "scheduled"
        await queue.advance("30s")
        assert await handle.result() == ["at last", "at last"]
        assert (len(good.at), len(failing.at)) == (1, 2)


async def test_a_backoff_survives_a_restart(storage: Store) -> None:
    step, whole = Failing(1), Failing(1)

    @job
    async def in_step() -> str:
        return await run("failing", step, backoff="1h")

    @job(backoff="1h")
    async def in_handler() -> str:
        return whole()

    async with TestQueue(jobs=[in_step, in_handler], storage=storage) as queue:
        step.clock = whole.clock = queue.clock
        handles = [await queue.jobs.in_step.start(), await queue.jobs.in_handler.start()]
        await queue.advance("30m")
        assert [await handle.status() for handle in handles] == ["scheduled", "scheduled"]
        later = queue.now
    async with TestQueue(jobs=[in_step, in_handler], storage=storage, start=later) as queue:
        step.clock = whole.clock = queue.clock
        await queue.advance("29m")
        assert (len(step.at), len(whole.at)) == (1, 1)
        await queue.advance("1m")
        assert [await (await queue.get(handle.id)).result() for handle in handles] == ["at last", "at last"]
        assert step.waits == whole.waits == [3600]


async def test_a_run_is_scheduled_only_while_backoffs_are_all_that_it_waits_for(storage: Store) -> None:
    failing = Failing(1)

    @job
    async def handler() -> str:
        tried: tuple[str, None] = await asyncio.gather(run("failing", failing, backoff="2m"), sleep("1m"))
        return tried[0]

    async with TestQueue(jobs=[handler], storage=storage) as queue:
        failing.clock = queue.clock
        handle = await queue.jobs.handler.start()
        await queue.advance("30s")
        assert await handle.status() == "waiting"
        await queue.advance("1m")
        assert await handle.status() == "scheduled"
        await queue.advance("1m")
        assert await handle.result() == "at last"


async def test_tries_are_counted_across_a_restart(storage: Store) -> None:
    failing = Failing(99)

    @job
    async def handler() -> str:
        return await run("failing", failing, retry=2, backoff="1h")

    async with TestQueue(jobs=[handler], storage=storage) as queue:
        failing.clock = queue.clock
        handle = await queue.jobs.handler.start()
        await queue.advance("30m")
        later = queue.now
    async with TestQueue(jobs=[handler], storage=storage, start=later) as queue:
        failing.clock = queue.clock
        await queue.advance("1d")
        assert await (await queue.get(handle.id)).status() == "failed"
        assert len(failing.at) == 3


async def test_on_exhausted_pauses_and_resume_goes_on_from_the_failed_step(storage: Store) -> None:
    failing, good = Failing(2), Failing(0)

    @job(retry=1, backoff="1m", on_exhausted="pause")
    async def handler() -> list[str]:
        return [await run("good", good), await run("failing", failing, retry=0)]

    async with TestQueue(jobs=[handler], storage=storage) as queue:
        failing.clock = good.clock = queue.clock
        handle = await queue.jobs.handler.start()
        await queue.advance("1d")
        info = await handle.info()
        assert (info.status, info.reason, info.error.message) == ("paused", "exhausted", "no 2")
        assert info.attempt == 2  # the one that has failed
        await handle.resume()
        assert await handle.result() == ["at last", "at last"]
        assert (await handle.info()).attempt == 3
        assert (len(good.at), len(failing.at)) == (1, 3)


async def test_a_resumed_run_that_fails_again_pauses_again(storage: Store) -> None:
    failing = Failing(2)

    @job(retry=0, on_exhausted="pause")
    async def handler() -> str:
        return failing()

    async with TestQueue(jobs=[handler], storage=storage) as queue:
        failing.clock = queue.clock
        handle = await queue.jobs.handler.start()
        for _ in range(2):
            await queue.settle()
            assert await handle.status() == "paused"
            await handle.resume()
        assert await handle.result() == "at last"
        info = await handle.info()
        assert (info.attempt, info.attempts) == (3, 1)  # the others are further ones


async def test_the_failures_are_kept_in_the_order_they_happened() -> None:
    failing = Failing(2)

    @job(backoff=1)
    async def handler() -> str:
        return failing()

    async with TestQueue(jobs=[handler]) as queue:
        failing.clock = queue.clock
        handle = await queue.jobs.handler.start()
        await queue.advance("1m")
        info = await handle.info()
        assert [(failure.attempt, failure.error.message) for failure in info.failures] == [(1, "no 1"), (2, "no 2")]
        assert info.attempt == 3


async def test_a_step_that_fails_often_and_says_much_keeps_a_short_history() -> None:
    tries = 0

    def loud() -> str:
        nonlocal tries
        tries += 1
        if tries <= 50:
            raise ValueError("x" * 9_000, ["y" * 100_000])
        return "at last"

    @job
    async def handler() -> str:
        return await run("loud", loud, retry=60, backoff=1)

    async with TestQueue(jobs=[handler]) as queue:
        handle = await queue.jobs.handler.start()
        await queue.advance("1h")
        assert await handle.result() == "at last"
        [step] = await queue.core.read(lambda tx: tx.steps(handle.id))
        assert len(step.failures or "") < 500_000
        failures = views.failures_view(step.failures)
        assert [(one["attempt"], one["left_out"]) for one in failures[9:11]] == [(10, 0), (31, 20)]
