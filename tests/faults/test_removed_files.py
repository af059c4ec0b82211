"""Files that are removed under a running daemon: it ends, or makes them anew, and touches nothing that is another's."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.waiting import until

from .conftest import Project, alive

SOON = 5.0


def started(project: Project) -> int:
    assert project.cli("run", "hello").code == 0
    return project.pid()


def log_of(project: Project) -> str:
    return (project.root / ".taskrun" / "daemon.log").read_text()


def folder(project: Project) -> None:
    shutil.rmtree(project.root / ".taskrun")


def lock(project: Project) -> None:
    (project.root / ".taskrun" / "daemon.lock").unlink()


def journal_alone(project: Project) -> None:
    project.journal.unlink()


def all_of_the_journal(project: Project) -> None:
    for path in project.journal.parent.glob("journal.db*"):
        path.unlink()


def folder_moved(project: Project) -> None:
    (project.root / ".taskrun").rename(project.root / "moved")


@pytest.mark.parametrize("remove", [folder, lock, journal_alone, all_of_the_journal, folder_moved])
def test_a_command_right_after_its_files_were_removed_has_a_new_daemon(
    project: Project, remove: Callable[[Project], None]
) -> None:
    first = started(project)
    remove(project)
    run = project.cli("start", "hello", "--name", "Ada")
    assert run.code == 0, run
    assert project.cli("wait", run.id).code == 0
    until(lambda: not alive(first), SOON)
    assert project.pid() not in (0, first)
    assert run.id in [one["id"] for one in project.runs()]
    project.kill()  # whatever the first has left behind, the journal of the second is whole
    assert run.id in [one["id"] for one in project.runs()]
    assert project.cli("run", "hello").code == 0


@pytest.mark.parametrize("remove", [folder, lock, journal_alone, all_of_the_journal])
def test_it_ends_by_itself_and_none_of_its_workers_is_left(project: Project, remove: Callable[[Project], None]) -> None:
    first = started(project)
    remove(project)
    until(lambda: not alive(first), SOON)
    until(lambda: not project.processes(), SOON)
    if (project.root / ".taskrun").exists():
        assert "removed while the daemon ran: stopping" in log_of(project)


def test_the_log_says_so_where_the_folder_is_back(project: Project) -> None:
    first = started(project)
    folder(project)
    (project.root / ".taskrun").mkdir(0o700)
    until(lambda: not alive(first), SOON)
    assert "daemon.lock was removed while the daemon ran: stopping" in log_of(project)


def test_what_belonged_to_a_removed_journal_is_put_aside_and_not_deleted(project: Project) -> None:
    first = started(project)
    held = {path.name: path.stat().st_ino for path in project.journal.parent.glob("journal.db-wal")}
    project.journal.unlink()
    until(lambda: not alive(first), SOON)
    aside = {path.name.split("-", 2)[2]: path.stat().st_ino for path in project.journal.parent.glob("removed-*-wal")}
    assert aside == held
    assert project.cli("run", "hello").code == 0
    assert len(project.runs()) == 1


def test_a_journal_that_another_one_replaces_gets_nothing_of_its_log(project: Project) -> None:
    assert project.cli("run", "hello").code == 0
    project.cli("daemon", "stop")
    backup = project.root / "backup.db"
    shutil.copy(project.journal, backup)
    project.journal.with_name("journal.db.high").unlink()
    first = started(project)
    backup.replace(project.journal)
    until(lambda: not alive(first), SOON)
    assert "journal.db was replaced by another file" in log_of(project)
    project.journal.with_name("journal.db.high").unlink()  # the older journal is meant
    assert len(project.runs()) == 1
    assert project.cli("run", "hello").code == 0
    assert len(project.runs()) == 2


def test_a_log_of_the_journal_that_is_removed_loses_nothing(project: Project) -> None:
    first = started(project)
    project.journal.with_name("journal.db-wal").unlink()
    until(lambda: not alive(first), 2 * SOON)
    assert "journal.db-wal was removed" in log_of(project)
    assert [run["status"] for run in project.runs()] == ["succeeded"]


def socket_of(project: Project) -> Path:
    (path,) = (Path(project.env["XDG_RUNTIME_DIR"]) / "taskrun").glob("*.sock")
    return path


COMMANDS = [["start", "hello"], ["daemon", "status"], ["list"], ["daemon", "restart"]]


def check_command(project: Project, first: int, command: list[str]) -> None:
    outcome = project.cli(*command)
    assert outcome.code == 0, (command, outcome)
    assert (project.pid() == first) == (command[-1] != "restart")
    if command[0] == "start":
        assert "now listening at" in log_of(project)


@pytest.mark.parametrize("what", ["socket", "folder"])
def test_commands_wait_for_a_socket_that_was_removed(project: Project, what: str) -> None:
    first = started(project)
    path = socket_of(project)
    for command in COMMANDS:
        until(path.exists)
        path.unlink() if what == "socket" else shutil.rmtree(path.parent)
        check_command(project, first, command)
    assert project.cli("daemon", "stop").code == 0
    until(lambda: not project.processes(), SOON)


@pytest.mark.parametrize("command", COMMANDS)
def test_commands_wait_for_a_socket_whose_whole_runtime_folder_was_removed(
    project: Project, command: list[str]
) -> None:
    first = started(project)
    shutil.rmtree(socket_of(project).parent.parent)
    check_command(project, first, command)
    assert project.cli("daemon", "stop").code == 0
    until(lambda: not project.processes(), SOON)


@pytest.mark.parametrize("what", ["socket", "folder"])
def test_it_can_be_stopped_at_once_without_its_socket(project: Project, what: str) -> None:
    first = started(project)
    path = socket_of(project)
    path.unlink() if what == "socket" else shutil.rmtree(path.parent)
    assert project.cli("daemon", "stop").code == 0
    assert not alive(first)


def test_a_successors_socket_is_left_alone(project: Project) -> None:
    first = started(project)
    folder(project)
    shutil.rmtree(socket_of(project).parent)
    assert project.cli("start", "hello").code == 0
    inode = socket_of(project).stat().st_ino
    until(lambda: not alive(first), SOON)
    assert socket_of(project).stat().st_ino == inode
    assert project.cli("start", "hello").code == 0
    os.kill(project.pid(), 0)
