"""Every command of the table against a real daemon: its exit code, its JSON and nothing else, its help."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest

from taskrun.cli.app import execute
from taskrun.cli.backend.connect import ProcessConnector
from taskrun.cli.command_table import COMMANDS, HIDDEN, find
from taskrun.cli.exit_codes import Code
from taskrun.cli.manual import manual
from tests.cli.fakes import FakeTerminal

ROOT = Path(__file__).parents[2]
JOBS = """
import asyncio
from pathlib import Path
from typing import Literal, TypedDict
from taskrun import Concurrency, current, job, pipe, run, sleep

class Upload(TypedDict):
    path: str

uploads = pipe("uploads", input=Upload)

@job
async def hello(name: str = "you", mood: Literal["happy", "sad"] = "happy") -> str:
    print("hello", name)
    first = await run("compose", echo, name)
    return await run("polish", echo, first)

async def echo(text: str) -> str:
    return text

@job(retry=0)
async def fails() -> None:
    raise ValueError("no luck")

@job(concurrency=Concurrency("disk", 1))
async def hold(until: str, name: str = "") -> str:
    while not Path(until).exists():
        await asyncio.sleep(0.01)
    return name

@job
async def waits() -> str:
    return (await uploads.wait_for())["path"]

@job
async def parent() -> str:
    return await hello.run(name="child")

@job
async def lines(count: int, pause: float = 0.0) -> int:
    for number in range(count):
        print("line", number)
        await sleep(pause)
    return count

@job
async def stubborn() -> None:
    while True:
        try:
            print("here")
            await asyncio.sleep(3600)
        except asyncio.CancelledError:
            pass

@job
async def labelled(tag: str = "none", name: str = "") -> str:
    return f"{tag} {dict(current().tags)}"

@job(cron="0 3 * * *")
async def nightly() -> None:
    pass
"""
ONE, STREAM = "one document", "a document for each line"
TABLE: list[tuple[str, int, str]] = [  # in this order, on one project
    ("jobs --json", 0, ONE),
    ("jobs hello --json", 0, ONE),
    ("start hello --json", 0, ONE),
    ("start hello --in 1h --key later --json", 0, ONE),
    ("start hello --at 2100-01-01T00:00:00Z --key later --json", 0, ONE),
    ("cancel --job hello --status scheduled --json", 0, ONE),
    ("run hello --name Ada --json", 0, ONE),
    ("run fails --json", 1, ONE),
    ("run parent --json", 0, ONE),
    ("run --local hello --json", 0, ONE),
    ("start hello --tag env=prod --run.tag team=a --json", 0, ONE),
    ("list --tag env --tag team=a --json", 0, ONE),
    ("start hello --tag env --json", 2, ""),
    ("run hello --tag =prod", 2, ""),
    ("list --tag a.b=", 2, ""),
    ("exec -f --json -- true", 0, ONE),
    ("exec -f --json -- false", 1, ONE),
    ("start waits --json", 0, ONE),
    ("why waits@last --json", 0, ONE),
    ("pause waits@last --json", 0, ONE),
    ("resume waits@last --json", 0, ONE),
    ("send uploads --path a --json", 0, ONE),
    ("wait waits@last --json", 0, ONE),
    ("wait hello@last fails@last --json", 1, ONE),
    ("wait hello@last --timeout 1s --json", 0, ONE),
    ("list --json", 0, ONE),
    ("ps --all --json", 0, ONE),
    ("list --job fails --status failed --since 1h -n 1 --json", 0, ONE),
    ("run lines --count 3 --json", 0, ONE),
    ("show @last --json", 0, ONE),
    ("show -w fails@last --json", 1, ONE),
    ("tail hello@last --json", 0, STREAM),
    ("tail hello@last fails@last --no-follow -n 5 --since 1h --json", 0, STREAM),
    ("retry fails@last --json", 0, ONE),
    ("retry hello@last --from polish --json", 0, ONE),
    ("pause hello --json", 0, ONE),
    ("resume hello --json", 0, ONE),
    ("cancel @last --json", 0, ONE),
    ("schedule --json", 0, ONE),
    ("schedule hello --json", 0, ONE),
    ("schedule add hello @yearly --name Ada --json", 0, ONE),
    ("config --json", 0, ONE),
    ("config grace --json", 0, ONE),
    ("prune --dry-run --json", 0, ONE),
    ("export parent@last", 0, ONE),
    ("doctor --json", 0, ONE),
    ("daemon status --json", 0, ONE),
    ("daemon start --json", 0, ONE),
    ("daemon restart --json", 0, ONE),
    ("daemon install --json", 0, ONE),
    ("daemon uninstall --json", 0, ONE),
    ("init elsewhere", 0, ""),
    ("completion bash", 0, ""),
    ("daemon logs -n 5", 0, ""),
    ("daemon stop", 0, ""),
    ("daemon status --json", 3, ONE),
    # without a daemon
    ("list --json", 0, ONE),
    ("show hello@last --json", 0, ONE),
    ("jobs --json", 0, ONE),
    ("schedule --json", 0, ONE),
    ("schedule -n 3 hello --json", 0, ONE),
    ("export hello@last", 0, ONE),
    ("tail lines@last --no-follow --json", 0, STREAM),
    ("doctor --json", 1, ONE),  # its schedules do not fire
    # what is wrong
    ("start nojob --json", 3, ""),
    ("config nokey --json", 3, ""),
    ("notify test --json", 2, ""),
    ("workers --json", 0, ONE),
    ("worker", 2, ""),  # the journal is a file
    ("journal copy no-such.db copy.db", 3, ""),
    ("schedule nojob --json", 3, ""),
    ("schedule -n 3 --json", 2, ""),
    ("schedule add nojob @daily --json", 3, ""),
    ("schedule add hello sometime --json", 2, ""),
    ("start hello --mood angry --json", 2, ""),
    ("show nowhere --json", 3, ""),
    ("why nowhere --json", 3, ""),
    ("pause nothing --json", 3, ""),
    ("pause fails@last --json", 5, ""),
    ("retry hello@last --from nostep --json", 3, ""),
    ("send nopipe --json", 3, ""),
    ("completion tcsh", 2, ""),
    ("prune --older-than 7 --json", 2, ""),
    ("prune --older-than 0s --json", 0, ONE),
    ("export hello@last", 3, ""),
]
FOREGROUND = {"watch", "daemon run"}  # end with Ctrl-C alone; tested elsewhere


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A project with a daemon that is stopped at the end."""
    project = tmp_path_factory.mktemp("project")
    (project / "taskrun.toml").write_text('[taskrun]\njobs = ["jobs"]\ngrace = "1s"\n')
    (project / "jobs").mkdir()
    (project / "jobs" / "all.py").write_text(JOBS)
    with tempfile.TemporaryDirectory(prefix="tr", dir="/tmp") as runtime, pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_RUNTIME_DIR", runtime)
        yield project
        asyncio.run(typed(project, "daemon stop"))


async def typed(folder: Path, command: str, **facts: Any) -> tuple[int, FakeTerminal]:
    """Runs a command line against the project's own daemon."""
    terminal = FakeTerminal(folder, **{"env": {"HOME": str(folder)}, **facts})
    return await execute(command.split(), terminal, ProcessConnector()), terminal


async def test_every_command_ends_with_its_code_and_prints_json_alone(folder: Path) -> None:
    for command, code, prints in TABLE:
        got, terminal = await typed(folder, command)
        assert got == code, f"{command}: {terminal.chatter}"
        if prints == ONE:
            json.loads(terminal.written)
        elif prints == STREAM:
            assert [json.loads(line)["seq"] for line in terminal.written.splitlines()], command
        elif code:
            fault = json.loads(terminal.written)["error"] if "--json" in command else {}
            assert set(fault) in (set(), {"type", "message", "hint"}), command
            assert all(line in terminal.chatter for line in fault.get("message", "").splitlines()), command
            assert terminal.chatter.startswith("error: "), command
            assert "\n  " in terminal.chatter or "as in" in terminal.chatter, (
                f"{command}: what next? {terminal.chatter}"
            )


def every_command() -> Iterator[str]:
    for name in COMMANDS.keys() - HIDDEN:
        command = find(name)
        inner = getattr(command, "commands", {})
        if not inner or command.invoke_without_command:
            yield name
        yield from (f"{name} {one}" for one in inner)


def test_the_table_has_every_command() -> None:
    tried = {
        " ".join(command.split()[: 1 + command.startswith(("daemon", "notify", "journal", "schedule add"))])
        for command, _, _ in TABLE
    }
    assert set(every_command()) - FOREGROUND == tried - {"ps"}


@pytest.mark.parametrize("command", sorted(every_command()))
async def test_the_help_of_every_command_has_an_example(command: str, tmp_path: Path) -> None:
    code, terminal = await typed(tmp_path, f"{command} --help")
    assert code == 0
    assert f"taskrun {command}" in terminal.written.partition("Example:")[2]
    assert "--install-completion" not in terminal.written


def test_the_manual_is_up_to_date() -> None:
    assert (ROOT / "docs" / "cli.md").read_text() == manual(), "python -m taskrun.cli.manual > docs/cli.md"


# ---- what some of them do


async def test_an_option_gives_way_to_a_field_of_its_name_and_is_the_commands_own_with_run(folder: Path) -> None:
    code, terminal = await typed(folder, "run labelled --tag a=b --run.tag k=v --name n")
    assert (code, terminal.written) == (0, "a=b {'k': 'v'}\n")
    _, terminal = await typed(folder, "start labelled --help")
    assert "--tag TEXT" in terminal.written and "--run.tag NAME=VALUE" in terminal.written
    _, terminal = await typed(folder, "start hello --help")
    assert "--tag NAME=VALUE" in terminal.written and "--run.tag" not in terminal.written
    _, terminal = await typed(folder, "run --local hello --tag a=b --json")
    assert json.loads(terminal.written)["tags"] == {"a": "b"}
    await typed(folder, "run hello --tag a=b --tag a=c")
    _, terminal = await typed(folder, "list --tag a --json")
    assert [run["tags"] for run in json.loads(terminal.written)] == [{"a": "c"}]
    _, terminal = await typed(folder, "show @last")
    assert "tags    a=c" in terminal.written
    _, terminal = await typed(folder, "list --tag a=b", out_tty=True)
    assert "no runs match: tagged a=b" in terminal.chatter


@pytest.fixture
async def held(folder: Path) -> AsyncIterator[list[str]]:
    """Two runs of a job of which one may run."""
    gate = folder / "gate"
    gate.unlink(missing_ok=True)
    runs = [(await typed(folder, f"start hold --until {gate} --name {name}"))[1].written.strip() for name in "ab"]
    yield runs
    gate.touch()
    assert (await typed(folder, f"wait {' '.join(runs)}"))[0] in (0, 130)


async def test_why_names_the_limit_and_who_holds_it(folder: Path, held: list[str]) -> None:
    _, terminal = await typed(folder, f"why {held[1]} --json")
    found = json.loads(terminal.written)
    assert (found["id"], found["status"]) == (held[1], "queued")
    assert found["causes"][0]["held_by"] == [held[0]]
    _, screen = await typed(folder, f"why {held[1]}", out_tty=True)
    assert 'concurrency "disk" is full' in screen.written
    _, listed = await typed(folder, "list", out_tty=True, width=200)
    assert 'concurrency "disk" is full' in listed.written
    _, one = await typed(folder, f"show {held[1]}", out_tty=True, width=200)
    assert "why     concurrency" in one.written


async def test_a_filter_cancels_the_runs_that_fit(folder: Path, held: list[str]) -> None:
    refused, terminal = await typed(folder, "cancel --job hold --json")
    assert refused == Code.USAGE
    _, terminal = await typed(folder, "cancel --job hold --name b --json")
    assert [run["id"] for run in json.loads(terminal.written)] == [held[1]]


async def test_a_paused_job_holds_what_it_is_triggered_for(folder: Path) -> None:
    _, terminal = await typed(folder, "pause hello --json")
    assert json.loads(terminal.written) == [{"job": "hello", "paused": True, "runs": 0}]
    assert json.loads((await typed(folder, "pause hello --json"))[1].written) == []
    run = (await typed(folder, "start hello"))[1].written.strip()
    assert json.loads((await typed(folder, f"show {run} --json"))[1].written)["status"] == "paused"
    assert "job hello: resumed, 1 run released" in (await typed(folder, "resume hello"))[1].chatter
    assert (await typed(folder, f"wait {run}"))[0] == 0


async def test_an_export_holds_steps_the_whole_log_and_the_children(folder: Path) -> None:
    await typed(folder, "run parent")
    whole = json.loads((await typed(folder, "export parent@last"))[1].written)
    (child,) = whole["children"]
    assert [step["kind"] for step in whole["steps"]] == ["child"]
    assert [step["name"] for step in child["steps"]] == ["compose", "polish"]
    assert [line["text"] for line in child["log"]] == ["hello child"]


async def test_pruned_runs_are_gone_but_a_dry_run_keeps_them(folder: Path) -> None:
    run = (await typed(folder, "start hello"))[1].written.strip()
    await typed(folder, f"wait {run}")
    assert run in (await typed(folder, "prune --older-than 0s --dry-run"))[1].written
    assert (await typed(folder, f"show {run}"))[0] == 0
    assert run in (await typed(folder, "prune --older-than 0s"))[1].written
    assert (await typed(folder, f"show {run}"))[0] == Code.NOT_FOUND


async def test_tail_shows_the_last_lines_those_since_and_tells_runs_apart(folder: Path) -> None:
    runs = [(await typed(folder, "start lines --count 5"))[1].written.strip() for _ in range(2)]
    await typed(folder, f"wait {' '.join(runs)}")
    assert (await typed(folder, f"tail {runs[0]} -n 2"))[1].written == "line 3\nline 4\n"
    assert (await typed(folder, f"tail {runs[0]} -n 0"))[1].written == ""
    assert len((await typed(folder, f"tail {runs[0]} --since 1h"))[1].written.splitlines()) == 5
    assert (await typed(folder, f"tail {runs[0]} --since 0s --no-follow"))[1].written == ""
    both = (await typed(folder, f"tail {' '.join(runs)} -n 1"))[1].written.splitlines()
    assert {line.split()[0] for line in both} == {run[:6] for run in runs}
    assert all(line.split()[1] == "lines" and line.endswith("line 4") for line in both)


async def test_a_tail_goes_on_over_a_restart_of_the_daemon(folder: Path) -> None:
    run = (await typed(folder, "start lines --count 40 --pause 0.02"))[1].written.strip()
    following = asyncio.ensure_future(typed(folder, f"tail {run} --json"))
    await asyncio.sleep(0.2)
    assert (await typed(folder, "daemon restart"))[0] == 0
    code, terminal = await following
    records = [json.loads(line) for line in terminal.written.splitlines()]
    assert code == 0
    assert [record["text"] for record in records] == [f"line {number}" for number in range(40)]
    assert [record["seq"] for record in records] == list(range(1, 41))


async def test_a_tail_does_not_start_a_daemon_that_was_stopped(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("taskrun.cli.backend.resumable_streams.MOST_LOSSES_STOPPED", 3)
    run = (await typed(folder, "start waits"))[1].written.strip()
    following = asyncio.ensure_future(typed(folder, f"tail {run}"))
    await asyncio.sleep(0.2)
    assert (await typed(folder, "daemon stop"))[0] == 0
    code, terminal = await following
    assert code == Code.UNREACHABLE
    assert "the daemon was stopped" in terminal.chatter
    assert (await typed(folder, "daemon status"))[0] == Code.NOT_FOUND
    await typed(folder, f"cancel {run}")


async def test_a_second_ctrl_c_kills_a_run_that_resists(folder: Path) -> None:
    (folder / "taskrun.toml").write_text('[taskrun]\njobs = ["jobs"]\ngrace = "1h"\n')
    await typed(folder, "daemon restart")
    terminal = FakeTerminal(folder)
    running = asyncio.ensure_future(execute(["run", "stubborn"], terminal, ProcessConnector()))
    for _ in range(2):
        before = terminal.chatter.count("here")
        while terminal.chatter.count("here") == before:
            await asyncio.sleep(0.01)
        terminal.interrupt()
    assert await running == Code.INTERRUPTED
    assert json.loads((await typed(folder, "show @last --json"))[1].written)["status"] == "cancelled"


# ---- completion


async def offered(folder: Path, *words: str) -> list[str]:
    terminal = FakeTerminal(folder)
    assert await execute(["_complete", "--", *words], terminal, ProcessConnector()) == 0
    return [line.partition("\t")[0] for line in terminal.written.splitlines()]


@pytest.mark.parametrize("daemon", ["daemon start", "daemon stop"])
async def test_completion_knows_what_there_is_with_and_without_a_daemon(folder: Path, daemon: str) -> None:
    run = (await typed(folder, "start hello --name Ada"))[1].written.strip()
    await typed(folder, f"wait {run}")
    await typed(folder, daemon)
    assert await offered(folder, "sc") == ["schedule"]
    assert {"add", "hello"} < {*await offered(folder, "schedule", "")}
    assert await offered(folder, "start", "he") == ["hello"]
    assert await offered(folder, "start", "hello", "--mo") == ["--mood"]
    assert await offered(folder, "start", "hello", "--mood", "") == ["happy", "sad"]
    assert await offered(folder, "start", "hello", "--mood=s") == ["--mood=sad"]
    assert await offered(folder, "start", "hello", "--input", "@task") == ["@taskrun.toml"]
    assert await offered(folder, "list", "--status", "failed,ca") == ["failed,cancelled"]
    assert await offered(folder, "list", "--job", "line") == ["lines"]
    assert await offered(folder, "show", run[:3]) == [run[:6]]
    assert await offered(folder, "show", run[:8]) == [run[:8]]
    assert await offered(folder, "show", "@") == ["@last"]
    assert "hello@last" in await offered(folder, "show", "hello")
    assert await offered(folder, "retry", run, "--from", "po") == ["polish"]
    assert await offered(folder, "send", "up") == ["uploads"]
    assert await offered(folder, "send", "uploads", "--p") == ["--path"]
    assert await offered(folder, "cancel", "--job", "hello", "--na") == ["--name"]
    assert await offered(folder, "daemon", "re") == ["restart"]
    assert await offered(folder, "completion", "") == ["bash", "zsh", "fish"]
    assert await offered(folder, "--config", "taskrun.toml", "start", "fa") == ["fails"]
    assert await offered(folder, "nothing", "") == []


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
async def test_the_completion_script_of_a_shell_is_one_that_it_can_read(shell: str, tmp_path: Path) -> None:
    _, terminal = await typed(tmp_path, f"completion {shell}")
    try:
        read = subprocess.run([shell, "-n"], input=terminal.written, text=True, capture_output=True, timeout=20)
    except FileNotFoundError:
        pytest.skip(f"there is no {shell} here")
    assert (read.returncode, read.stderr) == (0, "")


def test_bash_completes_behind_the_characters_at_which_it_splits_words(folder: Path) -> None:
    ran = [sys.executable, "-m", "taskrun", "run", "hello"]
    assert (
        subprocess.run(ran, cwd=folder, env={**os.environ, "PYTHONPATH": str(ROOT)}, capture_output=True).returncode
        == 0
    )
    script = f"""
taskrun() {{ PYTHONPATH={ROOT} {sys.executable} -m taskrun "$@"; }}
eval "$(taskrun completion bash)"
for COMP_LINE in "taskrun start hello --mood=s" "taskrun show hello@l" "taskrun list --status fai"; do
    COMP_POINT=${{#COMP_LINE}}; COMPREPLY=()
    for attempt in 1 2 3 4 5; do  # on a busy machine it may give up, and a person presses TAB again
        [[ ${{#COMPREPLY[@]}} -gt 0 ]] || _taskrun
    done
    echo "${{COMPREPLY[*]}}"
done
"""
    done = subprocess.run(["bash", "-c", script], cwd=folder, text=True, capture_output=True, timeout=60)
    assert done.stdout.splitlines() == ["sad", "@last", "failed"], done.stderr
