"""What may happen to a server and to those who use it, really done: nothing is lost, nothing doubled, and all goes on by itself.

The oracle is a file to which each step appends a line when it executes. Where no process died, each stands there once.
"""

from __future__ import annotations

import asyncio
import signal
from pathlib import Path

import psycopg
import pytest

from taskrun import PostgresStorage, Queue
from tests.postgres.engine_process import JOBS
from tests.postgres.engines import CONCURRENCY, NAMES, Engines, expected, outputs, results, triggering
from tests.postgres_server import Server


def terminate_everybody(server: Server, dsn: str) -> int:
    with psycopg.connect(server.dsn, autocommit=True) as connection:
        name = psycopg.conninfo.conninfo_to_dict(dsn)["dbname"]
        rows = connection.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = %s AND pid <> pg_backend_pid()",
            (name,),
        )
        return len(rows.fetchall())


async def test_every_connection_is_terminated_again_and_again(server: Server, engines: Engines) -> None:
    for _ in range(2):
        engines.start()
    async with triggering(engines.dsn) as queue:
        runs = [await queue.jobs.steps.start(name=name) for name in NAMES]
        terminated = 0
        for _ in range(12):
            terminated += terminate_everybody(server, engines.dsn)
            await asyncio.sleep(0.2)
        assert terminated > 12
        assert await outputs(runs) == results(NAMES)
    assert engines.executed() == expected(NAMES)


@pytest.mark.parametrize("how", ["stopped", "killed"])
async def test_the_server_goes_and_comes_back(server: Server, engines: Engines, how: str) -> None:
    for _ in range(2):
        engines.start()
    async with triggering(engines.dsn) as queue:
        runs = [await queue.jobs.steps.start(name=name) for name in NAMES]
        for _ in range(2):
            await asyncio.sleep(0.3)
            await asyncio.to_thread(server.stop if how == "stopped" else server.kill)
            await asyncio.sleep(1.0)
            await asyncio.to_thread(server.start)
        assert await outputs(runs) == results(NAMES)
    assert engines.executed() == expected(NAMES)


async def test_engines_are_killed_and_others_go_on(engines: Engines) -> None:
    async with triggering(engines.dsn) as queue:
        runs = [await queue.jobs.steps.start(name=name) for name in NAMES]
        for _ in range(3):
            doomed = engines.start(lease=1.0)
            await asyncio.sleep(0.7)
            doomed.kill()
        engines.start(lease=1.0)
        assert await outputs(runs) == results(NAMES)
    executed = engines.executed()
    assert executed.keys() == expected(NAMES).keys()
    assert (executed - expected(NAMES)).total() <= 3 * CONCURRENCY  # those that were cut off


async def test_an_engine_that_was_paused_past_its_lease_writes_nothing_more(engines: Engines) -> None:
    async with triggering(engines.dsn) as queue:
        paused = engines.start(lease=1.0)
        runs = [await queue.jobs.steps.start(name=name) for name in NAMES[:4]]
        while not engines.executed():
            await asyncio.sleep(0.01)
        paused.send_signal(signal.SIGSTOP)
        engines.start(lease=1.0)
        assert await outputs(runs) == results(NAMES[:4])
        before = engines.executed()
        paused.send_signal(signal.SIGCONT)
        more = [await queue.jobs.steps.start(name=name) for name in NAMES[4:]]
        assert await outputs(more) == results(NAMES[4:])
    assert (before - expected(NAMES)).total() <= CONCURRENCY
    after = engines.executed() - before
    twice = {what: count for what, count in after.items() if expected(NAMES)[what] and what in before}
    assert sum(twice.values()) <= CONCURRENCY  # those that were in flight when it was stopped


async def test_parents_and_children_live_through_all_of_it(server: Server, engines: Engines) -> None:
    for _ in range(2):
        engines.start(lease=2.0)
    async with triggering(engines.dsn) as queue:
        runs = [await queue.jobs.family.start(name=name) for name in NAMES[:6]]
        await asyncio.sleep(0.2)
        terminate_everybody(server, engines.dsn)
        await asyncio.sleep(0.2)
        engines.processes[0].kill()
        engines.start(lease=2.0)
        await asyncio.to_thread(server.kill)
        await asyncio.to_thread(server.start)
        found = await outputs(runs)
    assert found == [[[f"{name}-{n}-{step}" for step in range(2)] for n in range(3)] for name in NAMES[:6]]


async def test_a_lock_that_somebody_holds_is_waited_for(
    database: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TRACE", str(tmp_path / "trace"))
    async with Queue(jobs=JOBS, storage=PostgresStorage(database)) as queue:
        await (await queue.jobs.steps.start(name="first", count=1)).result(timeout=30)
        with psycopg.connect(database) as other:
            other.execute("LOCK TABLE taskrun.runs IN EXCLUSIVE MODE")
            starting = asyncio.create_task(queue.jobs.steps.start(name="second", count=1))
            await asyncio.sleep(1.0)
            assert not starting.done()
        assert await (await starting).result(timeout=30) == ["second-0"]
