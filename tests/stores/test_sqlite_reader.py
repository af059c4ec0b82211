"""Reading a journal beside whoever writes to it, and copying it meanwhile."""

from __future__ import annotations

import os
import secrets
import sqlite3
import stat
from contextlib import closing
from pathlib import Path

import pytest

from taskrun.model.errors import JournalDamaged, JournalError, JournalLocked, JournalNewer
from taskrun.model.records import RunFilter
from taskrun.stores import sqlite_open
from taskrun.stores.base import Tx
from taskrun.stores.sqlite import SqliteStorage
from taskrun.stores.sqlite_open import JournalFile
from taskrun.stores.sqlite_reader import JournalReader, NeedsWriter

from .records import ids, run


def ran(tx: Tx) -> list[str]:
    return ids(tx.runs(RunFilter(oldest_first=True)))


def written(path: Path, *runs: str, exclusive: bool = True) -> SqliteStorage:
    """An open journal with these runs."""
    store = SqliteStorage(path, exclusive=exclusive)
    store.open()
    store.apply([lambda tx, one=one: tx.add_run(run(one)) for one in runs])  # type: ignore[misc]
    return store


async def read(path: Path) -> list[str]:
    reader = JournalReader(path)
    try:
        return await reader.read(ran)
    finally:
        await reader.close()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "journal.db"


async def test_a_journal_that_was_closed_is_read_and_nothing_is_made_or_changed(path: Path) -> None:
    written(path, "a", "b").close()
    before = {file.name: file.stat().st_mtime_ns for file in path.parent.iterdir()}
    assert await read(path) == ["a", "b"]
    assert {file.name: file.stat().st_mtime_ns for file in path.parent.iterdir()} == before


async def test_a_look_reads_the_whole_file_through_for_nobody(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    written(path, "a").close()
    os.utime(path)  # no seal any more
    monkeypatch.setattr(JournalFile, "read_through", lambda *_: pytest.fail("it was read through"))
    assert await read(path) == ["a"]


async def test_who_reads_keeps_nobody_out_and_sees_what_others_commit(path: Path) -> None:
    queue = written(path, "a", exclusive=False)
    reader = JournalReader(path)
    assert await reader.read(ran) == ["a"]
    other = written(path, "b", exclusive=False)
    assert await reader.read(ran) == ["a", "b"]
    other.close()
    queue.close()
    await reader.close()


async def test_a_journal_that_changes_meanwhile_is_opened_anew(path: Path) -> None:
    written(path, "a").close()
    reader = JournalReader(path)
    assert await reader.read(ran) == ["a"]
    written(path, "b").close()
    assert await reader.read(ran) == ["a", "b"]

    changes = iter(("c", "d"))

    def disturbed(tx: Tx) -> list[str]:
        if (one := next(changes, None)) is not None:
            written(path, one).close()
        return ran(tx)

    assert await reader.read(disturbed) == ["a", "b", "c", "d"]
    await reader.close()


async def test_one_read_sees_one_state(path: Path) -> None:
    queue = written(path, "a", exclusive=False)

    def twice(tx: Tx) -> tuple[list[str], list[str]]:
        first = ran(tx)
        queue.apply([lambda tx: tx.add_run(run("b"))])
        return first, ran(tx)

    reader = JournalReader(path)
    assert await reader.read(twice) == (["a"], ["a"])
    assert await reader.read(ran) == ["a", "b"]
    await reader.close()
    queue.close()


async def test_what_a_killed_daemon_left_in_its_log_is_read(path: Path, tmp_path: Path) -> None:
    store = written(path, "a", "b")
    copy = tmp_path / "copy" / "journal.db"
    copy.parent.mkdir()
    for end in ("", "-wal", ".high"):
        Path(f"{copy}{end}").write_bytes(Path(f"{path}{end}").read_bytes())
    store.close()
    assert await read(copy) == ["a", "b"]


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """A journal that somebody else holds is given up soon."""
    monkeypatch.setattr(sqlite_open, "_OPENING", {True: 0.05, False: 0.05})


async def test_a_journal_that_somebody_has_for_himself_is_locked(path: Path, impatient: None) -> None:
    store = written(path, "a")
    with pytest.raises(JournalLocked):
        await read(path)
    store.close()


async def test_an_older_journal_is_left_to_who_can_bring_it_up_to_date(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    written(path, "a").close()
    with closing(sqlite3.connect(path)) as connection:
        connection.execute(f"PRAGMA user_version = {max(sqlite_open.MIGRATIONS) - 1}")
    monkeypatch.setattr(os, "access", lambda *_: False)
    with pytest.raises(JournalError, match="is of an older taskrun, and its folder cannot be written to"):
        await read(path)
    monkeypatch.undo()
    with pytest.raises(NeedsWriter):
        await read(path)


async def test_a_newer_journal_a_shorter_one_and_another_file_are_refused(path: Path) -> None:
    written(path, "a").close()
    mark = Path(f"{path}.high").read_text()
    kept = path.read_bytes()
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("PRAGMA user_version = 99")
    with pytest.raises(JournalNewer):
        await read(path)
    path.write_bytes(kept)
    Path(f"{path}.high").unlink()
    written(path, "b").close()
    path.write_bytes(kept)
    with pytest.raises(JournalDamaged, match="came back shorter"):
        await read(path)
    Path(f"{path}.high").write_text(mark)
    path.write_bytes(b"no journal at all " * 1_000)
    with pytest.raises(JournalDamaged):
        await read(path)


async def test_an_error_of_what_reads_is_its_own(path: Path) -> None:
    written(path, "a").close()
    reader = JournalReader(path)

    def fails(tx: Tx) -> None:
        raise LookupError("on purpose")

    with pytest.raises(LookupError):
        await reader.read(fails)
    assert await reader.read(ran) == ["a"]
    await reader.close()


# ---- a copy


def backed_up(path: Path) -> list[str]:
    """What a backup holds, opened as a journal."""
    store = SqliteStorage(path)
    store.open()
    ((found, _),) = store.apply([ran])
    store.close()
    assert isinstance(found, list)
    return found


async def test_a_copy_is_one_whole_private_file_and_says_how_far_it_is(path: Path, tmp_path: Path) -> None:
    store = written(path, *(f"r{n}" for n in range(200)), exclusive=False)
    target, steps = tmp_path / "backup.db", list[tuple[int, int]]()
    reader = JournalReader(path)
    await reader.backup(target, lambda done, whole: steps.append((done, whole)))
    await reader.close()
    store.close()
    assert stat.S_IMODE(target.stat().st_mode) == 0o600
    assert [file.name for file in tmp_path.iterdir() if file.name.startswith("backup.db")] == ["backup.db"]
    assert steps[-1][0] == steps[-1][1] > 0
    assert len(backed_up(target)) == 200


def test_a_journal_is_copied_while_it_goes_on_being_written_to(
    path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("taskrun.stores.sqlite.PAGES", 1)
    store = written(path, *(f"r{n}" for n in range(200)))
    steps: list[int] = []

    def progress(done: int, whole: int) -> None:
        steps.append(done)
        if len(steps) % 5 == 1:
            store.apply([lambda tx: tx.add_run(run(f"new{len(steps)}"))])

    store.backup(tmp_path / "backup.db", progress)
    ((there, _),) = store.apply([ran])
    store.close()
    assert len(steps) > 5
    assert backed_up(tmp_path / "backup.db") == there


async def test_a_journal_that_begins_to_be_written_to_while_it_is_copied_is_copied_anew(
    path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("taskrun.stores.sqlite_reader.PAGES", 1)
    first = [f"r{n}" for n in range(200)]
    written(path, *first).close()
    calls = 0

    def progress(done: int, whole: int) -> None:
        nonlocal calls
        calls += 1
        if calls == 5:
            written(path, *(f"new{n}" for n in range(200))).close()

    reader = JournalReader(path)
    await reader.backup(tmp_path / "backup.db", progress)
    await reader.close()
    assert backed_up(tmp_path / "backup.db") == [*first, *(f"new{n}" for n in range(200))]


async def test_of_a_journal_that_keeps_changing_no_copy_is_left(path: Path, tmp_path: Path) -> None:
    written(path, "a").close()
    reader = JournalReader(path)
    with pytest.raises(JournalError, match="keeps changing"):
        await reader.backup(tmp_path / "backup.db", lambda *_: written(path, secrets.token_hex(6)).close())
    await reader.close()
    assert [file.name for file in tmp_path.iterdir() if file.name.startswith("backup")] == []


async def test_a_copy_is_refused_with_the_words_of_a_look(path: Path, tmp_path: Path, impatient: None) -> None:
    store = written(path, "a")
    with pytest.raises(JournalLocked):
        await JournalReader(path).backup(tmp_path / "backup.db")
    store.close()
    with closing(sqlite3.connect(path)) as connection:
        connection.execute(f"PRAGMA user_version = {max(sqlite_open.MIGRATIONS) - 1}")
    with pytest.raises(NeedsWriter):
        await JournalReader(path).backup(tmp_path / "backup.db")
    assert not (tmp_path / "backup.db").exists()


async def test_a_file_that_is_there_is_left_as_it_is(path: Path, tmp_path: Path) -> None:
    store = written(path, "a")
    (tmp_path / "backup.db").write_text("precious")
    with pytest.raises(JournalError, match="already exists"):
        store.backup(tmp_path / "backup.db")
    store.close()
    reader = JournalReader(path)
    with pytest.raises(JournalError, match="already exists"):
        await reader.backup(tmp_path / "backup.db")
    assert await reader.read(ran) == ["a"]
    await reader.close()
    assert (tmp_path / "backup.db").read_text() == "precious"


def test_a_copy_that_fails_leaves_nothing(path: Path, tmp_path: Path) -> None:
    store = written(path, "a")

    def progress(done: int, whole: int) -> None:
        raise LookupError("on purpose")

    with pytest.raises(LookupError):
        store.backup(tmp_path / "backup.db", progress)
    with pytest.raises(JournalError, match="cannot create the backup"):
        store.backup(tmp_path / "nowhere" / "backup.db")
    assert not (tmp_path / "backup.db").exists()
    assert store.apply([ran]) == [(["a"], None)]
    store.close()


def test_a_copy_that_is_not_what_was_copied_is_refused(
    path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = written(path, "a")
    monkeypatch.setattr(
        JournalFile, "read_through", lambda self, _: (_ for _ in ()).throw(JournalDamaged("on purpose"))
    )
    with pytest.raises(JournalDamaged):
        store.backup(tmp_path / "backup.db")
    assert not (tmp_path / "backup.db").exists()
    store.close()
