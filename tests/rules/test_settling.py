"""When a file has stopped changing: a table of what is seen at which moment."""

from __future__ import annotations

import pytest

from taskrun.rules.settling import Settling, Version

A, B, C = Version(1, 10, 100), Version(1, 20, 100), Version(2, 10, 100)
Looks = list[tuple[float, Version | None]]  # moments at which a file was looked at, and how it was


def settled_at(looks: Looks, settle: float = 1.0) -> list[tuple[float, Version]]:
    """Returns when which version has settled, if the file is looked at at these moments, and changes between them."""
    table = Settling(settle)
    found = []
    for moment, version in looks:
        files = {} if version is None else {"f": version}
        for path, now in table.settled(table.due(moment, 10), files, moment).items():
            found.append((moment, now))
            table.forget(path, now)
    return found


@pytest.mark.parametrize(
    ("looks", "settled"),
    [
        ([(0, A), (0.9, A)], []),
        ([(0, A), (1, A)], [(1, A)]),
        ([(0, A), (0.5, B), (1, B), (1.5, B)], [(1.5, B)]),  # half-written
        ([(0, A), (1, B), (2, C), (3, C)], [(3, C)]),  # it changes whenever it is due
        ([(0, A), (0.5, None), (1, A), (1.5, A)], [(1, A)]),  # a rename that was seen in the middle
        ([(0, A), (1, None), (2, A), (3, A)], [(3, A)]),  # gone when it was due
        ([(0, A), (1, A), (2, A), (3, A)], [(1, A), (3, A)]),  # nothing keeps it from being seen again
        ([(100, A), (5, A), (5.5, A), (6, A)], [(6, A)]),  # the clock was set back
    ],
)
def test_a_file_has_settled_once_it_is_unchanged_for_long_enough(
    looks: Looks, settled: list[tuple[float, Version]]
) -> None:
    assert settled_at(looks) == settled


def test_without_a_wait_it_has_settled_at_once() -> None:
    assert settled_at([(0, A)], settle=0) == [(0, A)]


def test_the_next_look_is_when_the_first_is_due() -> None:
    table = Settling(1)
    table.see({"a": A}, 0)
    table.see({"b": B}, 0.5)
    assert (table.next(0.5), table.due(0.9, 10), table.due(1, 10)) == (1, [], ["a"])
    assert table.next(1) == 1.5


def test_what_could_not_be_used_is_due_again() -> None:
    table = Settling(1)
    table.see({"a": A, "b": B}, 0)
    assert table.settled(table.due(1, 10), {"a": A, "b": B}, 1) == {"a": A, "b": B}
    table.forget("b", B)
    table.again(["a", "b"], 2)
    assert (table.due(1.9, 10), table.due(2, 10), len(table)) == ([], ["a"], 1)


def test_a_file_that_has_changed_meanwhile_is_not_forgotten() -> None:
    table = Settling(1)
    table.see({"a": A}, 0)
    table.see({"a": B}, 1)
    table.forget("a", A)
    assert table.due(2, 10) == ["a"]


def test_only_files_that_are_still_there_are_kept() -> None:
    table = Settling(1)
    table.see({"a": A, "b": B}, 0)
    table.keep(["b"])
    assert table.due(1, 10) == ["b"]


def test_of_many_that_are_due_the_rest_stays_due() -> None:
    table = Settling(1.0)
    table.see(dict.fromkeys("abcde", A), 0)
    parts = [table.due(1, 2) for _ in range(4)]
    assert [len(part) for part in parts] == [2, 2, 1, 0]
    assert sorted(name for part in parts for name in part) == list("abcde")
    assert table.next(1) is None
