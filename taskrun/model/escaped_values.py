"""`byte_escapes` in whole values, models included: all of their text as the journal keeps it, or as it was."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import PurePath
from typing import Any

import msgspec

from taskrun.model.byte_escapes import ESCAPED, escaped, restored
from taskrun.model.fields import all_fields

MARK = b"\xf4\x8f"  # how all escapes, and few other characters, begin in UTF-8


def may_have_escapes(raw: str | bytes | msgspec.Raw) -> bool:
    """Says whether JSON may hold escapes, quickly."""
    if isinstance(raw, str):
        return not raw.isascii() and re.search(ESCAPED, raw) is not None
    return MARK in bytes(raw)


def escape_value(value: Any, builtin: Callable[[Any], Any]) -> Any:
    """Returns a value with all of its text as the journal keeps it.

    Parameters:
        builtin: returns a model as plain data.
    """
    if isinstance(value, (str, PurePath)):
        return escaped(str(value))
    if isinstance(value, dict):
        return {escape_value(key, builtin): escape_value(item, builtin) for key, item in value.items()}
    if isinstance(value, (list, tuple, set, frozenset)):
        return [escape_value(item, builtin) for item in value]
    return value if all_fields(type(value)) is None else escape_value(builtin(value), builtin)


def restore_value(value: Any) -> Any:
    """Returns a value that was read from the journal with all of its text as it was; models are changed in place."""
    if type(value) is str:
        return restored(value)
    if isinstance(value, PurePath):
        return type(value)(restored(str(value)))
    if isinstance(value, dict):
        items = [(restore_value(key), restore_value(item)) for key, item in value.items()]
        value.clear()
        value.update(items)
        return value
    if isinstance(value, (list, tuple, set, frozenset)) and not hasattr(value, "_fields"):
        return type(value)(map(restore_value, value))
    for field in all_fields(type(value)) or ():
        _set(value, field.name, restore_value(getattr(value, field.name, None)))
    return value


def _set(model: Any, name: str, value: Any) -> None:
    if isinstance(model, msgspec.Struct):
        msgspec.structs.force_setattr(model, name, value)
    else:
        object.__setattr__(model, name, value)  # also of a frozen one
