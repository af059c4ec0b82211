"""Files as triggers: each version of a file starts one run, with real files in real folders."""

from __future__ import annotations

import asyncio
import os
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from taskrun import Queue, SqliteStorage, TaskrunError, files, job
from taskrun.declarations.job import Job
from taskrun.engine.core import file_triggers
from taskrun.engine.core.folders import Folder, FolderWatch
from taskrun.engine.core.known_files import FilesEntry
from taskrun.stores.base import Store
from taskrun.testing import TestQueue

events: list[dict[str, Any]] = []
QUICK = "50ms"


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder `in`, from which patterns go in these tests."""
    events.clear()
    monkeypatch.chdir(tmp_path)
    (tmp_path / "in").mkdir()
    return tmp_path / "in"


def taking(pattern: str | list[str] = "in/**/*.txt", **options: Any) -> Job:
    @job(name="take", trigger=[files(pattern, **{"settle": QUICK, **options}).into(lambda event: {"event": event})])
    async def take(event: dict[str, Any]) -> None:
        events.append(event)

    return take


@job
async def load(path: str) -> None: ...


def existing(patterns: list[str]) -> FilesEntry:
    return FilesEntry(job="load", patterns=tuple(patterns), existing=True, input="{}")


async def until(holds: Callable[[], Any], seconds: float = 20.0) -> None:
    deadline = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < deadline, (len(events), [event["name"] for event in events][:50])
        await asyncio.sleep(0.01)


async def quiet(folder: Path) -> None:
    """Waits until one more file has gone through, and so everything that came before it."""
    before = len(events)
    (folder / f"last{before}.txt").write_text("x")
    await until(lambda: any(event["name"] == f"last{before}.txt" for event in events))


def names() -> list[str]:
    return sorted(event["name"] for event in events if not event["name"].startswith("last"))


async def test_a_new_file_starts_a_run_with_what_is_known_of_it(storage: Store, folder: Path) -> None:
    (folder / "old.txt").write_text("old")
    async with Queue(jobs=[taking()], storage=storage) as queue:
        (folder / "a b.txt").write_text("four")
        await until(lambda: events)
        (event,) = events
        modified = event.pop("modified")
        assert event == {"path": f"{folder}/a b.txt", "name": "a b.txt", "size": 4, "change": "added"}
        assert modified.endswith("+00:00")
        (run,) = [run async for run in queue.runs()]
        assert (await run.info()).source == "files in/**/*.txt"


async def test_files_that_are_there_at_the_first_look_start_nothing(storage: Store, folder: Path) -> None:
    (folder / "old.txt").write_text("old")
    for existing in (False, True):  # at the second start the pattern is known
        async with Queue(jobs=[taking(existing=existing)], storage=storage):
            await quiet(folder)
            assert names() == []


async def test_existing_files_of_a_new_trigger(storage: Store, folder: Path) -> None:
    for name in ("old.txt", "older.txt"):
        (folder / name).write_text("old")
    async with Queue(jobs=[taking(existing=True)], storage=storage):
        await until(lambda: names() == ["old.txt", "older.txt"])


async def test_each_version_starts_one_run(storage: Store, folder: Path) -> None:
    path = folder / "a.txt"
    async with Queue(jobs=[taking()], storage=storage):
        path.write_text("1")
        await until(lambda: len(events) == 1)
        path.write_text("12")
        await until(lambda: len(events) == 2)
        (folder / "new").write_text("123")
        (folder / "new").rename(path)  # as editors save
        await until(lambda: len(events) == 3)
        os.utime(path)
        await until(lambda: len(events) == 4)
        await quiet(folder)
    assert [(event["change"], event["size"]) for event in events[:4]] == [
        ("added", 1),
        ("modified", 2),
        ("modified", 3),
        ("modified", 3),
    ]


async def test_a_file_that_is_written_slowly_starts_one_run_when_it_is_complete(storage: Store, folder: Path) -> None:
    async with Queue(jobs=[taking(settle="500ms")], storage=storage):
        with (folder / "slow.txt").open("w") as file:
            for _ in range(10):
                file.write("x" * 10)
                file.flush()
                await asyncio.sleep(0.1)
        await until(lambda: events)
        await quiet(folder)
    assert [event["size"] for event in events if event["name"] == "slow.txt"] == [100]


async def test_what_starts_nothing(storage: Store, folder: Path) -> None:
    async with Queue(jobs=[taking("in/**")], storage=storage):
        for name in (".hidden.txt", "a.part", "a.tmp", "a.crdownload", ".a.txt.swp", "a.txt~"):
            (folder / name).write_text("x")
        for name in ("sub.txt", ".git"):
            (folder / name).mkdir()
        (folder / ".git" / "a.txt").write_text("x")
        (folder / "gone.txt").write_text("x")
        (folder / "gone.txt").unlink()
        os.mkfifo(folder / "fifo.txt")
        await quiet(folder)
        (folder / "a.part").rename(folder / "a.mp3")
        await until(lambda: names() == ["a.mp3"])


async def test_folders_that_are_moved_in_bring_their_files(storage: Store, folder: Path, tmp_path: Path) -> None:
    (tmp_path / "made" / "deep").mkdir(parents=True)
    (tmp_path / "made" / "deep" / "a.txt").write_text("x")
    async with Queue(jobs=[taking()], storage=storage):
        (tmp_path / "made").rename(folder / "made")
        await until(lambda: names() == ["a.txt"])
        (folder / "made" / "deep" / "b.txt").write_text("x")
        await until(lambda: names() == ["a.txt", "b.txt"])


@pytest.mark.parametrize(
    "name", [b"caf\xe9.txt", b"two\nlines.txt", b'a "b" $(c) `d`.txt', b"-rf.txt", b" .txt", b"\xff\xfe.txt"]
)
async def test_any_name_goes_through(folder: Path, tmp_path: Path, name: bytes) -> None:
    async with Queue(jobs=[taking()], storage=SqliteStorage(tmp_path / "journal.db")):
        with open(os.fsencode(folder) + b"/" + name, "w") as file:  # noqa: PTH123
            file.write("x")
        await until(lambda: events)
        assert os.fsencode(events[0]["path"]) == os.fsencode(folder) + b"/" + name
    async with Queue(jobs=[taking()], storage=SqliteStorage(tmp_path / "journal.db")):
        await quiet(folder)
    assert len(events) == 2


async def test_what_came_while_nothing_ran_is_found_at_the_next_start(storage: Store, folder: Path) -> None:
    async with Queue(jobs=[taking()], storage=storage):
        for name in ("same.txt", "changed.txt", "gone.txt"):
            (folder / name).write_text("x")
        await until(lambda: len(events) == 3)
    events.clear()
    (folder / "changed.txt").write_text("xx")
    (folder / "gone.txt").unlink()
    (folder / "new.txt").write_text("x")
    async with Queue(jobs=[taking()], storage=storage):
        await quiet(folder)
        await until(lambda: len(names()) >= 2)
    assert {(event["name"], event["change"]) for event in events if event["name"][:4] != "last"} == {
        ("changed.txt", "modified"),
        ("new.txt", "added"),
    }


async def test_a_file_that_goes_and_comes_back_as_it_was_starts_nothing(
    storage: Store, folder: Path, tmp_path: Path
) -> None:
    async with Queue(jobs=[taking()], storage=storage) as queue:
        (folder / "a.txt").write_text("x")
        await until(lambda: events)
        (folder / "a.txt").rename(tmp_path / "a.txt")
        known = queue.core.files._known["take"]
        await until(lambda: known[f"{folder}/a.txt"].gone is not None)
        (tmp_path / "a.txt").rename(folder / "a.txt")
        await until(lambda: known[f"{folder}/a.txt"].gone is None)
        await quiet(folder)
        assert names() == ["a.txt"]
        (folder / "a.txt").unlink()
        await until(lambda: known[f"{folder}/a.txt"].gone is not None)
        (folder / "a.txt").write_text("another")
        await until(lambda: names() == ["a.txt", "a.txt"])
        assert events[-1]["change"] == "added"


async def test_a_new_pattern_of_a_job_does_not_start_what_is_there(storage: Store, folder: Path) -> None:
    for name in ("a.txt", "b.csv"):
        (folder / name).write_text("x")
    async with Queue(jobs=[taking()], storage=storage):
        await quiet(folder)
    (folder / "c.txt").write_text("x")
    async with Queue(jobs=[taking(["in/**/*.txt", "in/*.csv"])], storage=storage):
        await quiet(folder)
        await until(lambda: names() == ["c.txt"])
        (folder / "d.csv").write_text("x")
        await until(lambda: names() == ["c.txt", "d.csv"])


async def test_a_job_that_gives_up_its_pattern_forgets_it(folder: Path, tmp_path: Path) -> None:
    async with Queue(jobs=[taking()], storage=SqliteStorage(tmp_path / "journal.db")):
        await quiet(folder)

    @job(name="take")
    async def take(event: dict[str, Any]) -> None: ...

    async with Queue(jobs=[take], storage=SqliteStorage(tmp_path / "journal.db")) as queue:
        assert await queue.core.read(lambda tx: (tx.facts("file:"), tx.facts("files:"))) == ({}, {})


async def test_two_engines_on_one_journal_start_each_file_once(folder: Path, tmp_path: Path) -> None:
    stores = [SqliteStorage(tmp_path / "journal.db") for _ in range(2)]
    async with Queue(jobs=[taking()], storage=stores[0]) as one, Queue(jobs=[taking()], storage=stores[1]):
        for number in range(200):
            (folder / f"{number}.txt").write_text("x")
        await until(lambda: len(events) >= 200)
        await quiet(folder)
        runs = Counter([run.input["event"]["name"] async for run in one.runs(limit=1000)])
    assert Counter(name for name in runs.elements() if not name.startswith("last")) == {
        f"{n}.txt": 1 for n in range(200)
    }


async def test_a_thousand_at_once(folder: Path, tmp_path: Path) -> None:
    async with Queue(jobs=[taking()], storage=SqliteStorage(tmp_path / "journal.db", synchronous="normal")):
        for number in range(1000):
            (folder / f"{number}.txt").write_text("x")
        await until(lambda: len(events) >= 1000, 60)
        await quiet(folder)
    assert Counter(names()) == {f"{number}.txt": 1 for number in range(1000)}


async def test_where_the_kernel_tells_nothing_it_is_looked_now_and_then(
    storage: Store, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def deaf(*_: Any) -> Any:
        raise OSError("no space left for watches")

    monkeypatch.setattr("taskrun.engine.core.folders._changes", deaf)
    monkeypatch.setattr(file_triggers, "BLIND", 0.1)
    async with Queue(jobs=[taking()], storage=storage):
        (folder / "a.txt").write_text("x")
        await until(lambda: names() == ["a.txt"])


async def test_a_change_of_which_the_kernel_tells_during_a_look_at_the_folders_is_not_lost(
    storage: Store, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, loop, looks = folder / "a.txt", asyncio.get_running_loop(), 0
    path.write_text("1")

    def quiet_kernel(paths: list[str], deep: bool, stop: threading.Event, ready: Callable[[], None]) -> Iterator[Any]:
        ready()
        stop.wait()
        return iter(())

    def marks(folders: dict[str, object]) -> dict[str, object]:
        nonlocal looks
        looks += 1
        if looks == 1:
            path.write_text("12")
            loop.call_soon_threadsafe(queue.core.files._heard, [str(path)])
        return dict(folders)

    monkeypatch.setattr("taskrun.engine.core.folders._changes", quiet_kernel)
    monkeypatch.setattr(file_triggers, "_marks", marks)
    monkeypatch.setattr(file_triggers, "CHECKED", 0.01)
    async with Queue(jobs=[taking()], storage=storage) as queue:
        await until(lambda: names() == ["a.txt"] or looks > 300)
        assert names() == ["a.txt"]


async def test_it_polls_if_it_is_told_to(storage: Store, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("taskrun.engine.core.folders._changes", lambda *_: pytest.fail("nothing is to be watched"))
    async with Queue(jobs=[taking(poll="50ms")], storage=storage):
        (folder / "a.txt").write_text("x")
        await until(lambda: names() == ["a.txt"])
        (folder / "a.txt").write_text("xx")
        await until(lambda: names() == ["a.txt", "a.txt"])


async def test_a_folder_that_is_made_later_or_anew_is_watched(
    storage: Store, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(file_triggers, "CHECKED", 0.05)
    folder.rmdir()
    async with Queue(jobs=[taking()], storage=storage):
        for name in ("a", "b"):
            folder.mkdir()
            (folder / f"{name}.txt").write_text("x")
            await until(lambda name=name: f"{name}.txt" in names())  # type: ignore[misc]
            (folder / f"{name}.txt").unlink()
            folder.rmdir()


async def test_what_the_trigger_skips_or_refuses_is_used_up(storage: Store, folder: Path) -> None:
    asked: list[str] = []

    def choose(event: dict[str, Any]) -> dict[str, Any] | None:
        asked.append(event["name"])
        return {"wrong": 1} if event["name"] == "bad.txt" else None if event["name"] == "skip.txt" else {"event": event}

    @job(name="take", trigger=[files("in/*.txt", settle=QUICK).into(choose)])
    async def take(event: dict[str, Any]) -> None:
        events.append(event)

    for round in range(2):
        async with Queue(jobs=[take], storage=storage) as queue:
            if round == 0:
                (folder / "bad.txt").write_text("x")
                (folder / "skip.txt").write_text("x")
                await until(lambda: len(asked) == 2)
            await quiet(folder)
            assert len([run async for run in queue.runs()]) == round + 1
    assert sorted(asked)[:2] == ["bad.txt", "last0.txt"]
    assert Counter(asked)["bad.txt"] == Counter(asked)["skip.txt"] == 1


async def test_the_journals_own_files_start_nothing(folder: Path) -> None:
    async with Queue(jobs=[taking("in/**")], storage=SqliteStorage(folder / "jobs.db")):
        await quiet(folder)
        await quiet(folder)
    assert names() == []


async def test_without_into_the_event_is_the_input(storage: Store, folder: Path) -> None:
    @job(trigger=[files("in/*.txt", settle=QUICK)])
    async def plain(path: Path, name: str, size: int, modified: datetime, change: str) -> None:
        events.append({"name": name, "size": size, "change": change, "path": path, "modified": modified})

    async with Queue(jobs=[plain], storage=storage):
        (folder / "a.txt").write_text("x")
        await until(lambda: events)
    (event,) = events
    assert event.pop("modified").timestamp() == pytest.approx((folder / "a.txt").stat().st_mtime, abs=0.01)
    assert event == {"name": "a.txt", "size": 1, "change": "added", "path": folder / "a.txt"}


async def test_virtual_time(folder: Path) -> None:
    async with TestQueue(jobs=[taking(settle="10m")]) as queue:
        (folder / "a.txt").write_text("x")
        await queue.advance("9m")
        assert names() == []
        (folder / "a.txt").write_text("xx")
        await queue.advance("9m")
        assert names() == []
        await queue.advance("1m")
        assert names() == ["a.txt"]
        await queue.advance("1d")
        assert names() == ["a.txt"]


@pytest.mark.parametrize("patterns", [["in/**/*"], ["in/*", "in/**/*"]])
async def test_existing_files_start_nothing_again_when_a_pattern_is_edited(
    storage: Store, folder: Path, patterns: list[str]
) -> None:
    (folder / "a").write_text("x")
    for settings in (["in/*"], patterns), (patterns,):
        async with TestQueue(jobs=[load], storage=storage) as queue:
            for setting in settings:
                await queue.core.files.set([existing(setting)])
                await queue.advance("2s")
                assert len([run async for run in queue.runs()]) == 1


async def test_a_table_that_is_put_back_has_forgotten_its_files(storage: Store, folder: Path) -> None:
    (folder / "a").write_text("x")
    async with TestQueue(jobs=[load], storage=storage) as queue:
        for table, runs in ([existing(["in/*"])], 1), ([], 1), ([existing(["in/*"])], 2):
            await queue.core.files.set(table)
            await queue.advance("2s")
            assert len([run async for run in queue.runs()]) == runs
    async with TestQueue(jobs=[load], storage=storage) as queue:
        await queue.core.files.set([existing(["in/*"])])
        await queue.advance("2s")
        assert len([run async for run in queue.runs()]) == 2


async def test_a_table_whose_taking_on_was_cancelled_is_watched_when_it_is_given_again(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with TestQueue(jobs=[load]) as queue:
        reached = asyncio.Event()

        async def hangs(_: object) -> bool:
            reached.set()
            await asyncio.Event().wait()
            return True

        with monkeypatch.context() as slow:
            slow.setattr(queue.core.files._watch, "watch", hangs)
            taking_on = asyncio.create_task(queue.core.files.set([existing(["in/*"])]))
            await reached.wait()
            taking_on.cancel()
            await asyncio.wait([taking_on])
        await queue.core.files.set([existing(["in/*"])])
        (folder / "a").write_text("x")
        async with asyncio.timeout(20):  # while nobody follows what is to be looked at, time does not go on
            await queue.advance("2s")
        assert len([run async for run in queue.runs()]) == 1


async def test_folders_are_watched_anew_after_a_look_at_them_has_failed(
    folder: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    watch, failures = FolderWatch.watch, [RuntimeError("can't start new thread")]

    async def fails_once(self: FolderWatch, folders: frozenset[Folder]) -> bool:
        if folders and failures:
            raise failures.pop()
        return await watch(self, folders)

    monkeypatch.setattr(file_triggers, "CHECKED", 0.05)
    monkeypatch.setattr(FolderWatch, "watch", fails_once)
    folder.rmdir()
    async with Queue(jobs=[taking()]) as queue:
        folder.mkdir()
        await until(lambda: queue.core.files._watch.folders)
    assert "can't start new thread" in caplog.text


async def test_folders_that_could_not_be_watched_are_tried_again(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    watch, folders = FolderWatch(lambda _: None), frozenset({(str(folder), True)})
    with monkeypatch.context() as deaf:
        deaf.setattr("taskrun.engine.core.folders._changes", lambda *_: (_ for _ in ()).throw(OSError("no space left")))
        assert not await watch.watch(folders)
        assert not await watch.watch(folders)
    assert await watch.watch(folders)
    watch.close()


@pytest.mark.parametrize(
    ("pattern", "options", "said"),
    [
        ("", {}, "is not a pattern of files"),
        ([], {}, "name a pattern"),
        ("a", {"settle": "soon"}, "settle of files"),
        ("a", {"settle": -1}, "settle of files"),
        ("a", {"poll": 0}, "poll must be more than 0"),
    ],
)
def test_what_cannot_be_watched_is_an_error_at_definition(pattern: Any, options: Any, said: str) -> None:
    with pytest.raises(TaskrunError, match=said):
        files(pattern, **options)
