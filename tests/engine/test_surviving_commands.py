"""Commands that survive in a `Queue`: another process on the journal goes on with what a dead one has begun."""

from __future__ import annotations

import asyncio
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from taskrun import Queue, SqliteStorage, job, shell
from taskrun.engine.core.core import Core
from tests.waiting import until_async

ROOT = Path(__file__).parents[2]
QUEUE = """
import asyncio, sys
from tests.engine.test_surviving_commands import command
import pytest

from taskrun import Queue, SqliteStorage

async def main():
    async with Queue(jobs=[command], storage=SqliteStorage(sys.argv[1])) as queue:
        run = await queue.jobs.command.start(script=sys.argv[2])
        print(run.id, flush=True)
        await asyncio.sleep(600)

asyncio.run(main())
"""


@job(retry=0)
async def command(script: str, survive: bool = True) -> str:
    return (await shell(script, survive=survive, name="command")).stdout


@job(retry=1, backoff=0)
async def twice(script: str) -> str:
    return (await shell(script, survive=True, name="command", retry=1, backoff=0)).stdout


def waiting(folder: Path) -> str:
    """A command that says that it has begun, and waits for its gate."""
    return f"echo one; echo $$ >> {folder}/oracle; while [ ! -e {folder}/gate ]; do sleep 0.02; done; echo two"


def files(journal: Path) -> list[Path]:
    return list(Path(f"{journal}.commands").iterdir())


async def test_another_process_adopts_it(tmp_path: Path) -> None:
    journal, oracle = tmp_path / "journal.db", tmp_path / "oracle"
    with subprocess.Popen(
        [sys.executable, "-c", QUEUE, str(journal), waiting(tmp_path)], cwd=ROOT, stdout=subprocess.PIPE, text=True
    ) as first:
        assert first.stdout is not None
        run_id = first.stdout.readline().strip()
        await until_async(oracle.exists)
        first.kill()
    async with Queue(jobs=[command], storage=SqliteStorage(journal)) as queue:
        (tmp_path / "gate").touch()
        run = await queue.get(run_id)
        assert await run.result(timeout=20) == "one\ntwo\n"
        assert [line["text"] async for line in run.log() if line["stream"] == "stdout"] == ["one", "two"]
    assert len(oracle.read_text().splitlines()) == 1
    assert not files(journal)


async def test_a_close_leaves_it_alone_and_the_next_start_adopts_it(tmp_path: Path) -> None:
    journal = tmp_path / "journal.db"
    async with Queue(jobs=[command], storage=SqliteStorage(journal), grace=600) as queue:
        run_id = (await queue.jobs.command.start(script=waiting(tmp_path))).id
        await until_async((tmp_path / "oracle").exists)
    (tmp_path / "gate").touch()
    async with Queue(jobs=[command], storage=SqliteStorage(journal)) as queue:
        assert await (await queue.get(run_id)).result(timeout=20) == "one\ntwo\n"
    assert len((tmp_path / "oracle").read_text().splitlines()) == 1


async def test_a_cancel_that_comes_while_nobody_follows_it_keeps_what_it_has_printed(tmp_path: Path) -> None:
    """And gives it and the handler their grace."""

    @job(retry=0)
    async def command(script: str) -> None:
        try:
            await shell(script, survive=True)
        finally:
            await shell("echo four")

    journal, trapped = tmp_path / "journal.db", tmp_path / "trapped"
    script = waiting(tmp_path) + f"; trap 'echo three; exit' TERM; touch {trapped}; while :; do sleep 0.02; done"
    async with Queue(jobs=[command], storage=SqliteStorage(journal), grace=600) as queue:
        run = await queue.jobs.command.start(script=script)
        await until_async((tmp_path / "oracle").exists)
    (tmp_path / "gate").touch()
    await until_async(trapped.exists)
    core = Core(SqliteStorage(journal))
    await core.start()
    await core.cancel(run.id)
    await core.close(grace=0)
    async with Queue(jobs=[command], storage=SqliteStorage(journal), grace=600) as queue:
        run = await queue.get(run.id)
        async with asyncio.timeout(20):
            lines = [line["text"] async for line in run.log() if line["stream"] == "stdout"]
        assert lines == ["one", "two", "three", "four"]
        assert await run.status() == "cancelled"
    assert not files(journal)


async def test_it_ends_where_an_engine_of_another_machine_has_its_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    journal = tmp_path / "journal.db"
    async with Queue(jobs=[command], storage=SqliteStorage(journal)) as queue:
        await queue.jobs.command.start(script=waiting(tmp_path))
        await until_async((tmp_path / "oracle").exists)
        await queue.core.commands.look()
        assert files(journal)
        monkeypatch.setattr(socket, "gethostname", lambda: "another")
        await queue.core.commands.look()
        await until_async(lambda: not files(journal))


async def test_each_try_and_each_attempt_is_a_command_of_its_own(tmp_path: Path) -> None:
    journal, oracle = tmp_path / "journal.db", tmp_path / "oracle"
    script = f"echo try >> {oracle}; [ $(wc -l < {oracle}) = 4 ] && echo fourth"
    async with Queue(jobs=[twice], storage=SqliteStorage(journal)) as queue:
        assert await queue.jobs.twice.run(script=script) == "fourth\n"
    assert not files(journal)


async def test_in_memory_it_is_a_plain_command(tmp_path: Path) -> None:
    async with Queue(jobs=[command]) as queue:
        assert await queue.jobs.command.run(script="echo one") == "one\n"
