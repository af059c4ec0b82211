"""What a job refuses of its triggers starts nothing; it is kept, so that whoever looks at the jobs is told."""

from __future__ import annotations

import datetime as dt
from pathlib import Path
from typing import Any

import pytest

from taskrun import Cron, files, job, pipe
from taskrun.engine.core.known_files import FilesEntry
from taskrun.engine.core.queries.jobs import job_views
from taskrun.stores.base import Store
from taskrun.testing import TestQueue

START = dt.datetime(2026, 3, 1, tzinfo=dt.UTC)
DAY = dt.timedelta(days=1)
uploads = pipe("uploads")


@job(trigger=[uploads.into(lambda event: {"path": event["path"]})])
async def convert(path: str) -> None: ...


async def refused(queue: TestQueue, name: str) -> list[dict[str, Any]]:
    """Returns the refusals that the description of a job has."""
    executor = queue._executor
    assert executor is not None
    described = [
        {**one, "triggers": [*one["triggers"], *queue.core.files.topics().get(one["name"], [])]}
        for one in executor.description().jobs
    ]
    (found,) = [
        one["refused"] for one in await queue.core.read(lambda tx: job_views(tx, described)) if one["name"] == name
    ]
    return list(found)


async def test_an_event_that_does_not_fit_is_told_until_one_does(storage: Store) -> None:
    async with TestQueue([convert], [uploads], storage=storage, start=START) as queue:
        assert await refused(queue, "convert") == []
        await queue.advance("1h")
        sent = await queue.core.send("uploads", '{"file": "a"}')
        said = "its trigger failed: KeyError: 'path'"
        assert (await queue.core.triggers.started(sent))["convert"] == ([], said)
        await queue.advance("1h")
        one = {"trigger": "pipe:uploads", "at": "2026-03-01T01:00:00.000+00:00", "text": said, "over": None}
        assert await refused(queue, "convert") == [one]
        await queue.pipes.uploads.send(path="a")
        await queue.settle()
        assert await refused(queue, "convert") == [one | {"over": "2026-03-01T02:00:00.000+00:00"}]
        await queue.advance("1h")
        await queue.pipes.uploads.send(path=1)
        await queue.settle()
        (last,) = await refused(queue, "convert")
        assert (last["at"][:13], last["over"]) == ("2026-03-01T03", None)
        assert last["text"].startswith("invalid input for convert: path: ")


async def test_it_is_kept_over_a_restart_and_goes_with_the_trigger_and_in_time(storage: Store) -> None:
    async with TestQueue([convert], [uploads], storage=storage, start=START) as queue:
        await queue.pipes.uploads.send(file="a")
        await queue.settle()

    async with TestQueue([convert], [uploads], storage=storage, start=START + DAY) as queue:
        assert len(await refused(queue, "convert")) == 1

    @job(name="convert")
    async def by_hand_alone(path: str) -> None: ...

    async with TestQueue([by_hand_alone], storage=storage, start=START + DAY) as queue:
        assert await refused(queue, "convert") == []

    async with TestQueue([convert], [uploads], storage=storage, start=START + DAY * 40) as queue:
        assert len(await refused(queue, "convert")) == 1
        await queue.core.retention.prune(DAY.total_seconds() * 30)
        assert await refused(queue, "convert") == []


async def test_a_slot_that_its_job_refuses(storage: Store) -> None:
    odd = [True]

    def key(input: Any) -> str | None:
        if odd:
            raise ValueError("odd")
        return None

    @job(cron=Cron("0 * * * *"), key=key)
    async def tick() -> None: ...

    async with TestQueue([tick], storage=storage, start=START) as queue:
        await queue.advance("2h")
        one = {"trigger": "schedule:0 * * * *", "text": "job tick, option key: its function raised ValueError: odd"}
        (found,) = await refused(queue, "tick")
        assert found == one | {"at": "2026-03-01T02:00:00.000+00:00", "over": None}
        odd.clear()
        await queue.advance("1h")
        (found,) = await refused(queue, "tick")
        assert found["over"] == "2026-03-01T03:00:00.000+00:00"

        @job(name="tick")
        async def without() -> None: ...

    async with TestQueue([without], storage=storage, start=START + DAY) as queue:
        assert await refused(queue, "tick") == []


@pytest.mark.parametrize("how", ["code", "configuration"])
async def test_a_file_that_does_not_fit(
    how: str, storage: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "in").mkdir()
    inbox = files("in/*", settle=1)

    @job(trigger=[inbox.into(lambda event: {"size": event["size"] or "empty"})] if how == "code" else [])
    async def convert(size: int) -> None: ...

    async with TestQueue([convert], storage=storage, start=START) as queue:
        if how == "configuration":
            entry = FilesEntry(job="convert", patterns=("in/*",), field="size", input="{}")
            await queue.core.files.set([entry])
        (tmp_path / "in" / "a").touch()
        queue.core.files.look()
        await queue.advance("10s")
        (one,) = await refused(queue, "convert")
        assert one["trigger"] == "files:in/*"
        assert one["text"].startswith("a: invalid input for convert: size: expected int")
