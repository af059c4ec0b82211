"""Jobs that come with taskrun: every project has them, their names are taken, and no list shows them."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from taskrun.builtins.builtin_jobs import JOBS
from taskrun.builtins.project import load_project
from taskrun.declarations.job import job
from taskrun.model.names import RESERVED
from tests.cli.test_every_command import typed


@pytest.fixture
def project(tmp_path: Path) -> Iterator[Callable[[str], Path]]:
    def write(code: str) -> Path:
        (tmp_path / "own.py").write_text(f"from taskrun import job, pipe\n{code}")
        return tmp_path

    yield write
    load_project([], tmp_path)  # nothing of it is left in this process


def test_their_names_are_reserved() -> None:
    assert {one.name for one in JOBS} <= RESERVED


def test_a_project_has_them_beside_its_own(project: Callable[[str], Path]) -> None:
    @job(name="notify")
    async def told(text: str) -> str:
        return text

    found = load_project(["own.py"], project("@job\nasync def own(): ...\n"), builtin=[told])
    assert (sorted(found.registry.jobs), found.problems) == (["notify", "own"], [])
    assert found.registry.jobs["notify"] is told


@pytest.mark.parametrize("name", sorted(RESERVED))
def test_a_job_of_such_a_name_is_an_error_of_its_file(project: Callable[[str], Path], name: str) -> None:
    root = project(f"@job(name='{name}')\nasync def mine(): ...\n@job\nasync def own(): ...\npipe('{name}')\n")
    found = load_project(["own.py"], root)
    (problem,) = found.problems
    assert (Path(problem.file).name, problem.line) == ("own.py", 2)
    assert problem.text == f'"{name}" is the name of a job that comes with taskrun; give this one another name'
    assert "own" in found.registry.jobs


async def test_no_list_shows_them(project: Callable[[str], Path]) -> None:
    root = project("@job\nasync def own(): ...\n")
    (root / "taskrun.toml").write_text('[taskrun]\njobs = ["own.py"]\n')
    code, terminal = await typed(root, "jobs --json")
    assert (code, [described["name"] for described in json.loads(terminal.written)]) == (0, ["own"])
    code, terminal = await typed(root, "jobs exec --json")
    assert (code, [described["name"] for described in json.loads(terminal.written)]) == (0, ["exec"])


async def test_without_a_daemon_a_schedule_of_one_is_listed_with_what_is_wrong_with_its_input(
    project: Callable[[str], Path],
) -> None:
    root = project("")
    (root / "taskrun.toml").write_text(
        '[[schedule]]\njob = "exec"\ncron = "@daily"\ninput = { command = 1, cwd = "/" }\n'
    )
    code, terminal = await typed(root, "schedule --json")
    (entry,) = json.loads(terminal.written)
    assert (code, entry["job"]) == (2, "exec")
    assert "input.command" in entry["problem"]
