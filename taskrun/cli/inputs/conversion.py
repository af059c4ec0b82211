"""Converts what was typed to the JSON value that a field's schema asks for. Pure, except for reading the files of `@FILE`."""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

from taskrun.cli.inputs.input_schema import Schema, choices, kind
from taskrun.cli.inputs.text_forms import as_typed, form_of
from taskrun.model.codec import parse_json
from taskrun.model.errors import InputInvalid


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
