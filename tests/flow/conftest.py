"""Fixtures of the suite of flow control: a journal in memory and on disk, and what runs have become."""

from __future__ import annotations

from pathlib import Path

import pytest

from taskrun import MemoryStorage, SqliteStorage
from taskrun.stores.base import Store


@pytest.fixture(params=["memory", "sqlite"])
def storage(request: pytest.FixtureRequest, tmp_path: Path) -> Store:
    """A journal, empty and closed; several queues may be opened on it."""
    if request.param == "memory":
        return MemoryStorage()
    return SqliteStorage(tmp_path / "journal.db", synchronous="normal")
