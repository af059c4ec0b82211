"""Triggers within a transaction of the caller's own."""

from __future__ import annotations

import logging

import psycopg
import pytest

from taskrun import DefinitionError, InputInvalid, MemoryStorage, PostgresStorage, Queue, RunNotFound, job
from taskrun.engine.core.enlisted import MOST

executed: list[str] = []


@job
async def greet(name: str) -> str:
    executed.append(name)
    return f"hello {name}"


@job(key=lambda given: "only one")
async def once(name: str) -> str:
    return name


@pytest.fixture(autouse=True)
def nothing_executed() -> None:
    executed.clear()


async def test_a_run_begins_with_the_callers_commit(database: str) -> None:
    async with Queue(jobs=[greet], storage=PostgresStorage(database)) as queue:
        with psycopg.connect(database) as connection:
            connection.execute("CREATE TABLE orders (id int)")
            connection.execute("INSERT INTO orders VALUES (1)")
            run = await queue.jobs.greet.start(name="you", connection=connection)
            with pytest.raises(RunNotFound):
                await queue.get(run.id)
            connection.commit()
            assert await run.result(timeout=20) == "hello you"
    assert executed == ["you"]


async def test_rolled_back_means_no_run(database: str) -> None:
    async with Queue(jobs=[greet], storage=PostgresStorage(database)) as queue:
        with psycopg.connect(database) as connection:
            run = await queue.jobs.greet.start(name="nobody", connection=connection)
            connection.rollback()
            after = await queue.jobs.greet.start(name="after", connection=connection)
        assert await after.result(timeout=20) == "hello after"
        with pytest.raises(RunNotFound):
            await queue.get(run.id)
    assert executed == ["after"]


async def test_an_async_connection_does_too(database: str) -> None:
    async with Queue(jobs=[greet], storage=PostgresStorage(database)) as queue:
        async with await psycopg.AsyncConnection.connect(database) as connection:
            run = await queue.jobs.greet.start({"name": "async"}, connection=connection)
        assert await run.result(timeout=20) == "hello async"


async def test_what_is_committed_while_nobody_is_there_begins_with_the_next_engine(database: str) -> None:
    async with Queue(jobs=[greet], storage=PostgresStorage(database)) as queue:
        with psycopg.connect(database) as connection:
            run = await queue.jobs.greet.start(name="later", connection=connection)
            await queue.close()
    assert executed == []
    async with Queue(jobs=[greet], storage=PostgresStorage(database)) as queue:
        assert await (await queue.get(run.id)).result(timeout=20) == "hello later"
    assert executed == ["later"]


async def test_a_key_finds_the_run_that_has_it(database: str) -> None:
    async with (
        Queue(jobs=[once], storage=PostgresStorage(database)) as queue,
        Queue(jobs=[once], storage=PostgresStorage(database)) as other,
    ):
        first = await queue.jobs.once.start(name="first")
        with psycopg.connect(database) as connection:
            found = [await each.jobs.once.start(name="second", connection=connection) for each in (queue, other)]
        assert [await run.result() for run in (first, *found)] == ["first"] * 3


async def test_what_cannot_be_admitted_holds_up_no_other(database: str, caplog: pytest.LogCaptureFixture) -> None:
    async with Queue(jobs=[greet], storage=PostgresStorage(database)) as queue:
        with psycopg.connect(database) as connection:
            connection.execute("INSERT INTO taskrun.facts VALUES ('enlisted:2', '{}')")
            runs = [await queue.jobs.greet.start(name=f"{n}", connection=connection) for n in range(MOST + 5)]
        assert [await run.result(timeout=60) for run in runs] == [f"hello {n}" for n in range(MOST + 5)]
    assert [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING] == [
        "the trigger of run 2, written in a transaction, cannot be admitted"
    ]


async def test_a_wrong_input_writes_nothing(database: str) -> None:
    async with Queue(jobs=[greet], storage=PostgresStorage(database)) as queue:
        with psycopg.connect(database) as connection:
            with pytest.raises(InputInvalid):
                await queue.jobs.greet.start(connection=connection)
            assert connection.info.transaction_status == psycopg.pq.TransactionStatus.IDLE


async def test_another_journal_shares_no_transaction() -> None:
    async with Queue(jobs=[greet], storage=MemoryStorage()) as queue:
        with pytest.raises(DefinitionError, match="PostgresStorage"):
            await queue.jobs.greet.start(name="you", connection=object())
