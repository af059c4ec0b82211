"""A command line that the warm daemon executes: the same answers as in a process of its own, and nothing heavy imported."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from shlex import quote

import pytest

from taskrun import __version__
from tests.cli.processes import ENV, Person, command, plain

JOBS = """
import asyncio
from taskrun import job, pipe

@job
async def hello(name: str = "you") -> str:
    return "hello " + name

@job
async def brief(seconds: float) -> str:
    print("begins")
    await asyncio.sleep(seconds)
    print("ends")
    return "slept"

greetings = pipe("greetings")

@job
async def slow() -> None:
    await asyncio.sleep(60)
"""
ALLOWED = {"select", "_socket", "time", "gc", "taskrun", "__future__"}
AGE = re.compile(r"\d+s ago")  # a second may pass between the two
# Says what was imported beyond what a bare interpreter has, once the daemon has answered.
_SPY = """
import sys
bare = set(sys.modules)
import os, taskrun.__main__ as main
def leave(code):
    os.write(3, "\\n".join(sorted(set(sys.modules) - bare)).encode())
    exit_now(code)
exit_now, os._exit = os._exit, leave
main.main()
"""


def wait_until_warm(folder: Path) -> None:
    """The daemon loads the commands a moment after its start."""
    deadline = time.monotonic() + 20
    while "taskrun.cli.app" in imported(folder, "list"):
        assert time.monotonic() < deadline, "the daemon never took an order"
        time.sleep(0.05)


def imported(folder: Path, *args: str) -> set[str]:
    """Returns the modules that a command line has imported."""
    read, write = os.pipe()
    try:
        subprocess.run(
            ["bash", "-c", f'exec "$@" 3>&{write}', "-", sys.executable, "-c", _SPY, *args],
            cwd=folder,
            env=ENV,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            stdin=subprocess.DEVNULL,
            pass_fds=[write],
            timeout=20,
        )
    finally:
        os.close(write)
    with os.fdopen(read, "rb") as file:
        return set(file.read().decode().split())


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A project with a warm daemon and one run that has ended."""
    project = tmp_path_factory.mktemp("thin")
    (project / "taskrun.toml").write_text('[taskrun]\njobs = ["jobs"]\ngrace = "1s"\n')
    (project / "jobs").mkdir()
    (project / "jobs" / "all.py").write_text(JOBS)
    assert plain(project, "run", "hello").returncode == 0
    wait_until_warm(project)
    yield project
    plain(project, "daemon", "stop")


@pytest.mark.parametrize(
    "line",
    [
        "list",
        "list --json",
        "ps -n 3",
        "show @last",
        "show @last --json",
        "wait @last",
        "start hello",
        "start hello -f",
        "run hello",
        "tail @last",
        "show @last -w",
        "why @last",
        "cancel @last",
        "schedule",
        "send greetings",
        "_complete -- st",
    ],
)
def test_a_warm_command_imports_next_to_nothing(folder: Path, line: str) -> None:
    found = imported(folder, *line.split())
    assert not {name for name in found if name.split(".")[0] not in ALLOWED}
    assert {"taskrun.daemon.command_protocol", "taskrun.cli.fastpath.thin_client"} <= found


def test_the_version_needs_no_more_than_this_process(folder: Path) -> None:
    assert plain(folder, "--version").stdout == f"taskrun {__version__}\n"
    assert not {name for name in imported(folder, "--version") if name.split(".")[0] not in ALLOWED}


def test_what_does_not_end_at_once_goes_on_in_its_own_process_with_the_same_run(folder: Path) -> None:
    assert "taskrun.cli.app" in imported(folder, "run", "brief", "--seconds", "0.3")
    before = runs_of(folder, "brief")
    done = plain(folder, "run", "brief", "--seconds", "0.3")
    assert (done.returncode, done.stdout) == (0, "slept\n")
    assert [line.split()[-1] for line in done.stderr.splitlines()[1:3]] == ["begins", "ends"]
    (run,) = [run for run in runs_of(folder, "brief") if run not in before]
    assert run in plain(folder, "tail", run, "--json").stdout


def test_input_that_can_be_read_once_is_read_where_it_stays(folder: Path) -> None:
    line = [*command("run", "brief", "--input", "-")]
    done = subprocess.run(
        line, cwd=folder, env=ENV, input='{"seconds": 0.3}', capture_output=True, text=True, timeout=20
    )
    assert done.stdout == "slept\n"


def runs_of(folder: Path, job: str) -> list[str]:
    return [run["id"] for run in json.loads(plain(folder, "list", "--job", job, "--json", "--all").stdout)]


def in_process(folder: Path, *args: str) -> subprocess.CompletedProcess[str]:
    """Runs a command line in a process of its own: another time zone is none of the daemon's business."""
    env = {**ENV, "TZ": "UTC0"}
    return subprocess.run(command(*args), cwd=folder, env=env, capture_output=True, text=True, timeout=20)


@pytest.mark.parametrize(
    "line",
    [
        "list",
        "list --json --status succeeded",
        "show hello@last",
        "show hello@last --json",
        "wait hello@last",
        "show nosuchrun",
        "list --status odd",
        "start nothing",
        "start hello --nam x --other 1",
        "start hello --help",
        "wait --help",
        "jobs --json",
        "tail hello@last --no-follow",
    ],
)
def test_the_daemon_answers_as_a_process_of_its_own_does(folder: Path, line: str) -> None:
    here, there = in_process(folder, *line.split()), plain(folder, *line.split())
    here_out, there_out = (AGE.sub("ago", one.stdout) for one in (here, there))
    assert (there.returncode, there_out, there.stderr) == (here.returncode, here_out, here.stderr)


def test_input_is_read_from_the_callers_standard_input_and_folder(folder: Path, tmp_path: Path) -> None:
    (folder / "sub").mkdir(exist_ok=True)
    (folder / "sub" / "in.json").write_text('{"name": "file"}')
    piped = subprocess.run(
        command("start", "hello", "--input", "-"),
        cwd=folder,
        env=ENV,
        input='{"name": "' + "x" * 200_000 + '"}',
        capture_output=True,
        text=True,
        timeout=20,
    )
    assert len(json.loads(plain(folder, "wait", piped.stdout.strip(), "--json").stdout)["input"]["name"]) == 200_000
    run = plain(folder / "sub", "start", "hello", "--input", "@in.json").stdout.strip()
    assert json.loads(plain(folder, "wait", run, "--json").stdout)["output"] == "hello file"


@pytest.mark.parametrize("env", [ENV, {**ENV, "TZ": "UTC0"}], ids=["daemon", "own process"])
def test_standard_input_that_is_no_text_is_refused_as_it_is(folder: Path, env: dict[str, str]) -> None:
    line = command("start", "hello", "--input", "-")
    done = subprocess.run(line, cwd=folder, env=env, input=b'{"name": "caf\xe9"}', capture_output=True, timeout=20)
    assert (done.returncode, done.stdout) == (2, b"")
    assert done.stderr.startswith(b"error: --input is not valid UTF-8")


@pytest.mark.parametrize("env", [ENV, {**ENV, "TZ": "UTC0"}], ids=["daemon", "own process"])
def test_standard_input_that_cannot_be_read_is_no_end_of_it(folder: Path, env: dict[str, str]) -> None:
    line, here = command("start", "hello", "--each", "-"), os.open(os.devnull, os.O_WRONLY)
    done = subprocess.run(line, cwd=folder, env=env, stdin=here, capture_output=True, timeout=20)
    os.close(here)
    assert (done.returncode, done.stderr) == (2, b"error: standard input: Bad file descriptor\n")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="a device of Linux")
@pytest.mark.parametrize("env", [ENV, {**ENV, "TZ": "UTC0"}], ids=["daemon", "own process"])
def test_standard_output_that_cannot_be_written_is_no_fault_of_the_daemon(folder: Path, env: dict[str, str]) -> None:
    with Path("/dev/full").open("wb") as full:
        done = subprocess.run(
            command("jobs"),
            cwd=folder,
            env=env,
            stdout=full,
            stderr=subprocess.PIPE,
            stdin=subprocess.DEVNULL,
            timeout=20,
        )
    assert (done.returncode, done.stderr) == (125, b"error: standard output: No space left on device\n")


def test_ctrl_c_stops_waiting_and_says_that_the_run_goes_on(folder: Path) -> None:
    run = plain(folder, "start", "slow").stdout.strip()
    person = Person(folder, "wait", run)
    time.sleep(0.5)
    person.type(b"\x03")
    assert person.end() == 130
    assert f"no longer waiting; {run[:6]} goes on" in person.seen
    plain(folder, "cancel", run)


@pytest.mark.parametrize("after", [0.06, 0.09, 0.12, 0.15, 0.18, 0.21])
def test_ctrl_c_leaves_no_run_behind_whoever_executes_the_command_just_then(folder: Path, after: float) -> None:
    person = Person(folder, "run", "slow")
    time.sleep(after)
    person.type(b"\x03")
    person.end()
    for run in json.loads(plain(folder, "list", "--job", "slow", "--all", "--json").stdout):
        assert plain(folder, "wait", run["id"], "--timeout", "10s").returncode == 130, "neither running nor succeeded"


def test_a_question_reaches_the_person(folder: Path) -> None:
    runs = [plain(folder, "start", "slow").stdout.strip() for _ in range(2)]
    person = Person(folder, "cancel", "--job", "slow")
    person.until("2 runs")
    person.type(b"n\n")
    assert person.end() != 0
    assert json.loads(plain(folder, "show", runs[0], "--json").stdout)["status"] in ("running", "waiting", "queued")
    for run in runs:
        plain(folder, "cancel", run)


def test_a_closed_pipe_is_quiet(folder: Path) -> None:
    script = f"{' '.join(command('list', '--json', '--all'))} | true"
    ended = subprocess.run(["bash", "-c", script], cwd=folder, env=ENV, capture_output=True, text=True, timeout=20)
    assert ended.stderr == ""


def test_colour_and_width_are_those_of_the_caller(folder: Path) -> None:
    person = Person(folder, "list", "-n", "1")
    assert person.end() == 0
    assert "\x1b[" in person.seen
    assert all(len(line) <= 80 for line in person.screen())


def test_a_daemon_that_does_not_answer_is_given_up_with_a_hint_that_can_be_pasted(tmp_path: Path) -> None:
    project = tmp_path / """my "jobs", Ada's"""
    (project / ".taskrun").mkdir(parents=True)
    (project / "taskrun.toml").write_text("")
    mute = tmp_path / "s"
    mute.mkdir(mode=0o700)
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(mute / "x"))
        listener.listen()
        (project / ".taskrun" / "daemon.lock").write_text(f'{{"pid":{os.getpid()},"socket":"{mute / "x"}"}}')
        patched = (
            "import taskrun.cli.fastpath.thin_client as t; t.PATIENCE = 0.2; import taskrun.__main__ as m; m.main()"
        )
        ended = subprocess.run(
            [sys.executable, "-c", patched, "list", "--json", "--config", str(project)],
            cwd=tmp_path,
            env=ENV,
            capture_output=True,
            text=True,
            timeout=20,
        )
    assert ended.returncode == 4
    hint = f"see its log: taskrun --config {quote(str(project))} daemon logs"
    assert ended.stderr == f"error: the daemon gave no answer within 10 seconds\n  {hint}\n"
    error = json.loads(ended.stdout)["error"]
    assert (error["message"], error["hint"]) == ("the daemon gave no answer within 10 seconds", hint)


def test_what_was_triggered_when_the_daemon_dies_is_triggered_once(folder: Path) -> None:
    waiting = subprocess.Popen(
        command("wait", "--json", plain(folder, "start", "slow").stdout.strip()),
        cwd=folder,
        env=ENV,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    time.sleep(0.5)
    status = json.loads(plain(folder, "daemon", "status", "--json").stdout)
    os.kill(status["pid"], signal.SIGKILL)
    time.sleep(0.5)
    plain(folder, "cancel", "slow@last")
    out, err = waiting.communicate(timeout=30)
    assert waiting.returncode == 130, err
    assert json.loads(out)["status"] == "cancelled"
    wait_until_warm(folder)
