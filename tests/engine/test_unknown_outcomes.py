"""A COMMIT that failed may have been written all the same: whichever it was, nothing is lost, doubled or left standing."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from taskrun import Queue, SqliteStorage, job, pipe, run, sleep

news = pipe("news")
executed: list[str] = []


async def note(name: str) -> str:
    executed.append(name)
    return name


@job
async def steps() -> list[str]:
    return [await run("one", note, "one"), await run("two", note, "two")]


@job
async def sleeper() -> str:
    await sleep(0.01)
    return await run("after", note, "after")


@job
async def parent() -> list[str]:
    result: list[str] = await steps.run()
    return result


@job(debounce=0.05)
async def calm() -> str:
    return await run("calm", note, "calm")


@job(trigger=[news.into(lambda event: {})])
async def told() -> str:
    return await run("told", note, "told")


class DoubtfulStorage(SqliteStorage):
    """Its n-th COMMIT that writes fails: before it is done, or after."""

    def __init__(self, path: Path, at: int, written: bool) -> None:
        super().__init__(path)
        self._at = at
        self._really = written

    def _commit(self, connection: Any, fns: Any, answers: Any) -> None:
        if self.written == self._at:
            self._at = -1
            if self._really:
                connection.execute("COMMIT")
            connection = Failing()
        super()._commit(connection, fns, answers)


class Failing:
    def execute(self, statement: str) -> None:
        raise sqlite3.OperationalError("disk I/O error")


async def by_run(queue: Queue, name: str) -> Any:
    return await queue.jobs[name].run()


async def by_event(queue: Queue, name: str) -> Any:
    await queue.pipes.news.send({})
    while not (found := [entry async for entry in queue.runs(job=name)]):
        await asyncio.sleep(0.005)
    return await found[0].result()


WAYS: dict[str, tuple[Callable[[Queue, str], Awaitable[Any]], Any, list[str]]] = {
    "steps": (by_run, ["one", "two"], ["one", "two"]),
    "sleeper": (by_run, "after", ["after"]),
    "parent": (by_run, ["one", "two"], ["one", "two"]),
    "calm": (by_run, "calm", ["calm"]),
    "told": (by_event, "told", ["told"]),
}


@pytest.mark.parametrize("written", [False, True], ids=["not written", "written"])
@pytest.mark.parametrize("name", WAYS)
async def test_whatever_became_of_a_commit_the_run_ends_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, written: bool
) -> None:
    monkeypatch.setattr("taskrun.engine.core.journal.RETRY_WAITS", (0.0,))
    way, result, trace = WAYS[name]
    for at in range(2, 12):
        executed.clear()
        storage = DoubtfulStorage(tmp_path / f"{at}.db", at, written)
        async with Queue(jobs=[steps, sleeper, parent, calm, told], pipes=[news], storage=storage) as queue:
            assert await asyncio.wait_for(way(queue, name), 15) == result, at
            assert len([entry async for entry in queue.runs(job=name)]) == 1, at
        assert executed == trace, at
