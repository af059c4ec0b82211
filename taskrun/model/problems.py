"""What is wrong with a value: pairs of path and text, made from the exception that was raised. Used by all readers of values."""

from __future__ import annotations

import types
from collections.abc import Iterable
from typing import Any, get_args

import msgspec

MOST_PROBLEMS = 50
_MOST_TEXT = 2000  # characters of what an exception says

Problems = list[tuple[str, str]]


class Misfit(ValueError):
    """Data does not fit its type; `problems` are pairs of path and text. Callers turn it into an error of their own."""

    def __init__(self, problems: Problems) -> None:
        super().__init__("; ".join(f"{path}: {text}" if path else text for path, text in problems))
        self.problems = list(dict.fromkeys(problems))[:MOST_PROBLEMS]


def said_by(error: BaseException) -> Problems:
    """Returns the problems that a validator's own exception tells of; pydantic's names every field."""
    try:
        return [(_dotted(one.get("loc", ())), str(one.get("msg", "invalid"))) for one in error.errors()]  # type: ignore[attr-defined]
    except Exception:  # another exception, whose `errors` may be anything
        return [("", _text(error))]


def named(kind: Any) -> str:
    """Returns the name of a type for a message: `int`, `list[str]`, `httpx.Client`."""
    if not isinstance(kind, type) or get_args(kind):
        return str(kind).replace("typing.", "")
    return (
        kind.__qualname__ if kind.__module__ in ("builtins", "__main__") else f"{kind.__module__}.{kind.__qualname__}"
    )


def json_name(data: Any) -> str:
    """Returns what JSON calls the type of plain data."""
    return {dict: "object", list: "array", types.NoneType: "null"}.get(type(data), type(data).__name__)


def said_of(error: Exception) -> Problems:
    """Returns the problems that an exception of msgspec, of pydantic or of a model's own code tells of."""
    if not isinstance(error, msgspec.DecodeError):
        return said_by(error)
    text, _, inner = _text(error).partition(" - at `$")
    return [(inner.rstrip("`"), text)]


def _text(error: BaseException) -> str:
    try:
        text = str(error)[:_MOST_TEXT] or type(error).__name__
    except Exception:  # of a class that cannot even say what is wrong
        text = type(error).__name__
    head, at, place = text.partition(" - at `$")
    head = head.replace("`", "").removesuffix(".")
    return head[:1].lower() + head[1:] + at + place


def _dotted(location: Iterable[str | int]) -> str:
    path = ""
    for part in location:
        path = f"{path}[{part}]" if isinstance(part, int) else at(path, str(part))
    return path


def at(path: str, inner: str) -> str:
    """Returns the path of a part within a part: `a` and `b` are `a.b`."""
    inner = inner.removeprefix(".")
    return f"{path}.{inner}" if path and inner and not inner.startswith("[") else path + inner
