"""Plain data into annotated types: the reading side of the codec and of schemas.

msgspec does the work. It stops at the first fault and refuses some types (`str | Path`, unions of dataclasses); only
then is the type taken apart here, field by field, so that every problem gets a name. Called by `codec` and `schema`.
"""

from __future__ import annotations

import dataclasses
import sys
import types
import typing
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence, Set
from enum import Enum
from functools import lru_cache
from pathlib import PurePath
from typing import Annotated, Any, NotRequired, Required, Union, get_args, get_origin

import msgspec

MOST_PROBLEMS = 50

Problems = list[tuple[str, str]]


class Misfit(ValueError):
    """Data does not fit its type; `problems` are pairs of path and text. Callers turn it into an error of their own."""

    def __init__(self, problems: Problems) -> None:
        super().__init__("; ".join(f"{path}: {text}" if path else text for path, text in problems))
        self.problems = problems[:MOST_PROBLEMS]


class Field(msgspec.Struct, frozen=True):
    """A field of a model: `name` in Python, `key` in JSON."""

    name: str
    key: str
    kind: Any
    required: bool


def read(text: str | msgspec.Raw, kind: Any) -> Any:
    """Returns JSON text as a value of type `kind`.

    Raises:
        Misfit: it does not fit.
    """
    decoder = _decoder(kind)
    if decoder is not None:
        try:
            return _filled(decoder.decode(text))
        except Exception:  # said in full below; a model's own checks may raise anything
            pass
    problems: Problems = []
    value = build(msgspec.json.decode(text), kind, "", problems)
    if problems:
        raise Misfit(problems)
    return value


def build(data: Any, kind: Any, path: str, problems: Problems) -> Any:
    """Returns plain data as a value of type `kind`; adds whatever is wrong to `problems`."""
    fault: Exception | None = None
    if isinstance(_decoder(kind), msgspec.json.Decoder):
        try:
            return _filled(msgspec.convert(data, kind, dec_hook=_from_plain, str_keys=True))
        except Exception as error:
            fault = error
    before = len(problems)
    value = _apart(data, kind, path, problems)
    if fault is not None and len(problems) == before:
        problems.append(_said(fault, path))
    return value


def fields(kind: Any) -> tuple[Field, ...] | None:
    """Returns the fields of a model: dataclass, `TypedDict`, `msgspec.Struct`, attrs or pydantic. Else None."""
    if get_origin(kind) is Annotated:
        return fields(get_args(kind)[0])
    model = get_origin(kind) or kind
    if not isinstance(model, type):
        return None
    for marker, reader in _MODELS.items():
        if hasattr(model, marker):
            return tuple(reader(model))
    return None


def closed_keys(kind: Any) -> tuple[str, ...] | None:
    """Returns the only keys that a model knows; None where others may stand too."""
    known, model = fields(kind), get_origin(kind) or kind
    if known is None or _open(model):
        return None
    tag = getattr(getattr(model, "__struct_config__", None), "tag_field", None)
    return tuple(dict.fromkeys([key for field in known for key in (field.key, field.name)] + ([tag] if tag else [])))


def _open(model: Any) -> bool:
    """Says whether a pydantic model decides itself about other keys."""
    config = getattr(model, "model_config", None) or getattr(model, "__pydantic_config__", None) or {}
    described = getattr(model, "__pydantic_fields__", {}).values()
    aliased = any(not isinstance(one.validation_alias, (str, types.NoneType)) for one in described)
    return aliased or config.get("extra") in ("allow", "ignore") or getattr(model, "__pydantic_root_model__", False)


def usable(kind: Any) -> bool:
    """Says whether something is a type that data can be read into."""
    return isinstance(kind, type) or get_origin(kind) is not None or _decoder(kind) is not None


def pydantic_adapter(kind: Any) -> Any:
    """Returns the `TypeAdapter` of a pydantic model or dataclass, None for any other type. Imports nothing."""
    return _cached_adapter(kind) if "__pydantic_validator__" in getattr(kind, "__dict__", {}) else None


@lru_cache(maxsize=2048)
def _cached_adapter(kind: Any) -> Any:
    return sys.modules["pydantic"].TypeAdapter(kind)


def said_by(error: Exception) -> Problems:
    """Returns the problems that a validator's own exception tells of; pydantic's names every field."""
    listed = getattr(error, "errors", None)
    if not callable(listed):
        return [("", _text(error))]
    return [(_dotted(one.get("loc", ())), str(one.get("msg", "invalid"))) for one in listed()]


class _PydanticDecoder:
    """msgspec would fill a pydantic dataclass past its checks."""

    def __init__(self, adapter: Any) -> None:
        self._adapter = adapter

    def decode(self, text: str | msgspec.Raw) -> Any:
        return self._adapter.validate_json(bytes(text) if isinstance(text, msgspec.Raw) else text)


Decoder = msgspec.json.Decoder[Any] | _PydanticDecoder


@lru_cache(maxsize=2048)
def _cached_decoder(kind: Any) -> Decoder | None:
    adapter = pydantic_adapter(kind)
    if adapter is not None:
        return _PydanticDecoder(adapter)
    try:
        return msgspec.json.Decoder(kind, dec_hook=_from_plain)
    except (TypeError, NameError):  # a type that msgspec does not take, or a forward reference into nowhere
        return None


def _decoder(kind: Any) -> Decoder | None:
    try:
        return _cached_decoder(kind)
    except TypeError:  # not hashable
        return _cached_decoder.__wrapped__(kind)


def _from_plain(kind: type, data: Any) -> Any:
    adapter = pydantic_adapter(kind)
    if adapter is not None:
        return adapter.validate_json(msgspec.json.encode(data))
    origin = get_origin(kind) or kind
    base = next((base for base in (PurePath, str, int, float) if issubclass(origin, base)), None)
    if base is not None and isinstance(data, str if base is PurePath else base):
        return origin(data)
    if isinstance(data, origin):
        return data
    raise TypeError(f"expected {named(kind)}, got {_json_name(data)}")


# ---- taking a type apart


def _apart(data: Any, kind: Any, path: str, problems: Problems) -> Any:
    origin, arguments = get_origin(kind), get_args(kind)
    if origin is Annotated:
        return build(data, arguments[0], path, problems)
    if origin in (Union, types.UnionType):
        return _any_of(data, arguments, path, problems)
    adapter = pydantic_adapter(kind)
    if adapter is not None:
        return _checked(lambda: adapter.validate_json(msgspec.json.encode(data)), path, problems)
    known = fields(kind)
    if known is not None and isinstance(data, dict):
        return _model(data, kind, known, path, problems)
    if isinstance(data, list) and arguments and _is(origin, Collection):
        return _items(data, origin, arguments, path, problems)
    if isinstance(data, dict) and len(arguments) == 2 and _is(origin, Mapping):
        return {key: build(value, arguments[1], at(path, key), problems) for key, value in data.items()}
    if _is(kind, Enum):
        return _checked(lambda: kind(data), path, problems)
    if _decoder(kind) is None:
        problems.append((path, f"expected {named(kind)}, got {_json_name(data)}"))
    return None


def _any_of(data: Any, kinds: Iterable[Any], path: str, problems: Problems) -> Any:
    real = [kind for kind in kinds if kind is not types.NoneType]
    if data is None and len(real) < len(list(kinds)):
        return None
    for kind in real:
        tried: Problems = []
        value = build(data, kind, path, tried)
        if not tried:
            return value
    if len(real) == 1:
        problems.extend(tried)
    else:
        problems.append((path, f"expected {' or '.join(map(named, real))}, got {_json_name(data)}"))
    return None


def _model(data: dict[str, Any], kind: Any, known: Iterable[Field], path: str, problems: Problems) -> Any:
    before, values = len(problems), {}
    for field in known:
        if field.key in data:
            values[field.name] = build(data[field.key], field.kind, at(path, field.key), problems)
        elif field.required:
            problems.append((at(path, field.key), "is required"))
    if len(problems) > before:
        return None
    return _checked(lambda: kind(**values), path, problems)


def _items(data: list[Any], origin: type, kinds: tuple[Any, ...], path: str, problems: Problems) -> Any:
    fixed = origin is tuple and kinds[-1] is not Ellipsis
    built = []
    for index, item in enumerate(data[: len(kinds)] if fixed else data):
        built.append(build(item, kinds[index] if fixed else kinds[0], f"{path}[{index}]", problems))
        if len(problems) >= MOST_PROBLEMS:
            break
    if fixed and len(data) != len(kinds):
        problems.append((path, f"expected {len(kinds)} items, got {len(data)}"))
    return built if problems else _container(origin)(built)


def _container(origin: type) -> Callable[[list[Any]], Any]:
    if _is(origin, Sequence) and not _is(origin, tuple):
        return list
    return next((made for made in (tuple, frozenset, set) if _is(origin, made)), set if _is(origin, Set) else list)


def _checked(make: Callable[[], Any], path: str, problems: Problems) -> Any:
    try:
        return make()
    except Exception as error:
        problems.extend((at(path, inner), text) for inner, text in said_by(error))
        return None


def _is(kind: Any, base: type) -> bool:
    return isinstance(kind, type) and issubclass(kind, base)


# ---- the fields of each sort of model


def _of_typed_dict(model: Any) -> Iterable[Field]:
    for name, kind in typing.get_type_hints(model, include_extras=True).items():
        mark = get_origin(kind)
        required = mark is Required or (mark is not NotRequired and name in model.__required_keys__)
        yield Field(name, name, get_args(kind)[0] if mark in (Required, NotRequired) else kind, required)


def _of_struct(model: Any) -> Iterable[Field]:
    return [Field(one.name, one.encode_name, one.type, one.required) for one in msgspec.structs.fields(model)]


def _of_pydantic(model: Any) -> Iterable[Field]:
    described = getattr(model, "model_fields", None) or model.__pydantic_fields__
    for name, one in described.items():
        if getattr(one, "init", None) is False:
            continue
        yield Field(
            name,
            one.validation_alias if isinstance(one.validation_alias, str) else name,
            one.annotation,
            one.is_required(),
        )


def _of_dataclass(model: Any) -> Iterable[Field]:
    hints = typing.get_type_hints(model, include_extras=True)
    for one in dataclasses.fields(model):
        if one.init:
            required = one.default is dataclasses.MISSING and one.default_factory is dataclasses.MISSING
            yield Field(one.name, one.name, hints[one.name], required)


def _of_attrs(model: Any) -> Iterable[Field]:
    hints, nothing = typing.get_type_hints(model, include_extras=True), sys.modules["attr"].NOTHING
    for one in model.__attrs_attrs__:
        if one.init:
            yield Field(one.alias, one.name, hints.get(one.name, Any), one.default is nothing)


# In this order: a pydantic dataclass is a dataclass too.
_MODELS: dict[str, Callable[[Any], Iterable[Field]]] = {
    "__required_keys__": _of_typed_dict,
    "__struct_fields__": _of_struct,
    "__pydantic_validator__": _of_pydantic,
    "__dataclass_fields__": _of_dataclass,
    "__attrs_attrs__": _of_attrs,
}


# ---- words for people


def named(kind: Any) -> str:
    """Returns the name of a type for a message: `int`, `list[str]`, `httpx.Client`."""
    if not isinstance(kind, type) or get_args(kind):
        return str(kind).replace("typing.", "")
    return (
        kind.__qualname__ if kind.__module__ in ("builtins", "__main__") else f"{kind.__module__}.{kind.__qualname__}"
    )


def _json_name(data: Any) -> str:
    return {dict: "object", list: "array", types.NoneType: "null"}.get(type(data), type(data).__name__)


def _said(error: Exception, path: str) -> tuple[str, str]:
    text, _, inner = _text(error).partition(" - at `$")
    return at(path, inner.rstrip("`")), text


def _text(error: Exception) -> str:
    text = str(error) or type(error).__name__
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
