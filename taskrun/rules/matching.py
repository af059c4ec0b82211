"""Whether an event is the one that a wait is for: deep partial equality, and the address by which it is found at once.

Called by the engine's waits. A pattern with a plain value somewhere has an *address*: the path and value of one such leaf. An
event can only match a pattern whose address it has too, so that ten thousand waits need not be looked at.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from hashlib import blake2b
from typing import Any

import msgspec

LONGEST = 80  # characters of an address as they are; a longer one is a hash


def matches(pattern: Any, value: Any) -> bool:
    """Whether every field of `pattern` is in `value` and equal; mappings within are matched the same way."""
    if isinstance(pattern, Mapping):
        if not isinstance(value, Mapping):
            return False
        return all(key in value and matches(inner, value[key]) for key, inner in pattern.items())
    if isinstance(pattern, bool) or isinstance(value, bool):
        return pattern is value  # JSON tells true from 1
    return bool(pattern == value)


def leaf(pattern: Any, known: Sequence[Sequence[str]]) -> list[str] | None:
    """Returns the path of a plain value in a pattern, one that is known already where there is one; None: there is none."""
    paths = list(_leaves(pattern, ()))
    for path in paths:
        if path in known:
            return path
    return paths[0] if paths else None


def address(value: Any, path: Sequence[str]) -> str | None:
    """Returns path and value of a leaf as a text that is the same for equal values; None: it is not there, or not plain."""
    for key in path:
        if not isinstance(value, Mapping) or key not in value:
            return None
        value = value[key]
    if not _plain(value):
        return None
    if isinstance(value, float) and value.is_integer():
        value = int(value)  # 55 is 55.0
    text = msgspec.json.encode([path, value]).decode()
    return text if len(text) <= LONGEST else blake2b(text.encode(), digest_size=16).hexdigest()


def _leaves(pattern: Any, path: tuple[str, ...]) -> Iterator[list[str]]:
    if isinstance(pattern, Mapping):
        for key, inner in pattern.items():
            yield from _leaves(inner, (*path, key))
    elif path and _plain(pattern):
        yield list(path)


def _plain(value: Any) -> bool:
    return value is None or isinstance(value, (str, int, float, bool))
