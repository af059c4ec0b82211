"""`[[schedule]]` in `taskrun.toml` is picked up without a restart; a file that is wrong changes nothing."""

from __future__ import annotations

import asyncio
import datetime as dt
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from taskrun import MemoryStorage, job
from taskrun.daemon.watch import schedule_file
from taskrun.daemon.watch.schedule_file import ScheduleFile
from taskrun.daemon.workers.worker_pool import NO_JOBS
from taskrun.engine.core.facts import TABLES
from taskrun.engine.core.schedule_due import Entry
from taskrun.engine.core.schedules import Active
from taskrun.model.errors import ConfigError
from taskrun.rules.schedule_tables import read_config
from taskrun.testing import TestQueue
from tests.waiting import until_async

HOURLY = '[[schedule]]\njob = "backup"\ncron = "0 * * * *"\ninput = {{ path = "{path}" }}\n'
PTH = "input.pth: unknown field, did you mean path?; input.path: is required"


class Workers:
    """A worker that is there."""

    description = NO_JOBS

    async def ready(self) -> None:
        """It is."""


@job
async def backup(path: str) -> None: ...


@asynccontextmanager
async def project(config: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[tuple[TestQueue, ScheduleFile]]:
    """A queue with the job, and the schedules of a file."""
    monkeypatch.setattr(schedule_file, "POLL", 0.005)
    async with TestQueue([backup], start=dt.datetime(2026, 3, 1, tzinfo=dt.UTC)) as queue:
        yield queue, ScheduleFile(queue.core, Workers(), config, lambda: read_config(config, {}))


async def inputs(queue: TestQueue) -> list[Any]:
    return [run.input async for run in queue.runs()]


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        (("0 *", "99 *"), '[[schedule]] cron: cron "99 * * * *": the minute field "99" is wrong'),
        (("cron =", 'timezone = "Berlin"\ncron ='), '[[schedule]] timezone: unknown time zone "Berlin"'),
        (("path =", "pth ="), "[[schedule]] input.pth: unknown field"),
        (('"/a"', "5"), "[[schedule]] input.path: expected str, got int"),
        (("cron =", "corn ="), "[[schedule]] unknown key corn; did you mean cron?"),
        (("[[schedule]]", "[taskrun]\ngrace = 5\n[[shedule]]"), "unknown key shedule"),
        (("[[schedule]]", "[[schedule]"), "broken TOML"),
    ],
)
async def test_a_mistake_changes_nothing_and_is_kept_until_it_is_mended(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    change: tuple[str, str],
    problem: str,
) -> None:
    config, good = tmp_path / "taskrun.toml", HOURLY.format(path="/a")
    config.write_text(good)
    async with project(config, monkeypatch) as (queue, file):
        await file.begin()
        async with file.following():
            await queue.advance("1h")
            config.write_text(good.replace(*change) + "\n# longer")
            await until_async(lambda: file.problem)
            await queue.advance("1h")
            assert problem in file.problem
            assert problem in caplog.text
            assert str(config) in file.problem
            config.write_text(HOURLY.format(path="/mended"))
            await until_async(lambda: not file.problem)
            await queue.advance("1h")
        assert await inputs(queue) == [{"path": "/mended"}, {"path": "/a"}, {"path": "/a"}]


async def test_a_schedule_of_the_file_says_what_becomes_of_missed_slots(tmp_path: Path) -> None:
    config = tmp_path / "taskrun.toml"
    config.write_text(HOURLY.format(path="/a") + 'catch_up = "all"\n' + HOURLY.format(path="/b"))
    storage, start = MemoryStorage(), dt.datetime(2026, 3, 1, tzinfo=dt.UTC)
    for hours, paths in ((0, []), (3.5, ["/a", "/a", "/a"])):
        async with TestQueue([backup], storage=storage, start=start + dt.timedelta(hours=hours)) as queue:
            await ScheduleFile(queue.core, Workers(), config, lambda: read_config(config, {})).begin()
            await queue.settle()
            assert [one["path"] for one in await inputs(queue)] == paths


async def test_a_file_that_is_wrong_at_the_start_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = tmp_path / "taskrun.toml"
    config.write_text(HOURLY.format(path="/a") + HOURLY.format(path="/b").replace("path =", "pth ="))
    async with project(config, monkeypatch) as (queue, file):
        with pytest.raises(ConfigError, match=r"\[\[schedule\]\] 2 input.pth: unknown field"):
            await file.begin()
        assert file.inputs == {"[[schedule]] 2": f"{config}: [[schedule]] 2 {PTH}"}
        assert await queue.core.schedules.views() == []


async def test_a_schedule_of_a_job_that_is_not_there_is_no_mistake(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = tmp_path / "taskrun.toml"
    config.write_text(HOURLY.format(path="/a").replace("backup", "nobody"))
    async with project(config, monkeypatch) as (queue, file):
        await file.begin()
        assert [view["job"] for view in await queue.core.schedules.views()] == ["nobody"]


async def test_inputs_are_checked_later_when_no_worker_comes_up_in_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = tmp_path / "taskrun.toml"
    config.write_text(HOURLY.format(path="/a").replace("path =", "pth ="))
    monkeypatch.setattr(schedule_file, "JOBS_WITHIN", 0.01)
    monkeypatch.setattr(Workers, "ready", lambda self: asyncio.Event().wait())
    async with project(config, monkeypatch) as (_, file):
        await file.begin()
        async with file.following():
            await until_async(lambda: file.problem)
        assert "input.pth" in file.problem


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


async def test_who_asks_is_answered_while_the_disk_refuses_to_take_the_file_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = tmp_path / "taskrun.toml"
    config.write_text(HOURLY.format(path="/data"))
    async with project(config, monkeypatch) as (queue, file):
        monkeypatch.setattr(schedule_file, "CHECKED_WITHIN", 0.01)
        take, free = queue.core.schedules.set, asyncio.Event()

        async def late(*args: Any) -> None:
            await free.wait()
            await take(*args)

        monkeypatch.setattr(queue.core.schedules, "set", late)
        assert await file.problems() == {"problem": "", "inputs": {}}
        assert await queue.core.schedules.views() == []
        free.set()  # what was begun for the one who asked goes on
        await until_async(lambda: queue.core.schedules._active)
        assert [view["job"] for view in await queue.core.schedules.views()] == ["backup"]


async def test_a_check_that_fails_is_made_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    config = tmp_path / "taskrun.toml"
    config.write_text(HOURLY.format(path="/a"))
    async with project(config, monkeypatch) as (queue, file):
        take, failures = queue.core.files.set, iter([OSError("too many open files")])

        async def fails_once(*args: Any) -> None:
            for failure in failures:
                raise failure
            await take(*args)

        monkeypatch.setattr(queue.core.files, "set", fails_once)
        async with file.following():
            await until_async(lambda: queue.core.schedules._active)
    assert "too many open files" in caplog.text


async def test_a_tick_looks_at_the_next_schedule_and_at_no_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = tmp_path / "taskrun.toml"
    tables = (f'[[schedule]]\njob = "backup"\ncron = "{n} 5 * * *"\ninput = {{ path = "/{n}" }}\n' for n in range(60))
    config.write_text("".join(tables))
    async with project(config, monkeypatch) as (queue, file):
        await file.begin()
        asked: list[float] = []
        upcoming = Active.next
        monkeypatch.setattr(Active, "next", lambda self, now: asked.append(now) or upcoming(self, now))  # type: ignore[func-returns-value]
        for _ in range(50):  # as often as any timer wakes
            queue.core.schedules.fire()
            assert queue.core.schedules.next() is not None
        assert asked == []


async def test_what_becomes_of_missed_slots_may_be_edited(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = tmp_path / "taskrun.toml"
    config.write_text(HOURLY.format(path="/a"))
    async with project(config, monkeypatch) as (queue, file), file.following():
        await until_async(lambda: queue.core.schedules._active)
        config.write_text(HOURLY.format(path="/a") + 'catch_up = "all"\n')
        await until_async(lambda: [one.entry.catch_up for one in queue.core.schedules._active.values()] == ["all"])


async def test_each_of_two_configurations_on_one_journal_gives_up_only_what_the_other_has_not(tmp_path: Path) -> None:
    first, second = tmp_path / "first.toml", tmp_path / "second.toml"
    storage, now = MemoryStorage(), dt.datetime(2026, 3, 1, tzinfo=dt.UTC)
    files = f'[[files]]\njob = "backup"\npattern = "{tmp_path}/in/*"\nsettle = 0\nexisting = true\n'
    tables = HOURLY.format(path="/a") + 'catch_up = "all"\n' + files
    first.write_text(tables)
    second.touch()
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "x").touch()
    slots, started = [{"path": "/a"}], [{"path": f"{tmp_path}/in/x"}]

    async def found(config: Path, after: dt.timedelta = dt.timedelta()) -> tuple[list[Any], int]:
        """Applies a configuration; returns all inputs there are then, and how many schedules."""
        nonlocal now
        now += after
        async with TestQueue([backup], storage=storage, start=now) as queue:
            read = partial(read_config, config, {})
            assert (await ScheduleFile(queue.core, Workers(), config, read).problems())["problem"] == ""
            await queue.advance("1s")
            return sorted(await inputs(queue), key=str), len(await queue.core.schedules.views())

    assert await found(first) == (started, 1)
    assert await found(second, dt.timedelta(hours=3)) == (started, 1)
    assert await found(first) == (slots * 3 + started, 1)  # no slot is lost, no file starts a second time
    second.write_text(tables)
    assert await found(second) == (slots * 3 + started, 1)
    first.write_text("")
    assert await found(first) == (slots * 3 + started, 1)
    second.write_text("")
    assert await found(second) == (slots * 3 + started, 0)


async def test_a_configuration_that_is_applied_no_more_is_given_up_after_a_week(tmp_path: Path) -> None:
    gone, other = tmp_path / "gone.toml", tmp_path / "other.toml"
    gone.write_text(HOURLY.format(path="/a"))
    other.touch()
    storage, now = MemoryStorage(), dt.datetime(2026, 3, 1, tzinfo=dt.UTC)
    for days, config, schedules in ((0, gone, 1), (6, other, 1), (6, gone, 1), (12, other, 1), (14, other, 0)):
        async with TestQueue([backup], storage=storage, start=now + dt.timedelta(days=days)) as queue:
            read = partial(read_config, config, {})
            await ScheduleFile(queue.core, Workers(), config, read).problems()
            assert len(await queue.core.schedules.views()) == schedules


async def test_a_configuration_is_applied_again_each_day(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = tmp_path / "taskrun.toml"
    config.write_text(HOURLY.format(path="/a"))
    async with project(config, monkeypatch) as (queue, file):
        for day in range(3):
            await file.problems()
            (tables,) = (await queue.core.read(TABLES.all)).values()
            assert tables.at == queue.now.timestamp(), day
            await queue.advance("1d")
