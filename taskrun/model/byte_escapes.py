"""Bytes that are no UTF-8, such as in names of files, on their way through JSON.

Python keeps such a byte in text as an unpaired surrogate (PEP 383: byte E9 is `\\udce9`), which UTF-8 and so the journal
cannot hold. There it stands as U+10FF00 plus the byte, a character of private use. A text that has these characters itself is
written as the bytes of its UTF-8, which read back as what they were. So every text of a file system survives.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import PurePath
from typing import Any, Final

import msgspec

from taskrun.model.fields import all_fields

ESCAPES: Final = "\U0010ff80-\U0010ffff"  # as a range of a regular expression
_BASE: Final = 0x10FF00
_TO_ESCAPE: Final = re.compile(f"[\udc80-\udcff{ESCAPES}]")
_ESCAPED: Final = re.compile(f"[{ESCAPES}]+")
MARK: Final = b"\xf4\x8f"  # how all escapes, and few other characters, begin in UTF-8


def escaped(text: str) -> str:
    """Returns text as the journal keeps it."""
    return text if text.isascii() else _TO_ESCAPE.sub(_escape, text)


def restored(text: str) -> str:
    """Returns text of the journal as it was."""
    return text if text.isascii() else _ESCAPED.sub(_restore, text)


def may_have_escapes(raw: str | bytes | msgspec.Raw) -> bool:
    """Says whether JSON may hold escapes, quickly."""
    if isinstance(raw, str):
        return not raw.isascii() and _ESCAPED.search(raw) is not None
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


def _escape(found: re.Match[str]) -> str:
    return "".join(chr(_BASE + byte) for byte in found[0].encode("utf-8", "surrogateescape"))


def _restore(found: re.Match[str]) -> str:
    return bytes(ord(letter) - _BASE for letter in found[0]).decode("utf-8", "surrogateescape")


def _set(model: Any, name: str, value: Any) -> None:
    if isinstance(model, msgspec.Struct):
        msgspec.structs.force_setattr(model, name, value)
    else:
        object.__setattr__(model, name, value)  # also of a frozen one
