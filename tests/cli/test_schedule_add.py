"""`taskrun schedule add`: a table that is appended once it was checked; all else in the file stays as it is."""

from __future__ import annotations

import asyncio
import json
import stat
import subprocess
import tomllib
from pathlib import Path

import pytest

from taskrun.cli.backend.toml_file import locked
from taskrun.cli.exit_codes import Code
from taskrun.daemon.lock import PAUSE
from taskrun.model.config import load
from tests.cli.fakes import FakeDaemon, FakeTerminal, typed
from tests.cli.processes import command
from tests.cli.test_offline import ENV, run

FILE = "# mine\n[taskrun]\ngrace = '5s' # short"
JOBS = """
from taskrun import job

@job
async def hello(name: str, n: int = 1, timezone: str = "") -> None:
    ...

@job
async def picky(name: str) -> None:
    ...

@job
async def bare() -> None:
    ...
"""


@pytest.fixture
def project(tmp_path: Path) -> Path:
    (tmp_path / "taskrun.toml").write_text(FILE)
    (tmp_path / "taskrun.toml").chmod(0o640)
    (tmp_path / "jobs").mkdir()
    (tmp_path / "jobs" / "all.py").write_text(JOBS)
    return tmp_path


def added(project: Path) -> list[dict[str, object]]:
    """The schedules that are there now; what was there before still is, to the letter."""
    text = (project / "taskrun.toml").read_text()
    assert text.startswith(FILE)
    assert [file.name for file in project.iterdir() if file.suffix == ".tmp"] == []
    found: list[dict[str, object]] = tomllib.loads(text).get("schedule", [])
    return found


def refused(project: Path, *line: str) -> tuple[int, str]:
    done = subprocess.run(
        command("schedule", "add", *line), cwd=project, env=ENV, capture_output=True, text=True, timeout=30
    )
    assert added(project) == []
    return done.returncode, done.stderr


def test_a_schedule_is_appended_and_the_file_keeps_its_comments_and_its_mode(project: Path) -> None:
    line = ("hello", "0 3 * * *", "--timezone", "Europe/Berlin", "--catch-up", "one", "--name", "Ada", "--n", "3")
    found = json.loads(run(project, "schedule", "add", *line, "--json").stdout)
    assert (found["job"], found["cron"], found["timezone"]) == ("hello", "0 3 * * *", "Europe/Berlin")
    run(project, "schedule", "add", "hello", "@daily", "--name", "Bea", "--input.timezone", "there")
    run(project, "schedule", "add", "bare", "@hourly")
    first = {"job": "hello", "cron": "0 3 * * *", "timezone": "Europe/Berlin", "catch_up": "one"}
    assert added(project) == [
        {**first, "input": {"name": "Ada", "n": 3}},
        {"job": "hello", "cron": "@daily", "input": {"name": "Bea", "timezone": "there"}},
        {"job": "bare", "cron": "@hourly"},
    ]
    assert stat.S_IMODE((project / "taskrun.toml").stat().st_mode) == 0o640
    assert len(json.loads(run(project, "schedule", "--json").stdout)) == 3


@pytest.mark.parametrize(
    ("line", "code", "text"),
    [
        (("helo", "@daily"), Code.NOT_FOUND, "did you mean  hello"),
        (("bare", "not cron"), Code.USAGE, "taskrun.toml: [[schedule]] cron"),
        (("bare", "@daily", "--timezone", "Mars/Base"), Code.USAGE, "[[schedule]] timezone"),
        (("bare", "@daily", "--catch-up", "some"), Code.USAGE, "[[schedule]] catch_up must be"),
        (("hello", "@daily"), Code.USAGE, "--name is required"),
        (("hello", "@daily", "--name", "a", "--n", "x"), Code.USAGE, "--n"),
        (("hello", "@daily", "--input", '{"name": null}'), Code.USAGE, "null"),
        (("bare",), Code.USAGE, 'say when, as in "0 3 * * *"'),
    ],
)
def test_what_does_not_fit_is_not_written(project: Path, line: tuple[str, ...], code: Code, text: str) -> None:
    found, said = refused(project, *line)
    assert (found, text in said) == (code, True), said


async def test_its_usage_is_how_it_is_typed(pipe: FakeTerminal, screen: FakeTerminal) -> None:
    wanted = "usage: taskrun schedule add processFile CRON --path TEXT"
    assert await typed("schedule add processFile @daily --bitrate hi", pipe, FakeDaemon()) == Code.USAGE
    assert f"\n  {wanted}" in pipe.chatter
    assert await typed("schedule add processFile --help", screen, FakeDaemon()) == 0
    assert screen.written.startswith(wanted)
    assert "\nof taskrun schedule add itself:\n" in screen.written


def test_a_list_in_one_place_is_left_alone(project: Path) -> None:
    text = 'schedule = [{ job = "bare", cron = "@daily" }]\n'
    (project / "taskrun.toml").write_text(text)
    line = command("schedule", "add", "bare", "@hourly")
    done = subprocess.run(line, cwd=project, env=ENV, capture_output=True, text=True, timeout=30)
    assert (done.returncode, "write each as [[schedule]]" in done.stderr) == (Code.USAGE, True)
    assert (project / "taskrun.toml").read_text() == text


def test_a_daemon_takes_it_up_and_a_link_stays_one(project: Path) -> None:
    file = project / "taskrun.toml"
    file.rename(project / "real.toml")
    file.symlink_to("real.toml")
    run(project, "daemon", "start")
    try:
        run(project, "schedule", "add", "hello", "@daily", "--name", "Ada", "--catch-up", "all")
        (known,) = json.loads(run(project, "schedule", "--json").stdout)
    finally:
        run(project, "daemon", "stop")
    assert (known["job"], known["problem"]) == ("hello", None)
    assert file.is_symlink()
    assert added(project)[0]["input"] == {"name": "Ada"}


async def at_once(project: Path, *lines: str, daemon: FakeDaemon) -> list[int]:
    return await asyncio.gather(*(typed(line, FakeTerminal(project), daemon) for line in lines))


async def test_one_that_the_daemon_refuses_takes_back_nothing_of_what_others_have_saved(project: Path) -> None:
    class Slow(FakeDaemon):
        async def call(self, op: str, **params: object) -> object:
            if op == "config":
                await asyncio.sleep(0.02)
            return await super().call(op, **params)

    def problems(**_: object) -> dict[str, object]:
        return {"problem": "it is bad" if "bad" in (project / "taskrun.toml").read_text() else "", "inputs": {}}

    lines = [f"schedule add processFile @daily --path {name}" for name in ("bad", "a", "b")]
    save = "exec --save kept -- true"
    codes = await at_once(project, *lines, save, daemon=Slow(config=problems))
    assert codes == [Code.USAGE, 0, 0, 0]
    assert sorted(table["input"]["path"] for table in added(project)) == ["a", "b"]  # type: ignore[index]
    assert "[jobs.kept]" in (project / "taskrun.toml").read_text()


async def test_one_that_the_daemon_refuses_stays_where_an_editor_has_saved_meanwhile(project: Path) -> None:
    file = project / "taskrun.toml"

    def problems(**_: object) -> dict[str, object]:
        if "bad" not in file.read_text():
            return {"problem": "", "inputs": {}}
        file.write_text(file.read_text() + "# edited\n")
        return {"problem": "it is bad", "inputs": {}}

    terminal = FakeTerminal(project)
    line = "schedule add processFile @daily --path bad"
    assert await typed(line, terminal, FakeDaemon(config=problems)) == Code.USAGE
    assert "was changed meanwhile, so the schedule still stands there" in terminal.chatter
    assert file.read_text().endswith("# edited\n")


async def test_who_cannot_write_since_another_does_not_end_says_so(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("taskrun.cli.backend.toml_file.PATIENCE", PAUSE)
    terminal = FakeTerminal(project)
    async with locked(load(project / "taskrun.toml", {})):
        line = "schedule add processFile @daily --path a"
        assert await typed(line, terminal, FakeDaemon()) == Code.REFUSED
    assert "another command is writing to it" in terminal.chatter
    assert added(project) == []
