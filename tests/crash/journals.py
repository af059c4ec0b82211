"""The kinds of journal that the crash tests use: each a new one, looked at apart from taskrun, and removed when it was used."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import psycopg
from psycopg import sql

from taskrun import PostgresStorage, SqliteStorage
from tests import postgres_server

Storage: TypeAlias = SqliteStorage | PostgresStorage


@dataclass
class Journal:
    """A journal.

    Parameters:
        storage: returns a storage on it, which is not open yet.
        ask: returns what a query finds in it, without taskrun; nothing where it was not made yet.
    """

    storage: Callable[[], Storage]
    ask: Callable[[str], list[tuple[Any, ...]]]


@contextmanager
def sqlite_journal(folder: Path) -> Iterator[Journal]:
    """Gives a journal in a file."""
    path = folder / "journal.db"

    def ask(query: str) -> list[tuple[Any, ...]]:
        if not path.exists():
            return []
        with sqlite3.connect(path) as connection:
            try:
                return connection.execute(query).fetchall()
            except sqlite3.OperationalError:
                return []

    yield Journal(lambda: SqliteStorage(path), ask)


@contextmanager
def postgres_journal(folder: Path) -> Iterator[Journal]:
    """Gives a journal in a schema of its own on the server that `TASKRUN_TEST_POSTGRES` names."""
    dsn, schema = postgres_server.shared_dsn(), postgres_server.new_schema()

    def ask(query: str) -> list[tuple[Any, ...]]:
        with psycopg.connect(dsn, autocommit=True) as connection:
            connection.execute(sql.SQL("SET search_path TO {}").format(sql.Identifier(schema)))
            try:
                return connection.execute(query.encode()).fetchall()
            except psycopg.errors.UndefinedTable:
                return []

    try:
        yield Journal(lambda: PostgresStorage(dsn, schema), ask)
    finally:
        postgres_server.drop_schema(schema, dsn)


KINDS: dict[str, Callable[[Path], AbstractContextManager[Journal]]] = {
    "sqlite": sqlite_journal,
    "postgres": postgres_journal,
}
