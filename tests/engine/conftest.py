"""Fixtures of the engine's suite: a journal, in memory and on disk, and one that only lives in memory."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from taskrun import MemoryStorage, PostgresStorage, SqliteStorage
from taskrun.stores.base import Store
from tests import postgres_server

# Those whose tests say most about a store that others write to as well; all of them where a server is named.
ON_POSTGRES = {
    "test_cancel",
    "test_deaths",
    "test_lost_lease",
    "test_pause",
    "test_places",
    "test_restarts",
    "test_runs",
}


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Gives the tests that take `storage` each kind of it."""
    if "storage" in metafunc.fixturenames:
        module = metafunc.module.__name__.rpartition(".")[2]
        on_postgres = module in ON_POSTGRES or "TASKRUN_TEST_POSTGRES" in os.environ
        metafunc.parametrize("storage", ["memory", "sqlite", *(["postgres"] if on_postgres else [])], indirect=True)


@pytest.fixture
def storage(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Store]:
    """A journal, empty and closed; queues that are opened on it one after the other find what the others left."""
    if request.param == "memory":
        yield MemoryStorage()
    elif request.param == "sqlite":
        yield SqliteStorage(tmp_path / "journal.db", synchronous="normal")
    else:
        schema = postgres_server.new_schema()
        yield PostgresStorage(postgres_server.shared_dsn(), schema)
        postgres_server.drop_schema(schema)
