"""JSON from outside: every way to be wrong has its error."""

from __future__ import annotations

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from taskrun.model.codec import MAX_DEPTH, encode, parse_json
from taskrun.model.errors import InputInvalid

TOO_DEEP = MAX_DEPTH + 1


@pytest.mark.parametrize(
    "text",
    [
        "3",
        b'{"a": [1, 2.5, null, true, "\xc3\xa9"]}',
        '"\\ud83d\\ude00"',
        "[" * MAX_DEPTH + "]" * MAX_DEPTH,
        "[" + "[]," * 200 + "{}]",
        json.dumps("[{" * 200),
        json.dumps('\\"[' * 200),
        str(2**64),
        "1e-999",
        '{"a": 1, "A": 2}',
    ],
    ids=lambda text: repr(text)[:30],
)
def test_good_json_is_read_as_json_loads_reads_it(text: str | bytes) -> None:
    assert parse_json(text, "input of a") == json.loads(text)


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("", "not valid JSON: Expecting value: line 1"),
        ("{'a': 1}", "not valid JSON"),
        ("1 2", "Extra data"),
        ("\ufeff1", "not valid JSON"),
        (b"\xff", "not valid UTF-8"),
        ('"x"'.encode("utf-16"), "not valid UTF-8"),
        ('"\ud800"', "not valid UTF-8"),
        ('"\\ud800"', "an unpaired surrogate"),
        ('{"\\udc00": 1}', "an unpaired surrogate"),
        ("NaN", "NaN is not a JSON value"),
        ("[-Infinity]", "-Infinity is not a JSON value"),
        ("[1e999]", "the number 1e999 is too large"),
        ("-1e999", "the number -1e999 is too large"),
        ("9" * 5000, "more than 4300 digits"),
        ('{"a": {"b": 1, "c": 2, "b": 3}}', "the key 'b' appears twice"),
        ("[" * TOO_DEEP + "]" * TOO_DEEP, "nested deeper than 64"),
        ('{"a":' * TOO_DEEP + "1" + "}" * TOO_DEEP, "nested deeper than 64"),
        ("[" * 200_000, "nested deeper than 64"),
        ('"' + "[" * 200, "not valid JSON"),
        ('"\\' * 100_000, "not valid JSON"),
    ],
    ids=lambda text: ascii(text)[:30],
)
def test_bad_json_is_an_input_invalid_that_says_why(text: str | bytes, fault: str) -> None:
    with pytest.raises(InputInvalid, match="invalid input for --input") as caught:
        parse_json(text, "--input")
    ((path, said),) = caught.value.problems
    assert path == ""
    assert fault in said


@settings(max_examples=200)
@given(st.text() | st.binary() | st.text(alphabet='[]{}",:1eE.-\\u0dN '))
def test_any_bytes_are_json_that_can_be_kept_or_an_input_invalid(text: str | bytes) -> None:
    try:
        encode(parse_json(text, "x"), "x")
    except InputInvalid as error:
        assert error.problems
