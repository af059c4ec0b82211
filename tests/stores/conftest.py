"""Fixtures of the contract suite: every test that takes `store` runs for each kind of store."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, cast

import pytest

from taskrun.stores.base import Store, Tx
from taskrun.stores.memory import MemoryStorage
from taskrun.stores.postgres import PostgresStorage
from taskrun.stores.sqlite import SqliteStorage
from tests import postgres_server

Do = Callable[[Callable[[Tx], Any]], Any]


def _memory(folder: Path) -> Store:
    return MemoryStorage()


def _sqlite(folder: Path) -> Store:
    return SqliteStorage(folder / "journal.db")


def _sqlite_exclusive(folder: Path) -> Store:
    return SqliteStorage(folder / "journal.db", synchronous="normal", exclusive=True)


def _postgres(folder: Path) -> Store:
    return PostgresStorage(postgres_server.shared_dsn(), postgres_server.new_schema())


@pytest.fixture(params=[_memory, _sqlite, _sqlite_exclusive, _postgres], ids=lambda make: make.__name__.strip("_"))
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Store]:
    """An open, empty store."""
    made: Store = request.param(tmp_path)
    made.open()
    if isinstance(made, PostgresStorage):
        while cast(tuple[int, int], made.outside())[0] == 0:  # it does not listen yet, and says so once it does
            time.sleep(0.001)
    yield made
    made.close()
    if isinstance(made, PostgresStorage):
        postgres_server.drop_schema(made.schema)


@pytest.fixture
def do(store: Store) -> Do:
    """Runs one fn in a transaction of its own; returns its value or raises its exception."""

    def run(fn: Callable[[Tx], Any]) -> Any:
        [(value, error)] = store.apply([fn])
        if error is not None:
            raise error
        return value

    return run


class _EachAlone:
    """Verbs, each in a transaction of its own."""

    def __init__(self, do: Do) -> None:
        self._do = do

    def __getattr__(self, verb: str) -> Callable[..., Any]:
        return lambda *values: self._do(lambda tx: getattr(tx, verb)(*values))


@pytest.fixture
def tx(do: Do) -> Tx:
    """The verbs of the store, each in a transaction of its own."""
    return cast(Tx, _EachAlone(do))
