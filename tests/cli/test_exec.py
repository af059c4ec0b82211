"""`taskrun exec` against a real daemon: quoting, environments nobody is shown, groups, what is waited for, and `--save`."""

from __future__ import annotations

import asyncio
import json
import os
import pty
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from taskrun.cli.app import execute
from taskrun.cli.backend.connect import ProcessConnector
from taskrun.cli.commands.typed_command import variables
from taskrun.model.config import FILE
from tests.cli.fakes import FakeTerminal

SECRET = "pa$$ 'w\"ord\n"
WORDS = [
    "a b",
    "'",
    '"',
    "$(touch hacked)",
    "`x`",
    "two\nlines",
    "-n",
    "--",
    "*",
    "\\",
    "süß 🎵",
    "{path}",
    "caf\udce9",
    "",
]
OF_CALLER = {"PATH": os.environ["PATH"]}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A project without jobs, with a daemon that is stopped at the end."""
    project = tmp_path_factory.mktemp("project")
    (project / FILE).write_text("# mine\n[groups]\npair = 2\n")
    (project / "in here").mkdir()
    with tempfile.TemporaryDirectory(prefix="tr", dir="/tmp") as runtime, pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_RUNTIME_DIR", runtime)
        yield project
        asyncio.run(typed(project, "daemon", "stop"))


async def typed(folder: Path, *argv: str, **env: str) -> tuple[int, FakeTerminal]:
    terminal = FakeTerminal(folder, env={"HOME": str(folder), **OF_CALLER, **env})
    return await execute(list(argv), terminal, ProcessConnector()), terminal


async def executed(folder: Path, *argv: str, **env: str) -> dict[str, Any]:
    """Runs a command to its end; returns the run."""
    _, terminal = await typed(folder, "exec", "-f", "--json", *argv, **env)
    run: dict[str, Any] = json.loads(terminal.written)
    return run


async def test_every_word_goes_through_unharmed(folder: Path) -> None:
    script = "import os, sys; print(ascii([*map(os.fsdecode, sys.argv[1:]), os.environ['V'], os.getcwd()]))"
    word = "caf\udce9 $(x) '\"\n-z"
    run = await executed(folder, "--cwd", "in here", "--env", f"V={word}", "--", "python3", "-c", script, *WORDS)
    assert run["output"] == ascii([*WORDS, word, str(folder / "in here")])
    assert run["input"]["command"] == ["python3", "-c", script, *WORDS]
    assert not list(folder.rglob("hacked"))


async def test_one_argument_goes_to_the_shell(folder: Path) -> None:
    run = await executed(folder, "--env", "V", "--", "echo $V | tr a-z A-Z; pwd", V="shout")
    assert run["output"] == f"SHOUT\n{folder}"
    assert (await executed(folder, "--", "exit 3"))["error"]["type"] == "taskrun.CommandFailed"


async def test_it_is_found_by_the_path_of_the_caller(folder: Path) -> None:
    tool = folder / "bin" / "my-tool"
    tool.parent.mkdir()
    tool.write_text("#!/bin/sh\necho mine $1\n")
    tool.chmod(0o755)
    path = f"{tool.parent}:{os.environ['PATH']}"
    assert (await executed(folder, "--", "my-tool", "x", PATH=path))["output"] == "mine x"
    code, terminal = await typed(folder, "exec", "-f", "--", "my-tool", "x")
    assert code == 1
    assert "my-tool: command not found (code 127)" in terminal.chatter


async def test_nobody_is_shown_the_values_of_its_environment(folder: Path) -> None:
    script = "import os, sys; sys.exit(os.environ['TOKEN'] != os.environ['OTHER'])"
    typed_env = ["--env", f"TOKEN={SECRET}", "--env", "OTHER"]
    run = await executed(folder, *typed_env, "--name", "s", "--", "python3", "-c", script, OTHER=SECRET)
    assert (run["status"], run["job"], run["name"]) == ("succeeded", "exec", "s")
    assert run["input"]["env"] == {"TOKEN": "***", "OTHER": "***"}
    for command in (
        "show {} --json",
        "show {}",
        "list --all --json",
        "list --all",
        "why {} --json",
        "export {}",
        "tail {} --no-follow",
    ):
        for tty in (False, True):
            terminal = FakeTerminal(folder, env={"HOME": str(folder)}, out_tty=tty)
            await execute(command.format(run["id"]).split(), terminal, ProcessConnector())
            assert 'w\\"ord' not in terminal.written + terminal.chatter, command
            assert "ord" not in terminal.written.replace("pa$$", ""), command
    _, terminal = await typed(folder, "retry", run["id"], "--json")
    again = json.loads(terminal.written)
    assert (await typed(folder, "wait", again["id"]))[0] == 0
    assert again["name"] == "s"


async def test_runs_of_a_group_take_turns(folder: Path) -> None:
    gate = folder / "gate"
    ids = []
    for group in ("one", "one", "pair", "pair", "pair"):
        wait = f"until [ -e '{gate}' ]; do sleep 0.05; done"
        _, terminal = await typed(folder, "exec", "-q", "--group", group, "--name", f"in {group}", "--", wait)
        ids.append(terminal.written.strip())
    _, terminal = await typed(folder, "why", ids[1], "--json")
    [cause] = json.loads(terminal.written)["causes"]
    assert (cause["kind"], cause["id"], cause["held_by"]) == ("concurrency", "group one", [ids[0]])
    assert cause["text"].startswith('group "one" is full: 1 of 1, held by ')
    assert "in one" in cause["text"]
    _, terminal = await typed(folder, "why", ids[1])
    assert f"{ids[1][:6]} in one queued" in terminal.written
    _, terminal = await typed(folder, "list", "--json")
    states = {run["id"]: run["status"] for run in json.loads(terminal.written)}
    assert [states[run] == "queued" for run in ids] == [False, True, False, False, True]
    gate.touch()
    assert (await typed(folder, "wait", *ids))[0] == 0


async def test_it_starts_after_others_and_screens_say_so(folder: Path) -> None:
    _, terminal = await typed(folder, "exec", "-q", "--name", "the first", "--", "sleep 0.5; exit 1")
    first = terminal.written.strip()
    _, terminal = await typed(folder, "exec", "-q", "--after", first, "--", "true")
    second = terminal.written.strip()
    _, terminal = await typed(
        folder, "exec", "-q", "--after-any", first, "--after-any", second, "--tag", "k=v", "--", "true"
    )
    third = terminal.written.strip()
    _, terminal = await typed(folder, "show", third)
    assert f"after   {first[:6]}  {second[:6]}" in terminal.written
    assert (await typed(folder, "wait", third))[0] == 0
    _, terminal = await typed(folder, "show", second, "--json")
    shown = json.loads(terminal.written)
    assert (shown["status"], shown["reason"]) == ("cancelled", "dependency")
    _, terminal = await typed(folder, "list", "--tag", "k=v", "--json")
    assert [run["id"] for run in json.loads(terminal.written)] == [third]
    assert (await typed(folder, "exec", "--after", "nobodyatall", "--", "true"))[0] == 3


WRONG = [
    ["exec"],
    ["exec", "--slots", "2", "--", "true"],
    ["exec", "--group", "a\nb", "--", "true"],
    ["exec", "--name", "\x1b[31m", "--", "true"],
    ["exec", "--env", "=x", "--", "true"],
    ["exec", "--tag", "x", "--", "true"],
    ["exec", "--timeout", "5", "--", "true"],
    ["exec", "--retry", "-1", "--", "true"],
    ["exec", "--in", "5m", "--at", "10:00", "--", "true"],
    ["exec", "--save", "later", "--in", "5m", "--", "true"],
    ["exec", "--save", "later", "--after", "x", "--", "true"],
    ["exec", "--save", "exec", "--", "true"],
    ["exec", "--save", "a b", "--", "true"],
    ["exec", "--save", "later", "--env", "X", "--", "true"],
    ["exec", "--save", "later", "--", "caf\udce9"],
    ["exec", "--", ""],
    ["exec", "--", "", "word"],
]


@pytest.mark.parametrize(
    "argv", WRONG, ids=[" ".join(argv).encode("ascii", "backslashreplace").decode() for argv in WRONG]
)
async def test_what_cannot_be_is_refused_and_nothing_recorded(folder: Path, argv: list[str]) -> None:
    before = (folder / FILE).read_text()
    _, known = await typed(folder, "list", "--all", "--json")
    code, terminal = await typed(folder, *argv)
    assert (code, terminal.written) == (2, "")
    assert terminal.chatter.startswith("error: ")
    assert (await typed(folder, "list", "--all", "--json"))[1].written == known.written
    assert (folder / FILE).read_text() == before


async def test_save_appends_a_job_that_does_the_same(folder: Path) -> None:
    script = "import os, sys; print(ascii([sys.argv[1:], os.environ['V'], os.getcwd()]))"
    words = [word for word in WORDS if word != "caf\udce9"]
    options = ["--group", "pair", "--slots", "3", "--retry", "2", "--timeout", "1h", "--tag", "a=b", "--env", "V=w"]
    command = ["--cwd", "in here", *options, "--save", "kept", "--", "python3", "-c", script, *words]
    code, terminal = await typed(folder, "exec", *command)
    assert (code, terminal.written) == (0, "kept\n")
    assert (folder / FILE).read_text().startswith("# mine\n[groups]\npair = 2\n\n[jobs.kept]\n")
    _, terminal = await typed(folder, "run", "kept", "--json")
    run = json.loads(terminal.written)
    assert run["output"] == ascii([words, "w", str(folder / "in here")])
    assert (run["attempts"], run["tags"]) == (3, {"a": "b"})
    _, terminal = await typed(folder, "exec", "--save", "shelled", "--", "echo ${HOME:+set} {a} '{b}' | cat")
    _, terminal = await typed(folder, "run", "shelled", "-q")
    assert terminal.written == "set {a} {b}\n"
    code, terminal = await typed(folder, "exec", "--save", "kept", "--", "true")
    assert code == 2
    assert 'there is a job "kept" already' in terminal.chatter


async def test_without_a_project_it_is_in_the_users_own(
    tmp_path: Path, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    empty, home = tmp_path / "empty", tmp_path / "home"
    empty.mkdir()
    home.mkdir()
    env = {"HOME": str(home), "XDG_CONFIG_HOME": str(home / "c"), "XDG_STATE_HOME": str(home / "s")}
    for name, value in env.items():
        monkeypatch.setenv(name, value)
    try:
        code, terminal = await typed(empty, "exec", "-f", "--", "pwd", **env)
        assert code == 0
        assert f"\n{empty}\n" in terminal.chatter
        assert "in your own project, since there is no taskrun.toml here: taskrun --user list" in terminal.chatter
        _, terminal = await typed(empty, "--user", "list", "--json", **env)
        assert [run["job"] for run in json.loads(terminal.written)] == ["exec"]
        code, _ = await typed(empty, "exec", "--save", "kept", "--", "true", **env)
        assert code == 0
        assert "[jobs.kept]" in (home / "c" / "taskrun" / FILE).read_text()
        assert list(empty.iterdir()) == []
    finally:
        await typed(empty, "--user", "daemon", "stop", **env)


async def test_options_and_their_values_are_completed(folder: Path) -> None:
    _, terminal = await typed(folder, "exec", "-q", "--name", "known", "--", "true")
    run = terminal.written.strip()
    _, terminal = await typed(folder, "_complete", "--", "exec", "--after", run[:5])
    assert terminal.written.startswith(f"{run[:6]}\tknown ")
    _, terminal = await typed(folder, "_complete", "--", "exec", "--group", "p")
    assert terminal.written == "pair\t2 at a time\n"
    _, terminal = await typed(folder, "_complete", "--", "exec", "--no")
    assert terminal.written.startswith("--no-rerun\t")


def test_a_variable_that_is_only_named_is_the_callers_if_it_is_set() -> None:
    assert variables(["A=1=2", "B", "C", "A=", "E=\n"], {"B": "b"}) == {"A": "", "B": "b", "E": "\n"}


# ---- through the thin client, in processes of their own


def on_terminal(folder: Path, *argv: str) -> str:
    """Runs a command line on a terminal of its own; returns what it shows, without its colours."""
    ours, theirs = pty.openpty()
    env = {**os.environ, "TERM": "xterm-256color", "COLUMNS": "100", "LINES": "30"}
    with subprocess.Popen(
        [sys.executable, "-m", "taskrun", *argv], cwd=folder, env=env, stdin=theirs, stdout=theirs, stderr=theirs
    ) as process:
        os.close(theirs)
        shown = b""
        with suppress(OSError):  # EIO: nobody has the other end any more
            while piece := os.read(ours, 65536):
                shown += piece
        assert process.wait(30) == 0, shown
    os.close(ours)
    return re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", shown.decode("utf-8", "surrogateescape")).replace("\r\n", "\n")


def test_a_terminal_shows_the_name_the_command_and_its_output(folder: Path) -> None:
    on_terminal(folder, "exec", "--", "true")  # now the daemon is warm
    shown = on_terminal(
        folder, "exec", "-f", "--name", "say it", "--env", "TOKEN=hidden", "--", "printf", "%s\n", "caf\udce9 [1m"
    )
    assert "say it  printf '%s\\n' 'caf\\xe9 [1m'" in shown
    assert "caf\ufffd [1m" in shown
    assert "✓ done" in shown
    listed = on_terminal(folder, "list", "-n", "1")
    assert "say it" in listed and "printf" in listed and "exec" not in listed
    told = on_terminal(folder, "show", "@last")
    assert re.search(r"^say it \w{12} · ✓ done", told, re.MULTILINE)
    assert re.search(rf"^folder  {folder}$", told, re.MULTILINE)
    assert re.search(r"^env     TOKEN=\*\*\*$", told, re.MULTILINE)
    assert "hidden" not in shown + listed + told
