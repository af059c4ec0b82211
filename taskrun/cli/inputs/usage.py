"""How the options of an input are shown: in a line of usage, and as a list with what each means."""

from __future__ import annotations

from taskrun.cli.inputs.input_schema import Field, InputSchema, Schema, choices, kind
from taskrun.cli.inputs.text_forms import as_duration, as_typed, form_of
from taskrun.cli.sanitize import cell, to_json


def metavar(schema: Schema) -> str:
    """Returns the name of an option's value in the help."""
    of, form = kind(schema), form_of(schema)
    if form is not None:
        return form.metavar
    if of == "enum":
        return "|".join(as_typed(choice) for choice in choices(schema))
    if of == "array":
        return metavar(schema["items"]) if isinstance(schema.get("items"), dict) else "VALUE"
    return _METAVARS.get(of, "VALUE")


def usage(schema: InputSchema) -> str:
    """Returns the options of an input as one line: `--path TEXT [--bitrate INTEGER]`."""
    shown = [field for field in schema.fields.values() if not field.nested]
    parts = [_short(field) if field.required else f"[{_short(field)}]" for field in shown]
    return " ".join(parts + (["[--NAME VALUE …]"] if schema.open else []))


def listing(schema: InputSchema) -> list[tuple[str, str]]:
    """Returns each option with its description."""
    shown = [field for field in schema.fields.values() if not field.nested]
    rows = [(_long(field), _remark(field)) for field in shown]
    return [*rows, ("--NAME VALUE", "any other field")] if schema.open else rows


def _short(field: Field) -> str:
    return f"--{field.name} {metavar(field.schema)}".strip() + (" …" if field.many else "")


def _long(field: Field) -> str:
    if field.flag:
        return f"--{field.name} / --{field.negation}" if field.negation else f"--{field.name}"
    return f"--{field.name} {metavar(field.schema)}"


def _remark(field: Field) -> str:
    parts = [str(field.schema.get("description", "")), _example(field.schema)]
    parts += [f"default {_default(field.schema)}"] if "default" in field.schema else []
    parts += ["required"] if field.required else []
    parts += ["may be repeated"] if field.many else []
    parts += [f"--{field.name}=false turns it off"] if field.flag and not field.negation else []
    return "; ".join(part for part in parts if part)


def _example(schema: Schema) -> str:
    """Returns an example of a value, where it has a special form."""
    items = schema.get("items")
    form = form_of(items if kind(schema) == "array" and isinstance(items, dict) else schema)
    return "" if form is None else form.example


def _default(schema: Schema) -> str:
    """Returns a default as it would be typed."""
    typed = as_duration(schema["default"]) if schema.get("format") == "duration" else None
    return typed or cell(to_json(schema["default"]))


_METAVARS = {"integer": "INTEGER", "number": "NUMBER", "string": "TEXT", "object": "JSON", "boolean": ""}
