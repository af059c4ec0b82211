"""`taskrun config`: what is in force, where it comes from, and what is shown to nobody who does not ask."""

from __future__ import annotations

import json
import tomllib
from pathlib import Path
from typing import Any

import pytest

from taskrun.cli.exit_codes import Code
from taskrun.model.config_sources import KeyPath, lines_of
from tests.cli.fakes import FakeDaemon, FakeTerminal, typed

FILE = (
    """\
# a project
[taskrun]
jobs = [
  "jobs",   # here
]
journal = '''j.db'''

[env]
TOKEN = "abc"
"odd name" = """
    + '"""'
    + """
many
lines"""
    + '"""'
    + """

[[schedule]]
job = "a"
cron = "0 3 * * *"
input = { path = "\u202e", secret = "s", url = "postgresql://me:pw@host/db" }

[[schedule]]
job = "b"
cron = "@hourly"
catch_up = "one"
[schedule.input]
deep.n = 1
[retention]
keep="7d"
"""
)


async def config(folder: Path, *args: str, text: str = FILE, **env: str) -> FakeTerminal:
    (folder / "taskrun.toml").write_text(text)
    terminal = FakeTerminal(folder, env=env)
    terminal.code = await typed(["config", *args], terminal, FakeDaemon())  # type: ignore[attr-defined]
    return terminal


def line_of(folder: Path, text: str, number: int) -> str:
    return f"{text}  # {folder / 'taskrun.toml'}:{number}"


async def test_each_value_says_where_it_comes_from(tmp_path: Path) -> None:
    terminal = await config(tmp_path, TASKRUN_GRACE="20s", TASKRUN_ENV__FOO="1", TASKRUN_JOBS="a, b")
    lines = terminal.written.splitlines()
    assert 'grace = "20s"  # TASKRUN_GRACE' in lines
    assert 'FOO = "***"  # TASKRUN_ENV__FOO' in lines
    assert "workers = 1  # default" in lines
    assert "]  # TASKRUN_JOBS" in lines
    for text, number in (('journal = "j.db"', 6), ('keep = "7d"', 26), ('cron = "@hourly"', 21), ("n = 1", 24)):
        assert line_of(tmp_path, text, number) in lines
    assert line_of(tmp_path, "]", 3) in (await config(tmp_path)).written.splitlines()


async def test_it_is_toml_that_means_the_same(tmp_path: Path) -> None:
    revealed = tomllib.loads((await config(tmp_path, "--reveal")).written)
    assert revealed["env"] == {"TOKEN": "abc", "odd name": "many\nlines"}
    assert [one["catch_up"] for one in revealed["schedule"]] == ["skip", "one"]
    assert revealed["schedule"][0]["input"]["path"] == "\u202e"
    again = await config(tmp_path, "--reveal", text=(await config(tmp_path, "--reveal")).written)
    assert tomllib.loads(again.written) == revealed


async def test_secrets_are_shown_to_who_asks_for_them(tmp_path: Path) -> None:
    for args in ((), ("--json",)):
        shown = (await config(tmp_path, *args)).written
        assert not [secret for secret in ("abc", "many", ":pw@", '"s"') if secret in shown]
        assert "postgresql://me:***@host/db" in shown
    assert "\u202e" not in (await config(tmp_path)).written


async def test_json_has_value_source_and_line_of_each(tmp_path: Path) -> None:
    found = json.loads((await config(tmp_path, "--json", TASKRUN_WORKERS="2")).written)
    file = str(tmp_path / "taskrun.toml")
    assert found["taskrun"]["workers"] == {"value": 2, "source": "TASKRUN_WORKERS", "line": None}
    assert found["retention"]["keep"] == {"value": "7d", "source": file, "line": 26}
    assert found["schedule"][1]["input"]["deep"]["n"] == {"value": 1, "source": file, "line": 24}
    assert found["taskrun"]["grace"] == {"value": "10s", "source": "default", "line": None}


@pytest.mark.parametrize(
    ("key", "found"),
    [
        ("grace", {"taskrun": {"grace": "10s"}}),
        ("taskrun.grace", {"taskrun": {"grace": "10s"}}),
        ("retention.keep", {"retention": {"keep": "7d"}}),
        ("retention", {"retention": {"keep": "7d", "max_log": "50MB"}}),
        ("env.TOKEN", {"env": {"TOKEN": "***"}}),
    ],
)
async def test_a_key_is_named_with_dots(tmp_path: Path, key: str, found: dict[str, Any]) -> None:
    assert tomllib.loads((await config(tmp_path, key)).written) == found


COMMANDS = """
[jobs.env]
command = "make {env}"
input = { env = "prod", level = { type = "int", default = 3 } }
env = { TOKEN = "abc" }
tags = { team = "x" }

[jobs.release]
steps = ["one", { name = "two", command = ["a", "b"], env = { KEY = "abc" } }]

[pipes.uploads]
input = { path = "str" }
"""


async def test_jobs_and_pipes_are_there_with_their_sources_and_without_secrets(tmp_path: Path) -> None:
    terminal = await config(tmp_path, text=COMMANDS)
    lines = terminal.written.splitlines()
    assert line_of(tmp_path, 'command = "make {env}"', 3) in lines
    assert line_of(tmp_path, 'env = "prod"', 4) in lines
    assert 'output = "text"  # default' in lines
    assert "abc" not in terminal.written
    assert "[jobs.release]" in lines and "[jobs]" not in lines
    found = tomllib.loads(terminal.written)
    assert found["jobs"]["env"]["env"] == {"TOKEN": "***"}
    assert found["jobs"]["release"]["steps"] == [
        {"command": "one"},
        {"name": "two", "command": ["a", "b"], "env": {"KEY": "***"}},
    ]
    assert found["pipes"] == {"uploads": {"input": {"path": "str"}}}
    level = json.loads((await config(tmp_path, "jobs.env.input.level.default", "--json", text=COMMANDS)).written)
    assert level == {"value": 3, "source": str(tmp_path / "taskrun.toml"), "line": 4}


async def test_jobs_and_pipes_that_are_printed_mean_the_same(tmp_path: Path) -> None:
    revealed = (await config(tmp_path, "--reveal", text=COMMANDS)).written
    again = (await config(tmp_path, "--reveal", text=revealed)).written
    assert tomllib.loads(again) == tomllib.loads(revealed)
    assert "abc" in revealed


async def test_a_key_that_there_is_not_and_a_file_that_is_wrong_are_errors(tmp_path: Path) -> None:
    terminal = await config(tmp_path, "retention.kep")
    assert (terminal.code, "did you mean  retention.keep" in terminal.chatter) == (Code.NOT_FOUND, True)  # type: ignore[attr-defined]
    wrong = await config(tmp_path, text='[[schedule]]\njob = "a"\ncron = "x"\n')
    assert (wrong.code, "[[schedule]] cron" in wrong.chatter) == (Code.USAGE, True)  # type: ignore[attr-defined]


def test_lines_are_found_in_all_ways_to_write_a_table() -> None:
    text = "a.b = 1\n\n[[x]]\n[[x.y]]\nn = 1\n[[x.y]]\nn = 2\n[[x]]\n[x.z]\nm = [\n 1,\n]\n"
    found = lines_of(text)
    first: dict[KeyPath, int] = {("a", "b"): 1, ("x", 0): 3, ("x", 0, "y", 0, "n"): 5}
    expected = first | {("x", 0, "y", 1, "n"): 7, ("x", 1, "z", "m"): 10}
    assert {place: found[place] for place in expected} == expected
