"""Text becomes values as the input's schema says."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from taskrun.cli.inputs.conversion import convert
from taskrun.cli.inputs.input_schema import InputSchema
from taskrun.cli.inputs.usage import metavar

HERE = Path("/caller")
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
    converted = convert(text, schema, HERE)
    assert converted == value
    assert type(converted) is type(value)


DURATION = {"type": "string", "format": "duration"}
TIME = {"type": "string", "format": "time"}
DATE_TIME = {"type": "string", "format": "date-time"}
DATE = {"type": "string", "format": "date"}
BYTES = {"type": "string", "contentEncoding": "base64"}


@pytest.mark.parametrize(
    ("text", "schema", "value"),
    [
        ("90m", DURATION, "PT5400S"),
        ("5400", DURATION, "PT5400S"),
        ("1.5", DURATION, "PT1.5S"),
        ("250ms", DURATION, "PT0.25S"),
        ("1h 30m", DURATION, "PT5400S"),
        ("2 Hours", DURATION, "PT7200S"),
        (" 5 s ", DURATION, "PT5S"),
        ("0", DURATION, "PT0S"),
        ("-90m", DURATION, "-PT5400S"),
        ("PT1H30M", DURATION, "PT1H30M"),
        ("10:30", TIME, "10:30:00"),
        ("9:05", TIME, "09:05:00"),
        ("10:30:15.5", TIME, "10:30:15.500000"),
        ("10:30Z", TIME, "10:30:00+00:00"),
        ("2026-11-26", DATE_TIME, "2026-11-26T00:00:00"),
        ("2026-11-26 10:30", DATE_TIME, "2026-11-26T10:30:00"),
        ("2026-11-26 9:30", DATE_TIME, "2026-11-26T09:30:00"),
        ("2026-11-26T10:30:15Z", DATE_TIME, "2026-11-26T10:30:15+00:00"),
        ("2026-11-26 10:30+02:00", DATE_TIME, "2026-11-26T10:30:00+02:00"),
        ("2026-11-26", DATE, "2026-11-26"),
        ("hi", BYTES, "aGk="),
        ("", BYTES, ""),
        ("@@home", BYTES, "QGhvbWU="),
        ("null", BYTES, "bnVsbA=="),
        ("caf\udce9", BYTES, "Y2Fm6Q=="),
        ("hi", {"type": "string", "format": "binary"}, "hi"),
        ("??>", {"type": "string", "format": "base64url"}, "Pz8-"),
    ],
)
def test_text_is_read_in_the_form_of_its_type(text: str, schema: dict[str, Any], value: str) -> None:
    assert convert(text, schema, HERE) == value


@pytest.mark.parametrize(
    ("text", "schema", "complaint"),
    [
        ("5 parsecs", DURATION, "is not a duration, as in .*ms, s, m, h, d, w and y"),
        ("", DURATION, "is not a duration"),
        ("nan", DURATION, "is not a duration"),
        ("1e99", DURATION, "is not a duration"),
        ("99999999999y", DURATION, "is not a duration"),
        ("--5s", DURATION, "is not a duration"),
        ("null", DURATION, "is not a duration"),
        ("25:00", TIME, "is not a time, as in 10:30"),
        ("10", TIME, "is not a time"),
        ("soon", DATE_TIME, "is not a date and time, as in 2026-11-26"),
        ("2026-02-30", DATE_TIME, "is not a date and time"),
        ("10:30", DATE_TIME, "is not a date and time"),
        ("2026-11-26 10:30", DATE, "is not a date, as in 2026-11-26"),
        ("@nowhere", BYTES, "cannot be read: No such file"),
        ("@.", BYTES, "cannot be read: "),
    ],
)
def test_text_in_another_form_is_refused_with_an_example(text: str, schema: dict[str, Any], complaint: str) -> None:
    with pytest.raises(ValueError, match=complaint):
        convert(text, schema, HERE)


def test_bytes_are_read_from_a_file_in_the_callers_folder(tmp_path: Path) -> None:
    (tmp_path / "a.bin").write_bytes(b"\x00\xff")
    assert convert("@a.bin", BYTES, tmp_path) == "AP8="
    with pytest.raises(ValueError, match="no other bytes"):
        convert("@a.bin", {"type": "string", "format": "binary"}, tmp_path)
    with pytest.raises(ValueError, match="over the limit of 16 MB"):
        convert("@/dev/zero", BYTES, tmp_path)


def union(*kinds: str, **more: Any) -> dict[str, Any]:
    return InputSchema({"anyOf": [{"type": kind} for kind in kinds], **more}).root


@pytest.mark.parametrize(
    ("text", "schema", "value"),
    [
        ("007", union("integer", "string"), "007"),
        ("7", union("integer", "string"), 7),
        ("-7", union("string", "integer"), -7),
        ("+7", union("integer", "string"), "+7"),
        (" 7", union("integer", "string"), " 7"),
        ("-0", union("integer", "string"), "-0"),
        ("1e5", union("number", "string"), "1e5"),
        ("1.50", union("number", "string"), "1.50"),
        ("1.5", union("number", "string"), 1.5),
        ("5", union("number", "string"), "5"),
        ("true", union("boolean", "string"), True),
        ("True", union("boolean", "string"), "True"),
        ("yes", union("boolean", "string"), "yes"),
        ("1", union("boolean", "string"), "1"),
        ("null", union("integer", "string", "null"), "null"),
        ("null", union("string", "null"), "null"),
        ("null", union("integer", "null"), None),
        ("null", union("integer", "number", "null"), None),
        ("1", union("boolean", "integer"), 1),
        ("true", union("integer", "boolean"), True),
        ("5", union("number", "integer"), 5),
        ("007", union("integer", "number"), 7),
        ("[1]", union("array", "string"), [1]),
        ("[1", union("array", "string"), "[1"),
        ('{"a": 1}', union("object", "string"), {"a": 1}),
        ("null", {"anyOf": [DURATION], "nullable": True, **DURATION}, None),
    ],
)
def test_a_union_takes_nothing_from_a_text_that_does_not_read_back(
    text: str, schema: dict[str, Any], value: Any
) -> None:
    converted = convert(text, schema, HERE)
    assert converted == value
    assert type(converted) is type(value)


@pytest.mark.parametrize(
    ("text", "schema", "value"),
    [
        ("5400", [{"type": "integer"}, DURATION], 5400),
        ("90m", [{"type": "integer"}, DURATION], "PT5400S"),
        ("90m", [{"type": "string"}, DURATION], "90m"),
        ("007", [{"type": "integer"}, BYTES], "MDA3"),
        ("a", [{"enum": ["a", 1]}, {"type": "string"}], "a"),
        ("1", [{"enum": ["a", 1]}, {"type": "string"}], 1),
        ("01", [{"enum": ["a", 1]}, {"type": "string"}], "01"),
    ],
)
def test_unions_of_forms_take_the_narrowest(text: str, schema: list[dict[str, Any]], value: Any) -> None:
    assert convert(text, InputSchema({"anyOf": schema}).root, HERE) == value


@pytest.mark.parametrize(
    "text", ["1e999", "Infinity", "-NaN", '{"a": NaN}', '"\\ud800"', '{"a": 1, "a": 2}', "1" * 5000]
)
def test_what_json_cannot_hold_is_text_for_an_untyped_field(text: str) -> None:
    assert convert(text, {}, HERE) == text


@pytest.mark.parametrize("pattern", ["(?<n>x)", "\\p{L}", "("])
def test_a_pattern_in_another_dialect_is_left_to_the_job(pattern: str) -> None:
    assert convert("x", {"type": "string", "pattern": pattern}, HERE) == "x"


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
        convert(text, schema, HERE)
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
