"""What a stream of changes is of: runs of one job, kept no longer than they can still change."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any, cast

import pytest

import taskrun.daemon.clients.stream_requests as module
from taskrun import job, pipe
from taskrun.daemon.clients.stream_requests import Watch, WatchedRuns, watch
from taskrun.testing import TestQueue

news = pipe("news")


@job
async def waits() -> Any:
    return await news.wait_for()


@job
async def other() -> None: ...


async def test_runs_that_have_ended_are_not_kept() -> None:
    async with TestQueue([waits, other], [news]) as queue:
        watched = WatchedRuns(Watch(job="waits"))
        async with queue.core.bus.subscribe(watched):
            runs = [await queue.jobs.waits.start() for _ in range(3)]
            await queue.jobs.other.run()
            await queue.settle()
            assert watched.unfinished == {run.id for run in runs}
            await runs[0].cancel()
            await queue.settle()
            assert watched.unfinished == {run.id for run in runs[1:]}
            await queue.pipes.news.send(n=1)
            await queue.settle()
            assert watched.unfinished == set()


async def test_the_end_of_a_run_is_told_after_the_ends_of_its_steps() -> None:
    async with TestQueue([waits, other], [news]) as queue:
        run = await queue.jobs.waits.start()
        await queue.settle()
        items = watch(cast(Any, SimpleNamespace(core=queue.core)), Watch(job="waits"))
        while (await anext(items))["kind"] != "ready":
            pass
        await queue.jobs.other.run()
        await run.cancel()
        await queue.settle()
        told = []
        async with asyncio.timeout(20):
            async for item in items:
                told.append((item["kind"], item[item["kind"]]["status"]))
                if told[-1] == ("run", "cancelled"):
                    break
        assert told[-2] == ("step", "cancelled")
        assert queue.core.bus.watched
        await items.aclose()
        assert not queue.core.bus.watched


async def test_a_run_that_ends_while_the_snapshot_is_sent_is_not_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    watched = WatchedRuns(Watch(job="waits"))
    monkeypatch.setattr(module, "WatchedRuns", lambda want: watched)
    async with TestQueue([waits], [news]) as queue:
        runs = [await queue.jobs.waits.start() for _ in range(3)]
        await queue.settle()
        items = watch(cast(Any, SimpleNamespace(core=queue.core)), Watch(job="waits"))
        assert (await anext(items))["run"]["id"] == runs[2].id
        await queue.pipes.news.send(n=1)  # a slow reader has the rest of the page still before it
        await queue.settle()
        while (await anext(items))["kind"] != "ready":
            pass
        assert watched.unfinished == set()
        await items.aclose()
