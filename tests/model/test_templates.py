"""Templates of commands: what is a field, what is a brace, and what a value becomes."""

from __future__ import annotations

import re
from typing import Any

import pytest

from taskrun.model.templates import Placeholder, as_arguments, as_text, in_shell, parse_template

FIELDS = ["path", "n"]


@pytest.mark.parametrize(
    ("text", "parts"),
    {
        "cp {path} x": ("cp ", Placeholder("path"), " x"),
        "{path}{n}": (Placeholder("path"), Placeholder("n")),
        "no fields": ("no fields",),
        "": (),
        "${{HOME}}/{path}": ("${HOME}/", Placeholder("path")),
        "awk '{{print $1}}'": ("awk '{print $1}'",),
        "{{{path}}}": ("{", Placeholder("path"), "}"),
        "{{path}}": ("{path}",),
    }.items(),
)
def test_fields_are_in_braces_and_doubled_braces_are_braces(text: str, parts: tuple[Any, ...]) -> None:
    assert parse_template(text, FIELDS) == parts


@pytest.mark.parametrize(
    ("text", "said"),
    {
        "cp {pth}": "{pth} is no field of input; did you mean {path}?",
        "awk '{print $1}'": "{print $1} is no field of input; a brace itself is written {{ or }}",
        "${HOME}": "{HOME} is no field of input; a brace itself is written {{ or }}",
        "{": "has a lone {; a brace itself is written {{ or }}",
        "x } y": "has a lone }; a brace itself is written {{ or }}",
        "{}": "{} is no field of input; a brace itself is written {{ or }}",
        "{path": "has a lone {; a brace itself is written {{ or }}",
    }.items(),
)
def test_anything_else_in_braces_is_an_error_that_says_what_to_write(text: str, said: str) -> None:
    with pytest.raises(ValueError, match=f"^{re.escape(said)}$"):
        parse_template(text, FIELDS)


@pytest.mark.parametrize(
    ("value", "shell", "arguments", "text"),
    [
        ("a b", "'a b'", ["a b"], "a b"),
        ("", "''", [""], ""),
        ("it's", "'it'\"'\"'s'", ["it's"], "it's"),
        ("-rf", "-rf", ["-rf"], "-rf"),
        (True, "true", ["true"], "true"),
        (False, "false", ["false"], "false"),
        (3, "3", ["3"], "3"),
        (1.5, "1.5", ["1.5"], "1.5"),
        (["a b", "c"], "'a b' c", ["a b", "c"], "a b c"),
        ([1, True], "1 true", ["1", "true"], "1 true"),
        ([], "", [], ""),
    ],
)
def test_a_value_is_quoted_for_the_shell_and_one_item_of_a_list(
    value: Any, shell: str, arguments: list[str], text: str
) -> None:
    template = parse_template("{n}", FIELDS)
    assert in_shell(template, {"n": value}) == shell
    assert as_arguments([template], {"n": value}) == arguments
    assert as_text(template, {"n": value}) == text


def test_a_list_within_an_item_is_written_into_it() -> None:
    templates = [parse_template(item, FIELDS) for item in ("--n={n}", "{n}", "x")]
    assert as_arguments(templates, {"n": ["a", "b c"]}) == ["--n=a b c", "a", "b c", "x"]
