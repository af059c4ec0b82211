"""What ends a command that survives, or cuts it off, and what becomes of its step then."""

from __future__ import annotations

import os
import resource
import shutil
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from taskrun.processes.command_file import read_facts, write_facts
from tests.waiting import until

from .conftest import SOURCE, Project, alive, most_memory
from .counting import JOBS, Counting, files, kill_both, kill_daemon, printed, start, supervisors, wait

GROUP = "(setsid sleep 300 &) ; sleep 300 & trap '' TERM; echo begun $$ >> {oracle}; sleep 300 & wait; wait; wait"


@pytest.fixture
def surviving(project: Project) -> Project:
    project.jobs(JOBS)
    return project


def adopt(project: Project) -> None:
    """Has a new daemon follow what there is."""
    outcome = project.cli("daemon", "start")
    assert outcome.code == 0, outcome.err


def group(project: Project) -> list[int]:
    """The processes of commands."""
    return project.with_word(b"sleep")


def with_group(project: Project, folder: Path, **options: Any) -> str:
    """Starts a command with a group, an escaped child and no ear for TERM; returns its run."""
    oracle = folder / "oracle"
    run = start(project, script=GROUP.format(oracle=oracle), **options)
    until(lambda: oracle.exists() and len(group(project)) >= 4)
    return run


@pytest.mark.parametrize("stopped", [False, True])
def test_a_cancel_ends_the_whole_group_of_a_command_that_was_adopted(
    surviving: Project, tmp_path: Path, stopped: bool
) -> None:
    run = with_group(surviving, tmp_path)
    kill_both(surviving)
    assert len(group(surviving)) >= 4
    until(lambda: len(supervisors(surviving)) == 1)  # a second one is about to become the command
    (supervisor,) = supervisors(surviving)
    if stopped:
        os.kill(supervisor, signal.SIGSTOP)
    adopt(surviving)
    until(lambda: ", adopted " in surviving.cli("why", run).out)
    outcome = surviving.cli("cancel", run)
    assert outcome.code == 0, outcome.err
    assert wait(surviving, run)["status"] == "cancelled"
    until(lambda: not group(surviving) and not alive(supervisor))
    until(lambda: not files(surviving))


def test_a_run_that_is_cancelled_while_nothing_runs_takes_its_command_with_it(
    surviving: Project, tmp_path: Path
) -> None:
    run = with_group(surviving, tmp_path)
    kill_both(surviving)
    with sqlite3.connect(surviving.journal) as journal:
        journal.execute("update runs set status = 'cancelled', engine = null, ended_at = 1 where id = ?", (run,))
    journal.close()
    adopt(surviving)
    until(lambda: not group(surviving) and not files(surviving))


def test_a_timeout_counts_from_the_beginning_and_is_kept_while_nothing_runs(surviving: Project, tmp_path: Path) -> None:
    run = with_group(surviving, tmp_path, timeout=2.0)
    kill_both(surviving)
    until(lambda: not group(surviving))
    view = wait(surviving, run)
    assert (view["status"], view["error"]["type"]) == ("failed", "taskrun.StepTimeout"), view
    until(lambda: not files(surviving))


def test_a_timeout_ends_a_command_that_was_adopted(surviving: Project, tmp_path: Path) -> None:
    run = with_group(surviving, tmp_path, timeout=5.0)
    kill_both(surviving)
    adopt(surviving)
    view = wait(surviving, run)
    assert (view["status"], view["error"]["type"]) == ("failed", "taskrun.StepTimeout"), view
    until(lambda: not group(surviving) and not files(surviving))


# ---- cut off


def cut_off(project: Project, command: Counting) -> int:
    """Kills everything but the command itself, the supervisor included; returns its pid."""
    until(command.said)
    kill_both(project)
    for supervisor in supervisors(project):
        os.kill(supervisor, signal.SIGKILL)
    until(lambda: not supervisors(project))
    return command.pid


def test_what_was_cut_off_runs_again_and_its_log_goes_on(surviving: Project, tmp_path: Path) -> None:
    command = Counting(surviving, tmp_path)
    run = start(surviving, script=command.script)
    until(lambda: len(printed(surviving, run, "stdout")) > 100)
    first = cut_off(surviving, command)
    adopt(surviving)
    until(lambda: len(command.said()) == 2)
    assert not alive(first)
    command.gate.touch()
    assert wait(surviving, run)["output"]["code"] == 7
    assert command.said() == ["begun", "begun", "over"]
    assert printed(surviving, run, "stdout") == [f"out {n}" for n in [*range(101), *range(200)]]
    assert not files(surviving)


def test_without_rerun_it_is_never_begun_again_and_no_retry_repeats_that(surviving: Project, tmp_path: Path) -> None:
    command = Counting(surviving, tmp_path)
    run = start(surviving, "retried", script=command.script)
    first = cut_off(surviving, command)
    view = wait(surviving, run)
    assert not alive(first)
    assert (view["status"], view["attempt"], view["error"]["type"]) == ("failed", 1, "taskrun.WorkerCrashed"), view
    assert command.said() == ["begun"]
    until(lambda: not files(surviving))


def test_nothing_of_a_command_whose_supervisor_was_killed_lives_beside_its_second_execution(
    surviving: Project, tmp_path: Path
) -> None:
    run = with_group(surviving, tmp_path)
    first = group(surviving)
    kill_both(surviving)
    until(lambda: len(supervisors(surviving)) == 1)  # the launcher ends with its worker
    (supervisor,) = supervisors(surviving)
    os.kill(supervisor, signal.SIGKILL)
    adopt(surviving)
    until(lambda: (tmp_path / "oracle").read_text().count("begun") == 2)
    assert not [pid for pid in first if alive(pid)]
    assert surviving.cli("cancel", run).code == 0


def in_another_boot(project: Project, code: str) -> tuple[str, Path]:
    """A command that ended while nothing ran, before the machine was started again; its run, and what it has said."""
    said = project.root / "said"
    run = start(project, script=f"echo begun >> {said}; while [ ! -e {said}.gate ]; do sleep 0.02; done; {code}")
    until(said.exists)
    kill_both(project)
    Path(f"{said}.gate").touch()
    until(lambda: not supervisors(project))
    (file,) = files(project)
    fd = os.open(file, os.O_RDWR)
    write_facts(fd, {**(read_facts(fd) or {}), "boot": "another"})
    os.close(fd)
    return run, said


@pytest.mark.parametrize(("code", "times"), [("exit 3", 1), ("kill -TERM $$", 2)])
def test_an_end_before_a_reboot_counts_unless_it_may_have_been_part_of_that(
    surviving: Project, code: str, times: int
) -> None:
    run, said = in_another_boot(surviving, code)
    assert wait(surviving, run)["output"]["code"] == (3 if times == 1 else -signal.SIGTERM)
    assert said.read_text().count("begun") == times


def test_stop_names_what_goes_on_and_kill_cuts_it_off(surviving: Project, tmp_path: Path) -> None:
    command = Counting(surviving, tmp_path)
    run = start(surviving, script=command.script)
    until(command.said)
    outcome = surviving.cli("daemon", "stop")
    assert f"goes on: command of run {run}, pid {command.pid}" in outcome.err, outcome
    assert alive(command.pid)
    outcome = surviving.cli("daemon", "stop", "--kill")
    assert f"ended: command of run {run}, pid {command.pid}" in outcome.err, outcome
    assert not alive(command.pid)
    command.gate.touch()
    assert wait(surviving, run)["status"] == "succeeded"
    assert command.said() == ["begun", "begun", "over"]
    assert not files(surviving)


def test_no_journal_is_copied_away_from_under_a_command_that_would_begin_anew(
    surviving: Project, tmp_path: Path
) -> None:
    command = Counting(surviving, tmp_path)
    run = start(surviving, script=command.script)
    until(command.said)
    copy = ("journal", "copy", str(surviving.journal), str(tmp_path / "copy.db"))
    assert surviving.cli("daemon", "stop").code == 0
    outcome = surviving.cli(*copy)
    assert (outcome.code, "daemon stop --kill" in outcome.err) == (5, True), outcome
    assert f"command of run {run} goes on" in outcome.err
    command.gate.touch()
    until(lambda: not supervisors(surviving))
    outcome = surviving.cli(*copy)
    assert (outcome.code, f"command of run {run} has ended" in outcome.err) == (5, True), outcome
    command.check(wait(surviving, run))
    assert surviving.cli("daemon", "stop").code == 0
    outcome = surviving.cli(*copy)
    assert outcome.code == 0, outcome


def test_a_journal_is_copied_once_its_commands_are_cut_off(surviving: Project, tmp_path: Path) -> None:
    command = Counting(surviving, tmp_path)
    run = start(surviving, script=command.script)
    until(command.said)
    assert surviving.cli("daemon", "stop", "--kill").code == 0
    outcome = surviving.cli("journal", "copy", str(surviving.journal), str(tmp_path / "copy.db"))
    assert outcome.code == 0, outcome
    command.gate.touch()
    surviving.env["TASKRUN_JOURNAL"] = str(tmp_path / "copy.db")
    assert wait(surviving, run)["status"] == "succeeded"
    assert command.said() == ["begun", "begun", "over"]


def test_a_stop_does_not_wait_for_it_and_a_pause_leaves_it_alone(surviving: Project, tmp_path: Path) -> None:
    surviving.write("taskrun.toml", '[taskrun]\njobs = ["jobs"]\ngrace = "10m"\n')
    command = Counting(surviving, tmp_path)
    run = start(surviving, script=command.script)
    until(command.said)
    assert surviving.cli("pause", run).code == 0
    assert surviving.cli("daemon", "restart").code == 0
    until(lambda: surviving.runs()[0]["status"] == "paused")
    assert alive(command.pid)
    assert surviving.cli("resume", run).code == 0
    command.gate.touch()
    command.check(wait(surviving, run))


def test_changed_code_has_the_old_worker_go_at_once(surviving: Project, tmp_path: Path) -> None:
    command = Counting(surviving, tmp_path)
    run = start(surviving, script=command.script)
    until(command.said)
    (old,) = surviving.workers()
    surviving.jobs(JOBS + "\n@job\nasync def other() -> int:\n    return 1\n")
    assert surviving.cli("run", "other").code == 0
    until(lambda: not alive(old))
    assert alive(command.pid)
    command.gate.touch()
    command.check(wait(surviving, run))


# ---- surroundings


def test_an_upgrade_of_the_package_reaches_no_command_under_way(surviving: Project, tmp_path: Path) -> None:
    package = tmp_path / "package"
    shutil.copytree(SOURCE / "taskrun", package / "taskrun", ignore=shutil.ignore_patterns("__pycache__"))
    surviving.env["PYTHONPATH"] = str(package)
    command = Counting(surviving, tmp_path)
    run = start(surviving, script=command.script)
    until(command.said)
    kill_both(surviving)
    shutil.rmtree(package)
    surviving.env["PYTHONPATH"] = str(SOURCE)
    command.gate.touch()
    until(lambda: "over" in command.said())
    command.check(wait(surviving, run))


def test_on_a_full_disk_it_waits_and_nothing_is_lost(surviving: Project, tmp_path: Path) -> None:
    command = Counting(surviving, tmp_path, 20_000)
    run = start(surviving, script=command.script)
    until(command.said)
    kill_both(surviving)
    until(lambda: len(supervisors(surviving)) == 1)
    (supervisor,), (file,) = supervisors(surviving), files(surviving)
    hard = resource.prlimit(supervisor, resource.RLIMIT_FSIZE)[1]
    # in the middle of a record
    resource.prlimit(supervisor, resource.RLIMIT_FSIZE, (file.stat().st_size + 10_001, hard))
    command.gate.touch()
    until(lambda: file.stat().st_size % 4096 and _stands(file))
    assert command.said() == ["begun"]
    adopt(surviving)
    resource.prlimit(supervisor, resource.RLIMIT_FSIZE, (hard, hard))
    command.check(wait(surviving, run))


def _stands(file: Path) -> bool:
    """Whether a file does not grow any more."""
    before = file.stat().st_size
    with pytest.raises(subprocess.TimeoutExpired):
        subprocess.run(["tail", "-f", str(file)], stdout=subprocess.DEVNULL, timeout=0.5)
    return file.stat().st_size == before


DAEMON = """
import os, sys, time
if os.fork():
    os._exit(0)
os.setsid()
if os.fork():
    os._exit(0)
os.environ.clear()
open(sys.argv[1], "w").write(str(os.getpid()))
time.sleep(300)
"""


def test_a_command_that_becomes_a_daemon_leaves_nothing(surviving: Project, tmp_path: Path) -> None:
    program, pid_file = tmp_path / "daemon.py", tmp_path / "pid"
    program.write_text(DAEMON)
    script = f"{sys.executable} -S {program} {pid_file}; while [ ! -s {pid_file} ]; do sleep 0.01; done; exit 4"
    run = start(surviving, script=script)
    assert wait(surviving, run)["output"]["code"] == 4
    assert not alive(int(pid_file.read_text()))


FLOOD = "import sys\nfor n in range(int(sys.argv[1])):\n    print(f'{n:0999d}')\n"


@pytest.mark.timeout(600)
@pytest.mark.parametrize("megabytes", [10, pytest.param(100, marks=pytest.mark.slow)])
def test_much_output_fills_neither_memory_nor_disk(surviving: Project, tmp_path: Path, megabytes: int) -> None:
    surviving.write("taskrun.toml", '[taskrun]\njobs = ["jobs"]\n[retention]\nmax_log = "1GB"\n')
    program = tmp_path / "flood.py"
    program.write_text(FLOOD)
    lines = megabytes * 1_000
    run = start(surviving, script=f"exec {sys.executable} -S {program} {lines}")
    most: dict[int, int] = {}
    disk = 0  # while a worker reads: alone, a command may be ahead by more than this
    adopted = False
    for _ in _until_ended(surviving, run):
        for pid in [*surviving.workers(), *supervisors(surviving)]:
            most[pid] = max(most.get(pid, 0), _memory(pid))
        if not adopted:
            disk = max([disk, *(file.stat().st_blocks * 512 for file in files(surviving))])
        if disk > 1e6 and not adopted:
            kill_daemon(surviving)
            adopt(surviving)
            adopted = True
    assert adopted
    assert printed(surviving, run, "stdout") == [f"{n:0999d}" for n in range(lines)]
    assert max(most.values()) < 250e6
    assert disk < 50e6
    assert not files(surviving)


def _until_ended(project: Project, run: str) -> Iterator[None]:
    while next(each for each in project.runs() if each["id"] == run)["status"] in ("queued", "running"):
        yield


def _memory(pid: int) -> int:
    try:
        return most_memory(pid)
    except (OSError, AssertionError):
        return 0
