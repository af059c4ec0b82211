"""A job's input schema seen as command line options: which fields there are, and how text becomes a value of one.

Pure functions of a JSON schema as the daemon's `jobs` request gives it. `options` applies what was typed, the help and
the completion list what could be.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

Schema = dict[str, Any]
DEEPEST = 4  # levels of nesting that become options; deeper ones are given as JSON


class Field(NamedTuple):
    """One field of an input that can be given as an option."""

    path: tuple[str, ...]
    schema: Schema
    required: bool

    @property
    def name(self) -> str:
        """Its option without the dashes in front."""
        return option_name(self.path)

    @property
    def flag(self) -> bool:
        """Whether it is given as `--flag/--no-flag`."""
        return kind(self.schema) == "boolean"

    @property
    def many(self) -> bool:
        """Whether it is given once for each element."""
        return kind(self.schema) == "array"

    @property
    def nested(self) -> bool:
        """Whether its own fields are options."""
        return bool(self.schema.get("properties"))


def option_name(path: tuple[str, ...]) -> str:
    """Returns the option of a field: `max_size` of `image` is `image.max-size`."""
    return ".".join(path).replace("_", "-")


class InputSchema:
    """The schema of one input, with its references resolved on the way down."""

    def __init__(self, schema: Schema | None) -> None:
        self._defs: dict[str, Schema] = (schema or {}).get("$defs", {})
        self.root = self.resolve(schema or {})
        self.fields = {field.name: field for field in self._walk(self.root, (), True)}

    @property
    def open(self) -> bool:
        """Whether fields beyond those that are listed are allowed."""
        return is_open(self.root)

    def resolve(self, schema: Schema) -> Schema:
        """Returns a schema with its outermost reference followed and `X | None` taken as `X` that may be null."""
        while "$ref" in schema:
            target = self._defs.get(schema["$ref"].rpartition("/")[2], {})
            schema = {**target, **{key: value for key, value in schema.items() if key != "$ref"}}
        choices = [self.resolve(choice) for choice in schema.get("anyOf") or schema.get("oneOf") or ()]
        solid = [choice for choice in choices if choice.get("type") != "null"]
        if len(solid) == 1:
            rest = {key: value for key, value in schema.items() if key not in ("anyOf", "oneOf")}
            return {**solid[0], **rest, "nullable": len(choices) > 1}
        return {**schema, "anyOf": choices} if choices else schema

    def item(self, schema: Schema, index: int) -> Schema:
        """Returns the schema of an array's element."""
        prefix = schema.get("prefixItems") or []
        found = prefix[index] if index < len(prefix) else schema.get("items")
        return self.resolve(found) if isinstance(found, dict) else {}

    def missing(self, value: Any) -> list[str]:
        """Returns the options of the required fields that an input lacks."""
        return [option_name(path) for path in self._missing(self.root, value, ())]

    def _walk(self, schema: Schema, path: tuple[str, ...], required: bool) -> Iterator[Field]:
        if path:
            yield Field(path, schema, required)
        if len(path) < DEEPEST:
            for name, inner in (schema.get("properties") or {}).items():
                wanted = required and name in schema.get("required", ())
                yield from self._walk(self.resolve(inner), (*path, name), wanted)

    def _missing(self, schema: Schema, value: Any, path: tuple[str, ...]) -> Iterator[tuple[str, ...]]:
        given = value if isinstance(value, dict) else {}
        required = schema.get("required", ())
        for name, inner in (schema.get("properties") or {}).items():
            here, nested = (*path, name), self.resolve(inner)
            if isinstance(given.get(name), dict) or (name in required and name not in given and nested.get("required")):
                yield from self._missing(nested, given.get(name), here)
            elif name in required and name not in given:
                yield here


def is_open(schema: Schema) -> bool:
    """Whether an object takes fields that its schema does not list."""
    if kind(schema) == "any":
        return True
    return kind(schema) == "object" and bool(schema.get("additionalProperties", not schema.get("properties")))


def kind(schema: Schema) -> str:
    """Returns `boolean integer number string array object enum union` or `any`."""
    if "enum" in schema or "const" in schema:
        return "enum"
    if "anyOf" in schema or isinstance(schema.get("type"), list):
        return "union"
    return str(schema.get("type") or ("object" if "properties" in schema else "any"))


def metavar(schema: Schema) -> str:
    """Returns what the help shows as the value of an option."""
    of = kind(schema)
    if of == "enum":
        return "|".join(_as_typed(choice) for choice in choices(schema))
    if of == "array":
        return metavar(schema["items"]) if isinstance(schema.get("items"), dict) else "VALUE"
    return _METAVARS.get(of, "VALUE")


def choices(schema: Schema) -> list[Any]:
    """Returns the values that an enum allows."""
    return list(schema["enum"]) if "enum" in schema else [schema["const"]]


# ---- text to value


def convert(text: str, schema: Schema) -> Any:
    """Returns the value that a piece of text means under a schema.

    Raises:
        ValueError: says what it is not, such as `is not an integer`.
    """
    if text == "null" and schema.get("nullable") and kind(schema) != "string":
        return None
    value = _CONVERTERS.get(kind(schema), _any)(text, schema)
    for keyword, (broken, complaint) in _LIMITS.items():
        if keyword in schema and broken(value, schema[keyword]):
            raise ValueError(complaint.format(schema[keyword]))
    return value


def _boolean(text: str, schema: Schema) -> bool:
    found = _BOOLEANS.get(text.lower())
    if found is None:
        raise ValueError("is not true or false")
    return found


def _integer(text: str, schema: Schema) -> int:
    if not re.fullmatch(r"\s*[+-]?\d{1,400}\s*", text):
        raise ValueError("is not an integer")
    return int(text)


def _number(text: str, schema: Schema) -> float:
    try:
        number = float(text)
    except ValueError:
        number = math.nan
    if not math.isfinite(number):
        raise ValueError("is not a number")
    return number


def _string(text: str, schema: Schema) -> str:
    return text


def _enum(text: str, schema: Schema) -> Any:
    for choice in choices(schema):
        if text == _as_typed(choice):
            return choice
    raise ValueError("is not one of " + ", ".join(_as_typed(choice) for choice in choices(schema)))


def _union(text: str, schema: Schema) -> Any:
    listed = schema.get("type")
    branches = [{**schema, "type": name} for name in listed] if isinstance(listed, list) else schema["anyOf"]
    for branch in sorted(branches, key=lambda branch: kind(branch) == "string"):
        try:
            return convert(text, branch)
        except ValueError:
            continue
    raise ValueError("is none of " + ", ".join(kind(branch) for branch in branches))


def _object(text: str, schema: Schema) -> Any:
    return _json_of(text, dict, "is not a JSON object")


def _array(text: str, schema: Schema) -> Any:
    return _json_of(text, list, "is not a JSON array")


def _null(text: str, schema: Schema) -> None:
    if text != "null":
        raise ValueError("is not null")


def _json_of(text: str, wanted: type, complaint: str) -> Any:
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        value = None
    if not isinstance(value, wanted):
        raise ValueError(complaint)
    return value


def _any(text: str, schema: Schema) -> Any:
    """Untyped: what is JSON is taken as JSON, all else as text. `NaN` and its like are no JSON."""
    try:
        return json.loads(text, parse_constant=_refuse)
    except (ValueError, RecursionError):
        return text


def _refuse(constant: str) -> None:
    raise ValueError(constant)


def _as_typed(choice: Any) -> str:
    return choice if isinstance(choice, str) else json.dumps(choice)


_BOOLEANS = {"true": True, "yes": True, "on": True, "1": True, "false": False, "no": False, "off": False, "0": False}
_METAVARS = {"integer": "INTEGER", "number": "NUMBER", "string": "TEXT", "object": "JSON", "boolean": ""}
_CONVERTERS: dict[str, Callable[[str, Schema], Any]] = {
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
    "multipleOf": (lambda value, step: math.remainder(value, step) != 0, "is not a multiple of {}"),
    "minLength": (lambda value, limit: len(value) < limit, "has fewer than {} characters"),
    "maxLength": (lambda value, limit: len(value) > limit, "has more than {} characters"),
    "pattern": (lambda value, pattern: not re.search(pattern, value), "does not match {}"),
}
