"""Jobs that are a plain `def`: in a thread, so that they never block the event loop."""

from __future__ import annotations

import asyncio
import threading
import time

import pytest

from taskrun import RunCancelled, RunFailed, current, job, log, now, progress, random, uuid
from taskrun.stores.base import Store
from taskrun.testing import TestQueue


async def test_a_sync_job_runs_in_a_thread_and_returns_its_output(storage: Store) -> None:
    @job
    def handler(number: int) -> list[object]:
        return [number * 2, threading.current_thread() is threading.main_thread()]

    async with TestQueue(jobs=[handler], storage=storage) as queue:
        assert await queue.jobs.handler.run(number=4) == [8, False]


async def test_a_sync_job_that_blocks_does_not_block_the_others() -> None:
    go = threading.Event()

    @job
    def blocking() -> str:
        assert go.wait(10)
        return "unblocked"

    @job
    async def quick() -> str:
        return "quick"

    async with TestQueue(jobs=[blocking, quick]) as queue:
        handle = await queue.jobs.blocking.start()
        assert await queue.jobs.quick.run() == "quick"
        go.set()
        assert await handle.result() == "unblocked"


async def test_a_sync_job_is_retried_and_fails_like_any_other() -> None:
    attempts: list[int] = []

    @job(retry=1, backoff="1m")
    def handler() -> None:
        attempts.append(current().attempt)
        raise ValueError("no")

    async with TestQueue(jobs=[handler]) as queue:
        handle = await queue.jobs.handler.start()
        await queue.advance("1h")
        with pytest.raises(RunFailed, match="no"):
            await handle.result()
        assert attempts == [1, 2]


async def test_values_progress_current_and_log_work_in_a_sync_job() -> None:
    @job
    def handler() -> list[str]:
        progress(1, 4)
        log.info("logged")
        print("printed")
        return [current().job, now().isoformat(), str(random() < 1), str(uuid().version)]

    async with TestQueue(jobs=[handler]) as queue:
        handle = await queue.jobs.handler.start()
        assert await handle.result() == ["handler", "2026-01-01T00:00:00+00:00", "True", "4"]
        assert (await handle.info()).progress["done"] == 1
        assert [line.text async for line in handle.log()] == ["INFO logged", "printed"]


async def test_a_sync_job_is_cancelled_at_once_though_its_thread_cannot_be() -> None:
    go = threading.Event()

    @job
    def handler() -> str:
        assert go.wait(10)
        return "too late"

    async with TestQueue(jobs=[handler]) as queue:
        handle = await queue.jobs.handler.start()
        while queue.executor.bodies.threads == 0:
            await asyncio.sleep(0.001)
        await handle.cancel()
        with pytest.raises(RunCancelled):
            await handle.result(timeout=5)
        go.set()
        time.sleep(0.01)
        assert await handle.status() == "cancelled"


async def test_a_generator_or_star_args_is_refused_at_definition() -> None:
    from taskrun import DefinitionError

    with pytest.raises(DefinitionError, match="generator"):

        @job
        def generates() -> object:
            yield 1

    with pytest.raises(DefinitionError, match="args"):

        @job
        async def many(*args: int) -> None: ...
