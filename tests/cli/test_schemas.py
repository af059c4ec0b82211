"""Text becomes values as the input's schema says."""

from __future__ import annotations

from typing import Any

import pytest

from taskrun.cli.schemas import InputSchema, convert, metavar

OPTIONAL_INT = InputSchema({"anyOf": [{"type": "integer"}, {"type": "null"}]}).root
INT_OR_TEXT = InputSchema({"anyOf": [{"type": "string"}, {"type": "integer"}]}).root


@pytest.mark.parametrize(
    ("text", "schema", "value"),
    [
        ("5", {"type": "integer"}, 5),
        ("-5", {"type": "integer"}, -5),
        ("5", {"type": "number"}, 5.0),
        ("1e3", {"type": "number"}, 1000.0),
        ("5", {"type": "string"}, "5"),
        ("null", {"type": "string"}, "null"),
        ("", {"type": "string"}, ""),
        ("yes", {"type": "boolean"}, True),
        ("FALSE", {"type": "boolean"}, False),
        ("b", {"enum": ["a", "b"]}, "b"),
        ("2", {"enum": [1, 2]}, 2),
        ("x", {"const": "x"}, "x"),
        ("7", OPTIONAL_INT, 7),
        ("null", OPTIONAL_INT, None),
        ("7", INT_OR_TEXT, 7),
        ("seven", INT_OR_TEXT, "seven"),
        ("7", {"type": ["string", "integer"]}, 7),
        ('{"a": 1}', {"type": "object"}, {"a": 1}),
        ("[1]", {}, [1]),
        ("true", {}, True),
        ("null", {}, None),
        ("song.mp3", {}, "song.mp3"),
        ('"7"', {}, "7"),
        ("NaN", {}, "NaN"),
        ("[" * 100_000, {}, "[" * 100_000),
    ],
)
def test_text_becomes_the_value_that_the_type_asks_for(text: str, schema: dict[str, Any], value: Any) -> None:
    converted = convert(text, schema)
    assert converted == value
    assert type(converted) is type(value)


@pytest.mark.parametrize(
    ("text", "schema", "complaint"),
    [
        ("hi", {"type": "integer"}, "is not an integer"),
        ("1.5", {"type": "integer"}, "is not an integer"),
        ("inf", {"type": "number"}, "is not a number"),
        ("NaN", {"type": "number"}, "is not a number"),
        ("maybe", {"type": "boolean"}, "is not true or false"),
        ("c", {"enum": ["a", 1]}, "is not one of a, 1"),
        ("[1]", {"type": "object"}, "is not a JSON object"),
        ("hi", {"type": ["integer", "boolean"]}, "is none of integer, boolean"),
        ("0", {"type": "integer", "minimum": 1}, "is less than 1"),
        ("9", {"type": "integer", "maximum": 8}, "is more than 8"),
        ("", {"type": "string", "minLength": 1}, "has fewer than 1 characters"),
        ("ab", {"type": "string", "pattern": "^a$"}, "does not match ^a$"),
    ],
)
def test_what_does_not_fit_is_said(text: str, schema: dict[str, Any], complaint: str) -> None:
    with pytest.raises(ValueError, match=r".*") as raised:
        convert(text, schema)
    assert str(raised.value) == complaint


def test_references_are_followed_and_recursion_ends() -> None:
    node = {"type": "object", "properties": {"value": {"type": "integer"}, "next": {"$ref": "#/$defs/Node"}}}
    schema = InputSchema({"$ref": "#/$defs/Node", "$defs": {"Node": node}})
    assert "value" in schema.fields
    assert "next.value" in schema.fields
    assert max(len(field.path) for field in schema.fields.values()) == 4


@pytest.mark.parametrize(
    ("schema", "shown"),
    [
        ({"type": "string"}, "TEXT"),
        ({"type": "integer"}, "INTEGER"),
        ({"enum": ["low", "high"]}, "low|high"),
        ({"type": "array", "items": {"type": "number"}}, "NUMBER"),
        ({}, "VALUE"),
    ],
)
def test_the_help_names_the_kind_of_a_value(schema: dict[str, Any], shown: str) -> None:
    assert metavar(schema) == shown
