"""How keys of `taskrun.toml` are read: each table lists its own, with a default and what a value may be.

A table of its own has a module of its own, which reads it with `read_keys`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from difflib import get_close_matches
from pathlib import Path
from typing import Any

import msgspec

from taskrun.model.durations import shown
from taskrun.model.errors import ConfigError, DefinitionError, DurationInvalid

COUNT = "a whole number of 1 or more"
DURATION = 'a duration such as "10s" or "30d" (ms, s, m, h, d, w, y)'
SIZE = 'a size such as "4MB" (B, KB, MB, GB, TB)'


class Key(msgspec.Struct, frozen=True):
    """How a value is read.

    `read` raises ValueError when it is not what `expected` says; a `needed` key has no default.
    """

    expected: str
    read: Callable[[Any], Any]
    default: Any = None
    needed: bool = False


class TablePlace(msgspec.Struct, frozen=True):
    """A table of a file, as messages call it: `[jobs.backup]`, `[jobs.release] steps 2`."""

    path: Path
    table: str

    def at(self, inner: str) -> TablePlace:
        """Returns a part of it."""
        return TablePlace(self.path, f"{self.table} {inner}")

    def error(self, text: str) -> ConfigError:
        """Returns an error that names it, and what is wrong with it or one of its keys."""
        return ConfigError(f"{self.path}: {self.table} {text}")

    def read(self, found: dict[str, Any], keys: dict[str, Key]) -> dict[str, Any]:
        """Reads its keys; raises ConfigError."""
        return read_keys(found, keys, f"{self.table} ", self.path)


# ---- readers of values


def any_text(value: Any) -> str:
    """Reads text, which may be empty; it has no NUL, which no variable and no argument can hold."""
    if isinstance(value, str) and "\0" not in value:
        return value
    raise ValueError


def nonempty(value: Any) -> str:
    """Reads text that is not blank."""
    if any_text(value).strip():
        return str(value)
    raise ValueError


def texts(value: Any) -> list[str]:
    """Reads a list of texts."""
    if isinstance(value, list):
        return [nonempty(item) for item in value]
    raise ValueError


def count(value: Any) -> int:
    """Reads a whole number of 1 or more."""
    if isinstance(value, int) and not isinstance(value, bool) and value > 0:
        return value
    raise ValueError


def natural(value: Any) -> int:
    """Reads a whole number of 0 or more."""
    return 0 if value == 0 and not isinstance(value, (bool, float)) else count(value)


def mapping(value: Any) -> dict[str, Any]:
    """Reads a table."""
    if not isinstance(value, dict):
        raise ValueError
    return dict(value)


def one_of(*known: str) -> Callable[[Any], str]:
    """Returns what reads one of a few words."""

    def read(value: Any) -> str:
        if value in known:
            return str(value)
        raise ValueError

    return read


# ---- tables


def section_of(document: dict[str, Any], section: str, path: Path) -> dict[str, Any]:
    """Returns a table of a document, empty where it has none; raises ConfigError when it is no table."""
    found = document.get(section, {})
    if not isinstance(found, dict):
        raise ConfigError(f"{path}: {section} must be a table, written [{section}]")
    return found


def read_keys(found: dict[str, Any], keys: dict[str, Key], section: str, path: Path) -> dict[str, Any]:
    """Reads a table.

    Parameters:
        section: how a message calls it, with a space after it.

    Raises:
        ConfigError: an unknown or missing key, or a value that does not fit; names file, table and key.
    """
    refuse_unknown(found, keys, section, path)
    for name, key in keys.items():
        if key.needed and name not in found:
            raise ConfigError(f"{path}: {section}{name} is missing: {key.expected}")
    return {name: read_key(found, name, key, f"{path}: {section}{name}") for name, key in keys.items()}


def read_key(found: dict[str, Any], name: str, key: Key, place: str) -> Any:
    """Reads one key of a table, or its default; raises ConfigError, which begins with `place`."""
    if name not in found:
        return key.default if key.default is None else key.read(key.default)
    try:
        return key.read(found[name])
    except ConfigError as error:
        raise ConfigError(f"{place} {error}") from None
    except (ValueError, DurationInvalid, DefinitionError):
        raise ConfigError(f"{place} must be {key.expected}, not {shown(found[name])}") from None


def refuse_unknown(found: Mapping[str, Any], known: Mapping[str, Any] | set[str], section: str, path: Path) -> None:
    """Raises ConfigError for a key that there is not, with a suggestion."""
    for name in found:
        if name not in known:
            close = get_close_matches(name, known, 1)
            hint = f"did you mean {close[0]}?" if close else f"valid keys: {', '.join(sorted(known))}"
            raise ConfigError(f"{path}: {section}unknown key {name}; {hint}")
