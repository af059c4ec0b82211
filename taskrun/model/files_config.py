"""`[[files]]` of `taskrun.toml`: files that are put into a folder, or changed there, start a job without touching its code."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import msgspec

from taskrun.model import durations
from taskrun.model.config_keys import DURATION, Key, TablePlace, mapping, nonempty, texts
from taskrun.model.errors import ConfigError

# the fields of an event, with their types in JSON
EVENT = {"path": "string", "name": "string", "size": "integer", "modified": "string", "change": "string"}


class FilesTable(msgspec.Struct, frozen=True, kw_only=True):
    """One `[[files]]`: each version of a file that matches starts a run of the job.

    Parameters:
        place: how a message calls it: `[[files]]`, with its number where there are several.
        field: the field of the input that gets the path; `input` has the rest.
    """

    place: str
    job: str
    pattern: list[str]
    field: str = "path"
    input: dict[str, Any] = {}
    settle: float = 1.0
    existing: bool = False
    poll: float | None = None


def patterns(value: Any) -> list[str]:
    """Reads a pattern of files, or a list of them."""
    found = [nonempty(value)] if isinstance(value, str) else texts(value)
    if not found or not all(one.strip("/") for one in found):
        raise ValueError
    return found


def read_files(document: dict[str, Any], path: Path) -> list[FilesTable]:
    """Reads the tables of a document; raises ConfigError."""
    found = document.get("files", [])
    if not isinstance(found, list) or not all(isinstance(one, dict) for one in found):
        raise ConfigError(f"{path}: files must be a list of tables, each written [[files]]")
    return [_table(one, f"[[files]] {at}" if len(found) > 1 else "[[files]]", path) for at, one in enumerate(found, 1)]


def topics_of(tables: Iterable[FilesTable]) -> dict[str, list[str]]:
    """Returns the names of their triggers, by job."""
    found: dict[str, list[str]] = {}
    for table in tables:
        found.setdefault(table.job, []).append(f"files:{' '.join(table.pattern)}")
    return found


def _table(written: dict[str, Any], name: str, path: Path) -> FilesTable:
    place = TablePlace(path, name)
    read = place.read(written, FILES)
    if read["field"] in read["input"]:
        raise place.error(f"input has {read['field']}, which is the field that gets the path")
    return FilesTable(place=name, **read)


def _flag(value: Any) -> bool:
    if isinstance(value, bool):
        return value
    raise ValueError


def _positive(value: Any) -> float:
    if (found := durations.seconds(value)) > 0:
        return found
    raise ValueError


PATTERN = Key('a pattern of files such as "inbox/**/*.mp3", or a list of them', patterns, needed=True)
FILES = {
    "pattern": PATTERN,
    "job": Key("the name of a job", nonempty, needed=True),
    "field": Key("the name of a field", nonempty, "path"),
    "input": Key("a table", mapping, {}),
    "settle": Key(DURATION, durations.seconds, "1s"),
    "existing": Key("true or false", _flag, False),
    "poll": Key(DURATION, _positive),
}
