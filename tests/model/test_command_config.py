"""`[jobs.NAME]` and `[pipes.NAME]`: what may be written, and what is said of everything else."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any

import pytest

from taskrun.model.command_config import CommandStep, CommandTable, read_commands, read_pipes
from taskrun.model.errors import ConfigError
from taskrun.model.fields_shape import FieldsShape
from taskrun.model.input_fields import InputField
from taskrun.model.problems import Misfit

FILE = Path("taskrun.toml")


def job(text: str) -> CommandTable:
    (table,) = read_commands(tomllib.loads(f"[jobs.x]\n{text}"), FILE)
    return table


def fields(text: str) -> list[InputField]:
    return job(f'command = "true"\ninput = {{ {text} }}').input


def test_a_command_is_one_step() -> None:
    table = job('command = "make {target}"\ninput = { target = "all" }\nretry = 2\ntimeout = "2h"\nbackoff = ["1s", 2]')
    assert table.steps == [CommandStep(name="command", command="make {target}")]
    assert table.options == {"retry": 2, "timeout": "2h", "backoff": ["1s", 2]}


def test_steps_are_named_by_their_place_unless_they_say_otherwise() -> None:
    table = job(
        'steps = ["a", { name = "build", command = ["b", "c"], retry = 2, timeout = "1m", success_codes = [0, 3],'
        ' cwd = "sub", env = { A = "1" } }, ["d"]]'
    )
    assert [(step.name, step.command) for step in table.steps] == [
        ("step-1", "a"),
        ("build", ["b", "c"]),
        ("step-3", ["d"]),
    ]
    build = table.steps[1]
    assert (build.retry, build.timeout, build.success_codes, build.cwd, build.env) == (
        2,
        60.0,
        (0, 3),
        "sub",
        {"A": "1"},
    )


@pytest.mark.parametrize(
    ("written", "kind", "items", "required"),
    [
        ('a = "x"', "str", "str", False),
        ("a = 1", "int", "int", False),
        ("a = 1.5", "float", "float", False),
        ("a = true", "bool", "bool", False),
        ('a = ["x"]', "list", "str", False),
        ("a = [1, 2]", "list", "int", False),
        ("a = [1, 2.5]", "list", "float", False),
        ("a = []", "list", "str", False),
        ('a = { type = "path" }', "path", "path", True),
        ('a = { type = "list", choices = [1, 2] }', "list", "int", True),
        ('a = { type = "float", default = 1 }', "float", "float", False),
        ('a = { default = "int" }', "str", "str", False),
        ('a = "int"', "str", "str", False),
    ],
)
def test_a_field_is_a_default_or_a_table(written: str, kind: str, items: str, required: bool) -> None:
    (field,) = fields(written)
    assert (field.type, field.items, field.required) == (kind, items, required)


def test_in_a_pipe_the_name_of_a_type_is_that_type() -> None:
    document = tomllib.loads('[pipes.p]\ninput = { path = "str", tag = "daily", n = 1 }\n[pipes.any]\n')
    with_fields, anything = read_pipes(document, FILE)
    assert [(one.name, one.type, one.required) for one in with_fields.input or ()] == [
        ("path", "str", True),
        ("tag", "str", False),
        ("n", "int", False),
    ]
    assert anything.input is None


C = 'command = "true"\n'
MISTAKES = {
    "": "needs command or steps",
    'command = "a"\nsteps = ["b"]': "has both command and steps; it takes one of them",
    'comand = "a"': "unknown key comand; did you mean command?",
    'command = ""': "command must be a text, which goes to the shell, or a list",
    "command = []": "command must be a text",
    'command = ["", "x"]': "command must be a text",
    'command = "a {b}"': "command {b} is no field of input",
    'command = ["a", "{b}"]': "command {b} is no field of input",
    "command = \"a '{b}'\"\ninput = { b = 1 }": "command {b} stands inside quotes; write it bare",
    "steps = []": "steps must be a list of commands, not []",
    'steps = ["a", { name = "step-1", command = "b" }]': "steps: two are named step-1",
    'steps = ["a", { comand = "b" }]': "steps 2 unknown key comand; did you mean command?",
    'steps = ["a", { name = "b" }]': "steps 2 command is missing",
    'steps = ["a", 5]': "steps 2 command must be",
    'steps = [{ command = "a", retry = -1 }]': "steps 1 retry must be a whole number of 0 or more, not -1",
    C + "retry = -1": "retry must be a whole number of 0 or more, not -1",
    C + "retry = true": "retry must be a whole number",
    C + 'timeout = "soon"': "timeout must be a duration such as",
    C + "concurrency = 0": 'concurrency must be a whole number of 1 or more, or a frequency such as "3/s", not 0',
    C + 'concurrency = "fast"': "concurrency must be",
    C + "throttle = 0": "throttle must be",
    C + 'debounce = "x"': "debounce must be",
    C + "backoff = []": "backoff must be",
    C + "priority = 1.5": "priority must be a whole number, not 1.5",
    C + 'on_exhausted = "stop"': 'on_exhausted must be "fail" or "pause"',
    C + 'output = "yaml"': 'output must be "text", "json" or "none", not \'yaml\'',
    C + "success_codes = []": "success_codes must be a list of exit codes",
    C + "success_codes = [true]": "success_codes must be a list of exit codes",
    C + "env = { A = 1 }": "env must be a table of texts",
    C + 'tags = { "a b" = "c" }': "tags must be a table of texts whose names are letters, digits and _ . -",
    C + 'env = { "A=B" = "x" }': "env 'A=B' cannot be the name of a variable",
    C + "trigger = [1]": "trigger must be a list of names",
    C + 'key = "{b}"': "key {b} is no field of input",
    C + 'key_ttl = "1h"': "key_ttl does nothing without key",
    C + 'timezone = "UTC"': "timezone does nothing without cron",
    C + 'catch_up = "one"': "catch_up does nothing without cron",
    C + 'slow = "1h"': "slow does nothing without cron",
    C + 'cron = "@daily"\nlate = "soon"': "late must be a duration such as",
    C + 'cron = "@daily"\ninput = { a = { type = "str" } }': "cron: a has no default, which a schedule needs",
    C + "input = { a = {} }": "input.a needs a type (str, int, float, bool, path, list) or a default",
    C
    + 'input = { a = { type = "text" } }': "input.a type must be one of str, int, float, bool, path, list, not 'text'",
    C + 'input = { a = { type = "int", default = "x" } }': "input.a default must be of type int, not 'x'",
    C + 'input = { a = { type = "int", default = true } }': "input.a default must be of type int, not True",
    C + "input = { a = [1, []] }": "input.a default must be of type list of",
    C + "input = { a = { default = 1, choices = [2] } }": "input.a default must be one of 2, not 1",
    C + "input = { a = { default = 1, choices = [] } }": "input.a choices must be a list of values",
    C + 'input = { a = { default = 1, choices = ["x"] } }': "input.a choices must be of type int, not 'x'",
    C + "input = { a = { default = 1, hlp = 2 } }": "input.a unknown key hlp; did you mean help?",
    C + "input = { a = { default = 1, help = 2 } }": "input.a help must be text",
    C + "input = { a-b = 1 }": "input.a-b cannot be the name of a field",
    C + "input = { a = 2026-01-01 }": "input.a default must be text, a number, true or false, or a list",
    C + "input = 5": "input must be a table",
}


@pytest.mark.parametrize(("text", "said"), MISTAKES.items())
def test_a_mistake_names_file_table_and_key(text: str, said: str) -> None:
    with pytest.raises(ConfigError) as caught:
        job(text)
    assert str(caught.value).startswith(f"taskrun.toml: [jobs.x] {said}"), caught.value


@pytest.mark.parametrize(
    ("text", "said"),
    {
        '[jobs.exec]\ncommand = "x"': '[jobs.exec] "exec" is the name of a job that comes with taskrun',
        '[jobs."a b"]\ncommand = "x"': "[jobs.a b] 'a b' cannot be the name of a job",
        "jobs = 1": "jobs must be a table, written [jobs]",
        "[jobs]\nbackup = 1": "jobs.backup must be a table, written [jobs.backup]",
    }.items(),
)
def test_what_is_no_table_of_a_job_is_an_error(text: str, said: str) -> None:
    with pytest.raises(ConfigError) as caught:
        read_commands(tomllib.loads(text), FILE)
    assert str(caught.value).startswith(f"taskrun.toml: {said}")


# ---- values


@pytest.mark.parametrize(
    ("declared", "given", "value"),
    [
        ('a = "x"', "{}", {"a": "x"}),
        ('a = { type = "path" }', '{"a": "./dir/"}', {"a": "./dir/"}),
        ('a = { type = "float" }', '{"a": 2}', {"a": 2.0}),
        ("a = [1]", '{"a": []}', {"a": []}),
        ("a = 1, b = true", '{"b": false}', {"a": 1, "b": False}),
    ],
)
def test_values_have_their_defaults_and_types(declared: str, given: str, value: dict[str, Any]) -> None:
    assert FieldsShape(fields(declared)).read(given) == value


@pytest.mark.parametrize(
    ("given", "said"),
    {
        "{}": ["path: is required"],
        '{"path": 1, "q": 2}': ["path: expected str, got int", "q: unknown field, valid fields: path, level, tags"],
        '{"path": "x", "level": 2}': ["level: must be one of 1, 3, not 2"],
        '{"path": "x", "tags": ["a", "c"]}': ["tags: must be one of a, b, not 'c'"],
        '{"path": "a\\u0000b"}': ["path: holds a NUL, which no command can be given"],
        "[]": ["expected an object with path, level, tags"],
    }.items(),
)
def test_every_field_that_does_not_fit_is_named(given: str, said: list[str]) -> None:
    tags = 'tags = { default = ["a"], choices = ["a", "b"] }'
    declared = f'path = {{ type = "path" }}, level = {{ default = 1, choices = [1, 3] }}, {tags}'
    with pytest.raises(Misfit) as caught:
        FieldsShape(fields(declared)).read(given)
    assert sorted(f"{path}: {text}" if path else text for path, text in caught.value.problems) == said


def test_the_schema_tells_the_command_line_all_that_it_needs() -> None:
    schema = FieldsShape(
        fields('path = { type = "path", help = "what" }, level = { default = 1, choices = [1, 3] }, tags = ["a"]')
    ).describe()
    assert schema["properties"] == {
        "path": {"type": "string", "format": "path", "description": "what"},
        "level": {"type": "integer", "enum": [1, 3], "default": 1},
        "tags": {"type": "array", "items": {"type": "string"}, "default": ["a"]},
    }
    assert schema["required"] == ["path"]
