"""The timeout of a run: from its first start to its end, across attempts and restarts."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from taskrun import RunFailed, RunTimeout, job, run, sleep
from taskrun.stores.base import Store
from taskrun.testing import TestQueue


async def ended(handle: Any) -> tuple[str, str, str]:
    info = await handle.info()
    return info.status, info.reason, info.error.type


TIMEOUT = ("failed", "timeout", "taskrun.RunTimeout")


async def test_a_run_that_overruns_while_it_waits_fails_with_reason_timeout(storage: Store) -> None:
    @job(timeout="10m")
    async def handler() -> None:
        await sleep("1h")

    async with TestQueue(jobs=[handler], storage=storage) as queue:
        handle = await queue.jobs.handler.start()
        await queue.advance("9m")
        assert await handle.status() == "waiting"
        await queue.advance("1m")
        assert await ended(handle) == TIMEOUT
        with pytest.raises(RunTimeout, match="10"):
            await handle.result()


async def test_a_run_that_overruns_while_it_works_is_stopped() -> None:
    stopped: list[str] = []

    @job(timeout="10m")
    async def handler() -> None:
        async def work() -> None:
            try:
                await asyncio.Event().wait()
            finally:
                stopped.append("work")

        await run("work", work)

    async with TestQueue(jobs=[handler]) as queue:
        handle = await queue.jobs.handler.start()
        await queue.advance("10m")
        assert await ended(handle) == TIMEOUT
        assert stopped == ["work"]


async def test_finally_blocks_run_at_a_timeout() -> None:
    cleaned: list[str] = []

    @job(timeout="10m")
    async def handler() -> None:
        try:
            await sleep("1h")
        finally:
            await run("clean", lambda: cleaned.append("clean"))

    async with TestQueue(jobs=[handler]) as queue:
        handle = await queue.jobs.handler.start()
        await queue.advance("10m")
        assert await ended(handle) == TIMEOUT
        assert cleaned == ["clean"]


async def test_the_timeout_counts_across_attempts() -> None:
    attempts: list[float] = []

    @job(timeout="10m", retry=99, backoff="4m")
    async def handler() -> None:
        attempts.append(queue.clock.now())
        raise ValueError("no")

    async with TestQueue(jobs=[handler]) as queue:
        handle = await queue.jobs.handler.start()
        await queue.advance("1h")
        assert await ended(handle) == TIMEOUT
        assert len(attempts) == 3


async def test_the_timeout_counts_across_restarts(storage: Store) -> None:
    @job(timeout="10m")
    async def handler() -> None:
        await sleep("1h")

    async with TestQueue(jobs=[handler], storage=storage) as queue:
        handle = await queue.jobs.handler.start()
        await queue.advance("6m")
        later = queue.now
    async with TestQueue(jobs=[handler], storage=storage, start=later) as queue:
        handle = await queue.get(handle.id)
        await queue.advance("3m")
        assert await handle.status() == "waiting"
        await queue.advance("1m")
        assert await ended(handle) == TIMEOUT


async def test_a_timeout_that_passed_while_nobody_ran_ends_the_run_at_the_next_start(storage: Store) -> None:
    @job(timeout="10m")
    async def handler() -> None:
        await sleep("1h")

    async with TestQueue(jobs=[handler], storage=storage) as queue:
        handle = await queue.jobs.handler.start()
        await queue.settle()
        later = queue.clock.now() + 86_400
    async with TestQueue(jobs=[handler], storage=storage, start=later) as queue:
        await queue.settle()
        assert await ended(await queue.get(handle.id)) == TIMEOUT


async def test_the_timeout_begins_with_the_start_not_with_the_trigger() -> None:
    @job(timeout="10m", concurrency=1)
    async def handler() -> str:
        async def work() -> None:
            await queue.clock.sleep(8 * 60)

        await run("work", work)
        return "done"

    async with TestQueue(jobs=[handler]) as queue:
        handles = [await queue.jobs.handler.start() for _ in range(3)]
        await queue.advance("1h")
        assert [await handle.status() for handle in handles] == ["succeeded"] * 3


async def test_a_run_that_ends_in_time_is_left_alone_later() -> None:
    @job(timeout="10m")
    async def handler() -> str:
        await sleep("9m")
        return "done"

    async with TestQueue(jobs=[handler]) as queue:
        handle = await queue.jobs.handler.start()
        await queue.advance("1d")
        assert await handle.status() == "succeeded"


async def test_a_timeout_may_depend_on_the_input() -> None:
    @job(timeout=lambda input: input["limit"])
    async def handler(limit: str) -> None:
        await sleep("5m")

    async with TestQueue(jobs=[handler]) as queue:
        handles = [await queue.jobs.handler.start(limit=limit) for limit in ("1m", "10m")]
        await queue.advance("1h")
        assert [await handle.status() for handle in handles] == ["failed", "succeeded"]


async def test_a_child_that_overruns_is_run_timeout_in_its_parent() -> None:
    @job(timeout="1m")
    async def child() -> None:
        await sleep("1h")

    @job
    async def parent() -> str:
        try:
            await child.run()
        except RunTimeout as error:
            return error.error_type
        except RunFailed:
            return "failed"
        return "fine"

    async with TestQueue(jobs=[parent, child]) as queue:
        handle = await queue.jobs.parent.start()
        await queue.advance("1h")
        assert await handle.result() == "taskrun.RunTimeout"


async def test_a_handler_that_swallows_the_timeout_fails_all_the_same() -> None:
    @job(timeout="1m")
    async def handler() -> str:
        try:
            await sleep("1h")
        except asyncio.CancelledError:
            pass
        return "pretends"

    async with TestQueue(jobs=[handler]) as queue:
        handle = await queue.jobs.handler.start()
        await queue.advance("1h")
        assert await ended(handle) == TIMEOUT
