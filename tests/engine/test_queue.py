"""The life of a `Queue`: starts and closes that cross each other or are cut off, and settings that cannot be."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from taskrun import DurationInvalid, JournalUnavailable, Queue, SqliteStorage, TaskrunError, job
from taskrun.engine.core.core import Core
from taskrun.stores.base import Store


def exclusive(folder: Path) -> SqliteStorage:
    return SqliteStorage(folder / "journal.db", synchronous="normal", exclusive=True)


@job
async def answer() -> int:
    return 42


async def test_a_queue_that_is_started_twice_is_one_engine(tmp_path: Path) -> None:
    queue = Queue(jobs=[answer], storage=exclusive(tmp_path))
    await asyncio.gather(queue.start(), queue.start())
    await queue.start()
    assert await queue.jobs.answer.run() == 42
    await queue.close()
    async with Queue(jobs=[answer], storage=exclusive(tmp_path)) as other:  # so that none of it is left
        assert await other.jobs.answer.run() == 42


@pytest.mark.parametrize("turns", [0, 1, 2, 5])
async def test_a_start_that_is_cancelled_leaves_the_journal_closed(tmp_path: Path, turns: int) -> None:
    queue = Queue(jobs=[answer], storage=exclusive(tmp_path))
    starting = asyncio.create_task(queue.start())
    for _ in range(turns):
        await asyncio.sleep(0)
    starting.cancel()
    await asyncio.wait([starting])
    async with Queue(jobs=[answer], storage=exclusive(tmp_path)) as other:
        assert await other.jobs.answer.run() == 42


async def test_a_start_that_failed_can_be_tried_again(tmp_path: Path) -> None:
    async with Queue(jobs=[answer], storage=exclusive(tmp_path)):
        late = Queue(jobs=[answer], storage=exclusive(tmp_path))
        with pytest.raises(TaskrunError, match="another process has it open"):
            await late.start()
        with pytest.raises(JournalUnavailable, match="not running"):
            await late.jobs.answer.start()
    async with late:
        assert await late.jobs.answer.run() == 42


async def test_a_start_that_fails_once_the_journal_is_open_leaves_no_engine_and_nobody_waiting(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def refuse(core: Core, peer: object) -> None:
        raise RuntimeError("no")

    queue = Queue(jobs=[answer], storage=exclusive(tmp_path))
    waiting = asyncio.ensure_future(queue.ready)
    with monkeypatch.context() as broken:
        broken.setattr(Core, "join", refuse)
        with pytest.raises(RuntimeError, match="no"):
            await queue.start()
    with pytest.raises(RuntimeError, match="no"):
        await waiting
    async with Queue(jobs=[answer], storage=exclusive(tmp_path)) as other:  # nobody has the journal open
        assert await other.jobs.answer.run() == 42
    async with queue:
        await queue.ready


async def test_a_handler_may_close_its_own_queue(storage: Store) -> None:
    opened: list[Queue] = []

    @job
    async def closes() -> str:
        if len(opened) == 1:
            await opened[0].close()
        return "done"

    opened.append(Queue(jobs=[closes], storage=storage, grace=0))
    await opened[0].start()
    handle = await opened[0].jobs.closes.start()
    async with asyncio.timeout(10):
        with pytest.raises(JournalUnavailable):
            await handle.result()
        await opened[0].close()
    async with Queue(jobs=[closes], storage=storage) as queue:
        opened.append(queue)
        assert await (await queue.get(handle.id)).result(timeout=10) == "done"


async def test_a_close_goes_on_when_its_caller_is_cancelled(storage: Store) -> None:
    cancelled, ended = asyncio.Event(), asyncio.Event()

    @job
    async def slow() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            cancelled.set()
            await ended.wait()

    queue = Queue(jobs=[slow], storage=storage, grace=0.1)
    await queue.start()
    handle = await queue.jobs.slow.start()
    while await handle.status() != "running":
        await asyncio.sleep(0)
    closing = asyncio.create_task(queue.close())
    await asyncio.sleep(0)
    closing.cancel()
    await asyncio.wait([closing])
    ended.set()
    await queue.close(grace=0)
    with pytest.raises(JournalUnavailable):
        await handle.status()


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"concurrency": 0}, "concurrency of Queue must be a whole number of at least 1, not 0"),
        ({"concurrency": "3"}, "concurrency"),
        ({"resident": -1}, "resident"),
        ({"max_payload": 0}, "max_payload"),
        ({"lease": 0}, "lease of Queue must be more than 0"),
        ({"lease": "soon"}, "lease"),
        ({"grace": -1}, "grace"),
        ({"storage": "queue.db"}, "storage must be a MemoryStorage, a SqliteStorage or a PostgresStorage"),
    ],
)
def test_a_setting_that_cannot_be_is_refused_with_its_name(settings: dict[str, Any], says: str) -> None:
    with pytest.raises((TaskrunError, DurationInvalid), match=says):
        Queue(**settings)
