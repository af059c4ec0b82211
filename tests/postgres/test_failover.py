"""A primary that dies, and its standby that is promoted: really done, with the oracle of `test_faults`."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import psycopg
import pytest

from taskrun import JournalUnavailable, PostgresStorage
from taskrun.model.records import RunFilter
from taskrun.stores.postgres_reader import PostgresReader
from tests.postgres.engines import NAMES, Engines, expected, outputs, results, triggering
from tests.postgres_server import Server


@dataclass
class Pair:
    """A primary, its standby, and the address that stands for whichever of them writes."""

    primary: Server
    standby: Server

    @property
    def dsn(self) -> str:
        hosts = f"{self.primary.folder},{self.standby.folder}"
        return f"postgresql://postgres@/postgres?host={hosts}&target_session_attrs=read-write"

    def wait_for_each_commit(self) -> None:
        """Has the primary acknowledge only what is on the standby."""
        execute(self.primary, "ALTER SYSTEM SET synchronous_standby_names = '*'")
        execute(self.primary, "SELECT pg_reload_conf()")
        while execute(self.primary, "SELECT sync_state FROM pg_stat_replication") != [("sync",)]:
            pass

    def wait_for_all_until_now(self) -> None:
        """Waits until the standby has what the primary has."""
        [(position,)] = execute(self.primary, "SELECT pg_current_wal_lsn()")
        while execute(self.standby, f"SELECT pg_last_wal_replay_lsn() >= '{position}'") != [(True,)]:
            pass

    def promote(self) -> None:
        assert execute(self.standby, "SELECT pg_promote()") == [(True,)]


def execute(server: Server, statement: str) -> list[tuple[object, ...]]:
    with psycopg.connect(server.dsn, autocommit=True) as connection:
        cursor = connection.execute(statement)
        return cursor.fetchall() if cursor.description else []


@pytest.fixture
def pair(server: Server) -> Iterator[Pair]:
    with ExitStack() as stack:
        primary = server.copied()
        stack.callback(primary.remove)
        primary.start()
        standby = primary.copied("--write-recovery-conf")
        stack.callback(standby.remove)
        standby.start()
        yield Pair(primary, standby)


@pytest.fixture
def engines(pair: Pair, tmp_path: Path) -> Iterator[Engines]:
    made = Engines(pair.dsn, tmp_path / "trace")
    yield made
    made.end()


async def test_a_standby_that_has_all_is_promoted(pair: Pair, engines: Engines) -> None:
    pair.wait_for_each_commit()
    for _ in range(2):
        engines.start()
    async with triggering(pair.dsn) as queue:
        runs = [await queue.jobs.steps.start(name=name) for name in NAMES]
        while engines.executed().total() < len(NAMES):
            await asyncio.sleep(0.01)
        await asyncio.to_thread(pair.primary.kill)
        meanwhile = asyncio.create_task(queue.jobs.steps.start(name="meanwhile"))
        await asyncio.sleep(0.5)
        assert not meanwhile.done()
        await asyncio.to_thread(pair.promote)
        names = [*NAMES, "meanwhile"]
        assert await outputs([*runs, await meanwhile]) == results(names)
    assert engines.executed() == expected(names)


async def test_a_standby_that_was_behind_is_promoted(pair: Pair, engines: Engines) -> None:
    """What it has not is lost; all else goes on from what it has, even where somebody waits for what is lost."""
    engines.start(lease=1.0)
    async with triggering(pair.dsn) as queue:
        kept = [await queue.jobs.family.start(name=name, count=2, pause=1.0) for name in NAMES[:2]]
        while not {*NAMES[:2]} <= engines.executed().keys():
            await asyncio.sleep(0.01)
        pair.wait_for_all_until_now()
        await asyncio.to_thread(pair.standby.stop)
        lost = await queue.jobs.steps.start(name="lost")
        while not {"lost-0", "run0-0-0", "run1-0-0"} <= engines.executed().keys():
            await asyncio.sleep(0.01)
        await asyncio.to_thread(pair.primary.kill)
        await asyncio.to_thread(pair.standby.start)
        await asyncio.to_thread(pair.promote)
        assert await outputs(kept) == [results([f"{name}-0", f"{name}-1"], 2) for name in NAMES[:2]]
        assert await outputs([await queue.jobs.steps.start(name="next")]) == results(["next"])
    assert (lost.id,) not in execute(pair.standby, "SELECT id FROM taskrun.runs")
    assert (lost.id,) not in execute(pair.standby, "SELECT run FROM taskrun.steps")


async def test_screens_read_from_a_standby(pair: Pair) -> None:
    async with triggering(pair.dsn) as queue:
        run = await queue.jobs.steps.start(name="somewhere")
    pair.wait_for_all_until_now()
    reader = PostgresReader(pair.standby.dsn)
    assert await reader.read(lambda tx: [found.id for found in tx.runs(RunFilter())]) == [run.id]
    await reader.close()
    with pytest.raises(JournalUnavailable, match="the server only reads"):
        PostgresStorage(pair.standby.dsn).open()
