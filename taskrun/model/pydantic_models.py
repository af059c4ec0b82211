"""pydantic's models and types: written so that they read back, and read without loss. Imports nothing of pydantic.

pydantic writes by another alias than it reads by, masks secrets, and reads every JSON number with a point as a float. What is
recorded must read back as it was: so it is written by the keys that are read, with its secrets, and long numbers are
given to pydantic as text.
"""

from __future__ import annotations

import dataclasses
import re
import sys
from collections.abc import Iterable, Mapping
from contextlib import suppress
from decimal import Decimal
from functools import lru_cache
from typing import Any, get_args

import msgspec

Keys = tuple[str | int, ...]

MOST_NUMBERS = 100  # that are tried each by itself
_LONG_NUMBER = r"[0-9.]{16}"


def is_model(kind: Any) -> bool:
    """Says whether a type is a pydantic model or dataclass."""
    return "__pydantic_validator__" in getattr(kind, "__dict__", {})


def is_constrained(kind: Any) -> bool:
    """Says whether a type is `Annotated` with what pydantic checks or converts: `PositiveInt`, `Annotated[int, Field(gt=0)]`."""
    return "pydantic" in sys.modules and any(
        type(one).__module__.partition(".")[0] in ("pydantic", "annotated_types")
        or hasattr(one, "__get_pydantic_core_schema__")
        for one in getattr(kind, "__metadata__", ())
    )


def adapter(kind: Any) -> Any:
    """Returns the `TypeAdapter` of a pydantic model, dataclass or type (`SecretStr`, `PositiveInt`), None for any other type."""
    own = is_model(kind) or (isinstance(kind, type) and hasattr(kind, "__get_pydantic_core_schema__"))
    if not own and not is_constrained(kind):
        return None
    try:
        return _adapter(kind)
    except TypeError:  # not hashable
        return _adapter.__wrapped__(kind)


@lru_cache(maxsize=2048)
def _adapter(kind: Any) -> Any:
    return sys.modules["pydantic"].TypeAdapter(kind)


def described(model: Any) -> dict[str, Any]:
    """Returns what pydantic knows of the fields of a model."""
    found: dict[str, Any] = getattr(model, "model_fields", None) or model.__pydantic_fields__
    return found


def path(model: Any, name: str) -> Keys:
    """Returns the keys under which a field is looked for: one, but for an `AliasPath`."""
    alias = getattr(described(model).get(name), "validation_alias", None)
    if alias is None or not _config(model).get("validate_by_alias", True):
        return (name,)
    choices = [_keys_of(choice) for choice in getattr(alias, "choices", [alias])]
    return min(choices, key=len)


def is_given(model: Any, name: str) -> bool:
    """Says whether a field may be given; one of a dataclass that is `init=False` is computed."""
    return getattr(getattr(model, "__dataclass_fields__", {}).get(name), "init", True)


def keys(model: Any) -> tuple[str, ...] | None:
    """Returns the only keys that a model takes at its top, None for one that decides itself about others."""
    config = _config(model)
    if config.get("extra") in ("allow", "ignore") or getattr(model, "__pydantic_root_model__", False):
        return None
    by_name = config.get("populate_by_name") or config.get("validate_by_name")
    found: list[str] = []
    for name, one in described(model).items():
        if not is_given(model, name):
            continue
        choices = getattr(getattr(one, "validation_alias", None), "choices", ())
        found += [str(keys[0]) for keys in (path(model, name), *map(_keys_of, choices))]
        found += [name] if by_name else []
    return tuple(dict.fromkeys(found))


def _keys_of(alias: Any) -> Keys:
    return (alias,) if isinstance(alias, str) else tuple(alias.path)


def _config(model: Any) -> Mapping[str, Any]:
    found: Mapping[str, Any] = getattr(model, "model_config", None) or getattr(model, "__pydantic_config__", None) or {}
    return found


# ---- writing


def writes(value: Any) -> bool:
    """Says whether a value is one of pydantic's models or types."""
    return hasattr(type(value), "__get_pydantic_core_schema__") or is_model(type(value))


def plain(value: Any) -> Any:
    """Returns a pydantic value as plain data that reads back."""
    if hasattr(value, "get_secret_value"):
        return _secret(value)
    dump = getattr(value, "model_dump", None)
    how: dict[str, Any] = {"mode": "json", "by_alias": False, "round_trip": True, "warnings": False}
    kind: Any = type(value)
    dumped = _adapter(kind).dump_python(value, **how) if dump is None else dump(**how)
    return dumped if _dumps_as_read(kind) else _as_read(dumped, value)


@lru_cache(maxsize=2048)
def _dumps_as_read(kind: Any) -> bool:
    """Says whether a type, and all that it is made of, has neither aliases nor secrets nor computed fields."""
    seen: set[int] = set()
    left = [kind]
    while left:
        part = left.pop()
        if id(part) in seen:
            continue
        seen.add(id(part))
        left += get_args(part)
        if hasattr(part, "get_secret_value") or (dataclasses.is_dataclass(part) and not is_model(part)):
            return False
        if is_model(part):
            if any(path(part, name) != (name,) or not is_given(part, name) for name in described(part)):
                return False
            left += [one.annotation for one in described(part).values()]
    return True


def _secret(value: Any) -> Any:
    secret = value.get_secret_value()
    return secret.decode() if isinstance(secret, bytes) else secret


def _as_read(dumped: Any, value: Any) -> Any:
    """Returns what pydantic dumped by the names of fields under the keys that it is read by, with its secrets."""
    if hasattr(value, "get_secret_value"):
        return _secret(value)
    if isinstance(dumped, dict):
        return _object_as_read(dumped, value)
    if isinstance(dumped, list) and isinstance(value, (list, tuple, set, frozenset)) and len(dumped) == len(value):
        return [_as_read(part, item) for part, item in zip(dumped, value, strict=True)]
    return _as_read(dumped, value.root) if hasattr(value, "root") else dumped


def _object_as_read(dumped: dict[str, Any], value: Any) -> Any:
    if getattr(value, "__pydantic_root_model__", False):
        return _as_read(dumped, value.root)
    if isinstance(value, Mapping) and len(value) == len(dumped):
        return {key: _as_read(part, item) for (key, part), item in zip(dumped.items(), value.values(), strict=True)}
    if is_model(type(value)):
        made: dict[str, Any] = {}
        for name, part in dumped.items():
            if not is_given(type(value), name):
                continue
            _put(made, path(type(value), name), _as_read(part, getattr(value, name, None)))
        return made
    if dataclasses.is_dataclass(value):
        return {name: _as_read(part, getattr(value, name, None)) for name, part in dumped.items()}
    return dumped


def _put(into: Any, keys: Keys, part: Any) -> None:
    key, *rest = keys
    if isinstance(key, int):
        into += [None] * (key + 1 - len(into))
    if not rest:
        into[key] = part
        return
    inner = into[key] if isinstance(key, int) else into.get(key)
    if inner is None:
        inner = into[key] = [] if isinstance(rest[0], int) else {}
    _put(inner, tuple(rest), part)


# ---- reading


def validated(reader: Any, text: str | bytes) -> Any:
    """Returns JSON text as a `TypeAdapter` reads it, with all digits of its numbers."""
    value = reader.validate_json(text)
    written = text if isinstance(text, str) else text.decode()
    if not re.search(_LONG_NUMBER, written):
        return value
    long = _with_text(written, frozenset())[1]
    exact = _validated_with(reader, written, range(long), value)
    if exact is None:  # a field that takes no text, or takes it as text: each number by itself
        fitting = [
            n for n in range(min(long, MOST_NUMBERS)) if _validated_with(reader, written, [n], value) is not None
        ]
        exact = _validated_with(reader, written, fitting, value)
    return value if exact is None else exact


def _validated_with(reader: Any, text: str, numbers: Iterable[int], value: Any) -> Any:
    """Returns the same value with some long numbers given as text, None where a part becomes of another type by that."""
    with suppress(Exception):
        exact = reader.validate_json(_with_text(text, frozenset(numbers))[0])
        if _kinds(reader.dump_python(exact)) == _kinds(reader.dump_python(value)):
            return exact
    return None


def _with_text(text: str, numbers: frozenset[int]) -> tuple[bytes, int]:
    """Returns JSON with some of the numbers that no float holds as text, and how many such numbers there are."""
    long = 0

    def number(digits: str) -> float | str:
        nonlocal long
        held = float(digits)
        if Decimal(digits) == Decimal(repr(held)):
            return held
        long += 1
        return digits if long - 1 in numbers else held

    data = msgspec.json.Decoder(float_hook=number).decode(text)
    return msgspec.json.encode(data), long


def _kinds(value: Any) -> Any:
    """Returns the types of a value's parts in the place of the parts."""
    if isinstance(value, dict):
        return {key: _kinds(part) for key, part in value.items()}
    if isinstance(value, (list, tuple)):
        return [_kinds(part) for part in value]
    return type(value)
