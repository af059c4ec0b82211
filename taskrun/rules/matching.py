"""Whether an event is the one that a wait is for: deep partial equality. Called by the ledger."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def matches(pattern: Any, value: Any) -> bool:
    """Whether every field of `pattern` is in `value` and equal; mappings within are matched the same way."""
    if isinstance(pattern, Mapping):
        if not isinstance(value, Mapping):
            return False
        return all(key in value and matches(inner, value[key]) for key, inner in pattern.items())
    if isinstance(pattern, bool) or isinstance(value, bool):
        return pattern is value  # JSON tells true from 1
    return bool(pattern == value)
