"""Cancelling a run in every state: `CancelledError` at its current wait, `finally` blocks, exactly one end."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from taskrun import RunCancelled, job, pipe, run, shell, sleep, thread
from taskrun.stores.base import Store
from taskrun.testing import TestQueue

news = pipe("news")


async def end_of(handle: Any) -> tuple[str, str]:
    info = await handle.info()
    return info.status, info.reason


CANCELLED = ("cancelled", "explicit")


async def test_a_queued_run_is_cancelled_without_ever_starting(storage: Store) -> None:
    started: list[int] = []

    @job(concurrency=1)
    async def handler(number: int) -> None:
        started.append(number)
        await run("work", asyncio.Event().wait)

    async with TestQueue(jobs=[handler], storage=storage) as queue:
        first, second = [await queue.jobs.handler.start(number=number) for number in (1, 2)]
        await queue.settle()
        assert await second.status() == "queued"
        assert await second.cancel() is True
        assert await end_of(second) == CANCELLED
        await first.cancel()
        await queue.settle()
        assert started == [1]


async def test_a_scheduled_run_is_cancelled_in_its_backoff(storage: Store) -> None:
    attempts: list[int] = []

    @job(backoff="1h")
    async def handler() -> None:
        attempts.append(1)
        raise ValueError("no")

    async with TestQueue(jobs=[handler], storage=storage) as queue:
        handle = await queue.jobs.handler.start()
        await queue.settle()
        assert await handle.status() == "scheduled"
        await handle.cancel()
        await queue.advance("1d")
        assert await end_of(handle) == CANCELLED
        assert len(attempts) <= 2, "a replay is allowed, so that `finally` blocks may run; no retry"


async def test_a_running_run_is_cancelled_in_the_step_in_flight(storage: Store) -> None:
    seen: list[str] = []

    @job
    async def handler() -> None:
        async def work() -> None:
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                seen.append("step")
                raise

        try:
            await run("work", work)
        except asyncio.CancelledError:
            seen.append("handler")
            raise

    async with TestQueue(jobs=[handler], storage=storage) as queue:
        handle = await queue.jobs.handler.start()
        await queue.settle()
        await handle.cancel()
        with pytest.raises(RunCancelled):
            await handle.result()
        assert seen == ["step", "handler"]
        assert [entry.status for entry in await handle.steps()] == ["cancelled"]


@pytest.mark.parametrize("duration", ["30s", "1d"], ids=["resident", "evicted"])
async def test_a_sleeping_run_is_cancelled_at_its_sleep(storage: Store, duration: str) -> None:
    seen: list[str] = []

    @job
    async def handler() -> None:
        await run("before", seen.append, "before")
        try:
            await sleep(duration)
        finally:
            await run("after", seen.append, "after")

    async with TestQueue(jobs=[handler], storage=storage) as queue:
        handle = await queue.jobs.handler.start()
        await queue.settle()
        assert await handle.status() == "waiting"
        await handle.cancel()
        await queue.settle()
        assert await end_of(handle) == CANCELLED
        assert seen == ["before", "after"]


async def test_a_run_that_waits_for_an_event_is_cancelled_and_the_event_is_nobodys(storage: Store) -> None:
    @job
    async def handler() -> None:
        await news.wait_for({"about": "songs"})

    async with TestQueue(jobs=[handler], pipes=[news], storage=storage) as queue:
        handle = await queue.jobs.handler.start()
        await queue.settle()
        await handle.cancel()
        await queue.pipes.news.send(about="songs")
        await queue.settle()
        assert await end_of(handle) == CANCELLED


async def test_a_sleeping_run_is_cancelled_right_after_a_restart(storage: Store) -> None:
    seen: list[str] = []

    @job
    async def handler() -> None:
        await run("before", seen.append, "before")
        try:
            await sleep("1d")
        except asyncio.CancelledError:
            seen.append("cancelled")
            raise
        finally:
            await run("after", seen.append, "after")

    async with TestQueue(jobs=[handler], storage=storage) as queue:
        handle = await queue.jobs.handler.start()
        await queue.settle()
    async with TestQueue(jobs=[handler], storage=storage) as queue:
        handle = await queue.get(handle.id)
        assert await handle.cancel() is True
        await queue.settle()
        assert await end_of(handle) == CANCELLED
        assert seen == ["before", "cancelled", "after"]


async def test_a_cancel_is_seen_where_the_handler_was_after_branches_and_races(storage: Store) -> None:
    seen: list[str] = []

    async def work(name: str) -> str:
        seen.append(name)
        return name

    @job
    async def handler() -> None:
        race = [asyncio.ensure_future(run("quick", work, "quick")), asyncio.ensure_future(sleep("2d"))]
        _, losers = await asyncio.wait(race, return_when=asyncio.FIRST_COMPLETED)
        for loser in losers:
            loser.cancel()
        await asyncio.gather(run("a", work, "a"), run("b", work, "b"))
        try:
            await sleep("1d")
        finally:
            await run("undo", work, "undo")

    async with TestQueue(jobs=[handler], storage=storage) as queue:
        handle = await queue.jobs.handler.start()
        await queue.settle()
        assert await handle.status() == "waiting"
    async with TestQueue(jobs=[handler], storage=storage) as queue:
        handle = await queue.get(handle.id)
        await handle.cancel()
        await queue.settle()
        assert await end_of(handle) == CANCELLED
        assert seen == ["quick", "a", "b", "undo"]


async def test_a_cancel_after_an_edit_that_removed_a_step_still_runs_finally(storage: Store) -> None:
    seen: list[str] = []

    @job(name="handler")
    async def old() -> None:
        await run("gone", seen.append, "gone")
        await sleep("1d")

    @job(name="handler")
    async def new() -> None:
        try:
            await sleep("1d")
        finally:
            await run("undo", seen.append, "undo")

    async with TestQueue(jobs=[old], storage=storage) as queue:
        handle = await queue.jobs.handler.start()
        await queue.settle()
    async with TestQueue(jobs=[new], storage=storage) as queue:
        handle = await queue.get(handle.id)
        await handle.cancel()
        await queue.settle()
        assert await end_of(handle) == CANCELLED
        assert seen == ["gone", "undo"]


async def test_durable_steps_in_finally_go_on_after_a_restart_in_their_middle(storage: Store) -> None:
    seen: list[str] = []
    hold = asyncio.Event()

    async def slow() -> None:
        seen.append("slow")
        await hold.wait()

    @job
    async def handler() -> None:
        try:
            await sleep("1d")
        finally:
            await run("one", seen.append, "one")
            await run("slow", slow)
            await run("two", seen.append, "two")

    async with TestQueue(jobs=[handler], storage=storage) as queue:
        handle = await queue.jobs.handler.start()
        await queue.settle()
        await handle.cancel()
        await queue.settle()
        assert seen == ["one", "slow"]
    hold.set()
    async with TestQueue(jobs=[handler], storage=storage) as queue:
        await queue.settle()
        assert await end_of(await queue.get(handle.id)) == CANCELLED
        assert seen == ["one", "slow", "slow", "two"]


async def test_finally_blocks_get_the_grace_period_and_no_more() -> None:
    seen: list[str] = []

    @job
    async def handler() -> None:
        try:
            await sleep("1d")
        finally:
            await sleep("8s")
            seen.append("in time")
            await sleep("8s")
            seen.append("too late")

    async with TestQueue(jobs=[handler], grace=10) as queue:
        handle = await queue.jobs.handler.start()
        await queue.settle()
        await handle.cancel()
        await queue.advance("9s")
        assert await handle.status() != "cancelled"
        await queue.advance("1s")
        assert await end_of(handle) == CANCELLED
        await queue.advance("1d")
        assert seen == ["in time"]


async def test_a_handler_that_swallows_the_cancel_is_cancelled_all_the_same() -> None:
    @job
    async def handler() -> str:
        while True:
            try:
                await sleep("1h")
            except asyncio.CancelledError:
                return "pretends"

    async with TestQueue(jobs=[handler]) as queue:
        handle = await queue.jobs.handler.start()
        await queue.settle()
        await handle.cancel()
        await queue.settle()
        assert await end_of(handle) == CANCELLED
        assert (await handle.info()).output is None


async def test_a_handler_that_never_lets_go_is_given_up_after_its_grace() -> None:
    let_go = asyncio.Event()

    @job
    async def handler() -> None:
        while not let_go.is_set():
            try:
                await asyncio.sleep(0.01)
            except asyncio.CancelledError:
                continue

    async with TestQueue(jobs=[handler], grace=10) as queue:
        handle = await queue.jobs.handler.start()
        await queue.settle()
        await handle.cancel()
        await queue.advance("10s")
        with pytest.raises(RunCancelled):
            await handle.result(timeout=5)
        let_go.set()


async def test_an_error_in_finally_does_not_change_the_end() -> None:
    @job
    async def handler() -> None:
        try:
            await sleep("1h")
        finally:
            raise ValueError("in finally")

    async with TestQueue(jobs=[handler]) as queue:
        handle = await queue.jobs.handler.start()
        await queue.settle()
        await handle.cancel()
        await queue.advance("1d")
        assert await end_of(handle) == CANCELLED


async def test_a_run_has_exactly_one_end_however_often_it_is_cancelled() -> None:
    ends: list[str] = []

    @job
    async def handler() -> None:
        await sleep("1h")

    async with TestQueue(jobs=[handler]) as queue:
        queue.on("settled", lambda event: ends.append(event.reason or ""))
        handle = await queue.jobs.handler.start()
        await queue.settle()
        await asyncio.gather(*(handle.cancel(f"reason {number}") for number in range(5)))
        await queue.settle()
        assert ends == ["reason 0"]
        assert await handle.cancel("late") is False
        assert await end_of(handle) == ("cancelled", "reason 0")


async def test_cancel_of_an_ended_run_changes_nothing(storage: Store) -> None:
    @job
    async def handler() -> int:
        return 1

    async with TestQueue(jobs=[handler], storage=storage) as queue:
        handle = await queue.jobs.handler.start()
        assert await handle.result() == 1
        assert await handle.cancel() is False
        assert await handle.status() == "succeeded"


@pytest.mark.parametrize("kind", ["shell", "thread"])
async def test_processes_of_the_step_in_flight_are_ended(kind: str) -> None:
    import time

    @job
    async def handler() -> None:
        await (shell("sleep 600") if kind == "shell" else thread("long", time.sleep, 600))

    async with TestQueue(jobs=[handler], grace=0) as queue:
        handle = await queue.jobs.handler.start()
        while queue.executor.bodies.threads == 0:
            await asyncio.sleep(0.01)
        await handle.cancel()
        with pytest.raises(RunCancelled):
            await handle.result(timeout=20)
