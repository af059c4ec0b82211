"""Copies a journal from one store to another, row by row, with runs in flight; verified by counts and checksums.

Engines are copied as dead ones, so that the first one that opens the copy takes over what they held.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, Final, Protocol

import msgspec

from taskrun.model.errors import JournalDamaged, JournalError
from taskrun.stores.highwater import HighWater, is_absent
from taskrun.stores.rows import ENGINE_FIELDS, EVENT_FIELDS, LOG_FIELDS, RUN_FIELDS, STEP_FIELDS
from taskrun.stores.sqlite_open import JournalFile

COLUMNS: Final = {
    "runs": RUN_FIELDS,
    "steps": (*STEP_FIELDS, "n"),
    "events": EVENT_FIELDS,
    "logs": LOG_FIELDS,
    "engines": ENGINE_FIELDS,
    "facts": ("key", "value"),
}
ORDER: Final = {"runs": "seq", "steps": "n", "events": "seq", "logs": "run, seq", "engines": "id", "facts": "key"}
BOOLEANS: Final = frozenset({"placed", "awaited"})
BATCH: Final = 500  # rows

Row = tuple[Any, ...]
Progress = Callable[[str, int], None]


class InUse(JournalError):
    """A journal that is to be copied, or copied to, is in use, or the target is not empty."""


class Side(Protocol):
    """A journal that is open for a copy, and for nothing else."""

    name: str

    def count(self, table: str) -> int:
        """Returns how many rows a table has."""
        ...

    def rows(self, table: str) -> Iterator[Row]:
        """Yields the rows of a table in order, as they are."""
        ...

    def fill(self, table: str, rows: Iterable[Row]) -> None:
        """Inserts rows."""
        ...

    def finish(self) -> None:
        """Makes what was filled durable, and further numbers higher than those that were copied."""
        ...

    def close(self) -> None:
        """Closes it; what was not finished is undone."""
        ...


class SqliteSide:
    """A SQLite file, which nobody else has open meanwhile."""

    def __init__(self, path: str, source: bool) -> None:
        self.name = path
        file = Path(path).resolve()
        if source and is_absent(str(file)):
            raise JournalError(f"there is no journal {path}")
        self._connection = JournalFile(file, "full", True, HighWater(str(file))).open()
        self._connection.execute("BEGIN IMMEDIATE")

    def count(self, table: str) -> int:
        return int(self._connection.execute(f"SELECT count(*) FROM {_known(table)}").fetchone()[0])  # noqa: S608

    def rows(self, table: str) -> Iterator[Row]:
        yield from self._connection.execute(_select(table))

    def fill(self, table: str, rows: Iterable[Row]) -> None:
        places = ", ".join("?" for _ in COLUMNS[table])
        statement = f"INSERT INTO {_known(table)} ({_names(table)}) VALUES ({places})"  # noqa: S608
        self._connection.executemany(statement, rows)

    def finish(self) -> None:
        self._connection.execute("UPDATE commits SET n = n + 1")
        self._connection.execute("COMMIT")

    def close(self) -> None:
        if self._connection.in_transaction:
            self._connection.execute("ROLLBACK")
        self._connection.close()


def copy(source: Side, target: Side, progress: Progress) -> dict[str, int]:
    """Copies all of a journal into an empty one, and reads it again; returns how many rows each table has.

    Raises:
        InUse: the target is not empty.
        JournalDamaged: what is read there is not what was written.
    """
    if any(target.count(table) for table in COLUMNS):
        raise InUse(f"{target.name} is not empty")
    sums = {}
    for table in COLUMNS:
        written = Checksum(table)
        target.fill(table, _reported(written.of(_portable(table, source.rows(table))), table, progress))
        sums[table] = written
    for table, written in sums.items():
        read = Checksum(table)
        for _ in read.of(_portable(table, target.rows(table))):
            pass
        if (read.count, read.value) != (written.count, written.value) or read.count != source.count(table):
            raise JournalDamaged(
                f"the copy differs: {table} has {read.count} rows of {written.count}, checksum "
                f"{read.hex} instead of {written.hex}; nothing was kept of it"
            )
    target.finish()
    return {table: written.count for table, written in sums.items()}


class Checksum:
    """Counts rows, and sums their digests, whatever their order."""

    def __init__(self, table: str) -> None:
        self.table = table
        self.count = 0
        self.value = 0

    @property
    def hex(self) -> str:
        """The sum as text."""
        return f"{self.value:016x}"

    def of(self, rows: Iterable[Row]) -> Iterator[Row]:
        """Yields rows, counted."""
        for row in rows:
            digest = hashlib.blake2b(msgspec.json.encode(row), digest_size=8).digest()
            self.count += 1
            self.value = (self.value + int.from_bytes(digest, "big")) % (1 << 64)
            yield row


def _portable(table: str, rows: Iterable[Row]) -> Iterator[Row]:
    """Yields rows as both kinds of store can hold them; engines as dead."""
    names = COLUMNS[table]
    for row in rows:
        values = [_value(name, value) for name, value in zip(names, row, strict=True)]
        if table == "engines":
            values[names.index("lease_until")], values[names.index("leash")] = 0.0, None
        yield tuple(values)


def _value(name: str, value: Any) -> Any:
    if name in BOOLEANS:
        return bool(value)
    return value.replace("\0", "\x1a") if isinstance(value, str) and "\0" in value else value


def _reported(rows: Iterable[Row], table: str, progress: Progress) -> Iterator[Row]:
    count, said = 0, time.monotonic()
    for row in rows:
        count += 1
        if time.monotonic() - said > 0.2:
            said = time.monotonic()
            progress(table, count)
        yield row
    progress(table, count)


def _known(table: str) -> str:
    assert table in COLUMNS
    return table


def _names(table: str) -> str:
    return ", ".join(f'"{name}"' for name in COLUMNS[table])


def _select(table: str) -> str:
    return f"SELECT {_names(table)} FROM {_known(table)} ORDER BY {ORDER[table]}"  # noqa: S608
