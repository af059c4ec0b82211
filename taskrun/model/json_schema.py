"""JSON schemas of types, for the options of the command line and for people. Called by `schema`."""

from __future__ import annotations

import types
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path, PurePath
from typing import Annotated, Any, Union, get_args, get_origin

import msgspec

from taskrun.model import pydantic_models
from taskrun.model.fields import Field
from taskrun.model.fields import fields as model_fields
from taskrun.model.json_forms import complete
from taskrun.model.problems import named

_REFERENCE = "#/$defs/{name}"


def described(kind: Any, defaults: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """Returns the JSON schema of a type, or of an object whose fields are a mapping of types.

    A part that has no schema is `{}`. References point into `$defs`; the outermost one is followed.
    """
    defs: dict[str, Any] = {}
    schema = _object(kind, defaults or {}, defs) if isinstance(kind, Mapping) else _followed(_of(kind, defs), defs)
    return {**schema, "$defs": defs} if defs else schema


def _object(kinds: Mapping[str, Any], defaults: Mapping[str, Any], defs: dict[str, Any]) -> dict[str, Any]:
    properties = {name: _of(kind, defs) for name, kind in kinds.items()}
    for name, default in defaults.items():
        properties[name] = {**properties[name], "default": default}
    return {"type": "object", "properties": properties}


def _followed(schema: dict[str, Any], defs: dict[str, Any]) -> dict[str, Any]:
    reference = schema.get("$ref")
    if reference is None:
        return schema
    name = reference.rpartition("/")[2]
    target = defs.pop(name)
    if reference in repr((target, defs)):  # a tree
        defs[name] = target
    return {**target, **{key: value for key, value in schema.items() if key != "$ref"}}


def _of(kind: Any, defs: dict[str, Any]) -> dict[str, Any]:
    def custom(part: type) -> dict[str, Any]:
        return _custom(part, defs)

    try:
        (schema,), found = msgspec.json.schema_components([kind], schema_hook=custom, ref_template=_REFERENCE)
    except Exception:  # a type that msgspec does not take
        return _apart(kind, defs)
    plain = dict(schema)
    complete(kind, plain, found)
    defs.update(found)
    return plain


def _apart(kind: Any, defs: dict[str, Any]) -> dict[str, Any]:
    if get_origin(kind) is Annotated:
        return _of(get_args(kind)[0], defs)
    if get_origin(kind) in (Union, types.UnionType):
        return {"anyOf": [_of(part, defs) for part in get_args(kind)]}
    if (known := model_fields(kind)) is not None:
        return _model(kind, known, defs)
    return _collection(get_origin(kind), get_args(kind), defs)


def _model(kind: Any, known: Iterable[Field], defs: dict[str, Any]) -> dict[str, Any]:
    """Returns a reference to a model's schema, so that one that holds itself has an end."""
    name = "".join(letter if letter.isalnum() else "_" for letter in named(kind))
    if name not in defs:
        defs[name] = {}
        schema = _object({field.key: field.kind for field in known}, {}, defs)
        defs[name] = {**schema, "required": [field.key for field in known if field.required]}
    return {"$ref": _REFERENCE.format(name=name)}


def _collection(origin: Any, kinds: tuple[Any, ...], defs: dict[str, Any]) -> dict[str, Any]:
    if not isinstance(origin, type) or not kinds:
        return {}
    if issubclass(origin, Mapping) and len(kinds) == 2:
        return {"type": "object", "additionalProperties": _of(kinds[1], defs)}
    if issubclass(origin, tuple) and kinds[-1] is not Ellipsis:
        return {"type": "array", "prefixItems": [_of(one, defs) for one in kinds], "items": False}
    if issubclass(origin, Collection) and not issubclass(origin, Mapping):
        return {"type": "array", "items": _of(kinds[0], defs)}
    return {}


def _custom(kind: type, defs: dict[str, Any]) -> dict[str, Any]:
    adapter = pydantic_models.adapter(kind)
    if adapter is not None:
        schema = dict(adapter.json_schema())
        defs.update(schema.pop("$defs", {}))
        return schema
    if issubclass(kind, PurePath):  # of which only a `Path` is one on this machine
        return {"type": "string", "format": "path"} if issubclass(kind, Path) else {"type": "string"}
    return {}
