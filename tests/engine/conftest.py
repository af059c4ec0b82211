"""Fixtures of the engine's suite: a journal, in memory and on disk, and one that only lives in memory."""

from __future__ import annotations

from pathlib import Path

import pytest

from taskrun import MemoryStorage, SqliteStorage
from taskrun.stores.base import Store


@pytest.fixture(params=["memory", "sqlite"])
def storage(request: pytest.FixtureRequest, tmp_path: Path) -> Store:
    """A journal, empty and closed; queues that are opened on it one after the other find what the others left."""
    if request.param == "memory":
        return MemoryStorage()
    return SqliteStorage(tmp_path / "journal.db", synchronous="normal")
