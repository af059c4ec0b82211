"""Journals by their address: a path is a SQLite file, `postgresql://…` a schema on a server. Drivers are loaded when needed."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, cast

from taskrun.model.config import is_server
from taskrun.model.errors import ConfigError
from taskrun.stores.base import Store

if TYPE_CHECKING:
    from taskrun.stores.journal_copy import Side
    from taskrun.stores.postgres_reader import PostgresReader


def storage_at(journal: str) -> Store:
    """Returns the storage of a journal that its user opens: of a file for itself, of a server beside others.

    Raises:
        ConfigError: the driver for servers is not installed.
    """
    if is_server(journal):
        return cast(Store, _loaded("postgres", "PostgresStorage")(journal))
    return cast(Store, _loaded("sqlite", "SqliteStorage")(journal, exclusive=True))


def server_reader(journal: str) -> PostgresReader:
    """Returns what reads a journal on a server. Raises ConfigError as `storage_at`."""
    return cast("PostgresReader", _loaded("postgres_reader", "PostgresReader")(journal))


def server_side(journal: str, source: bool) -> Side:
    """Returns a journal on a server as one side of a copy. Raises ConfigError as `storage_at`."""
    return cast("Side", _loaded("postgres_copy", "PostgresSide")(journal, source))


def _loaded(module: str, name: str) -> type:
    try:
        return cast(type, getattr(import_module(f"taskrun.stores.{module}"), name))
    except ModuleNotFoundError as error:
        if error.name is None or error.name.startswith("taskrun"):
            raise
        raise ConfigError(
            f"journals on a server need the package {error.name}: pip install 'taskrun[postgres]'"
        ) from error
