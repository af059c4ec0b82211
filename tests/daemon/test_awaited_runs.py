"""What the stream `wait` tells: each end once, each pause where that is wanted, whatever was lost on the way."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from types import SimpleNamespace
from typing import Any, cast

import pytest

from taskrun import job, pipe
from taskrun.daemon.clients.stream_requests import Wait, wait
from taskrun.engine.core.queries import views
from taskrun.engine.core.subscriptions import Lagged
from taskrun.model.records import RunFilter
from taskrun.testing import TestQueue

news = pipe("news")


@job
async def waits() -> Any:
    return await news.wait_for()


def waiting(queue: TestQueue, runs: list[Any], paused: bool = False) -> AsyncGenerator[dict[str, Any], None]:
    return wait(cast(Any, SimpleNamespace(core=queue.core)), Wait([run.id for run in runs], paused))


async def told(stream: AsyncGenerator[dict[str, Any], None], count: int) -> list[tuple[str, str]]:
    async with asyncio.timeout(20):
        items = [await anext(stream) for _ in range(count)]
    return [(item["id"], item["status"]) for item in items]


async def test_each_end_is_told_once_with_what_a_listing_shows_of_it() -> None:
    async with TestQueue([waits], [news]) as queue:
        first, second = [await queue.jobs.waits.start() for _ in range(2)]
        await first.cancel()
        stream = waiting(queue, [first, second])
        assert await told(stream, 1) == [(first.id, "cancelled")]
        ending = asyncio.ensure_future(anext(stream))
        await queue.settle()
        assert not ending.done()
        await queue.pipes.news.send(text="x" * 200_000)
        await queue.settle()
        (kept,) = await queue.core.read(lambda tx: tx.runs(RunFilter(id=second.id, brief=True)))
        assert await asyncio.wait_for(ending, 20) == views.run_view(kept)
        assert [one async for one in stream] == []


async def test_a_pause_is_told_where_it_is_wanted_each_time() -> None:
    async with TestQueue([waits], [news]) as queue:
        run = await queue.jobs.waits.start()
        await queue.settle()
        stream = waiting(queue, [run], paused=True)
        for _ in range(2):
            told_soon = asyncio.ensure_future(told(stream, 1))
            await queue.settle()
            await run.pause()
            assert await told_soon == [(run.id, "paused")]
            await run.resume()
            await queue.settle()
        await queue.pipes.news.send(n=1)
        assert await told(stream, 1) == [(run.id, "succeeded")]


async def test_what_was_lost_is_looked_up(monkeypatch: pytest.MonkeyPatch) -> None:
    async with TestQueue([waits], [news]) as queue:
        runs = [await queue.jobs.waits.start() for _ in range(3)]
        stream = waiting(queue, runs)
        first = asyncio.ensure_future(told(stream, 3))
        await queue.settle()
        with monkeypatch.context() as lost:
            lost.setattr(queue.core.bus, "_subscriptions", [])
            for run in runs:
                await run.cancel()
            await queue.settle()
        assert not first.done()
        queue.core.bus.publish(Lagged())
        assert sorted(await first) == sorted((run.id, "cancelled") for run in runs)
        assert [one async for one in stream] == []
        assert not queue.core.bus.watched
