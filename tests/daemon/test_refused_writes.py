"""A write that the disk refuses is told as one thing: not recorded, or not yet."""

from __future__ import annotations

import asyncio
import sqlite3
from types import SimpleNamespace
from typing import Any, cast

import pytest

from taskrun.daemon.clients import router as module
from taskrun.daemon.clients.router import Nothing, Operation, RequestContext, RequestRouter
from taskrun.model.errors import JournalUnavailable


def unavailable(outcome: str) -> JournalUnavailable:
    """Returns what a store raises of the batch that it could not write."""
    error = JournalUnavailable(f"journal /x/journal.db: {outcome} (SQLITE_FULL: database or disk is full)")
    error.__cause__ = sqlite3.OperationalError("database or disk is full")
    return error


@pytest.mark.parametrize("outcome", ["whether this was written is not known", "nothing of this was written"])
@pytest.mark.parametrize(
    ("early", "said"),
    [(True, "nothing was recorded: "), (False, "not recorded yet, but as soon as the disk allows it: ")],
)
async def test_a_refused_write_says_one_thing(
    monkeypatch: pytest.MonkeyPatch, outcome: str, early: bool, said: str
) -> None:
    monkeypatch.setattr(module, "COMMITTED_WITHIN", 0.01)
    journal = SimpleNamespace(fault=unavailable(outcome) if early else None)

    async def write(context: RequestContext, want: Nothing) -> Any:
        journal.fault = unavailable(outcome)
        await asyncio.Event().wait()

    context = cast(RequestContext, SimpleNamespace(core=SimpleNamespace(journal=journal)))
    with pytest.raises(JournalUnavailable) as raised:
        await cast(Any, RequestRouter(context, {"write": Operation(Nothing, write, writes=True)}).find("write")(b"{}"))
    assert str(raised.value) == f"{said}the journal cannot be written: database or disk is full"
