"""Options become an input: what belongs to the command, what to the job, and everything that is wrong at once."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import pytest

from taskrun.cli.command_table import find
from taskrun.cli.inputs import field_options
from taskrun.cli.inputs.field_options import Given, partition
from taskrun.cli.inputs.input_command import own_options
from taskrun.cli.inputs.input_schema import InputSchema
from taskrun.cli.inputs.usage import listing, usage
from taskrun.cli.option_names import STARTING, OwnOptions, option_name
from tests.cli.fakes import SCHEMA

OWN = OwnOptions(frozenset({"-f", "--follow", "-q", "--json", "--help"}), frozenset({"--input", "--key", "--in"}))
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


build = partial(field_options.build, folder=Path("/caller"))


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
        "--input is not a JSON object, so no option can be added to it"
    ]
    assert build(InputSchema({"type": "array"}), [], [1]) == ([1], [])


def test_the_help_lists_options_with_defaults_and_avoids_the_commands_own() -> None:
    schema = InputSchema(SCHEMA)
    assert usage(schema) == "--path TEXT [--bitrate INTEGER] [--dry] [--tags TEXT …] [--input.key TEXT]"
    assert listing(schema) == [
        ("--path TEXT", "required"),
        ("--bitrate INTEGER", "default 128"),
        ("--dry / --no-dry", "default false"),
        ("--tags TEXT", "default []; may be repeated"),
        ("--input.key TEXT", 'default ""'),
    ]


# ---- names: what the command takes itself, and what differs in `_` and `-` alone


def fields_of(*names: str, kind: str = "string") -> dict[str, Any]:
    return {"type": "object", "properties": {name: {"type": kind} for name in names}, "additionalProperties": False}


@pytest.mark.parametrize("name", ["at", "in", "key", "input", "json", "quiet", "follow", "local", "help", "config"])
def test_a_field_that_a_command_takes_itself_has_the_prefix_everywhere(name: str) -> None:
    schema = InputSchema(fields_of(name))
    assert usage(schema) == f"[--input.{name} TEXT]"
    assert listing(schema)[0][0] == f"--input.{name} TEXT"
    assert build(schema, given((f"input.{name}", "x"))) == ({name: "x"}, [])
    assert build(schema, given((f"input.{name}", None))).problems == [f"--input.{name} needs a value: TEXT"]
    required = InputSchema({**fields_of(name), "required": [name]})
    assert build(required, []).problems == [f"--input.{name} is required"]


def test_a_flag_that_a_command_takes_itself_is_turned_off_with_the_prefix_too() -> None:
    schema = InputSchema(fields_of("json", kind="boolean"))
    assert listing(schema)[0][0] == "--input.json / --input.no-json"
    assert build(schema, given(("input.no-json", None))) == ({"json": False}, [])
    assert build(schema, given(("no-json", None))) == ({"json": False}, [])


def test_the_prefix_means_the_field_even_beside_a_nested_one() -> None:
    inner = {"type": "object", "properties": {"size": {"type": "integer"}}}
    schema = InputSchema({"type": "object", "properties": {"input": inner, "size": {"type": "string"}}})
    assert sorted(schema.fields) == ["input.input", "input.input.size", "size"]
    assert build(schema, given(("input.size", "5"), ("input.input.size", "6"))).value == {
        "size": "5",
        "input": {"size": 6},
    }
    alone = InputSchema({"type": "object", "properties": {"input": inner}})
    assert build(alone, given(("input.size", "5"))).value == {"input": {"size": 5}}
    assert build(alone, given(("input.input.size", "5"))).value == {"input": {"size": 5}}


def test_a_nested_field_needs_no_prefix_for_the_name_of_its_last_part() -> None:
    inner = {"type": "object", "properties": {"at": {"type": "string"}}}
    schema = InputSchema({"type": "object", "properties": {"when": inner, "at": inner}})
    assert sorted(schema.fields) == ["at.at", "input.at", "when", "when.at"]
    assert build(schema, given(("at.at", "x"), ("when.at", "y"))).value == {"at": {"at": "x"}, "when": {"at": "y"}}


def test_fields_that_differ_in_dashes_alone_keep_their_own_spelling() -> None:
    schema = InputSchema(fields_of("a_b", "a-b", "c_d"))
    assert usage(schema) == "[--a_b TEXT] [--a-b TEXT] [--c-d TEXT]"
    assert build(schema, given(("a_b", "1"), ("a-b", "2"), ("c_d", "3"))).value == {"a_b": "1", "a-b": "2", "c_d": "3"}


def test_a_field_called_no_something_is_not_the_end_of_a_flag() -> None:
    both = {"type": "object", "properties": {"cache": {"type": "boolean"}, "no_cache": {"type": "boolean"}}}
    schema = InputSchema(both)
    assert listing(schema) == [
        ("--cache", "--cache=false turns it off"),
        ("--no-cache / --no-no-cache", ""),
    ]
    assert build(schema, given(("no-cache", None), ("cache", "false"))).value == {"no_cache": True, "cache": False}


def test_names_that_are_no_options_are_left_to_the_input() -> None:
    schema = InputSchema({**fields_of("a=b", "c d", "", "_e"), "required": ["a=b"]})
    assert list(schema.fields) == ["_e"]
    assert build(schema, given(("_e", "x")), {"a=b": "1"}).value == {"a=b": "1", "_e": "x"}


def test_what_the_commands_take_is_what_they_declare() -> None:
    found = [own_options(find(command)) for command in ("start", "run", "send")]
    assert STARTING.flags == frozenset().union(*(own.flags for own in found))
    assert STARTING.valued == frozenset().union(*(own.valued for own in found))
    assert option_name(["at"]) == "input.at"
    assert option_name(["image", "max_size"]) == "image.max-size"


# ---- paths count from the caller's folder


PATH = {"type": "string", "format": "path"}
PATHS = {
    "type": "object",
    "properties": {
        "p": PATH,
        "maybe": {"anyOf": [PATH, {"type": "null"}], "default": None},
        "many": {"type": "array", "items": PATH},
        "pair": {"type": "array", "prefixItems": [{"type": "string"}, PATH]},
        "named": {"type": "object", "additionalProperties": PATH},
        "either": {"anyOf": [{"enum": ["auto"]}, PATH]},
        "text_first": {"anyOf": [{"type": "string"}, PATH]},
        "path_first": {"anyOf": [PATH, {"type": "string"}]},
        "number": {"anyOf": [PATH, {"type": "integer"}]},
        "model": {"$ref": "#/$defs/Model"},
        "text": {"type": "string"},
    },
    "$defs": {
        "Model": {
            "type": "object",
            "properties": {"p": PATH, "inner": {"$ref": "#/$defs/Model"}, "default": {**PATH, "default": "x"}},
        }
    },
}


@pytest.mark.parametrize(
    ("fields", "value"),
    [
        ([("p", "a.txt")], {"p": "/caller/a.txt"}),
        ([("p", "./a.txt")], {"p": "/caller/a.txt"}),
        ([("p", "../a.txt")], {"p": "/caller/../a.txt"}),
        ([("p", "/etc/a.txt")], {"p": "/etc/a.txt"}),
        ([("p", "")], {"p": "/caller"}),
        ([("maybe", "a")], {"maybe": "/caller/a"}),
        ([("maybe", "null")], {"maybe": "/caller/null"}),
        ([("many", "a"), ("many", "/b")], {"many": ["/caller/a", "/b"]}),
        ([("pair", "a"), ("pair", "b")], {"pair": ["a", "/caller/b"]}),
        ([("named.x", "a")], {"named": {"x": "/caller/a"}}),
        ([("named", '{"x": "a"}')], {"named": {"x": "/caller/a"}}),
        ([("either", "auto")], {"either": "auto"}),
        ([("either", "a")], {"either": "/caller/a"}),
        ([("text_first", "a")], {"text_first": "a"}),
        ([("path_first", "a")], {"path_first": "/caller/a"}),
        ([("number", "7")], {"number": 7}),
        ([("number", "007")], {"number": "/caller/007"}),
        ([("model.p", "a"), ("model.inner.p", "b")], {"model": {"p": "/caller/a", "inner": {"p": "/caller/b"}}}),
        ([("model", '{"inner": {"p": "b"}}')], {"model": {"inner": {"p": "/caller/b"}}}),
        ([("text", "a")], {"text": "a"}),
        ([], {}),
    ],
)
def test_paths_count_from_the_callers_folder(fields: list[tuple[str, str | None]], value: dict[str, Any]) -> None:
    assert build(InputSchema(PATHS), given(*fields)) == (value, [])


def test_paths_of_an_input_given_as_json_count_from_there_too() -> None:
    assert build(InputSchema(PATHS), [], {"p": "a", "text": "a"}).value == {"p": "/caller/a", "text": "a"}


# ---- forms of text


def test_the_help_says_how_a_value_is_written() -> None:
    formats: dict[str, Any] = {
        name: {"type": "string", "format": name} for name in ("duration", "time", "date-time", "date", "path")
    }
    formats["bytes"] = {"type": "string", "contentEncoding": "base64"}
    formats["duration"]["default"] = "PT5400S"
    formats["times"] = {"type": "array", "items": {"type": "string", "format": "time"}}
    assert listing(InputSchema({"type": "object", "properties": formats})) == [
        ("--duration DURATION", "as in 90m, or 5400 (seconds); default 1h 30m"),
        ("--time TIME", "as in 10:30"),
        ("--date-time DATETIME", 'as in 2026-11-26 or "2026-11-26 10:30"'),
        ("--date DATE", "as in 2026-11-26"),
        ("--path PATH", ""),
        ("--bytes TEXT|@FILE", "text, or @ and a file"),
        ("--times TIME", "as in 10:30; may be repeated"),
    ]


def test_a_union_with_a_list_takes_what_is_repeated() -> None:
    schema = InputSchema(
        {"properties": {"x": {"anyOf": [{"type": "string"}, {"type": "array", "items": {"type": "string"}}]}}}
    )
    assert build(schema, given(("x", "a"))).value == {"x": "a"}
    assert build(schema, given(("x", "a"), ("x", "b"))).value == {"x": ["a", "b"]}


MAPPING = {
    "type": "object",
    "properties": {"images": {"type": "object", "additionalProperties": {"$ref": "#/$defs/Image"}}},
    "additionalProperties": False,
    "$defs": {"Image": {"type": "object", "properties": {"max_size": {"type": "integer"}, "p": PATH}}},
}


@pytest.mark.parametrize(
    ("fields", "value"),
    [
        ([("images.a.max-size", "5")], {"images": {"a": {"max_size": 5}}}),
        ([("images.a.p", "x"), ("images.b.p", "/y")], {"images": {"a": {"p": "/caller/x"}, "b": {"p": "/y"}}}),
        ([("images.a", '{"p": "x"}')], {"images": {"a": {"p": "/caller/x"}}}),
    ],
)
def test_options_reach_into_what_a_mapping_holds(fields: list[tuple[str, str | None]], value: dict[str, Any]) -> None:
    assert build(InputSchema(MAPPING), given(*fields)) == (value, [])


@pytest.mark.parametrize("name", ["images.a.nope", "images..p", "images.a.p.q", ".", "images.", "nope.a"])
def test_options_that_lead_nowhere_are_refused(name: str) -> None:
    assert build(InputSchema(MAPPING), given((name, "x"))).problems[0].startswith(f"there is no option --{name}")


def test_options_reach_deeper_than_they_are_listed() -> None:
    node = {"type": "object", "properties": {"n": {"type": "integer"}, "next": {"$ref": "#/$defs/Node"}}}
    schema = InputSchema({"$ref": "#/$defs/Node", "$defs": {"Node": node}})
    assert build(schema, given(("next.next.next.next.next.n", "5"))).value == {
        "next": {"next": {"next": {"next": {"next": {"n": 5}}}}}
    }
