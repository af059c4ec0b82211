"""What msgspec's JSON schemas leave out of a type: the form of a date and time, and which fields are no input at all.

A type and its schema are walked side by side. Called by `json_schema`.
"""

from __future__ import annotations

import types
from collections.abc import Iterator, Mapping
from datetime import datetime, time
from typing import Any, Union, get_args, get_origin

from taskrun.model.fields import Field, all_fields, bare
from taskrun.model.fields import fields as model_fields

FORMATS = {datetime: "date-time", time: "time"}
Part = tuple[Any, dict[str, Any]]


def complete(kind: Any, schema: dict[str, Any], defs: dict[str, Any]) -> None:
    """Adds to a schema, and to those that it refers to, what the type says and they do not."""
    todo, seen = [(kind, schema)], set[int]()
    while todo:
        part, inner = todo.pop()
        inner = _target(inner, defs)
        if id(inner) not in seen:
            seen.add(id(inner))
            todo.extend(_parts(bare(part), inner))


def _target(schema: dict[str, Any], defs: dict[str, Any]) -> dict[str, Any]:
    reference = schema.get("$ref", "").rpartition("/")[2]
    return defs.get(reference, schema) if reference else schema


def _parts(kind: Any, schema: dict[str, Any]) -> Iterator[Part]:
    """Completes one schema; yields the parts of the type with their schemas."""
    if isinstance(kind, type) and kind in FORMATS:
        schema.setdefault("format", FORMATS[kind])
    elif get_origin(kind) in (Union, types.UnionType):
        yield from _of_union(get_args(kind), schema)
    elif (fields := _fields(kind)) is not None:
        yield from _of_model(kind, fields, schema)
    else:
        yield from _items(get_args(kind), schema)


def _of_union(kinds: tuple[Any, ...], schema: dict[str, Any]) -> Iterator[Part]:
    """Pairs the members of a union with their schemas, which stand in another order."""
    branches = list(schema.get("anyOf", ()))
    branches += [inner for branch in branches for inner in branch.get("anyOf", ())]
    for kind in kinds:
        found = next((branch for branch in branches if _is_of(branch, bare(kind))), None)
        if found is not None:
            yield kind, found


def _is_of(schema: dict[str, Any], kind: Any) -> bool:
    """Whether a schema is that of a member of a union; msgspec takes no two members that are written alike."""
    origin = get_origin(kind) or kind
    if origin in FORMATS:
        return schema.get("type") == "string" and not schema.keys() & {"format", "enum", "contentEncoding"}
    if "$ref" in schema or "title" in schema:
        name = schema.get("$ref", "").rpartition("/")[2] or schema["title"]
        return bool(name.partition("_")[0] == getattr(origin, "__name__", None))
    mapping = isinstance(origin, type) and issubclass(origin, Mapping)
    return bool(get_args(kind)) and schema.get("type") == ("object" if mapping else "array")


def _fields(kind: Any) -> tuple[Field, ...] | None:
    try:
        return model_fields(kind)
    except Exception:  # a forward reference into nowhere
        return None


def _of_model(kind: Any, fields: tuple[Field, ...], schema: dict[str, Any]) -> Iterator[Part]:
    """What is computed after the input was read is no part of it."""
    listed: dict[str, Any] = schema.get("properties", {})
    for field in all_fields(kind) or ():
        if not field.given:
            listed.pop(field.key, None)
    kinds = {field.key: field.kind for field in fields}
    yield from ((kinds[name], inner) for name, inner in listed.items() if name in kinds and isinstance(inner, dict))


def _items(kinds: tuple[Any, ...], schema: dict[str, Any]) -> Iterator[Part]:
    """Yields the elements of a collection, or the values of a mapping."""
    prefix, rest = schema.get("prefixItems", []), schema.get("items")
    yield from zip(kinds, prefix, strict=False)
    if isinstance(rest, dict) and kinds:
        yield kinds[0], rest
    values = schema.get("additionalProperties")
    if isinstance(values, dict) and len(kinds) == 2:
        yield kinds[1], values
