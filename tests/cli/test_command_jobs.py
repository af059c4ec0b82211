"""Jobs that are commands, as a person has them: options, help and completion, a real daemon, an edited `taskrun.toml`."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from taskrun.cli.app import execute
from taskrun.cli.backend.connect import ProcessConnector
from taskrun.cli.exit_codes import Code
from tests.cli.fakes import FakeTerminal
from tests.cli.processes import plain
from tests.cli.test_every_command import offered
from tests.waiting import until_async

BACKUP = """
[jobs.backup]
description = "Copies a folder"
command = "printf '%s|' backup {path} {level} {dry} {tags}"
input = { path = { type = "path" }, level = { default = 3, choices = [1, 3, 9], help = "how hard" }, dry = false, tags = ["a"] }
"""
RELEASE = """
[jobs.release]
steps = ["echo one >> log", { name = "build", command = "echo two >> log; test -e ok" }, ["sh", "-c", "echo three >> log"]]
"""
SLOW = """
[jobs.slow]
command = "echo $$ > pid; sleep 600"
"""
PATIENCE = 20.0


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    """A project without Python, and no daemon left behind."""
    (tmp_path / "taskrun.toml").write_text(BACKUP + RELEASE + SLOW)
    with tempfile.TemporaryDirectory(prefix="tr", dir="/tmp") as runtime, pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_RUNTIME_DIR", runtime)
        yield tmp_path
        (tmp_path / "taskrun.toml").write_text("")
        asyncio.run(typed(tmp_path, "daemon", "stop"))


async def typed(folder: Path, *words: str) -> tuple[int, FakeTerminal]:
    """Types a line whose words may have spaces."""
    terminal = FakeTerminal(folder, env={"HOME": str(folder)})
    return await execute(words, terminal, ProcessConnector()), terminal


def alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except OSError:
        return False
    return True


async def test_options_help_and_completion_come_from_the_input(folder: Path) -> None:
    code, terminal = await typed(folder, "start", "backup", "--help")
    assert code == 0
    shown = " ".join(terminal.written.split())
    assert "usage: taskrun start backup --path PATH [--level 1|3|9] [--dry] [--tags TEXT …] Copies a folder" in shown
    assert "--level 1|3|9 how hard; default 3" in shown
    assert {"backup", "release", "slow"} <= set(await offered(folder, "start", ""))
    assert {"--path", "--level", "--dry", "--tags"} <= set(await offered(folder, "start", "backup", "--"))
    assert await offered(folder, "start", "backup", "--level", "") == ["1", "3", "9"]
    code, terminal = await typed(folder, "jobs", "backup")
    assert "runs        printf '%s|' backup {path} {level} {dry} {tags}" in terminal.written
    assert "defined at  taskrun.toml:2" in terminal.written


async def test_it_runs_from_the_command_line_like_any_job(folder: Path) -> None:
    odd = "-it's $(a)\n"
    typed_words = ("--path", odd, "--level", "9", "--dry", "--tags", "x y", "--tags", "z")
    local, terminal = await typed(folder, "run", "backup", *typed_words, "--local")
    code, daemon = await typed(folder, "run", "backup", *typed_words)
    path = str(folder / odd)
    assert (local, code) == (0, 0), terminal.chatter
    assert terminal.written == daemon.written == f"backup|{path}|9|true|x y|z|\n"
    code, terminal = await typed(folder, "run", "backup", "--level", "9")
    assert (code, "--path" in terminal.chatter) == (Code.USAGE, True)
    code, terminal = await typed(folder, "list", "--json")
    (listed,) = json.loads(terminal.written)
    assert (listed["job"], listed["input"]["tags"]) == ("backup", ["x y", "z"])


async def test_a_name_that_is_no_utf_8_goes_through(folder: Path) -> None:
    name = os.fsdecode(b"caf\xe9 '$(x)'")
    done = plain(folder, "run", "backup", "--path", name)
    assert done.returncode == 0, done.stderr
    (folder / "taskrun.toml").write_text(BACKUP.replace("printf '%s|' backup {path}", "printf %s {path} > seen; true"))
    assert plain(folder, "run", "backup", "--path", name).returncode == 0
    assert (folder / "seen").read_bytes() == os.fsencode(folder / name)


NOTE = "import json, os, sys; json.dump([sys.argv[1:], os.environ['TASKRUN_INPUT']], open('seen', 'w'))"
ODD = [
    "",
    " ",
    "a b",
    "it's",
    '"quoted"',
    "$(touch pwned)",
    "`touch pwned`",
    "; touch pwned #",
    "a\nb\n",
    "--help",
    "-",
    "{path}",
    "{{}}",
    "*",
    "~",
    "\\",
    "tab\tend",
    "caf\udce9",
    "\udcff'\udc80",
    "日本 é",
    "\x1b[31m",
]


@pytest.mark.parametrize(
    "command",
    [
        f"'''{sys.executable} -c \"{NOTE}\" {{words}} -x{{one}}'''",
        f'["{sys.executable}", "-c", "{NOTE}", "{{words}}", "-x{{one}}"]',
    ],
    ids=["shell", "list"],
)
def test_odd_words_go_unharmed_from_the_command_line_to_a_command_that_survives(folder: Path, command: str) -> None:
    text = f'[jobs.note]\ncommand = {command}\ninput = {{ words = {{ type = "list" }}, one = {{ type = "str" }} }}\n'
    (folder / "taskrun.toml").write_text(text)
    options = [f"--words={word}" for word in ODD]
    done = plain(folder, "run", "note", *options, "--one", ODD[-5])
    assert done.returncode == 0, done.stderr
    arguments, told = json.loads((folder / "seen").read_text())
    assert arguments == [*ODD, f"-x{ODD[-5]}"]
    assert json.loads(told) == {"words": ODD, "one": ODD[-5]}
    assert not (folder / "pwned").exists()


async def test_a_retry_from_a_step_keeps_those_before_it(folder: Path) -> None:
    code, _ = await typed(folder, "run", "release")
    assert code == Code.FAILED
    (folder / "ok").touch()
    assert (await typed(folder, "retry", "@last"))[0] == 0
    assert (await typed(folder, "wait", "@last"))[0] == 0
    assert (await typed(folder, "retry", "@last", "--from", "step-3"))[0] == 0
    assert (await typed(folder, "wait", "@last"))[0] == 0
    assert (folder / "log").read_text().split() == ["one", "two", "two", "three", "three"]


async def test_a_cancel_ends_its_processes(folder: Path) -> None:
    await typed(folder, "start", "slow")
    await until_async(lambda: (folder / "pid").exists() and (folder / "pid").read_text().strip())
    pid = int((folder / "pid").read_text())
    assert alive(pid)
    assert (await typed(folder, "cancel", "@last"))[0] == 0
    assert (await typed(folder, "wait", "@last"))[0] == Code.INTERRUPTED
    assert not alive(pid)


async def test_a_command_goes_on_when_the_daemon_is_killed_whatever_becomes_of_its_table(folder: Path) -> None:
    counting = "echo $$ >> pids; for i in 1 2 3; do echo line $i; until test -e go; do sleep 0.05; done; done"
    toml = f'[jobs.count]\ncommand = """{counting}"""\n[jobs.other]\ncommand = "true"\n'
    (folder / "taskrun.toml").write_text(toml)
    await typed(folder, "start", "count")
    await until_async(lambda: (folder / "pids").exists())
    _, terminal = await typed(folder, "daemon", "status", "--json")
    os.kill(json.loads(terminal.written)["pid"], signal.SIGKILL)
    (folder / "taskrun.toml").write_text(toml.replace("line", "LINE"))
    assert (await typed(folder, "run", "other"))[0] == 0
    (folder / "go").touch()
    code, terminal = await typed(folder, "wait", "@last", "count@last", "--json")
    assert (code, [run["status"] for run in json.loads(terminal.written)]) == (0, ["succeeded"] * 2)
    assert len((folder / "pids").read_text().split()) == 1
    _, terminal = await typed(folder, "tail", "count@last", "--no-follow", "--json")
    lines = [json.loads(line) for line in terminal.written.splitlines()]
    assert [line["text"] for line in lines if line["stream"] == "stdout"] == ["line 1", "line 2", "line 3"]


# ---- an edited file


async def test_an_edit_counts_for_the_next_run_and_a_mistake_for_none(folder: Path) -> None:
    file = folder / "taskrun.toml"
    assert (await typed(folder, "run", "backup", "--path", "/x"))[1].written == "backup|/x|3|false|a|\n"
    file.write_text(BACKUP.replace("|' backup", "|' again") + '[jobs.fresh]\ncommand = "echo new"\n[pipes.uploads]\n')
    assert (await typed(folder, "run", "backup", "--path", "/x"))[1].written == "again|/x|3|false|a|\n"
    assert (await typed(folder, "run", "fresh"))[1].written == "new\n"
    assert (await typed(folder, "send", "uploads", "--input", "{}"))[0] == 0
    assert (await typed(folder, "start", "release"))[0] == Code.NOT_FOUND
    file.write_text(BACKUP.replace("{path}", "{pth}"))
    for words in (("run", "backup", "--path", "/y"), ("run", "fresh"), ("list",), ("jobs",)):
        code, terminal = await typed(folder, *words)
        assert code == 0, words
        assert f"warning: {file}: [jobs.backup] command {{pth}} is no field of input" in terminal.chatter, words
        assert "goes on with the last good configuration" in terminal.chatter
    assert (await typed(folder, "daemon", "stop"))[0] == 0
    code, terminal = await typed(folder, "run", "backup", "--path", "/y")
    assert (code, "did you mean {path}?" in terminal.chatter) == (Code.USAGE, True)


async def test_what_an_edit_adds_starts_by_itself(folder: Path) -> None:
    """A trigger and a schedule of a table that was written while the daemon ran; nobody asks for them."""
    assert (await typed(folder, "daemon", "start"))[0] == 0
    (folder / "taskrun.toml").write_text(
        '[jobs.tick]\ncommand = "echo $TASKRUN_SLOT >> ticks; echo {{}}"\noutput = "json"\ncron = "* * * * * *"\n'
        '[jobs.after]\ncommand = "echo x >> after"\ntrigger = ["tick"]\n'
    )
    await until_async(lambda: (folder / "ticks").exists() and (folder / "after").exists())
    (folder / "taskrun.toml").write_text('[jobs.after]\ncommand = "echo x >> after"\n')
    _, terminal = await typed(folder, "schedule", "--json")
    assert [one["problem"] for one in json.loads(terminal.written)] == ['no job "tick"']


async def test_a_trigger_that_leads_nowhere_is_named_with_its_line(folder: Path) -> None:
    (folder / "taskrun.toml").write_text('[jobs.a]\ncommand = "true"\ntrigger = ["uplods"]\n[pipes.uploads]\n')
    _, terminal = await typed(folder, "jobs")
    assert (
        'taskrun.toml:1: [jobs.a] trigger: there is no pipe or job "uplods"; did you mean uploads?' in terminal.chatter
    )
    assert terminal.written.startswith("a\t")
    assert (await typed(folder, "doctor"))[0] == Code.FAILED


def test_an_empty_folder_needs_no_python_at_all(folder: Path) -> None:
    done = subprocess.run(["ls"], cwd=folder, capture_output=True, text=True, check=True)
    assert done.stdout == "taskrun.toml\n"
    listed = plain(folder, "jobs")
    assert (listed.returncode, listed.stderr.strip()) == (0, "start one: taskrun start backup --help")
