"""Whether a value reads back from its own JSON as what it was. Asked by schemas, before anything is recorded.

A type whose values can change on the way through its own code (validators, `__post_init__`, converters) has to be tried. Plain
types, which msgspec alone reads and writes, need not be.
"""

from __future__ import annotations

import dataclasses
import types
from collections.abc import Iterable, Mapping, Sequence
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from enum import Enum
from typing import Annotated, Any, Literal, Union, get_origin
from uuid import UUID

import msgspec

from taskrun.model import pydantic_models
from taskrun.model.codec import encode
from taskrun.model.errors import NotEncodable
from taskrun.model.fields import all_fields, init_only, is_typed_dict, parts
from taskrun.model.problems import at

_PLAIN = {
    *(bool, int, float, str, bytes, bytearray, memoryview, type(None), Any, object),
    *(datetime, date, time, timedelta, Decimal, UUID, list, dict, tuple, set, frozenset),
}


def is_exact(kind: Any) -> bool:
    """Says whether every value that is read as this type is written as what it was read from."""
    return all(map(_is_plain, parts(kind)))


def _is_plain(kind: Any) -> bool:
    origin = get_origin(kind)
    model = origin or kind
    if pydantic_models.is_constrained(kind):
        return False
    if origin in (Literal, Annotated, Union, types.UnionType) or not isinstance(model, type):
        return True  # their parts are asked
    if model in _PLAIN or is_typed_dict(model):
        return True
    if all_fields(kind) is not None:
        return _is_plain_model(model)
    return (issubclass(model, Enum) and model._missing_.__func__ is Enum._missing_.__func__) or (  # type: ignore[attr-defined]
        origin is not None and issubclass(model, (Mapping, Iterable)) and model.__module__ in _ABSTRACT
    )


_ABSTRACT = {"builtins", "collections.abc", "collections"}
_OWN_CODE = (
    "__post_init__",
    "__attrs_post_init__",
    "__attrs_pre_init__",
    "__attrs_init__",
    "__get_pydantic_core_schema__",
)


def _is_plain_model(model: type) -> bool:
    if pydantic_models.is_model(model) or any(hasattr(model, name) for name in _OWN_CODE) or init_only(model):
        return False
    if any(not one.given or one.name.startswith("_") for one in all_fields(model) or ()):
        return False
    if any(getattr(one, "converter", None) is not None for one in getattr(model, "__attrs_attrs__", ())):
        return False
    return not dataclasses.is_dataclass(model) or bool(model.__dataclass_params__.init)  # type: ignore[attr-defined]


# ---- comparing


def difference(one: Any, other: Any, path: str = "") -> str | None:
    """Returns the path of the first part in which two values differ, None where they are the same."""
    if one is other:
        return None
    if type(one) is not type(other):
        return None if _written_alike(one, other) else path
    if isinstance(one, Mapping):
        return _first(_pairs(one, other, path), path if one.keys() != other.keys() else None)
    if isinstance(one, Sequence) and not isinstance(one, (str, bytes, bytearray)):
        items = ((left, right, f"{path}[{at}]") for at, (left, right) in enumerate(zip(one, other, strict=False)))
        return _first(items, path if len(one) != len(other) else None)
    if (state := _state(one)) is not None:
        return _first(_pairs(state, _state(other) or {}, path), None)
    return None if _equal(one, other) else path


def has_instances(given: Any) -> bool:
    """Says whether what was given is a model instance, or has some at its top."""
    values = given.values() if isinstance(given, Mapping) else (given,)
    return any(all_fields(type(value)) is not None for value in values)


def lost(given: Any, value: Any, path: str = "") -> str | None:
    """Returns the path of the first part of what was given, in a model instance, that is another in the value read from it."""
    if _state(given) is not None:
        return difference(given, value, path) if type(given) is type(value) else None
    if isinstance(given, Mapping) and isinstance(value, Mapping):
        both = ((key, item) for key, item in given.items() if key in value)
        return next(
            (found for key, item in both if (found := lost(item, value[key], at(path, str(key)))) is not None), None
        )
    if isinstance(given, (list, tuple)) and isinstance(value, (list, tuple)):
        items = enumerate(zip(given, value, strict=False))
        return next(
            (found for n, (left, right) in items if (found := lost(left, right, f"{path}[{n}]")) is not None), None
        )
    return None


def _first(pairs: Iterable[tuple[Any, Any, str]], otherwise: str | None) -> str | None:
    return next((found for one, other, at in pairs if (found := difference(one, other, at)) is not None), otherwise)


def _pairs(one: Mapping[Any, Any], other: Mapping[Any, Any], path: str) -> Iterable[tuple[Any, Any, str]]:
    missing = object()
    return ((item, other.get(key, missing), at(path, str(key))) for key, item in one.items())


def _state(value: Any) -> dict[str, Any] | None:
    """Returns the attributes of a model instance, but for private ones; None of anything else."""
    known = all_fields(type(value))
    if known is None:
        return None
    named = {one.name: getattr(value, one.name, None) for one in known}
    if isinstance(value, msgspec.Struct):
        return named
    further = (
        {**vars(value), **(getattr(value, "__pydantic_extra__", None) or {})} if hasattr(value, "__dict__") else {}
    )
    return named | {name: item for name, item in further.items() if not name.startswith("_")}


def _written_alike(one: Any, other: Any) -> bool:
    """Says whether a default that nobody validated, `0` of a float or a text of a path, became what it stands for."""
    if isinstance(one, (int, float)) and isinstance(other, (int, float)):
        return one == other
    try:
        return encode(one, "value") == encode(other, "value")
    except NotEncodable:
        return False


def _equal(one: Any, other: Any) -> bool:
    try:
        return bool(one == other) or (one != one and other != other)  # NaN
    except Exception:  # of an array, or of a class of the user's
        return repr(one) == repr(other)
