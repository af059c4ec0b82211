"""The `input` of `[jobs.NAME]` and `[pipes.NAME]`: fields that are declared in TOML, and how values of them are read.

A field is a default, which gives its type, or a table of `type default choices help`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any, Literal, get_args

import msgspec

from taskrun.model.config_keys import TablePlace, refuse_unknown
from taskrun.model.durations import shown

FieldType = Literal["str", "int", "float", "bool", "path", "list"]
TYPES: tuple[FieldType, ...] = get_args(FieldType)

_NAME = r"[A-Za-z][A-Za-z0-9_]{0,99}"
_KEYS = {"type", "default", "choices", "help"}
_KINDS: dict[str, type] = {"str": str, "int": int, "float": float, "bool": bool, "path": str, "list": list}


class InputField(msgspec.Struct, frozen=True, kw_only=True):
    """One field of an input.

    Parameters:
        items: the type of a list's elements.
        default: what it is unless given; of a field that is `required` nothing.
        choices: what it, or an element of it, may be; empty for anything.
    """

    name: str
    type: FieldType
    items: FieldType = "str"
    required: bool = False
    default: Any = None
    choices: list[Any] = []
    help: str = ""


# ---- reading the table


def read_fields(written: Mapping[str, Any], place: TablePlace, types: bool = False) -> list[InputField]:
    """Reads a table `input`.

    Parameters:
        place: the table that has it.
        types: whether a text that names a type is that type, of a field that is required, and no default.

    Raises:
        ConfigError: a field that cannot be; names file, table and field.
    """
    return [_field(name, value, place.at(f"input.{name}"), types) for name, value in written.items()]


def _field(name: str, value: Any, place: TablePlace, types: bool) -> InputField:
    if not re.fullmatch(_NAME, name):
        raise place.error("cannot be the name of a field: it takes a letter, then letters, digits and _")
    if types and value in TYPES:
        value = {"type": value}
    table = value if isinstance(value, dict) else {"default": value}
    refuse_unknown(table, _KEYS, f"{place.table} ", place.path)
    kind = _type(table, place)
    choices = _choices(table, place)
    if not isinstance(help := table.get("help", ""), str):
        raise place.error(f"help must be text, not {shown(help)}")
    items = _items([*_elements(table.get("default")), *choices]) if kind == "list" else kind
    for choice in choices:
        if not _fits(choice, items):
            raise place.error(f"choices must be of type {items}, not {shown(choice)}")
    field = InputField(
        name=name,
        type=kind,
        items=items,
        required="default" not in table,
        default=table.get("default"),
        choices=choices,
        help=help,
    )
    if not field.required:
        _check_default(field, place)
    return field


def _choices(table: Mapping[str, Any], place: TablePlace) -> list[Any]:
    listed = table.get("choices", [])
    if isinstance(listed, list) and (listed or "choices" not in table):
        return listed
    raise place.error(f"choices must be a list of values, not {shown(listed)}")


def _type(table: Mapping[str, Any], place: TablePlace) -> FieldType:
    if "type" in table:
        if table["type"] in TYPES:
            kind: FieldType = table["type"]
            return kind
        raise place.error(f"type must be one of {', '.join(TYPES)}, not {shown(table['type'])}")
    if "default" not in table:
        raise place.error(f"needs a type ({', '.join(TYPES)}) or a default, which gives its type")
    found = _type_of(table["default"])
    if found is None:
        value = shown(table["default"])
        raise place.error(f"default must be text, a number, true or false, or a list, not {value}")
    return found


def _type_of(value: Any) -> FieldType | None:
    kinds: dict[type, FieldType] = {bool: "bool", int: "int", float: "float", str: "str", list: "list"}
    return kinds.get(type(value))


def _elements(default: Any) -> list[Any]:
    return default if isinstance(default, list) else []


def _items(values: Sequence[Any]) -> FieldType:
    """Returns the type of a list's elements: that of those that are known, or text."""
    kinds = {_type_of(value) for value in values}
    if kinds == {"int", "float"}:
        return "float"
    kind = kinds.pop() if len(kinds) == 1 else None
    return "str" if kind is None or kind == "list" else kind


def _fits(value: Any, kind: FieldType) -> bool:
    if kind == "float":
        return isinstance(value, (int, float)) and not isinstance(value, bool)
    return type(value) is _KINDS[kind]


def _check_default(field: InputField, place: TablePlace) -> None:
    if not _fits(field.default, field.type) or not all(_fits(one, field.items) for one in _elements(field.default)):
        named = f"list of {field.items}" if field.type == "list" else field.type
        raise place.error(f"default must be of type {named}, not {shown(field.default)}")
    if wrong := wrong_with(field, field.default):
        raise place.error(f"default {wrong}")


def wrong_with(field: InputField, value: Any) -> str:
    """Returns what is wrong with a value of the right type, empty when nothing is."""
    for item in value if isinstance(value, list) else [value]:
        if field.choices and item not in field.choices:
            return f"must be one of {', '.join(map(str, field.choices))}, not {shown(item)}"
        if isinstance(item, str) and "\0" in item:
            return "holds a NUL, which no command can be given"
    return ""
