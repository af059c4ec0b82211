"""The fields of every sort of model: dataclass, `TypedDict`, `msgspec.Struct`, attrs, pydantic. Used to read and to describe."""

from __future__ import annotations

import dataclasses
import sys
import typing
from collections.abc import Callable, Iterable, Iterator
from functools import lru_cache
from typing import Annotated, Any, NotRequired, Required, TypeVar, get_args, get_origin

import msgspec

from taskrun.model import pydantic_models

T = TypeVar("T")


class Field(msgspec.Struct, frozen=True):
    """A field of a model: `name` in Python, `key` in JSON. One that is not `given` is computed, and is there when recorded."""

    name: str
    key: str
    kind: Any
    required: bool
    given: bool = True


def fields(kind: Any) -> tuple[Field, ...] | None:
    """Returns the fields of a model that may be given. None for what is no model."""
    found = all_fields(kind)
    return None if found is None else tuple(one for one in found if one.given)


def all_fields(kind: Any) -> tuple[Field, ...] | None:
    """Returns the fields of a model, computed ones too. None for what is no model."""
    found: tuple[Field, ...] | None = _of_hashable(_found, kind)
    return found


def closed_keys(kind: Any, recorded: bool = False) -> tuple[str, ...] | None:
    """Returns the only keys that a model knows, None where others may stand too.

    Parameters:
        recorded: whether computed fields, which a record has, are among them.
    """
    keys: tuple[str, ...] | None = _of_hashable(_closed_keys_recorded if recorded else _closed_keys, kind)
    return keys


def init_only(kind: Any) -> tuple[str, ...]:
    """Returns the names that the `__init__` of a dataclass takes and that its instances do not have."""
    named = getattr(get_origin(kind) or kind, "__dataclass_fields__", {})
    return tuple(name for name, one in named.items() if one._field_type is dataclasses._FIELD_INITVAR)  # type: ignore[attr-defined]


def is_typed_dict(kind: Any) -> bool:
    """Says whether a type is a `TypedDict`."""
    return hasattr(get_origin(kind) or kind, "__required_keys__")


def bare(kind: Any) -> Any:
    """Returns a type without what only surrounds it: `Annotated`, a `NewType`, an alias."""
    while True:
        if get_origin(kind) is Annotated:
            kind = get_args(kind)[0]
        elif (inner := getattr(kind, "__supertype__", None) or getattr(kind, "__value__", None)) is not None:
            kind = inner
        else:
            return kind


def mentions(kind: Any, test: Callable[[Any], bool]) -> bool:
    """Says whether a type, or one that it is made of, passes a test."""
    return any(map(test, parts(kind)))


def parts(kind: Any) -> Iterator[Any]:
    """Iterates over a type and all types that it is made of, each once."""
    seen: list[Any] = []
    left = [kind]
    while left:
        part = left.pop()
        if any(part is one for one in seen):
            continue
        seen.append(part)
        yield part
        inner = bare(part)
        left += [inner] if inner is not part else get_args(part)
        left += [one.kind for one in all_fields(part) or ()]


def _of_hashable(cached: Any, kind: Any) -> Any:
    try:
        return cached(kind)
    except TypeError:  # not hashable
        return cached.__wrapped__(kind)


@lru_cache(maxsize=2048)
def _found(kind: Any) -> tuple[Field, ...] | None:
    if (inner := bare(kind)) is not kind:
        return all_fields(inner)
    model = get_origin(kind) or kind
    if not isinstance(model, type):
        return None
    for marker, reader in _MODELS.items():
        if hasattr(model, marker):
            return tuple(reader(model))
    return None


@lru_cache(maxsize=2048)
def _closed_keys(kind: Any) -> tuple[str, ...] | None:
    known = fields(kind)
    return None if known is None else _keys(kind, known)


@lru_cache(maxsize=2048)
def _closed_keys_recorded(kind: Any) -> tuple[str, ...] | None:
    known = all_fields(kind)
    return None if known is None else _keys(kind, known)


def _keys(kind: Any, known: Iterable[Field]) -> tuple[str, ...] | None:
    kind = bare(kind)
    model = get_origin(kind) or kind
    if pydantic_models.is_model(model):
        return pydantic_models.keys(model)
    tag = getattr(getattr(model, "__struct_config__", None), "tag_field", None)
    return (*dict.fromkeys(one.key for one in known), *([tag] if tag else []))


# ---- of each sort


def _of_typed_dict(model: Any) -> Iterable[Field]:
    for name, kind in typing.get_type_hints(model, include_extras=True).items():
        mark = get_origin(kind)
        required = mark is Required or (mark is not NotRequired and name in model.__required_keys__)
        yield Field(name, name, get_args(kind)[0] if mark in (Required, NotRequired) else kind, required)


def _of_struct(model: Any) -> Iterable[Field]:
    return [Field(one.name, one.encode_name, one.type, one.required) for one in msgspec.structs.fields(model)]


def _of_pydantic(model: Any) -> Iterable[Field]:
    for name, one in pydantic_models.described(model).items():
        key, given = str(pydantic_models.path(model, name)[0]), pydantic_models.is_given(model, name)
        yield Field(name, key, one.annotation, one.is_required() and given, given)


def _of_dataclass(model: Any) -> Iterable[Field]:
    hints = typing.get_type_hints(model, include_extras=True)
    for one in dataclasses.fields(model):
        required = one.default is dataclasses.MISSING and one.default_factory is dataclasses.MISSING
        yield Field(one.name, one.name, hints[one.name], required and one.init, one.init)


def _of_attrs(model: Any) -> Iterable[Field]:
    hints, nothing = typing.get_type_hints(model, include_extras=True), sys.modules["attr"].NOTHING
    for one in model.__attrs_attrs__:
        yield Field(one.alias, one.name, hints.get(one.name, Any), one.default is nothing and one.init, one.init)


# In this order: a pydantic dataclass is a dataclass too.
_MODELS: dict[str, Callable[[Any], Iterable[Field]]] = {
    "__required_keys__": _of_typed_dict,
    "__struct_fields__": _of_struct,
    "__pydantic_validator__": _of_pydantic,
    "__dataclass_fields__": _of_dataclass,
    "__attrs_attrs__": _of_attrs,
}
