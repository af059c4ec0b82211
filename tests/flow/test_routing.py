"""An event that was accepted starts its jobs, whoever dies while it is asked what to start."""

from __future__ import annotations

from typing import Any

import pytest

from taskrun import Queue, job, pipe
from taskrun.daemon.workers.worker_rpc import WorkerGone
from taskrun.engine import messages as m
from taskrun.engine.executor import executor
from taskrun.engine.executor.executor import Executor
from taskrun.model.errors import DaemonError
from taskrun.stores.base import Store
from taskrun.testing import TestQueue

p = pipe("p")


def picked(event: dict[str, int]) -> dict[str, int]:
    if event["n"] < 0:
        raise ValueError("it is refused")
    return {"n": event["n"]}


@job(trigger=[p.into(picked)])
async def starts(n: int) -> int:
    return n


async def results(queue: Queue) -> list[Any]:
    return [await entry.result() async for entry in queue.runs()]


async def test_an_event_whose_worker_dies_while_it_is_asked_starts_its_job_with_the_next_one(
    storage: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def die(self: Executor, message: m.Route) -> Any:
        raise WorkerGone("the other end of the pipe went before it answered")

    async with TestQueue([starts], [p], storage=storage) as queue:
        with monkeypatch.context() as patch:
            answers: dict[Any, Any] = executor._ANSWERS
            patch.setitem(answers, m.Route, die)
            await queue.pipes.p.send(n=7)
            await queue.settle()
        assert await results(queue) == []
    async with TestQueue([starts], [p], storage=storage) as queue:
        await queue.settle()
        assert await results(queue) == [7]


async def test_a_worker_that_answers_too_late_is_asked_again(storage: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """As one that was suspended for a while, and is not replaced."""

    async def give_up(self: Executor, message: m.Route) -> Any:
        raise DaemonError("the worker gave no answer within 8 seconds")

    async with TestQueue([starts], [p], storage=storage) as queue:
        with monkeypatch.context() as patch:
            answers: dict[Any, Any] = executor._ANSWERS
            patch.setitem(answers, m.Route, give_up)
            await queue.pipes.p.send(n=7)
            await queue.advance("3s")
        assert await results(queue) == []
        await queue.advance("2s")
        assert await results(queue) == [7]


async def test_an_event_that_nobody_can_be_asked_about_waits_for_who_can(storage: Store) -> None:
    async with TestQueue([starts], [p], storage=storage):
        pass  # the subscription is written down
    async with TestQueue([], [p], storage=storage) as queue:
        await queue.pipes.p.send(n=7)
        await queue.settle()
    async with TestQueue([starts], [p], storage=storage) as queue:
        await queue.settle()
        assert await results(queue) == [7]


async def test_an_event_that_user_code_refuses_is_done_with(storage: Store) -> None:
    async with TestQueue([starts], [p], storage=storage) as queue:
        await queue.pipes.p.send(n=-1)
        await queue.settle()
        assert await queue.core.journal.do(lambda t: t.tx.facts("route:")) == {}
