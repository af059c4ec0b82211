"""Converts what was typed to the JSON value that a field's schema asks for. Pure, except for reading the files of `@FILE`."""

from __future__ import annotations

import base64
import json
import math
import re
from collections.abc import Callable
from datetime import date, datetime, time, timedelta
from pathlib import Path
from typing import Any, NamedTuple

from taskrun.cli.inputs.input_schema import Schema, choices, kind
from taskrun.model import durations
from taskrun.model.codec import parse_json
from taskrun.model.durations import human_size
from taskrun.model.errors import DurationInvalid, InputInvalid

MOST_INPUT = 16 * 1024 * 1024  # bytes of a file


def convert(text: str, schema: Schema, folder: Path) -> Any:
    """Returns the value that a text stands for under a schema.

    Parameters:
        folder: the caller's, to which `@FILE` is relative.

    Raises:
        ValueError: completes a sentence about the text, such as `is not an integer`.
    """
    if text == "null" and schema.get("nullable") and not _takes_any_text(schema):
        return None
    form = form_of(schema)
    if form is not None and form.read is not None:
        return form.read(text, folder)
    value = _CONVERTERS.get(kind(schema), _any)(text, schema, folder)
    for keyword, (broken, complaint) in _LIMITS.items():
        if keyword in schema and broken(value, schema[keyword]):
            raise ValueError(complaint.format(schema[keyword]))
    return value


def read_file(path: Path, most: int = MOST_INPUT) -> bytes:
    """Returns the content of a file named on a command line.

    Parameters:
        most: bytes that it may have.

    Raises:
        ValueError: it cannot be read, or is too large.
    """
    try:
        with path.open("rb") as file:
            content = file.read(most + 1)
    except OSError as error:
        raise ValueError(str(error.strerror)) from None
    if len(content) > most:
        raise ValueError(f"over the limit of {human_size(most)}")
    return content


# ---- forms of text


class Form(NamedTuple):
    """A kind of text: its name in the help, an example, and how it is read; without `read` it is sent as it is."""

    metavar: str
    example: str = ""
    read: Callable[[str, Path], str] | None = None
    any_text: bool = False


def form_of(schema: Schema) -> Form | None:
    """Returns the form in which a text is written; None for plain text, and for what is not text."""
    if kind(schema) != "string":
        return None
    if schema.get("contentEncoding") == "base64":
        return _BASE64
    return _FORMS.get(str(schema.get("format")))


def _duration(text: str, folder: Path) -> str:
    """Returns a duration as ISO 8601, in which it may also be typed."""
    typed = text.strip()
    if re.fullmatch(r"[+-]?[Pp][0-9A-Za-z.,]+", typed):
        return typed
    sign, amount = ("-", typed[1:]) if typed.startswith("-") else ("", typed)
    try:
        number = float(amount) if re.fullmatch(r"[0-9]+(\.[0-9]+)?", amount) else durations.seconds(amount)
        micros = timedelta(seconds=number) // timedelta(microseconds=1)
    except (DurationInvalid, OverflowError):
        units = "ms, s, m, h, d, w and y"
        raise ValueError(f'is not a duration, as in "90m", "1h 30m" or 5400 (seconds); the units are {units}') from None
    whole, part = divmod(micros, 1_000_000)
    return f"{sign}PT{whole}{f'.{part:06}'.rstrip('0') if part else ''}S"


def as_duration(iso: Any) -> str | None:
    """Returns an ISO 8601 duration in taskrun's own notation; None where that would not be exactly the same."""
    found = re.fullmatch(r"PT([0-9.]+)S", iso) if isinstance(iso, str) else None
    if found is None:
        return None
    shown = durations.human(float(found[1]))
    return shown if durations.seconds(shown) == float(found[1]) else None


def _time(text: str, folder: Path) -> str:
    typed = _padded(text)
    if ":" in typed:
        try:
            return time.fromisoformat(typed).isoformat()
        except ValueError:
            pass
    raise ValueError("is not a time, as in 10:30 or 10:30:15")


def _date_time(text: str, folder: Path) -> str:
    try:
        return datetime.fromisoformat(_padded(text)).isoformat()
    except ValueError:
        raise ValueError(
            'is not a date and time, as in 2026-11-26, "2026-11-26 10:30" or 2026-11-26T10:30:00+01:00'
        ) from None


def _date(text: str, folder: Path) -> str:
    try:
        return date.fromisoformat(text.strip()).isoformat()
    except ValueError:
        raise ValueError("is not a date, as in 2026-11-26") from None


def _padded(text: str) -> str:
    """Returns text in which an hour has two digits."""
    return re.sub(r"(?:^|(?<=[ T]))(?=[0-9]:)", "0", text.strip())


def _content(text: str, folder: Path) -> bytes:
    """Returns the bytes that `text`, `@FILE` or `@@text` mean."""
    if text.startswith("@") and not text.startswith("@@"):
        try:
            return read_file(folder / text[1:])
        except ValueError as fault:
            raise ValueError(f"cannot be read: {fault}") from None
    return (text[1:] if text.startswith("@") else text).encode("utf-8", "surrogateescape")


def _as_base64(text: str, folder: Path) -> str:
    return base64.b64encode(_content(text, folder)).decode()


def _as_base64url(text: str, folder: Path) -> str:
    return base64.urlsafe_b64encode(_content(text, folder)).decode()


def _as_text(text: str, folder: Path) -> str:
    try:
        return _content(text, folder).decode()
    except UnicodeDecodeError:
        raise ValueError("is not UTF-8, and this field takes no other bytes") from None


_BYTES = ("TEXT|@FILE", "text, or @ and a file")
_BASE64 = Form(*_BYTES, _as_base64, any_text=True)
_FORMS = {
    "duration": Form("DURATION", "as in 90m, or 5400 (seconds)", _duration),
    **dict.fromkeys(("time", "partial-time"), Form("TIME", "as in 10:30", _time)),
    "date-time": Form("DATETIME", 'as in 2026-11-26 or "2026-11-26 10:30"', _date_time),
    "date": Form("DATE", "as in 2026-11-26", _date),
    "binary": Form(*_BYTES, _as_text, any_text=True),
    "base64url": Form(*_BYTES, _as_base64url, any_text=True),
    **dict.fromkeys(("path", "file-path", "directory-path"), Form("PATH", any_text=True)),
}


def _takes_any_text(schema: Schema) -> bool:
    """Whether every text is a value, so that none may be taken for anything else."""
    form = form_of(schema)
    if kind(schema) == "enum":
        return "null" in choices(schema)
    return kind(schema) == "string" and (form is None or form.any_text)


# ---- other kinds of values


def _boolean(text: str, schema: Schema, folder: Path) -> bool:
    found = _BOOLEANS.get(text.lower())
    if found is None:
        raise ValueError("is not true or false")
    return found


def _integer(text: str, schema: Schema, folder: Path) -> int:
    if not re.fullmatch(r"\s*[+-]?[0-9]{1,400}\s*", text):
        raise ValueError("is not an integer")
    return int(text)


def _number(text: str, schema: Schema, folder: Path) -> float:
    typed = re.fullmatch(r"\s*[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?\s*", text)
    number = float(text) if typed else math.nan
    if not math.isfinite(number):
        raise ValueError("is not a number")
    return number


def _string(text: str, schema: Schema, folder: Path) -> str:
    return text


def _enum(text: str, schema: Schema, folder: Path) -> Any:
    for choice in choices(schema):
        if text == as_typed(choice):
            return choice
    raise ValueError("is not one of " + ", ".join(as_typed(choice) for choice in choices(schema)))


def _union(text: str, schema: Schema, folder: Path) -> Any:
    """Returns what the narrowest branch makes of a text.

    Where the union also takes any text, a value of another kind must read exactly as it was typed: `7` is a number, but `007`,
    `1e5` and `null` are text.
    """
    branches = sorted(union_of(schema), key=_width)
    loose = any(_takes_any_text(branch) for branch in branches if kind(branch) == "string")
    for branch in branches:
        try:
            value = convert(text, branch, folder)
        except ValueError:
            continue
        if not loose or _takes_any_text(branch) or _reads_back(value, text):
            return value
    raise ValueError("is none of " + ", ".join(_kind_name(branch) for branch in branches))


def union_of(schema: Schema) -> list[Schema]:
    """Returns the branches of a union."""
    listed = schema.get("type")
    return [{**schema, "type": name} for name in listed] if isinstance(listed, list) else schema["anyOf"]


def _width(branch: Schema) -> int:
    """Orders branches by how much they take."""
    of = kind(branch)
    return _WIDTHS.index(of) if of in _WIDTHS else len(_WIDTHS) + (_takes_any_text(branch) and of == "string")


def _reads_back(value: Any, text: str) -> bool:
    if value is None:
        return False
    return isinstance(value, (dict, list)) or as_typed(value) == text


def _kind_name(branch: Schema) -> str:
    form = form_of(branch)
    return kind(branch) if form is None else form.metavar.lower()


def _object(text: str, schema: Schema, folder: Path) -> Any:
    return _json_of(text, dict, "is not a JSON object")


def _array(text: str, schema: Schema, folder: Path) -> Any:
    return _json_of(text, list, "is not a JSON array")


def _null(text: str, schema: Schema, folder: Path) -> None:
    if text != "null":
        raise ValueError("is not null")


def _json_of(text: str, wanted: type, complaint: str) -> Any:
    try:
        value = parse_json(text, "")
    except InputInvalid:
        value = None
    if not isinstance(value, wanted):
        raise ValueError(complaint)
    return value


def _any(text: str, schema: Schema, folder: Path) -> Any:
    """Returns JSON as what it stands for, and anything else as text. `NaN` and the like are not JSON."""
    try:
        return parse_json(text, "")
    except InputInvalid:
        return text


def as_typed(choice: Any) -> str:
    """Returns a value as it is typed on a command line."""
    return choice if isinstance(choice, str) else json.dumps(choice)


def _no_match(value: Any, pattern: str) -> bool:
    try:
        return isinstance(value, str) and not re.search(pattern, value)
    except re.error:  # another dialect of patterns: the job itself checks it
        return False


_BOOLEANS = {"true": True, "yes": True, "on": True, "1": True, "false": False, "no": False, "off": False, "0": False}
_WIDTHS = ("enum", "null", "integer", "number", "boolean", "object", "array")
_CONVERTERS: dict[str, Callable[[str, Schema, Path], Any]] = {
    "boolean": _boolean,
    "integer": _integer,
    "number": _number,
    "string": _string,
    "enum": _enum,
    "union": _union,
    "object": _object,
    "array": _array,
    "null": _null,
}
_LIMITS: dict[str, tuple[Callable[[Any, Any], bool], str]] = {
    "minimum": (lambda value, limit: value < limit, "is less than {}"),
    "maximum": (lambda value, limit: value > limit, "is more than {}"),
    "exclusiveMinimum": (lambda value, limit: value <= limit, "is not more than {}"),
    "exclusiveMaximum": (lambda value, limit: value >= limit, "is not less than {}"),
    "multipleOf": (lambda value, step: isinstance(value, int) and value % step != 0, "is not a multiple of {}"),
    "minLength": (lambda value, limit: len(value) < limit, "has fewer than {} characters"),
    "maxLength": (lambda value, limit: len(value) > limit, "has more than {} characters"),
    "pattern": (_no_match, "does not match {}"),
}


# ---- paths


def located(value: Any, schema: Schema, resolve: Callable[[Schema], Schema], folder: Path) -> Any:
    """Returns a value in which everything that is a path by its schema is absolute, starting from the caller's folder."""
    schema = resolve(schema)
    if kind(schema) == "union":
        schema = _branch_for(value, [resolve(branch) for branch in union_of(schema)])
    form = form_of(schema)
    if isinstance(value, str):
        return str(folder / value) if form is not None and form.metavar == "PATH" else value
    if isinstance(value, dict):
        typed, rest = schema.get("properties") or {}, schema.get("additionalProperties")
        inner = {name: typed.get(name, rest) for name in value}
        return {name: _located(item, inner[name], resolve, folder) for name, item in value.items()}
    if isinstance(value, list):
        first, rest = schema.get("prefixItems") or [], schema.get("items")
        kinds = [*first, *[rest] * len(value)]
        return [_located(item, kinds[at], resolve, folder) for at, item in enumerate(value)]
    return value


def _located(value: Any, schema: Any, resolve: Callable[[Schema], Schema], folder: Path) -> Any:
    return located(value, schema, resolve, folder) if isinstance(schema, dict) else value


def _branch_for(value: Any, branches: list[Schema]) -> Schema:
    """Returns the first branch of a union that could hold a value; an enum comes before the others."""
    fitting = [branch for branch in branches if _could_hold(value, branch)]
    return next((branch for branch in fitting if kind(branch) == "enum"), fitting[0] if fitting else {})


def _could_hold(value: Any, branch: Schema) -> bool:
    of = kind(branch)
    if of == "enum":
        return value in choices(branch)
    if isinstance(value, dict) and of == "object":
        known = branch.get("properties") or {}
        tags = [name for name, one in known.items() if isinstance(one, dict) and kind(one) == "enum"]
        return all(name in value for name in branch.get("required", ())) and all(
            value[name] in choices(known[name]) for name in tags if name in value
        )
    return {"string": isinstance(value, str), "array": isinstance(value, list)}.get(of, False)
