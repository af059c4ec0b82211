"""Which configurations want what: several machines may use one journal, each with a `taskrun.toml` of its own.

What one of them has no longer is forgotten only if none of the others has it.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Literal

from taskrun.engine.core.facts import TABLES, Tables
from taskrun.engine.core.transaction import Transaction

RENEWED = 86_400.0  # seconds after which a configuration is applied again though nothing has changed
FORGOTTEN = 7 * RENEWED  # seconds after which one that was not applied again counts no more


def wanted_by_others(
    t: Transaction, kind: Literal["schedules", "files"], owner: str, wanted: Collection[str]
) -> frozenset[str]:
    """Writes down what a configuration wants, and returns what others want."""
    mine, others = f"{kind}:{owner}", set[str]()
    for id, tables in TABLES.all(t.tx, f"{kind}:").items():
        if id != mine and tables.at < t.now - FORGOTTEN:
            TABLES.drop(t.tx, id)
        elif id != mine:
            others.update(tables.ids)
    if wanted:
        TABLES.put(t.tx, mine, Tables(sorted(wanted), t.now))
    else:
        TABLES.drop_if_any(t.tx, mine)
    return frozenset(others)
