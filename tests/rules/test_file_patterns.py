"""Which files a pattern means."""

from __future__ import annotations

import pytest

from taskrun.rules.file_patterns import FilePattern


@pytest.mark.parametrize(
    ("pattern", "matching", "others"),
    [
        (
            "in/*.mp3",
            ["in/a.mp3", "in/ .mp3", "in/a\nb.mp3", "in/caf\udce9.mp3"],
            ["in/a.wav", "a.mp3", "in/x/a.mp3", "in"],
        ),
        ("in/**/*.mp3", ["in/a.mp3", "in/x/a.mp3", "in/x/y/a.mp3"], ["in/.x/a.mp3", "in/x/.a.mp3", "out/a.mp3"]),
        ("in/**", ["in/a", "in/x/y"], ["in/.a", "in/.x/a", "in/a.part", "in/x/a~"]),
        ("in/*/[ab]?.txt", ["in/x/a1.txt", "in/x/b2.txt"], ["in/a1.txt", "in/x/c1.txt", "in/x/a.txt", "in/.x/a1.txt"]),
        ("*", ["a", "-a"], [".a", "x/a", "a.tmp", "a.crdownload", "a.swp", "a~", "a.part"]),
        ("in/*.part", ["in/a.part"], ["in/a", "in/.a.part", "in/a.tmp"]),
        ("in/.*", ["in/.a"], ["in/a", "in/.a.swp"]),
        ("in/.*.swp", ["in/.a.swp"], ["in/a.swp"]),
        ("./in//a.txt", ["in/a.txt"], ["in/b.txt"]),
        ("../there/*", ["../there/a"], ["there/a"]),
        ("in/exact.tmp", ["in/exact.tmp"], ["in/exact.txt"]),
    ],
)
def test_files_that_match(pattern: str, matching: list[str], others: list[str]) -> None:
    one = FilePattern(pattern, "/root/here")
    full = [f"/root/here/{path}" if not path.startswith("../") else f"/root/{path[3:]}" for path in matching + others]
    assert [one.matches(path) for path in full] == [True] * len(matching) + [False] * len(others)


def test_an_absolute_pattern_goes_from_the_top() -> None:
    one = FilePattern("/data/*.txt", "/root")
    assert (one.folder, one.matches("/data/a.txt"), one.matches("/root/data/a.txt")) == ("/data", True, False)
    assert FilePattern("/*.txt", "/root").matches("/a.txt")


def test_a_pattern_may_begin_at_home(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/ada")
    assert FilePattern("~/in/*", "/root").matches("/home/ada/in/a")


@pytest.mark.parametrize(
    ("pattern", "folder", "deep"),
    [
        ("in/*.mp3", "/r/in", False),
        ("in/**/*.mp3", "/r/in", True),
        ("*/a", "/r", True),
        ("**", "/r", True),
        ("a", "/r", False),
    ],
)
def test_the_folder_that_is_watched(pattern: str, folder: str, deep: bool) -> None:
    one = FilePattern(pattern, "/r")
    assert (one.folder, one.deep) == (folder, deep)


@pytest.mark.parametrize(
    ("pattern", "folders", "others"),
    [
        ("in/**/*.mp3", ["in", "in/x", "in/x/y"], ["in/.x", "out", "."]),
        ("in/*.mp3", ["in"], ["in/x"]),
        ("in/*/z/*", ["in", "in/x", "in/x/z"], ["in/x/y", "in/x/z/w"]),
    ],
)
def test_only_folders_that_may_have_such_files_are_looked_into(
    pattern: str, folders: list[str], others: list[str]
) -> None:
    one = FilePattern(pattern, "/r")
    assert [one.may_have(f"/r/{path}") for path in folders + others] == [True] * len(folders) + [False] * len(others)
