"""Deep partial equality, and addresses: equal values have the same, whatever their JSON looks like."""

from __future__ import annotations

from typing import Any

import pytest

from taskrun.rules.matching import LONGEST, address, leaf, matches


@pytest.mark.parametrize(
    ("pattern", "value", "fits"),
    [
        ({}, {"a": 1}, True),
        ({"a": 1}, {"a": 1, "b": 2}, True),
        ({"a": 1}, {"b": 2}, False),
        ({"a": {"b": 1}}, {"a": {"b": 1, "c": 2}}, True),
        ({"a": {"b": 1}}, {"a": 1}, False),
        ({"a": 1}, {"a": 1.0}, True),
        ({"a": 1}, {"a": True}, False),
        ({"a": None}, {}, False),
        ({"a": [1, 2]}, {"a": [1, 2]}, True),
        ({"a": [1]}, {"a": [1, 2]}, False),
        ({"a": {}}, {"a": {"b": 1}}, True),
        ({}, [1], False),
    ],
)
def test_every_field_of_a_pattern_is_there_and_equal(pattern: Any, value: Any, fits: bool) -> None:
    assert matches(pattern, value) is fits
    path = leaf(pattern, [])
    if fits and path is not None:
        assert address(pattern, path) == address(value, path) is not None


def test_a_pattern_without_a_plain_value_has_no_address() -> None:
    patterns: list[Any] = [{}, {"a": {}}, {"a": [1]}]
    assert [leaf(pattern, []) for pattern in patterns] == [None, None, None]


def test_a_known_path_is_preferred() -> None:
    assert leaf({"a": 1, "b": {"c": 2}}, [["b", "c"]]) == ["b", "c"]
    assert leaf({"a": 1, "b": {"c": 2}}, [["x"]]) == ["a"]


@pytest.mark.parametrize("value", [{}, {"a": {}}, {"a": [1]}, [1], {"a": {"b": 1}}])
def test_what_has_no_plain_value_there_has_no_address(value: Any) -> None:
    assert address(value, ["a"]) is None


def test_addresses_tell_values_and_paths_apart_and_stay_short() -> None:
    values: list[Any] = [1, 2, True, None, "1", "", 0.5, "x" * 500, "x" * 501]
    found = {address({"a": value}, ["a"]) for value in values} | {address({"b": 1}, ["b"])}
    assert len(found) == len(values) + 1
    assert all(one is not None and len(one) <= LONGEST for one in found)
