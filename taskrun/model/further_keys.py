"""Keys of JSON objects that their type does not name: msgspec passes over them; here they are refused or kept."""

from __future__ import annotations

import types
from collections.abc import Callable, Collection, Iterable, Mapping
from difflib import get_close_matches
from enum import Enum
from functools import lru_cache
from itertools import repeat
from typing import Any, Final, Union, get_args, get_origin

import msgspec

from taskrun.model.fields import Field, all_fields, bare, closed_keys, fields, init_only, is_typed_dict, mentions
from taskrun.model.problems import Problems, at

Text = str | msgspec.Raw


class Further(Enum):
    """What becomes of keys that a type does not name."""

    REFUSE = "they are refused"
    RECORDED = "they are refused, but for computed fields, which a record has"
    KEEP = "a TypedDict keeps them; others refuse them"


Check = Callable[[Text, str], Problems]


def key_check(kind: Any, further: Further) -> Check | None:
    """Returns what finds a problem for each key that a model within `kind` does not know; None where there is no model."""
    try:
        return _key_check(kind, further)
    except TypeError:  # not hashable
        return _key_check.__wrapped__(kind, further)


@lru_cache(maxsize=2048)
def _key_check(kind: Any, further: Further) -> Check | None:
    kind = bare(kind)
    if not mentions(kind, lambda part: all_fields(part) is not None):
        return None
    origin, arguments = get_origin(kind), get_args(kind)
    if (known := all_fields(kind)) is not None:
        return _in_model(kind, known, further)
    if origin in (Union, types.UnionType):
        return _in_union(arguments, further)
    if isinstance(origin, type) and issubclass(origin, Mapping):
        return _in_mapping(arguments[-1], further)
    return _in_items(origin, arguments, further)


def _in_model(kind: Any, known: Iterable[Field], further: Further) -> Check:
    keys = closed_keys(kind, recorded=further is not Further.REFUSE)
    if further is Further.KEEP and is_typed_dict(kind):
        keys = None
    not_recorded, closed = init_only(kind), frozenset(keys or ())
    nested = [one for one in known if mentions(one.kind, lambda part: all_fields(part) is not None)]

    def check(text: Text, path: str) -> Problems:
        given = parts_of(text)
        problems = [] if keys is None or given.keys() <= closed else unknown(given, keys, path, not_recorded)
        for one in nested:
            if one.key in given and (inner := key_check(one.kind, further)) is not None:
                problems += inner(given[one.key], at(path, one.key))
        return problems

    return check


def _in_union(kinds: Iterable[Any], further: Further) -> Check | None:
    if any(one in _TAKES_ANY or get_origin(one) in _TAKES_ANY for one in kinds):
        return None
    checks = [check for check in (key_check(one, further) for one in kinds) if check is not None]
    return lambda text, path: min((check(text, path) for check in checks), key=len)


def _in_mapping(kind: Any, further: Further) -> Check | None:
    inner = key_check(kind, further)
    if inner is None:
        return None
    return lambda text, path: [
        problem for key, part in parts_of(text).items() for problem in inner(part, at(path, key))
    ]


def _in_items(origin: Any, kinds: tuple[Any, ...], further: Further) -> Check:
    fixed = origin is tuple and kinds[-1] is not Ellipsis
    checks = [key_check(one, further) for one in kinds]

    def check(text: Text, path: str) -> Problems:
        items = zip(items_of(text), checks if fixed else repeat(checks[0]), strict=False)
        found = (inner(part, f"{path}[{index}]") for index, (part, inner) in enumerate(items) if inner is not None)
        return [problem for problems in found for problem in problems]

    return check


def unknown(given: Iterable[str], known: Collection[str], path: str = "", init_only: Collection[str] = ()) -> Problems:
    """Returns a problem for each key that is not known."""
    return [
        (at(path, key), NOT_RECORDED if key in init_only else _unknown(key, known)) for key in given if key not in known
    ]


def _unknown(key: str, known: Collection[str]) -> str:
    close = get_close_matches(key, known, 1)
    meant = f", did you mean {close[0]}?" if close else f", valid fields: {', '.join(known)}" if known else ""
    return "unknown field" + meant


NOT_RECORDED = "is for __init__ alone, so that it would not be recorded"
_TAKES_ANY: Final = (dict, Mapping, Any, object)


def has_dicts(kind: Any) -> bool:
    """Says whether a type is a `TypedDict`, or made of some."""
    return mentions(kind, is_typed_dict)


def keep(value: Any, text: Text, kind: Any) -> None:
    """Puts further keys into the TypedDicts within a value."""
    kind = bare(kind)
    origin, arguments = get_origin(kind), get_args(kind)
    if origin in (Union, types.UnionType):
        for one in arguments:
            if value is not None and has_dicts(one):
                keep(value, text, one)
    elif (known := fields(kind)) is not None:
        _keep_in_model(value, parts_of(text), kind, known)
    elif isinstance(value, dict) and arguments:
        for item, part in zip(value.values(), parts_of(text).values(), strict=False):
            keep(item, part, arguments[-1])
    elif isinstance(value, (list, tuple)) and arguments:
        kinds = arguments if len(arguments) == len(value) and Ellipsis not in arguments else [arguments[0]] * len(value)
        for item, part, one in zip(value, items_of(text), kinds, strict=False):
            keep(item, part, one)


def _keep_in_model(value: Any, given: Mapping[str, msgspec.Raw], kind: Any, known: Iterable[Field]) -> None:
    is_dict = is_typed_dict(kind) and isinstance(value, dict)
    for one in known:
        if one.key in given and has_dicts(one.kind):
            keep(value.get(one.name) if is_dict else getattr(value, one.name, None), given[one.key], one.kind)
    if is_dict:
        value.update({key: msgspec.json.decode(part) for key, part in given.items() if key not in value})


def parts_of(text: Text) -> dict[str, msgspec.Raw]:
    """Returns the parts of a JSON object; nothing of what is none."""
    try:
        return _OBJECT.decode(text)
    except msgspec.ValidationError:
        return {}


def items_of(text: Text) -> list[msgspec.Raw]:
    """Returns the items of a JSON array; nothing of what is none."""
    try:
        return _ARRAY.decode(text)
    except msgspec.ValidationError:
        return []


_OBJECT: Final = msgspec.json.Decoder(dict[str, msgspec.Raw])
_ARRAY: Final = msgspec.json.Decoder(list[msgspec.Raw])
