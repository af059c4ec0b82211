"""A disk of the server that is full for a while: a tmpfs of some megabytes, with the oracle of `test_faults`."""

from __future__ import annotations

import asyncio
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from random import Random

import psycopg
import pytest

from tests.postgres.engines import Engines, expected, outputs, results, triggering
from tests.postgres_server import Server

# Long, and no compression helps: so that rows do not fit into the pages that are there.
NAMES = [f"run{number}-{Random(number).randbytes(700).hex()}" for number in range(16)]


class Disk:
    """A small disk that may be full."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._filler = folder / "filler"

    def fill(self) -> None:
        with suppress(OSError), self._filler.open("ab", buffering=0) as file:
            while True:
                file.write(bytes(4096))

    def empty(self) -> None:
        self._filler.unlink()


@pytest.fixture
def disk() -> Iterator[Disk]:
    with tempfile.TemporaryDirectory(prefix="taskrun-disk-", dir="/tmp") as folder:
        options = "size=100m,mode=777"
        mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", options, "tmpfs", folder], capture_output=True)
        if mounted.returncode:
            pytest.skip("cannot mount a small disk")
        yield Disk(Path(folder))
        subprocess.run(["umount", "-l", folder], check=True)


@pytest.fixture
def tables(server: Server, disk: Disk) -> Iterator[str]:
    """The DSN of a database whose tables are on the small disk."""
    with psycopg.connect(server.dsn, autocommit=True) as connection:
        connection.execute(f"CREATE TABLESPACE small LOCATION '{server.own(disk.folder / 'tables')}'")
        connection.execute("CREATE DATABASE on_small TABLESPACE small STRATEGY file_copy")
        yield f"postgresql://postgres@/on_small?host={server.folder}"
        connection.execute("DROP DATABASE on_small WITH (FORCE)")
        connection.execute("DROP TABLESPACE small")


@pytest.fixture
def log(server: Server, disk: Disk) -> Iterator[Server]:
    """A server whose write-ahead log is on the small disk."""
    made = server.copied("--waldir", server.own(disk.folder / "log"))
    made.start()
    yield made
    made.remove()


async def through(dsn: str, disk: Disk, trace: Path, dying: Server | None = None) -> str:
    """Has engines work while the disk is full for a while; returns what was the matter then."""
    engines = Engines(dsn, trace)
    try:
        for _ in range(2):
            engines.start()
        async with triggering(dsn) as queue:
            runs = [await queue.jobs.steps.start(name=name) for name in NAMES[:8]]
            while engines.executed().total() < 8:
                await asyncio.sleep(0.01)
            disk.fill()
            while dying is not None and dying.alive:
                with suppress(psycopg.Error), psycopg.connect(dsn, autocommit=True) as connection:
                    connection.execute("SELECT pg_switch_wal()")  # so that it needs another file of 16 MB
                await asyncio.sleep(0.05)
            triggers = [asyncio.create_task(queue.jobs.steps.start(name=name)) for name in NAMES[8:]]
            while (fault := queue.core.journal.fault) is None:
                await asyncio.sleep(0.01)
            await asyncio.sleep(0.5)  # in which the engines come up against it too
            disk.empty()
            if dying is not None:
                await asyncio.to_thread(dying.start)
            runs += await asyncio.gather(*triggers)
            assert await outputs(runs) == results(NAMES)
        assert engines.executed() == expected(NAMES)
    finally:
        engines.end()
    return str(fault)


async def test_there_is_no_room_for_tables(disk: Disk, tables: str, tmp_path: Path) -> None:
    assert "No space left on device" in await through(tables, disk, tmp_path / "trace")


async def test_there_is_no_room_for_the_log(disk: Disk, log: Server, tmp_path: Path) -> None:
    """The server then dies, and cannot be started until there is."""
    assert "the server does not answer" in await through(log.dsn, disk, tmp_path / "trace", log)
