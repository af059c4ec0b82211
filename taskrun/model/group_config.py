"""Groups of commands, whose runs take turns, and the table `[groups]`: how many runs of one go at once."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from taskrun.model.config_keys import COUNT, Key, count, read_keys, section_of
from taskrun.model.errors import ConfigError, DefinitionError

LONGEST = 100  # characters of a name
_SLOTS = Key(COUNT, count)


def read_groups(document: dict[str, Any], path: Path) -> dict[str, int]:
    """Reads the table of a document: how many runs of each group go at once.

    Raises:
        ConfigError: it is wrong; names file and key.
    """
    found = section_of(document, "groups", path)
    try:
        for name in found:
            check_group(name)
    except DefinitionError as error:
        raise ConfigError(f"{path}: [groups] {error}") from None
    return read_keys(found, dict.fromkeys(found, _SLOTS), "[groups] ", path)


def check_group(name: str) -> str:
    """Returns the name of a group.

    Raises:
        DefinitionError: it is none.
    """
    if not name.strip() or not name.isprintable() or len(name) > LONGEST:
        raise DefinitionError(f"a group is named by at most {LONGEST} characters that can be printed")
    return name


def slots_of(group: str, slots: int | None, groups: Mapping[str, int]) -> int:
    """Returns how many runs of a group go at once, as far as this one is concerned: what it says itself, or the table."""
    return slots or groups.get(group, 1)


def limit_id(group: str) -> str:
    """Returns the id of the limit that the runs of a group share, whatever their jobs."""
    return f"group {group}"
