"""The fields of an input that its handler gets and nobody is shown: they stand apart, with `***` in their place."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import msgspec

MASK = "***"
_Fields = dict[str, msgspec.Raw]


def split_secrets(text: str, names: Sequence[str]) -> tuple[str, str | None]:
    """Returns an input as everybody may see it, and the fields of these names; both as JSON text.

    Of an object the names of its fields stay.
    """
    fields = msgspec.json.decode(text, type=_Fields)
    secrets = {name: fields[name] for name in names if name in fields and bytes(fields[name]) not in _EMPTY}
    if not secrets:
        return text, None
    masked = {name: _masked(msgspec.json.decode(value)) for name, value in secrets.items()}
    return msgspec.json.encode({**fields, **masked}).decode(), msgspec.json.encode(secrets).decode()


def _masked(value: Any) -> Any:
    return dict.fromkeys(value, MASK) if isinstance(value, dict) else MASK


class Given(Protocol):
    """A run, or a trigger that passed validation."""

    @property
    def input(self) -> str:
        """The input as everybody may see it, as JSON text."""
        ...

    @property
    def secrets(self) -> str | None:
        """The fields that nobody is shown."""
        ...


def whole_input(given: Given) -> str:
    """Returns the input that the handler gets, as JSON text."""
    if given.secrets is None:
        return given.input
    merged = msgspec.json.decode(given.input, type=_Fields) | msgspec.json.decode(given.secrets, type=_Fields)
    return msgspec.json.encode(merged).decode()


_EMPTY = (b"null", b"{}", b"[]", b'""')
