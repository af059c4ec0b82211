"""What engines of a journal say of themselves with each heartbeat, and what `taskrun workers` shows of that."""

from __future__ import annotations

from typing import Any

import msgspec

from taskrun.engine.core.fact_kind import Fact
from taskrun.engine.core.queries.views import rfc3339
from taskrun.stores.base import Tx


class EngineReport(msgspec.Struct, frozen=True, omit_defaults=True):
    """What an engine said last.

    Parameters:
        load: runs that it executes.
        at: when it said so.
        draining: it starts nothing any more.
    """

    version: str
    load: int
    at: float
    draining: bool = False


# By engine: goes with it.
REPORTS: Fact[EngineReport] = Fact("engine:", EngineReport)


def engine_views(tx: Tx) -> list[dict[str, Any]]:
    """Returns the engines of a journal as JSON, by host and pid."""
    reports = REPORTS.all(tx)
    found = sorted(tx.engines(), key=lambda engine: (engine.host, engine.pid, engine.id))
    return [
        {
            "id": engine.id,
            "host": engine.host,
            "pid": engine.pid,
            "version": report.version if report else None,
            "load": report.load if report else None,
            "heartbeat": rfc3339(report.at) if report else None,
            "draining": report.draining if report else False,
        }
        for engine in found
        for report in (reports.get(engine.id),)
    ]
