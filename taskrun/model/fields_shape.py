"""The shape of an input or event whose fields are declared in TOML. Apart from their reading, which every command does."""

from __future__ import annotations

from collections.abc import Sequence
from types import GenericAlias
from typing import Any

import msgspec

from taskrun.model.input_fields import InputField, wrong_with
from taskrun.model.problems import Misfit, Problems
from taskrun.model.shapes import Parameter, ParametersShape

_KINDS: dict[str, type] = {"str": str, "int": int, "float": float, "bool": bool, "path": str}
_SCHEMAS: dict[str, dict[str, Any]] = {
    "str": {"type": "string"},
    "int": {"type": "integer"},
    "float": {"type": "number"},
    "bool": {"type": "boolean"},
    "path": {"type": "string", "format": "path"},
}


class FieldsShape:
    """The shape of an input or event whose fields are declared in TOML."""

    def __init__(self, fields: Sequence[InputField]) -> None:
        self._fields = fields
        self._typed = ParametersShape([_parameter(field) for field in fields], False, Any)
        self.exact = self._typed.exact

    def read(self, text: str) -> dict[str, Any]:
        """Returns the validated value; raises `Misfit`."""
        values: dict[str, Any] = self._typed.read(text)
        wrong: Problems = [
            (field.name, said) for field in self._fields if (said := wrong_with(field, values[field.name]))
        ]
        if wrong:
            raise Misfit(wrong)
        return values

    def reread(self, text: str) -> dict[str, Any]:
        """Returns a value that was validated before it was written."""
        values: dict[str, Any] = self._typed.reread(text)
        return values

    def plain(self, value: Any) -> Any:
        """Returns a validated value in the form in which it is written."""
        return value

    def describe(self) -> dict[str, Any]:
        """Returns the JSON schema."""
        return {
            "type": "object",
            "properties": {field.name: _schema(field) for field in self._fields},
            "required": [field.name for field in self._fields if field.required],
            "additionalProperties": False,
        }


def _parameter(field: InputField) -> Parameter:
    item = _KINDS[field.items]
    kind = GenericAlias(list, item) if field.type == "list" else item
    default = None if field.required else msgspec.json.encode(field.default).decode()
    return Parameter(field.name, kind, required=field.required, default=default)


def _schema(field: InputField) -> dict[str, Any]:
    schema = dict(_SCHEMAS[field.items])
    if field.choices:
        schema["enum"] = field.choices
    if field.type == "list":
        schema = {"type": "array", "items": schema}
    if not field.required:
        schema["default"] = field.default
    return {**schema, "description": field.help} if field.help else schema
