"""JSON text into annotated types: the reading side of the codec and of schemas.

msgspec does the work. It stops at the first fault, refuses some types (`str | Path`, unions of dataclasses) and passes over
further keys; only then is the type taken apart here, field by field, so that every problem gets a name. Each part is read from
its own text, so that a `Decimal` has all its digits. Called by `codec` and `schema`.
"""

from __future__ import annotations

import dataclasses
import re
import types
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence, Set
from enum import Enum
from functools import lru_cache
from pathlib import PurePath
from typing import Any, Final, Union, get_args, get_origin

import msgspec

from taskrun.model import pydantic_models
from taskrun.model.escaped_values import may_have_escapes, restore_value
from taskrun.model.fields import Field, all_fields, bare, fields, init_only, is_typed_dict, mentions, parts
from taskrun.model.further_keys import (
    NOT_RECORDED,
    Further,
    Text,
    has_dicts,
    items_of,
    keep,
    key_check,
    parts_of,
)
from taskrun.model.problems import MOST_PROBLEMS, Misfit, Problems, at, json_name, named, said_of


def read(text: Text, kind: Any, further: Further = Further.REFUSE) -> Any:
    """Returns JSON text as a value of type `kind`.

    Raises:
        Misfit: it does not fit.
    """
    return reader(kind, further)(text)


def reader(kind: Any, further: Further) -> Callable[[Text], Any]:
    """Returns what reads JSON text as values of type `kind`, and raises `Misfit` for what does not fit."""
    # of a union's members: for Python, unions in any order are equal
    order = "" if isinstance(kind, type) else str(kind)
    try:
        return _reader(kind, further, order)
    except TypeError:  # not hashable
        return _reader.__wrapped__(kind, further, order)


@lru_cache(maxsize=2048)
def _reader(kind: Any, further: Further, order: str) -> Callable[[Text], Any]:
    decoder, check = _decoder(kind), key_check(kind, further)
    keeps = further is Further.KEEP and has_dicts(kind)
    fills = mentions(kind, dataclasses.is_dataclass)

    def read(text: Text) -> Any:
        value = read_escaped(text)
        return restore_value(value) if may_have_escapes(text) else value

    def read_escaped(text: Text) -> Any:
        problems: Problems = [] if check is None else check(text, "")
        if decoder is not None and not problems:
            try:
                value = decoder.decode(text)
                if keeps:
                    keep(value, text, kind)
                return _filled(value) if fills else value
            except Exception:  # said in full below; a model's own checks may raise anything
                pass
        value = _Parts(further, problems).build(text, kind, "")
        if problems:
            raise Misfit(problems)
        if keeps:
            keep(value, text, kind)
        return value

    return read


def usable(kind: Any) -> bool:
    """Says whether something is a type that data can be read into."""
    return isinstance(kind, type) or get_origin(kind) is not None or _decoder(kind) is not None


# ---- the decoder of a type


class _PydanticDecoder:
    """msgspec would fill a pydantic dataclass past its checks."""

    def __init__(self, adapter: Any) -> None:
        self._adapter = adapter

    def decode(self, text: Text) -> Any:
        return pydantic_models.validated(self._adapter, bytes(text) if isinstance(text, msgspec.Raw) else text)


Decoder = msgspec.json.Decoder[Any] | _PydanticDecoder


def _decoder(kind: Any) -> Decoder | None:
    try:
        return _cached_decoder(kind)
    except TypeError:  # not hashable
        return _cached_decoder.__wrapped__(kind)


@lru_cache(maxsize=2048)
def _cached_decoder(kind: Any) -> Decoder | None:
    adapter = pydantic_models.adapter(kind)
    if adapter is not None:
        return _PydanticDecoder(adapter)
    if mentions(kind, pydantic_models.is_constrained):
        return None  # msgspec would pass over what pydantic checks
    try:
        return msgspec.json.Decoder(kind, dec_hook=_from_plain)
    except (TypeError, NameError):  # a type that msgspec does not take, or a forward reference into nowhere
        return None


class _Inexact(Exception):
    """A number went through a float, and may have lost digits that its type would keep."""


def _from_plain(kind: type, data: Any) -> Any:
    """Reads what msgspec does not know, from data in which numbers are floats already."""
    adapter = pydantic_models.adapter(kind)
    if adapter is not None and _has_long_number(data):
        raise _Inexact
    return _from_data(kind, data)


def _from_data(kind: type, data: Any) -> Any:
    adapter = pydantic_models.adapter(kind)
    if adapter is not None:
        return adapter.validate_json(msgspec.json.encode(data))
    origin = get_origin(kind) or kind
    base = next((base for base in (PurePath, str, int, float) if issubclass(origin, base)), None)
    if base is not None and isinstance(data, str if base is PurePath else base):
        return origin(data)
    if isinstance(data, origin):
        return data
    raise TypeError(f"expected {named(kind)}, got {json_name(data)}")


def _has_long_number(data: Any) -> bool:
    if isinstance(data, float):
        return len(repr(data)) > 15
    if isinstance(data, dict):
        return any(map(_has_long_number, data.values()))
    return isinstance(data, list) and any(map(_has_long_number, data))


# ---- taking a type apart


class _Parts:
    """Reads a value part by part; adds whatever is wrong to `problems`."""

    def __init__(self, further: Further, problems: Problems) -> None:
        self._further = further
        self._problems = problems

    def build(self, text: Text, kind: Any, path: str) -> Any:
        """Returns JSON text as a value of type `kind`."""
        fault: Exception | None = None
        if (decoder := _decoder(kind)) is not None:
            try:
                return _filled(decoder.decode(text))
            except Exception as error:
                fault = error
        before = len(self._problems)
        value = self._apart(text, kind, path)
        if isinstance(fault, _Inexact):
            return value if value is not _WHOLE else self._checked(lambda: self._by_data(text, kind), path)
        if fault is not None and len(self._problems) == before and not _misses_computed(fault, kind):
            self._problems += [(at(path, inner), said) for inner, said in said_of(fault)]
        return None if value is _WHOLE else value

    def _by_data(self, text: Text, kind: Any) -> Any:
        return msgspec.json.decode(text, type=kind, dec_hook=_from_data)

    def _apart(self, text: Text, kind: Any, path: str) -> Any:
        if (inner := bare(kind)) is not kind:
            return self.build(text, inner, path)
        origin, arguments = get_origin(kind), get_args(kind)
        if origin in (Union, types.UnionType):
            return self._any_of(text, arguments, path)
        if pydantic_models.adapter(kind) is not None:
            return _WHOLE
        data = msgspec.json.decode(text)
        known = fields(kind)
        if known is not None and isinstance(data, dict):
            return self._model(parts_of(text), kind, known, path)
        if isinstance(data, list) and arguments and _is(origin, Collection):
            return self._items(items_of(text), origin, arguments, path)
        if isinstance(data, dict) and len(arguments) == 2 and _is(origin, Mapping):
            return self._mapping(parts_of(text), arguments, path)
        if _is(kind, Enum):
            return self._checked(lambda: kind(data), path)
        if _decoder(kind) is None:
            self._problems.append((path, f"expected {named(kind)}, got {json_name(data)}"))
        return _WHOLE

    def _any_of(self, text: Text, kinds: Collection[Any], path: str) -> Any:
        real = [kind for kind in kinds if kind is not types.NoneType]
        data = msgspec.json.decode(text)
        if data is None and len(real) < len(kinds):
            return None
        tried: Problems = []
        for kind in real:
            check = key_check(kind, self._further) if len(real) > 1 else None
            tried = [] if check is None else check(text, path)
            value = _Parts(self._further, tried).build(text, kind, path)
            if not tried:
                return value
        if len(real) == 1:
            self._problems += tried
        else:
            self._problems.append((path, f"expected {' or '.join(map(named, real))}, got {json_name(data)}"))
        return None

    def _model(self, given: Mapping[str, msgspec.Raw], kind: Any, known: Iterable[Field], path: str) -> Any:
        before, values = len(self._problems), {}
        for one in known:
            if one.key in given:
                values[one.name] = self.build(given[one.key], one.kind, at(path, one.key))
            elif one.required:
                self._problems.append((at(path, one.key), "is required"))
        if len(self._problems) > before:
            return None
        if is_typed_dict(kind):
            return values
        made = self._checked(lambda: kind(**values), path)
        if made is None and (names := init_only(kind)):
            self._problems[before:] = [(at(path, name), NOT_RECORDED) for name in names]
        return made

    def _items(self, items: list[msgspec.Raw], origin: type, kinds: tuple[Any, ...], path: str) -> Any:
        fixed = origin is tuple and kinds[-1] is not Ellipsis
        before, built = len(self._problems), []
        for index, item in enumerate(items[: len(kinds)] if fixed else items):
            built.append(self.build(item, kinds[index] if fixed else kinds[0], f"{path}[{index}]"))
            if len(self._problems) >= MOST_PROBLEMS:
                break
        if fixed and len(items) != len(kinds):
            self._problems.append((path, f"expected {len(kinds)} items, got {len(items)}"))
        return built if len(self._problems) > before else _container(origin)(built)

    def _mapping(self, given: Mapping[str, msgspec.Raw], kinds: tuple[Any, ...], path: str) -> Any:
        made = {}
        for key, part in given.items():
            name = self._checked(lambda key=key: next(iter(_keyed(key, kinds[0]))), at(path, key))  # type: ignore[misc]
            made[name] = self.build(part, kinds[1], at(path, key))
        return made

    def _checked(self, make: Callable[[], Any], path: str) -> Any:
        try:
            return make()
        except Exception as error:
            self._problems += [(at(path, inner), text) for inner, text in said_of(error)]
            return None


def _misses_computed(fault: Exception, kind: Any) -> bool:
    """Says whether msgspec misses a field that nobody can give: one that is `init=False` and has no default."""
    missing = re.match(_MISSING, str(fault))
    every = (one for part in parts(kind) for one in all_fields(part) or ())
    return missing is not None and any(one.key == missing[1] and not one.given for one in every)


_MISSING: Final = r"Object missing required field `(\w+)`"
_WHOLE: Final = object()  # a type that has no parts of its own


def _keyed(key: str, kind: Any) -> dict[Any, None]:
    """Returns a mapping whose key is the text of a JSON key as the type of the keys of a mapping."""
    return msgspec.convert({key: None}, dict[kind, None], str_keys=True, dec_hook=_from_data)


def _container(origin: type) -> Callable[[list[Any]], Any]:
    if _is(origin, Sequence) and not _is(origin, tuple):
        return list
    return next((made for made in (tuple, frozenset, set) if _is(origin, made)), set if _is(origin, Set) else list)


def _is(kind: Any, base: type) -> bool:
    return isinstance(kind, type) and issubclass(kind, base)


def _filled(value: Any) -> Any:
    """Returns a value with the defaults of its dataclasses set: msgspec leaves them to the class, and so out of the JSON."""
    if isinstance(value, list):
        for item in value:
            _filled(item)
    elif isinstance(value, dict):
        for item in value.values():
            _filled(item)
    elif dataclasses.is_dataclass(value) and not isinstance(value, type):
        for each in dataclasses.fields(value):
            item = _filled(getattr(value, each.name))
            if each.name not in getattr(value, "__dict__", {each.name}):
                object.__setattr__(value, each.name, item)
    return value
