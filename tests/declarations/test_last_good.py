"""A file that cannot be loaded any more keeps its last good source, while all others are loaded as they are."""

from __future__ import annotations

import linecache
from pathlib import Path

import pytest

from taskrun.declarations.registry import Discovery, discover
from tests.declarations.test_discover import HEAD, Write, names, write  # noqa: F401  # a fixture

GOOD = f"{HEAD}from helper_lg import WORD\n@job\ndef music():\n    return WORD, 'old'\n"
HELPER = "WORD = 'first'\n"
OTHER = f"{HEAD}@job\ndef other():\n    return 'new'\n"
NEW = GOOD.replace("'old'", "'new'")


def music(found: Discovery) -> object:
    return found.registry.jobs["music"].fn()


@pytest.fixture
def good(write: Write, tmp_path: Path) -> dict[str, str]:  # noqa: F811
    """The sources of a project whose files could be loaded."""
    write("work/music.py", GOOD)
    write("work/helper_lg.py", HELPER)
    found = discover(["work"], tmp_path)
    assert (music(found), found.problems) == (("first", "old"), [])
    return found.sources


@pytest.mark.parametrize(
    ("broken", "text"),
    [
        pytest.param(NEW + "def broken(:\n", "SyntaxError: invalid syntax", id="syntax"),
        pytest.param(NEW + "import gone_lg\n", "ModuleNotFoundError: No module named 'gone_lg'", id="import"),
        pytest.param(NEW + "1 / 0\n", "ZeroDivisionError: division by zero", id="raises"),
        pytest.param(NEW + "raise SystemExit(3)\n", "SystemExit: 3", id="exits"),
        pytest.param(NEW.replace("music()", "music(*a)"), "*a cannot be a field of an input", id="definition"),
        pytest.param(NEW.replace("@job", "@job(cron='@daily')").replace("()", "(a: int)"), "cron", id="job"),
    ],
)
def test_a_broken_file_keeps_its_jobs_and_the_others_are_new(
    good: dict[str, str],
    write: Write,  # noqa: F811
    tmp_path: Path,
    broken: str,
    text: str,
) -> None:
    write("work/music.py", broken)
    write("work/helper_lg.py", HELPER.replace("first", "second"))
    write("work/other.py", OTHER)
    found = discover(["work"], tmp_path, last_good=good)
    assert (names(found), music(found)) == (["music", "other"], ("second", "old"))
    (problem,) = found.problems
    assert (Path(problem.file).name, problem.kept) == ("music.py", True)
    assert text in problem.text
    assert found.sources[problem.file] == GOOD
    assert linecache.getline(problem.file, 6) == "    return WORD, 'old'\n"


def test_a_broken_helper_keeps_its_last_good_source_below_new_jobs(
    good: dict[str, str],
    write: Write,  # noqa: F811
    tmp_path: Path,
) -> None:
    write("work/music.py", NEW)
    write("work/helper_lg.py", "WORD = \n")
    found = discover(["work"], tmp_path, last_good=good)
    assert music(found) == ("first", "new")
    assert [(Path(one.file).name, one.kept) for one in found.problems] == [("helper_lg.py", True)]


def test_what_cannot_be_loaded_as_it_was_either_is_a_problem(
    good: dict[str, str],
    write: Write,  # noqa: F811
    tmp_path: Path,
) -> None:
    write("work/helper_lg.py", "NAME = 'first'\n")
    found = discover(["work"], tmp_path, last_good=good)
    assert names(found) == []
    assert [(Path(one.file).name, one.kept) for one in found.problems] == [("music.py", False)]


def test_a_file_that_was_never_good_takes_nothing_with_it(
    good: dict[str, str],
    write: Write,  # noqa: F811
    tmp_path: Path,
) -> None:
    write("work/new_lg.py", "1 / 0\n")
    write("work/music.py", NEW + "import new_lg\n")
    found = discover(["work"], tmp_path, last_good=good)
    assert music(found) == ("first", "old")
    assert sorted((Path(one.loading).name, one.kept) for one in found.problems) == [
        ("music.py", True),
        ("new_lg.py", False),
    ]
