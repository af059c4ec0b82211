"""A job's input schema as command line options: its fields and their names.

Pure functions of a JSON schema, as the `jobs` request returns it. `conversion` converts text to values, `field_options` applies
what was typed; the help and the completion list the fields.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import msgspec

from taskrun.cli.option_names import STARTING, FieldPath, OwnOptions, option_name, option_names, spellings

Schema = dict[str, Any]
DEEPEST = 4  # levels of nesting that become options; deeper fields are given as JSON


class Field(msgspec.Struct, frozen=True):
    """One field of an input that can be given as an option.

    Parameters:
        name: its option, without the leading dashes.
        negation: the option that turns a flag off; empty where there is none, or another field has that name.
    """

    path: FieldPath
    schema: Schema
    required: bool
    name: str
    negation: str = ""

    @property
    def flag(self) -> bool:
        """Whether it is given as `--flag/--no-flag`."""
        return kind(self.schema) == "boolean"

    @property
    def many(self) -> bool:
        """Whether it is given once per element."""
        return kind(self.schema) == "array"

    @property
    def nested(self) -> bool:
        """Whether its own fields are options."""
        return bool(self.schema.get("properties"))


class InputSchema:
    """The schema of one input, with its references resolved.

    Parameters:
        own: the options of the command itself, from which a field's option must differ.
    """

    def __init__(self, schema: Schema | None, own: OwnOptions = STARTING) -> None:
        self._defs: dict[str, Schema] = (schema or {}).get("$defs", {})
        self._own = own
        self.root = self.resolve(schema or {})
        parts = {path: (inner, required) for path, inner, required in self._walk(self.root, (), True)}
        named = option_names((path for path in parts if _typeable(path)), own)
        self._paths = spellings(named)
        self.fields = {name: self._field(name, path, *parts[path]) for name, path in named.items()}
        self._by_path = {field.path: field for field in self.fields.values()}

    @property
    def open(self) -> bool:
        """Whether fields beyond those that are listed are allowed."""
        return is_open(self.root)

    def find(self, typed: str) -> Field | None:
        """Returns the field of an option, spelled with `_` or `-`, with or without `input.`."""
        path = self._paths.get(typed) or self._paths.get(typed.replace("_", "-"))
        return None if path is None else self._by_path[path]

    def find_negated(self, typed: str) -> Field | None:
        """Returns the flag that an option `no-…` turns off."""
        field = self.find(positive) if (positive := _without_no(typed)) and not self.find(typed) else None
        return field if field is not None and field.flag else None

    def name_of(self, path: FieldPath) -> str:
        """Returns the option of a field, listed or not."""
        return self._by_path[path].name if path in self._by_path else option_name(path, self._own)

    def resolve(self, schema: Schema) -> Schema:
        """Returns a schema with its outermost reference followed, and `X | None` as an `X` that may be null."""
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
        """Returns the options of the required fields that are missing in an input."""
        return [self.name_of(path) for path in self._missing(self.root, value, ())]

    def _field(self, name: str, path: FieldPath, schema: Schema, required: bool) -> Field:
        head, _, last = name.rpartition(".")
        negation = f"{head}.no-{last}" if head else f"no-{last}"
        usable = kind(schema) == "boolean" and not self._own.takes(negation) and negation not in self._paths
        return Field(path, schema, required, name, negation if usable else "")

    def _walk(self, schema: Schema, path: FieldPath, required: bool) -> Iterator[tuple[FieldPath, Schema, bool]]:
        if path:
            yield path, schema, required
        if len(path) < DEEPEST:
            for name, inner in (schema.get("properties") or {}).items():
                wanted = required and name in schema.get("required", ())
                yield from self._walk(self.resolve(inner), (*path, name), wanted)

    def _missing(self, schema: Schema, value: Any, path: FieldPath) -> Iterator[FieldPath]:
        given = value if isinstance(value, dict) else {}
        required = schema.get("required", ())
        for name, inner in (schema.get("properties") or {}).items():
            here, nested = (*path, name), self.resolve(inner)
            if isinstance(given.get(name), dict) or (name in required and name not in given and nested.get("required")):
                yield from self._missing(nested, given.get(name), here)
            elif name in required and name not in given:
                yield here


def is_open(schema: Schema) -> bool:
    """Whether an object may have fields that its schema does not list."""
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


def choices(schema: Schema) -> list[Any]:
    """Returns the values that an enum allows."""
    return list(schema["enum"]) if "enum" in schema else [schema["const"]]


def _typeable(path: FieldPath) -> bool:
    """Whether a field can be typed as an option at all; otherwise it is given with `--input`."""
    return all(name and "=" not in name and not any(map(str.isspace, name)) for name in path)


def _without_no(typed: str) -> str:
    head, _, last = typed.rpartition(".")
    if not last.startswith(("no-", "no_")):
        return ""
    return f"{head}.{last[3:]}" if head else last[3:]
