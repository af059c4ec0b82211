"""Opening a SQLite journal: private files, one version, and a journal that is not as it was is said so and kept."""

from __future__ import annotations

import os
import shutil
import sqlite3
import stat
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from taskrun.model.errors import JournalDamaged, JournalError, JournalLocked, JournalNewer
from taskrun.model.records import RunFilter
from taskrun.stores import sqlite_open
from taskrun.stores.highwater import HighWater
from taskrun.stores.sqlite import SqliteStorage

from . import children
from .files import add_runs, closed_journal, files_of, killed_journal, write

PATIENCE = {True: 0.05, False: 0.2}  # of those that open a journal that somebody else holds, as in `sqlite_open`


def refused(path: Path, kind: type[JournalError], says: str, exclusive: bool = True) -> None:
    """Opening must fail in this way and change nothing."""
    before = files_of(path.parent)
    with pytest.raises(kind, match=says) as caught:
        SqliteStorage(path, exclusive=exclusive).open()
    assert type(caught.value) is kind
    assert str(path) in str(caught.value)
    assert files_of(path.parent) == before


def count(path: Path) -> int:
    store = SqliteStorage(path)
    store.open()
    [(runs, _)] = store.apply([lambda tx: tx.runs(RunFilter())])
    store.close()
    return len(runs)


# ---- a new journal


@pytest.fixture
def no_umask() -> Iterator[None]:
    before = os.umask(0)
    yield
    os.umask(before)


@pytest.mark.parametrize("exclusive", [True, False])
def test_every_file_and_folder_is_the_owners_alone(tmp_path: Path, no_umask: None, exclusive: bool) -> None:
    store = SqliteStorage(tmp_path / "a" / "b" / "journal.db", exclusive=exclusive)
    store.open()
    add_runs(store, 1)
    modes = {file.name: stat.S_IMODE(file.stat().st_mode) for file in tmp_path.rglob("*")}
    store.close()
    made = {"a", "b", "journal.db", "journal.db-wal", "journal.db.high"} | (
        {"journal.db-shm"} - {exclusive and "journal.db-shm"}
    )
    assert modes == {name: 0o700 if len(name) == 1 else 0o600 for name in made}


def test_a_journal_opened_exclusively_clears_the_shared_memory_of_a_killed_one(tmp_path: Path) -> None:
    path = killed_journal(tmp_path / "journal.db", exclusive=False)
    assert (tmp_path / "journal.db-shm").exists()
    store = SqliteStorage(path, exclusive=True)
    store.open()
    assert not (tmp_path / "journal.db-shm").exists()
    store.close()


def test_an_empty_file_without_a_mark_is_a_new_journal(tmp_path: Path) -> None:
    (tmp_path / "journal.db").touch()
    assert count(tmp_path / "journal.db") == 0


def test_a_name_full_of_signs_is_a_file_like_any_other(tmp_path: Path) -> None:
    path = closed_journal(tmp_path / "a?b#c%20 'd.db", runs=2)
    assert path.exists()
    assert count(path) == 2


def test_a_link_leads_to_the_journal_and_to_its_mark(tmp_path: Path) -> None:
    path = closed_journal(tmp_path / "there" / "journal.db", runs=2)
    (tmp_path / "link.db").symlink_to(path)
    path.write_bytes(b"")
    with pytest.raises(JournalDamaged, match="2 commits are missing"):
        SqliteStorage(tmp_path / "link.db").open()


@pytest.mark.parametrize(("synchronous", "level"), [("full", 2), ("normal", 1)])
def test_settings_are_in_force(tmp_path: Path, synchronous: sqlite_open.Synchronous, level: int) -> None:
    store = SqliteStorage(tmp_path / "journal.db", synchronous)
    store.open()
    connection = store._connection
    assert connection is not None
    settings = ("journal_mode", "synchronous", "mmap_size", "application_id", "user_version", "busy_timeout")
    values = [sqlite_open.value(connection, f"PRAGMA {setting}") for setting in settings]
    store.close()
    assert values == ["wal", level, 0, sqlite_open.APPLICATION_ID, max(sqlite_open.MIGRATIONS), 10_000]


def test_synchronous_off_is_refused() -> None:
    with pytest.raises(ValueError, match="full"):
        SqliteStorage("journal.db", synchronous="off")  # type: ignore[arg-type]


# ---- versions


def test_a_newer_journal_is_refused_and_stays_as_it_is(tmp_path: Path) -> None:
    path = closed_journal(tmp_path / "journal.db")
    connection = sqlite3.connect(path)
    connection.execute("PRAGMA user_version = 999")
    connection.close()
    refused(path, JournalNewer, "upgrade taskrun")


def test_a_newer_journal_keeps_the_log_that_its_killed_process_left(tmp_path: Path) -> None:
    path = killed_journal(tmp_path / "journal.db")
    wal = tmp_path / "journal.db-wal"
    code = "import sqlite3\nc = sqlite3.connect(path)\nc.execute('PRAGMA user_version = 999')\nos.kill(os.getpid(), 9)"
    children.start(code, path).communicate()
    assert wal.stat().st_size > 0
    refused(path, JournalNewer, "upgrade taskrun")


@pytest.fixture
def second_migration(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """A migration after the last one, to be filled by the test with statements."""
    number = max(sqlite_open.MIGRATIONS) + 1

    def fill(*statements: str) -> None:
        monkeypatch.setitem(sqlite_open.MIGRATIONS, number, "".join(f"{statement};\n" for statement in statements))

    fill()
    return fill


def test_an_older_journal_is_migrated_and_keeps_its_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, second_migration: Callable[..., None]
) -> None:
    newest = max(sqlite_open.MIGRATIONS)
    with monkeypatch.context() as older:
        older.delitem(sqlite_open.MIGRATIONS, newest)
        path = closed_journal(tmp_path / "journal.db")
    second_migration("CREATE TABLE one (a)", "INSERT INTO one VALUES (1)")
    assert count(path) == 3
    connection = sqlite3.connect(path)
    assert sqlite_open.version(connection) == newest
    assert connection.execute("SELECT * FROM one").fetchall() == [(1,)]
    connection.close()


def test_a_migration_that_fails_leaves_the_older_journal_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, second_migration: Callable[..., None]
) -> None:
    newest = max(sqlite_open.MIGRATIONS)
    with monkeypatch.context() as older:
        older.delitem(sqlite_open.MIGRATIONS, newest)
        path = closed_journal(tmp_path / "journal.db")
    second_migration("CREATE TABLE one (a)", "INSERT INTO nowhere VALUES (1)")
    refused(path, JournalError, "nowhere")
    second_migration()
    assert count(path) == 3


def test_many_starters_of_a_new_journal_make_it_once(tmp_path: Path) -> None:
    code = """
        store = SqliteStorage(path)
        sys.stdin.readline()
        store.open()
        print(*store.apply([lambda tx: tx.add_run(Run(id=sys.argv[2], job="job", created_at=1.0)).seq])[0])
        store.close()
        """
    starters = [children.start(code, tmp_path / "deep" / "journal.db", n) for n in range(5)]
    for starter in starters:
        assert starter.stdin is not None
        starter.stdin.write("go\n")
        starter.stdin.flush()
    assert sorted(children.finish(starter) for starter in starters) == [f"{n} None\n" for n in range(1, 6)]


# ---- not a journal, or no longer the one it was


def test_a_database_of_another_program_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "journal.db"
    connection = sqlite3.connect(path)
    connection.execute("CREATE TABLE theirs (a)")
    connection.close()
    refused(path, JournalDamaged, "another program")


def test_a_file_that_is_no_database_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "journal.db"
    path.write_text("dear diary\n" * 999)
    refused(path, JournalDamaged, "damaged")


def test_a_damaged_page_is_found(tmp_path: Path) -> None:
    path = closed_journal(tmp_path / "journal.db")
    pages = path.read_bytes()
    path.write_bytes(pages[:8192] + b"\xff" * 4096 + pages[12288:])
    refused(path, JournalDamaged, "damaged")


@pytest.mark.parametrize("kept", [1, 3])
def test_a_file_that_was_cut_is_found(tmp_path: Path, kept: int) -> None:
    path = closed_journal(tmp_path / "journal.db")
    path.write_bytes(path.read_bytes()[: kept * 4096])
    refused(path, JournalDamaged, "damaged")


def test_an_emptied_journal_is_not_taken_for_a_new_one(tmp_path: Path) -> None:
    path = closed_journal(tmp_path / "journal.db", runs=3)
    path.write_bytes(b"")
    refused(path, JournalDamaged, "3 commits are missing")


def test_a_deleted_journal_is_not_taken_for_a_new_one(tmp_path: Path) -> None:
    path = closed_journal(tmp_path / "journal.db", runs=3)
    path.unlink()
    refused(path, JournalDamaged, "3 commits are missing")


def test_an_older_copy_is_told_from_the_journal(tmp_path: Path) -> None:
    path = closed_journal(tmp_path / "journal.db", runs=3)
    copy = path.read_bytes()
    store = SqliteStorage(path)
    store.open()
    add_runs(store, 4, first=3)
    store.close()
    path.write_bytes(copy)
    refused(path, JournalDamaged, r"4 commits are missing \(3 of 7 are there\)")


@pytest.mark.parametrize("exclusive", [True, False])
def test_a_deleted_log_is_found(tmp_path: Path, exclusive: bool) -> None:
    path = killed_journal(tmp_path / "journal.db", runs=20)
    (tmp_path / "journal.db-wal").unlink()
    refused(path, JournalDamaged, "commits are missing", exclusive)


@pytest.mark.parametrize("part", [0.3, 0.9])
def test_one_flipped_bit_in_the_log_is_found(tmp_path: Path, part: float) -> None:
    path = killed_journal(tmp_path / "journal.db", runs=20)
    wal = tmp_path / "journal.db-wal"
    frames = bytearray(wal.read_bytes())
    frames[int(len(frames) * part)] ^= 1
    wal.write_bytes(frames)
    refused(path, JournalDamaged, "commits are missing")


def test_a_cut_log_is_found(tmp_path: Path) -> None:
    path = killed_journal(tmp_path / "journal.db", runs=20)
    wal = tmp_path / "journal.db-wal"
    wal.write_bytes(wal.read_bytes()[:-1])
    refused(path, JournalDamaged, "at least 1 commits are missing")


def test_an_undamaged_log_is_taken_over_whole(tmp_path: Path) -> None:
    assert count(killed_journal(tmp_path / "journal.db", runs=20)) == 20


def test_a_shorter_journal_is_gone_on_with_once_its_mark_is_moved_away(tmp_path: Path) -> None:
    path = killed_journal(tmp_path / "journal.db", runs=20)
    (tmp_path / "journal.db-wal").unlink()
    path.unlink()
    (tmp_path / "journal.db.high").unlink()
    assert count(path) == 0


@pytest.mark.parametrize("exclusive", [True, False])
@pytest.mark.parametrize("marked", [True, False])
@pytest.mark.parametrize("size", [None, 0, 1, 100, 512, 4095])
def test_a_log_whose_journal_is_gone_or_short_is_kept(
    tmp_path: Path, size: int | None, marked: bool, exclusive: bool
) -> None:
    path = killed_journal(tmp_path / "journal.db", runs=20)
    path.unlink() if size is None else os.truncate(path, size)
    if not marked:
        (tmp_path / "journal.db.high").unlink()
    refused(path, JournalDamaged, f"{size or 'no'} bytes of it are left beside its write-ahead log", exclusive)


def test_a_journal_that_is_emptied_while_it_is_to_be_reopened_keeps_its_log(tmp_path: Path) -> None:
    path = killed_journal(tmp_path / "journal.db", runs=20)
    os.truncate(path, 0)
    before = files_of(tmp_path)
    for mode in ("ro", "rw"):
        with pytest.raises(JournalDamaged):
            sqlite_open._connection(path, mode)
    assert files_of(tmp_path) == before


@pytest.mark.parametrize("kept", [1, 2])
def test_a_cut_journal_is_read_from_a_log_that_has_all_of_it(tmp_path: Path, kept: int) -> None:
    path = killed_journal(tmp_path / "journal.db", runs=20)
    os.truncate(path, kept * 4096)
    assert count(path) == 20


# ---- a close in order


@pytest.fixture
def read_through(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The queries by which a journal is read through while it is opened."""
    asked: list[str] = []
    plain = sqlite_open.value

    def value(connection: sqlite3.Connection, query: str) -> object:
        asked.extend([query] if "check" in query else [])
        return plain(connection, query)

    monkeypatch.setattr(sqlite_open, "value", value)
    return asked


@pytest.mark.parametrize("exclusive", [True, False])
def test_a_journal_that_was_closed_in_order_is_not_read_through_again(
    tmp_path: Path, read_through: list[str], exclusive: bool
) -> None:
    path = closed_journal(tmp_path / "journal.db")
    read_through.clear()
    for n in range(3):
        store = SqliteStorage(path, exclusive=exclusive)
        store.open()
        add_runs(store, n % 2, first=90 + n)  # one that has only read leaves all as it was
        store.close()
    assert count(path) == 4
    assert read_through == []


def written_to(path: Path) -> None:
    path.write_bytes(path.read_bytes())


def restored(path: Path) -> None:
    copy = path.with_name("copy")
    shutil.copy2(path, copy)
    copy.replace(path)


def without_mark(path: Path) -> None:
    HighWater(str(path)).path.unlink()


def half_a_seal(path: Path) -> None:
    mark = HighWater(str(path)).path
    mark.write_bytes(mark.read_bytes()[:-5])


@pytest.mark.parametrize("change", [written_to, restored, without_mark, half_a_seal])
def test_a_journal_that_was_touched_after_its_close_is_read_through(
    tmp_path: Path, read_through: list[str], change: Callable[[Path], None]
) -> None:
    path = closed_journal(tmp_path / "journal.db")
    change(path)
    read_through.clear()
    assert count(path) == 3
    assert read_through == ["PRAGMA quick_check(1)"]


def test_a_check_reads_a_journal_through_also_after_a_close_in_order(tmp_path: Path) -> None:
    path = closed_journal(tmp_path / "journal.db", runs=200)
    store = SqliteStorage(path, exclusive=True)
    store.open()
    store.check()
    store.close()
    found = path.stat()
    pages = path.read_bytes()
    path.write_bytes(pages[:8192] + b"\xff" * 4096 + pages[12288:])
    os.utime(path, ns=(found.st_atime_ns, found.st_mtime_ns))  # as if its disk had done it
    store.open()
    with pytest.raises(JournalDamaged, match="damaged"):
        store.check()
    store.close()


def test_a_killed_journal_is_read_through(tmp_path: Path, read_through: list[str]) -> None:
    path = closed_journal(tmp_path / "journal.db", runs=1)
    killed_journal(path, runs=20)
    read_through.clear()
    assert count(path) == 20
    assert read_through == ["PRAGMA quick_check(1)"]


def test_a_close_beside_another_user_seals_nothing(tmp_path: Path) -> None:
    stays, goes = (SqliteStorage(tmp_path / "journal.db") for _ in range(2))
    stays.open()
    add_runs(stays, 1)
    goes.open()
    add_runs(goes, 1, first=1)
    goes.close()
    assert not HighWater(stays.place).sealed()
    stays.close()
    assert HighWater(stays.place).sealed()


# ---- the mark


def test_the_mark_is_exact_after_a_close_and_counts_only_commits_that_wrote(tmp_path: Path) -> None:
    path = closed_journal(tmp_path / "journal.db", runs=3)
    assert count(path) == 3
    assert HighWater(str(path)).read() == 3


@pytest.mark.parametrize("synchronous", ["full", "normal"])
def test_the_mark_follows_while_the_journal_is_open(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, synchronous: sqlite_open.Synchronous
) -> None:
    monkeypatch.setattr("taskrun.stores.highwater.EVERY", 0.0)
    store = SqliteStorage(tmp_path / "journal.db", synchronous)
    store.open()
    add_runs(store, 5)
    assert HighWater(store.place).read() == 5
    store.close()


def test_at_normal_only_what_a_checkpoint_synced_is_marked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("taskrun.stores.highwater.EVERY", 0.0)
    monkeypatch.setattr(SqliteStorage, "_synced", lambda self, connection: False)
    store = SqliteStorage(tmp_path / "journal.db", "normal")
    store.open()
    add_runs(store, 5)
    store.close()
    assert HighWater(store.place).read() == 0


@pytest.mark.parametrize("content", [b"", b"garbage", b"00000000000000000009 00000000\n", b"\xff\xfe", b"1\n"])
def test_a_mark_that_cannot_be_read_is_none(tmp_path: Path, content: bytes) -> None:
    path = closed_journal(tmp_path / "journal.db")
    (tmp_path / "journal.db.high").write_bytes(content)
    assert count(path) == 3


def test_a_mark_that_cannot_be_written_fails_no_commit(tmp_path: Path) -> None:
    (tmp_path / "journal.db.high").mkdir()
    assert count(closed_journal(tmp_path / "journal.db")) == 3


# ---- places that do not work


def test_a_folder_in_the_place_of_the_journal_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "journal.db").mkdir()
    with pytest.raises(JournalError, match=r"journal\.db"):
        SqliteStorage(tmp_path / "journal.db").open()


def test_a_file_in_the_place_of_its_folder_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "folder").touch()
    with pytest.raises(JournalError, match=r"folder/journal\.db"):
        SqliteStorage(tmp_path / "folder" / "journal.db").open()


AS_NOBODY = """
    if os.geteuid() == 0:
        os.setgid(65534), os.setuid(65534)
    try:
        SqliteStorage(path).open()
    except JournalError as error:
        print(type(error).__name__, error)
    """


@pytest.mark.parametrize("there", [True, False], ids=["an existing journal", "a new journal"])
def test_a_folder_that_may_not_be_written_to_is_said_so(tmp_path: Path, there: bool) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    path = closed_journal(folder / "journal.db") if there else folder / "journal.db"
    for one in (tmp_path, *tmp_path.parents[:3]):
        one.chmod(0o755)
    path.chmod(0o444) if there else None
    folder.chmod(0o555)
    said = children.run(AS_NOBODY, path)
    folder.chmod(0o755)
    assert said.startswith("JournalError ")
    assert str(path) in said
    assert "belong to you" in said


# ---- locks


@pytest.mark.timeout(8)
@pytest.mark.parametrize("exclusive", [True, False])
def test_a_journal_held_by_another_process_is_refused_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, exclusive: bool
) -> None:
    monkeypatch.setattr(sqlite_open, "_OPENING", PATIENCE)
    path = closed_journal(tmp_path / "journal.db")
    holder = children.start(
        """
        store = SqliteStorage(path, exclusive=True)
        store.open()
        print("held", flush=True)
        sys.stdin.readline()
        store.close()
        """,
        path,
    )
    assert holder.stdout is not None
    assert holder.stdout.readline() == "held\n"
    with pytest.raises(JournalLocked, match="another process has it open"):
        SqliteStorage(path, exclusive=exclusive).open()
    children.finish(holder)
    assert count(path) == 3


@pytest.mark.timeout(8)
def test_a_journal_held_by_another_store_of_this_process_is_refused_and_stays_locked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sqlite_open, "_OPENING", PATIENCE)
    holder = SqliteStorage(tmp_path / "journal.db", exclusive=True)
    holder.open()
    for _ in range(2):
        with pytest.raises(JournalLocked):
            SqliteStorage(tmp_path / "journal.db").open()
    write(holder, lambda tx: tx.put("still", "1"))
    tried = children.run(
        f"""
        sqlite_open._OPENING = {PATIENCE}
        try: SqliteStorage(path).open()
        except JournalLocked: print('locked')
        """,
        holder.place,
    )
    assert tried == "locked\n"
    holder.close()


def test_what_is_not_open_takes_nothing(tmp_path: Path) -> None:
    store = SqliteStorage(tmp_path / "journal.db")
    with pytest.raises(JournalError, match="not open"):
        store.apply([])
    store.close()
    assert files_of(tmp_path) == {}
