"""Files as triggers of a daemon: SIGKILL in the burst, `[[files]]` and commands, and what is said of them."""

from __future__ import annotations

import json
import os
from collections import Counter
from functools import partial
from pathlib import Path

from tests.waiting import until

from .conftest import TOML, TRACE, Project

JOBS = (
    TRACE
    + """
from taskrun import files

@job(trigger=[files("in/**/*.txt", settle="100ms").into(lambda event: {"path": event["path"]})])
async def take(path: str) -> None:
    await run("take", trace, os.path.basename(path), retry=0)
"""
)


def inputs(project: Project, job: str) -> Counter[str]:
    runs = json.loads(project.cli("list", "--job", job, "--all", "--json").out)
    return Counter(Path(run["input"]["path"]).name for run in runs)


def has_traced(project: Project, count: int) -> bool:
    return len(project.traced()) >= count


def test_a_kill_in_the_burst_starts_each_version_once(project: Project) -> None:
    project.jobs(JOBS)
    folder = project.root / "in"
    folder.mkdir()
    (folder / "old.txt").write_text("old")
    assert project.cli("daemon", "start").code == 0
    for part in range(4):
        for number in range(250):
            (folder / f"{part}-{number}.txt").write_text("x")
        until(partial(has_traced, project, part * 250 + 20))
        project.kill()
        (folder / f"{part}-down.txt").write_text("x")  # while nothing runs
        assert project.cli("daemon", "start").code == 0
    wanted = {f"{part}-{name}.txt": 1 for part in range(4) for name in (*range(250), "down")}
    until(lambda: set(project.traced()) == set(wanted), 60)
    assert inputs(project, "take") == wanted


def test_tables_and_commands_are_watched_as_soon_as_the_daemon_has_started(project: Project) -> None:
    project.jobs(
        "from taskrun import job\n\n@job\nasync def load(file: str, n: int) -> str:\n    return f'{file} {n}'\n"
    )
    table = '[[files]]\npattern = ["in/*.csv", "in/*.tsv"]\njob = "load"\nfield = "file"\ninput = { n = 3 }\nsettle = "50ms"\n'
    command = '[jobs.show]\ncommand = "cat {path}"\ninput = { path = { type = "path" } }\nfiles = "in/*.txt"\n'
    own = '[[files]]\npattern = "*"\njob = "load"\nfield = "file"\ninput = { n = 9 }\nsettle = 0\nexisting = true\n'
    project.write("taskrun.toml", f"{TOML}{table}{own}{command}")
    folder = project.root / "in"
    folder.mkdir()
    assert project.cli("daemon", "start").code == 0
    (folder / "a.csv").write_text("x")
    with open(os.fsencode(folder) + b"/$(caf\xe9) '.txt", "w") as file:  # noqa: PTH123
        file.write("what is in it")
    until(lambda: len(project.runs()) == 2)
    until(lambda: all(run["status"] == "succeeded" for run in project.runs()))
    outputs = {run["job"]: run["output"] for run in project.runs()}
    assert outputs == {"load": f"{folder}/a.csv 3", "show": "what is in it"}
    assert len(project.runs()) == 2  # taskrun.toml and the journal start nothing
    assert "files:in/*.csv in/*.tsv" in project.cli("jobs", "load").out
    assert "files:in/*.txt" in project.cli("jobs", "show").out
    assert project.cli("daemon", "stop").code == 0
    assert "files:in/*.csv in/*.tsv" in project.cli("jobs", "load").out


def test_an_edited_table_is_taken_up_and_a_wrong_one_is_told(project: Project) -> None:
    project.jobs("from taskrun import job\n\n@job\nasync def load(path: str) -> None: ...\n")
    (project.root / "in").mkdir()
    assert project.cli("daemon", "start").code == 0
    project.write("taskrun.toml", f'{TOML}[[files]]\npattern = "in/*"\njob = "load"\nsettle = "50ms"\n')
    until(lambda: "files:in/*" in project.cli("jobs", "load").out)
    (project.root / "in" / "a").write_text("x")
    until(lambda: len(project.runs()) == 1)
    for wrong, said in (
        ('pattern = "in/*"\njob = "load"\nfield = "pth"\n', "pth"),
        ('pattern = ""\njob = "load"\n', "pattern must be a pattern of files"),
        ('pattern = "in/*"\n', "job is missing"),
        ('pattern = "in/*"\njob = "load"\npoll = "0s"\n', "poll must be"),
    ):
        project.write("taskrun.toml", f"{TOML}[[files]]\n{wrong}")
        until(lambda said=said: said in project.cli("list").err + project.cli("start", "load", "--path", "x").err)  # type: ignore[misc]


def test_doctor_names_a_pattern_whose_folder_is_not_there(project: Project) -> None:
    project.jobs(JOBS)
    (check,) = (one for one in json.loads(project.cli("doctor", "--json").out) if one["check"] == "files")
    assert (check["ok"], check["hint"]) == (False, f"mkdir -p {project.root}/in")
    assert check["text"] == f"in/**/*.txt of take: there is no folder {project.root}/in"
    (project.root / "in").mkdir()
    assert "1 pattern watched" in project.cli("doctor").out
