"""`taskrun.toml` and the variables over it."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any

import msgspec
import pytest

from taskrun.model.command_config import CommandFile, CommandStep, CommandTable, PipeTable
from taskrun.model.config import Config, ScheduleEntry, find, load, salvage, schedule_tables
from taskrun.model.errors import ConfigError, NoProject

ADDRESSES = {  # and how they are shown
    "mysql://me:hush@host:5432/db": "mysql://me:***@host:5432/db",
    "postgresql+psycopg://me@host/db": "postgresql+psycopg://me@host/db",
    " PostgreSQL://host/db": " PostgreSQL://host/db",
    "postgres:db": "postgres:db",
    "host=here dbname=x password=hush": "host=here dbname=x password=***",
    "sqlite:///journal.db": "sqlite:///journal.db",
    "file:journal.db": "file:journal.db",
}
PAGE = """
[taskrun]
jobs = ["music", "jobs/*.py"]
journal = "state/journal.db"
concurrency = 7
resident = 0
grace = "3s"
workers = 2
reload = "manual"
max_payload = "1MB"
[retention]
keep = "2d"
max_log = "5MB"
[[schedule]]
job = "backup"
cron = "0 3 * * *"
timezone = "Europe/Berlin"
input = { path = "/data" }
[[schedule]]
job = "tidy"
cron = "@hourly"
[jobs.sync]
command = "true"
[pipes.uploads]
[env]
TOKEN = "x"
EMPTY = ""
"""


def written(folder: Path, text: str) -> Path:
    path = folder / "taskrun.toml"
    path.write_text(text, encoding="utf-8")
    return path


def test_everything_that_may_be_written_is_read(tmp_path: Path) -> None:
    path = written(tmp_path, PAGE)
    assert load(path, {}) == Config(
        root=tmp_path.resolve(),
        path=path,
        cwd=tmp_path.resolve(),
        jobs=["music", "jobs/*.py"],
        journal=str(tmp_path.resolve() / "state/journal.db"),
        concurrency=7,
        resident=0,
        grace=3.0,
        workers=2,
        reload="manual",
        max_payload=1 << 20,
        keep=172800.0,
        max_log=5 << 20,
        schedules=[
            ScheduleEntry("backup", "0 3 * * *", "Europe/Berlin", {"path": "/data"}),
            ScheduleEntry("tidy", "@hourly", None, {}),
        ],
        env={"TOKEN": "x", "EMPTY": ""},
        declared=CommandFile(
            path=str(path),
            cwd=str(tmp_path.resolve()),
            commands=[CommandTable(name="sync", input=[], steps=[CommandStep(name="command", command="true")])],
            pipes=[PipeTable(name="uploads")],
        ),
    )


def test_an_empty_file_means_the_defaults(tmp_path: Path) -> None:
    path = written(tmp_path, "")
    assert load(path, {}) == Config(
        root=tmp_path.resolve(),
        path=path,
        cwd=tmp_path.resolve(),
        jobs=["jobs"],
        journal=str(tmp_path.resolve() / ".taskrun/journal.db"),
        concurrency=100,
        resident=1000,
        grace=10.0,
        workers=1,
        reload="auto",
        max_payload=4 << 20,
        keep=30 * 86400.0,
        max_log=50 << 20,
        schedules=[],
        env={},
        declared=CommandFile(path=str(path), cwd=str(tmp_path.resolve())),
    )


@pytest.mark.parametrize(
    ("variable", "value", "key", "meant"),
    [
        ("TASKRUN_JOBS", "a, b/*.py,", "jobs", ["a", "b/*.py"]),
        ("TASKRUN_JOURNAL", "/var/j.db", "journal", "/var/j.db"),
        ("TASKRUN_JOURNAL", "postgresql://me@host/db", "journal", "postgresql://me@host/db"),
        ("TASKRUN_JOURNAL", "~nobody-of-that-name/j.db", "journal", "ROOT/~nobody-of-that-name/j.db"),
        ("TASKRUN_CONCURRENCY", "9", "concurrency", 9),
        ("TASKRUN_RESIDENT", "5", "resident", 5),
        ("TASKRUN_GRACE", "1m", "grace", 60.0),
        ("TASKRUN_WORKERS", "4", "workers", 4),
        ("TASKRUN_MAX_PAYLOAD", "1024", "max_payload", 1024),
        ("TASKRUN_RETENTION__KEEP", "1h", "keep", 3600.0),
        ("TASKRUN_RETENTION__MAX_LOG", "1MB", "max_log", 1 << 20),
        ("TASKRUN_ENV__TOKEN", "y", "env", {"TOKEN": "y", "EMPTY": ""}),
    ],
)
def test_a_variable_goes_over_the_file(tmp_path: Path, variable: str, value: str, key: str, meant: Any) -> None:
    path = written(tmp_path, PAGE)
    if isinstance(meant, str):
        meant = meant.replace("ROOT", str(tmp_path.resolve()))
    assert load(path, {variable: value}) == msgspec.structs.replace(load(path, {}), **{key: meant})


@pytest.mark.parametrize(
    "variable", ["TASKRUN_CONFIG", "TASKRUN_AUTOSTART", "TASKRUN_CONCURENCY", "CONCURRENCY", "TASKRUN_"]
)
def test_other_variables_are_left_alone(tmp_path: Path, variable: str) -> None:
    path = written(tmp_path, PAGE)
    assert load(path, {variable: "nonsense"}) == load(path, {})


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("[taskrun]\nconcurency = 1", r"\[taskrun\] unknown key concurency; did you mean concurrency\?"),
        ("[retention]\nkept = '1d'", r"\[retention\] unknown key kept; did you mean keep\?"),
        ("[taskrn]", r"unknown key taskrn; did you mean taskrun\?"),
        (
            "concurrency = 5",
            "unknown key concurrency; valid keys: env, files, groups, jobs, notify, pipes, retention, schedule, taskrun",
        ),
        ("[[schedule]]\njob='a'\ncron='x'\ntimzone='s'", r"unknown key timzone; did you mean timezone\?"),
        ("[[schedule]]\njob='a'", r"\[\[schedule\]\] cron is missing: a cron expression"),
        ("[[schedule]]\njob='a'\ncron='x'\ninput=3", r"\[\[schedule\]\] input must be a table, not 3"),
        ("[schedule]\njob='a'", r"schedule must be a list of tables, each written \[\[schedule\]\]"),
        ("taskrun = 1", r"taskrun must be a table, written \[taskrun\]"),
        ("[taskrun]\njobs = 'x'", "jobs must be a list of modules, packages, folders or globs, not 'x'"),
        ("[taskrun]\njobs = [1]", r"jobs must be a list .*, not \[1\]"),
        ("[taskrun]\njournal = 5", "journal must be a path, or postgresql://…, not 5"),
        ("[taskrun]\nconcurrency = 0", "concurrency must be a whole number of 1 or more, not 0"),
        ("[taskrun]\nreload = true", 'reload must be "auto" or "manual", not True'),
        ("[taskrun]\nresident = -1", "resident must be a whole number, not -1"),
        ("[taskrun]\nresident = 0.0", "resident must be a whole number, not 0.0"),
        ("[taskrun]\nresident = false", "resident must be a whole number, not False"),
        ("[taskrun]\nconcurrency = true", "concurrency must be a whole number of 1 or more, not True"),
        ("[taskrun]\nconcurrency = '5'", "concurrency must be a whole number"),
        ("[taskrun]\nworkers = 1.5", "workers must be a whole number"),
        ("[taskrun]\ngrace = '10'", "grace must be a duration such as .*ms, s, m, h, d, w, y"),
        ("[taskrun]\ngrace = nan", "grace must be a duration"),
        ("[taskrun]\nmax_payload = -1", 'max_payload must be a size such as "4MB"'),
        ("[env]\nA = 1", r"\[env\] A must be text, not 1"),
        ("[env]\n'A=B' = 'x'", r"\[env\] 'A=B' cannot be the name of a variable"),
        ("[env]\n'' = 'x'", r"\[env\] '' cannot be the name of a variable"),
        ('[env]\nA = "\\u0000"', r"\[env\] A must be text"),
        ("[taskrun]\ngrace = '5 parsecs'", r"grace must be a duration such as .*ms, s, m, h, d, w, y"),
        ("[taskrun]\ngrace = -1", "grace must be a duration"),
        ("[taskrun]\ngrace = true", "grace must be a duration"),
        ("[retention]\nkeep = inf", "keep must be a duration"),
        ("[retention]\nmax_log = '5 apples'", r"max_log must be a size such as .*\(B, KB, MB, GB, TB\)"),
        ("[[schedule]]\njob='a'\ncron='x'\n[[schedule]]\njob='b'", r"\[\[schedule\]\] 2 cron is missing"),
        *(
            (f"[taskrun]\njournal = '{address}'", rf"\[taskrun\] journal is {re.escape(masked)}: a journal is a SQLite")
            for address, masked in ADDRESSES.items()
        ),
        ("[taskrun]\njobs = [\n", "broken TOML: .*at line 3, the end"),
        ("[taskrun]\n\nx = = 1", "broken TOML: .*at line 3, column 5"),
    ],
)
def test_a_mistake_names_the_file_the_key_and_what_is_expected(tmp_path: Path, text: str, fault: str) -> None:
    path = written(tmp_path, text)
    with pytest.raises(ConfigError, match=f"^{path}: .*{fault}"):
        load(path, {})


@pytest.mark.parametrize(
    ("variable", "value", "fault"),
    [
        ("TASKRUN_WORKERS", "many", "TASKRUN_WORKERS must be a whole number, not 'many'"),
        ("TASKRUN_WORKERS", "٣", "TASKRUN_WORKERS must be a whole number"),
        ("TASKRUN_GRACE", "5", "TASKRUN_GRACE must be a duration"),
        (
            "TASKRUN_JOURNAL",
            "mysql://me:hush@h/db",
            r"TASKRUN_JOURNAL is mysql://me:\*\*\*@h/db: a journal is",
        ),
        ("TASKRUN_RETENTION__MAX_LOG", "big", "TASKRUN_RETENTION__MAX_LOG must be a size"),
    ],
)
def test_a_wrong_variable_is_named(tmp_path: Path, variable: str, value: str, fault: str) -> None:
    with pytest.raises(ConfigError, match=fault):
        load(written(tmp_path, ""), {variable: value})


def test_a_file_that_is_no_text_is_said_to_be_so(tmp_path: Path) -> None:
    path = tmp_path / "taskrun.toml"
    path.write_bytes(b"\xff\xfe")
    with pytest.raises(ConfigError, match="not UTF-8"):
        load(path, {})


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_file_that_may_not_be_read_is_said_to_be_so(tmp_path: Path) -> None:
    path = written(tmp_path, "")
    path.chmod(0)
    with pytest.raises(ConfigError, match="cannot be read"):
        load(path, {})


def test_it_is_found_from_any_folder_below(tmp_path: Path) -> None:
    path = written(tmp_path, "")
    below = tmp_path / "a" / "b"
    below.mkdir(parents=True)
    assert find(below, None, {}) == path
    nearer = written(tmp_path / "a", "")
    assert find(below, None, {}) == nearer


def test_the_option_goes_before_the_variable_before_the_search(tmp_path: Path) -> None:
    here, there, elsewhere = (tmp_path / name for name in ("here", "there", "elsewhere"))
    for folder in (here, there, elsewhere):
        folder.mkdir()
        written(folder, "")
    named = {"TASKRUN_CONFIG": str(there / "taskrun.toml")}
    assert find(here, None, {"TASKRUN_CONFIG": ""}) == here / "taskrun.toml"
    assert find(here, None, named) == there / "taskrun.toml"
    assert find(here, "../elsewhere", named).resolve() == elsewhere / "taskrun.toml"


def test_none_found_says_where_it_was_looked_for(tmp_path: Path) -> None:
    with pytest.raises(NoProject, match=f"no taskrun.toml in {tmp_path} or above"):
        find(tmp_path, None, {})
    with pytest.raises(NoProject, match=r"no configuration at .*nope.toml"):
        find(tmp_path, "nope.toml", {})


def test_the_journal_is_beside_the_file_wherever_it_is_read_from(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    written(tmp_path, "")
    monkeypatch.chdir(tmp_path)
    config = load(Path("taskrun.toml"), {})
    assert config.journal == str(tmp_path.resolve() / ".taskrun/journal.db")
    assert config.path == tmp_path / "taskrun.toml"


def test_a_path_with_a_colon_is_a_path(tmp_path: Path) -> None:
    path = written(tmp_path, "[taskrun]\njournal = 'state/2026-11-26T10:30.db'")
    assert load(path, {}).journal == str(tmp_path.resolve() / "state/2026-11-26T10:30.db")


@pytest.mark.parametrize(
    ("text", "journal", "grace"),
    [
        ("", ".taskrun/journal.db", 10.0),
        ("[taskrun]\njournal = 'a.db'\ngrace = '3s'\nconcurency = 5", "a.db", 3.0),
        ("[taskrun]\njournal = 'a.db'\ngrace = 'soon'", "a.db", 10.0),
        ("[taskrun]\njournal = 'a.db'\n[[schedule]]\n", "a.db", 10.0),
        ("[taskrun\njournal = 'a.db'\n", "a.db", 10.0),
        ("[taskrun\n", ".taskrun/journal.db", 10.0),
        ("[taskrun]\njournal = 'mysql://host/db'", ".taskrun/journal.db", 10.0),
        ("taskrun = 5", ".taskrun/journal.db", 10.0),
    ],
)
def test_a_wrong_file_still_tells_where_its_daemon_is(tmp_path: Path, text: str, journal: str, grace: float) -> None:
    config = salvage(written(tmp_path, text), {})
    assert (config.journal, config.grace) == (str(tmp_path.resolve() / journal), grace)
    assert salvage(config.path, {"TASKRUN_JOURNAL": "b.db"}).journal == str(tmp_path.resolve() / "b.db")


def test_wrong_tables_are_told_with_the_right_ones(tmp_path: Path) -> None:
    path = written(tmp_path, "[[schedule]]\njob='a'\ncron='@hourly'\n[[schedule]]\njob='b'\ncorn='x'\n")
    good, bad = schedule_tables(path)
    assert (good.place, good.entry, good.problem) == ("[[schedule]] 1", ScheduleEntry("a", "@hourly"), "")
    assert (bad.place, bad.entry, bad.written) == ("[[schedule]] 2", None, {"job": "b", "corn": "x"})
    assert bad.problem == f"{path}: [[schedule]] 2 unknown key corn; did you mean cron?"
