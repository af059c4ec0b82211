"""`[[schedule]]` in `taskrun.toml` is picked up without a restart; a file that is wrong changes nothing."""

from __future__ import annotations

import asyncio
import datetime as dt
from pathlib import Path

import pytest

from taskrun import job
from taskrun.daemon import schedule_file
from taskrun.daemon.schedule_file import following
from taskrun.engine.core.schedules import Entry
from taskrun.model.config import Config, load
from taskrun.testing import TestQueue

HOURLY = '[[schedule]]\njob = "backup"\ncron = "0 * * * *"\ninput = {{ path = "{path}" }}\n'


async def test_a_change_of_the_file_is_taken_and_a_mistake_is_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(schedule_file, "POLL", 0.005)
    config = tmp_path / "taskrun.toml"
    config.write_text(HOURLY.format(path="/a"))
    seen: list[str] = []

    @job
    async def backup(path: str) -> None:
        seen.append(path)

    def read() -> Config:
        return load(config, {})

    async def until(what: str) -> None:
        async with asyncio.timeout(10):
            while what not in caplog.text and what not in str(queue.core.schedules._active):
                await asyncio.sleep(0.005)

    async with TestQueue([backup], start=dt.datetime(2026, 3, 1, tzinfo=dt.UTC)) as queue:
        async with following(queue.core.schedules, config, read):
            await until("/a")
            await queue.advance("1h")
            config.write_text(HOURLY.format(path="/bcd"))
            await until("/bcd")
            await queue.advance("1h")
            config.write_text(HOURLY.format(path="/efghi").replace("0 *", "99 *"))
            await until("stay as they were")
            await queue.advance("1h")
        assert seen == ["/a", "/bcd", "/bcd"]
    assert 'the minute field "99" is wrong' in caplog.text


async def test_slots_are_left_alone_until_a_worker_has_the_job() -> None:
    @job
    async def backup() -> None: ...

    async with TestQueue([], start=dt.datetime(2026, 3, 1, tzinfo=dt.UTC)) as queue:
        await queue.core.schedules.set([Entry(job="backup", cron="0 * * * *", catch_up="all")])
        await queue.advance("3h")
        [view] = await queue.core.schedules.views()
        assert view["last"] is None
        [active] = queue.core.schedules._active.values()
        assert active.kept is not None
        assert active.kept.seen == queue.now.timestamp() - 3 * 3600
