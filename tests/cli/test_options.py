"""Options become an input: what belongs to the command, what to the job, and everything that is wrong at once."""

from __future__ import annotations

from typing import Any

import pytest

from taskrun.cli.options import Given, Own, build, listing, partition, usage
from taskrun.cli.schemas import InputSchema
from tests.cli.fakes import SCHEMA

OWN = Own(frozenset({"-f", "--follow", "-q", "--json", "--help"}), frozenset({"--input", "--key", "--in"}))
NESTED = {
    "type": "object",
    "properties": {
        "image": {
            "type": "object",
            "properties": {"max_size": {"type": "integer"}, "crop": {"type": "boolean"}},
            "required": ["max_size"],
        },
        "labels": {"type": "object", "additionalProperties": {"type": "integer"}},
    },
    "required": ["image"],
}


def given(*pairs: tuple[str, str | None]) -> list[Given]:
    return [Given(*pair) for pair in pairs]


@pytest.mark.parametrize(
    ("typed", "mine", "fields"),
    [
        ("job --path a.mp3", ["job"], [("path", "a.mp3")]),
        ("job --path=a.mp3 -f", ["job", "-f"], [("path", "a.mp3")]),
        ("-q job --dry -f", ["-q", "job", "-f"], [("dry", None)]),
        ("job --dry --path x", ["job"], [("dry", None), ("path", "x")]),
        ("job --size -5", ["job"], [("size", "-5")]),
        ("job --text -fine", ["job"], [("text", "-fine")]),
        ("job --key k --path x", ["job", "--key", "k"], [("path", "x")]),
        ("job --key=k", ["job", "--key=k"], []),
        ("job --input.key k", ["job"], [("input.key", "k")]),
        ("job -fq --path x", ["job", "-fq"], [("path", "x")]),
        ("job --path=--json", ["job"], [("path", "--json")]),
        ("job --path --json", ["job", "--json"], [("path", None)]),
        ("job -- --path x", ["job", "--", "--path", "x"], []),
        ("job --path=", ["job"], [("path", "")]),
    ],
)
def test_own_options_are_told_from_fields(typed: str, mine: list[str], fields: list[tuple[str, str | None]]) -> None:
    assert partition(typed.split(), OWN) == (mine, given(*fields))


@pytest.mark.parametrize(
    ("fields", "value"),
    [
        ([("path", "a")], {"path": "a"}),
        ([("path", "a"), ("bitrate", "320")], {"path": "a", "bitrate": 320}),
        ([("path", "a"), ("path", "b")], {"path": "b"}),
        ([("path", "a"), ("dry", None)], {"path": "a", "dry": True}),
        ([("path", "a"), ("no-dry", None)], {"path": "a", "dry": False}),
        ([("path", "a"), ("dry", "false")], {"path": "a", "dry": False}),
        ([("path", "a"), ("tags", "x"), ("tags", "y")], {"path": "a", "tags": ["x", "y"]}),
        ([("path", "a"), ("input.key", "k")], {"path": "a", "key": "k"}),
    ],
)
def test_fields_become_an_input(fields: list[tuple[str, str | None]], value: dict[str, Any]) -> None:
    assert build(InputSchema(SCHEMA), given(*fields)) == (value, [])


def test_dashes_underscores_and_dots_reach_nested_fields() -> None:
    schema = InputSchema(NESTED)
    for spelling in ("image.max-size", "image.max_size"):
        assert build(schema, given((spelling, "5"), ("image.no-crop", None), ("labels.a", "1"))) == (
            {"image": {"max_size": 5, "crop": False}, "labels": {"a": 1}},
            [],
        )
    assert build(schema, given(("image", '{"max_size": 1}'))).value == {"image": {"max_size": 1}}


def test_options_win_over_the_input_and_leave_it_as_it_was() -> None:
    base = {"path": "a", "bitrate": 1}
    assert build(InputSchema(SCHEMA), given(("bitrate", "2")), base).value == {"path": "a", "bitrate": 2}
    assert base == {"path": "a", "bitrate": 1}


def test_every_problem_is_reported_at_once() -> None:
    problems = build(InputSchema(SCHEMA), given(("bitrate", "hi"), ("pth", "x"), ("dry", "maybe"))).problems
    assert problems == [
        '--bitrate "hi" is not an integer',
        "there is no option --pth\n  did you mean  --path",
        '--dry "maybe" is not true or false',
        "--path is required",
    ]


def test_a_value_that_is_missing_is_asked_for_once() -> None:
    assert build(InputSchema(SCHEMA), given(("path", None))).problems == ["--path needs a value: TEXT"]


def test_missing_fields_are_named_down_to_their_leaves() -> None:
    assert build(InputSchema(NESTED), []).problems == ["--image.max-size is required"]
    assert build(InputSchema(NESTED), [], {"image": {}}).problems == ["--image.max-size is required"]


@pytest.mark.parametrize(
    ("text", "value"), [("5", 5), ("a", "a"), ('{"x": [1]}', {"x": [1]}), (None, True), ("true", True), ("05", "05")]
)
def test_an_untyped_input_takes_json_as_json_and_all_else_as_text(text: str | None, value: Any) -> None:
    assert build(InputSchema({}), given(("any", text))) == ({"any": value}, [])
    assert build(InputSchema({"type": "object"}), given(("any_thing", text))) == ({"any_thing": value}, [])


def test_options_cannot_be_added_to_an_input_that_is_no_object() -> None:
    assert build(InputSchema({}), given(("a", "1")), [1]).problems == [
        "--input is not a JSON object, so that no option can be added to it"
    ]
    assert build(InputSchema({"type": "array"}), [], [1]) == ([1], [])


def test_the_help_lists_options_with_defaults_and_avoids_the_commands_own() -> None:
    schema = InputSchema(SCHEMA)
    assert usage(schema) == "--path TEXT [--bitrate INTEGER] [--dry] [--tags TEXT …] [--key TEXT]"
    assert listing(schema, OWN) == [
        ("--path TEXT", "required"),
        ("--bitrate INTEGER", "default 128"),
        ("--dry / --no-dry", "default false"),
        ("--tags TEXT", "default []; may be repeated"),
        ("--input.key TEXT", 'default ""'),
    ]
