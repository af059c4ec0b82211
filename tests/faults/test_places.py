"""The daemon's socket, lock and pid: stale ones are no hindrance, unsafe ones are refused with the cause."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import time
from pathlib import Path

import pytest

from tests.waiting import until

from .conftest import Project, all_in


def socket_of(project: Project) -> Path:
    with project.client(autostart=False):
        return Path(json.loads(project.cli("daemon", "status", "--json").out)["socket"])


def test_a_stale_socket_and_a_stale_lock_are_no_hindrance(project: Project) -> None:
    assert project.cli("run", "hello").code == 0
    path = socket_of(project)
    project.kill()
    assert path.exists()
    outcome = project.cli("daemon", "status")
    assert outcome.code == 3
    assert project.cli("run", "hello").code == 0


def test_the_pid_in_a_lock_that_nobody_holds_is_nobody(project: Project) -> None:
    assert project.cli("run", "hello").code == 0
    project.kill()
    with subprocess.Popen(["sleep", "600"]) as bystander:
        lock = project.root / ".taskrun" / "daemon.lock"
        lock.write_text(json.dumps({"pid": bystander.pid, "version": "0.1.0", "socket": "/nowhere", "started_at": 1.0}))
        assert project.cli("daemon", "status").code == 3
        assert project.cli("daemon", "stop").code in (0, 3)
        assert project.cli("run", "hello").code == 0
        assert bystander.poll() is None
        bystander.kill()


def test_a_lock_with_rubbish_in_it_is_no_hindrance(project: Project) -> None:
    (project.root / ".taskrun").mkdir(mode=0o700)
    (project.root / ".taskrun" / "daemon.lock").write_bytes(os.urandom(100))
    assert project.cli("daemon", "status").code == 3
    assert project.cli("run", "hello").code == 0


def test_a_lock_that_is_a_link_or_a_folder_is_refused(project: Project, tmp_path: Path) -> None:
    (project.root / ".taskrun").mkdir(mode=0o700)
    lock = project.root / ".taskrun" / "daemon.lock"
    lock.symlink_to(tmp_path / "elsewhere")
    outcome = project.cli("start", "hello")
    assert (outcome.code, outcome.out) == (4, ""), outcome
    assert "daemon.lock" in outcome.err
    assert "Traceback" not in outcome.err
    assert not (tmp_path / "elsewhere").exists()
    lock.unlink()
    lock.mkdir()
    outcome = project.cli("start", "hello")
    assert (outcome.code, outcome.out) == (4, ""), outcome
    assert "Traceback" not in outcome.err


def test_a_socket_folder_that_others_may_enter_is_refused(project: Project, runtime: Path) -> None:
    folder = runtime / "taskrun"
    folder.mkdir()
    folder.chmod(0o777)
    outcome = project.cli("start", "hello")
    assert (outcome.code, outcome.out) == (4, ""), outcome
    assert all_in(outcome.err, [str(folder), "0777", "chmod 700"])
    folder.chmod(0o700)
    assert project.cli("run", "hello").code == 0
    folder.chmod(0o777)
    outcome = project.cli("start", "hello")
    assert outcome.code == 4, outcome
    assert all_in(outcome.err, [str(folder), "0777"])
    folder.chmod(0o700)
    assert len(project.runs()) == 1


def test_a_socket_folder_that_is_a_link_or_no_folder_is_refused(
    project: Project, runtime: Path, tmp_path: Path
) -> None:
    folder = runtime / "taskrun"
    target = tmp_path / "target"
    target.mkdir(mode=0o700)
    folder.symlink_to(target)
    outcome = project.cli("start", "hello")
    assert (outcome.code, outcome.out) == (4, ""), outcome
    assert all_in(outcome.err, [str(folder), "symbolic link"])
    assert list(target.iterdir()) == []
    folder.unlink()
    folder.write_text("in the way")
    outcome = project.cli("start", "hello")
    assert outcome.code == 4, outcome
    assert all_in(outcome.err, [str(folder), "in the way"])


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root to give a folder away")
def test_a_socket_folder_of_somebody_else_is_refused(project: Project, runtime: Path) -> None:
    folder = runtime / "taskrun"
    folder.mkdir(mode=0o700)
    os.chown(folder, 65534, 65534)
    outcome = project.cli("start", "hello")
    assert (outcome.code, outcome.out) == (4, ""), outcome
    assert all_in(outcome.err, [str(folder), "uid 65534", "XDG_RUNTIME_DIR"])
    os.chown(folder, 0, 0)
    os.chown(runtime, 65534, 65534)
    outcome = project.cli("start", "hello")
    assert outcome.code == 4, outcome
    assert all_in(outcome.err, [str(runtime), "uid 65534"])
    os.chown(runtime, 0, 0)


def test_something_that_is_no_socket_where_the_socket_goes_is_kept(project: Project) -> None:
    assert project.cli("run", "hello").code == 0
    path = socket_of(project)
    assert project.cli("daemon", "stop").code == 0
    path.write_text("precious")
    outcome = project.cli("start", "hello")
    assert (outcome.code, outcome.out) == (4, ""), outcome
    assert str(path) in outcome.err
    assert path.read_text() == "precious"


def test_somebody_who_listens_but_never_answers_is_given_up(project: Project) -> None:
    assert project.cli("run", "hello").code == 0
    pid = project.pid()
    os.kill(pid, signal.SIGSTOP)
    try:
        began = time.monotonic()
        outcome = project.cli("start", "hello")
        assert outcome.code == 4, outcome
        assert "no answer" in outcome.err
        assert time.monotonic() - began < 15
    finally:
        os.kill(pid, signal.SIGCONT)
    assert project.cli("run", "hello").code == 0
    assert project.pid() == pid


def test_an_impostor_at_the_socket_is_no_daemon(project: Project) -> None:
    """Nobody talks to what only lies where the socket was; and it is not removed."""
    assert project.cli("run", "hello").code == 0
    path = socket_of(project)
    project.kill()
    path.unlink()
    with socket.socket(socket.AF_UNIX) as impostor:
        impostor.bind(str(path))
        impostor.listen()
        impostor.settimeout(20)
        outcome = project.cli("run", "hello")
        heard = b""
        with impostor.accept()[0] as client:
            heard += client.recv(1000)
    assert (outcome.code, heard) == (0, b""), outcome
    assert path.exists()
    path.unlink()


def test_twenty_commands_at_once_make_one_daemon(project: Project) -> None:
    commands = [project.spawn("start", "hello", "--name", str(number)) for number in range(20)]
    outcomes = [(command.communicate(timeout=60), command.returncode) for command in commands]
    assert [code for _, code in outcomes] == [0] * 20, outcomes
    assert len({out for (out, _), _ in outcomes}) == 20
    servers = [pid for pid in project.processes() if _is_daemon(pid)]
    assert servers == [project.pid()]
    with project.client() as client:
        runs = list(client.stream("wait", runs=[out.strip() for (out, _), _ in outcomes]))
    assert {run["status"] for run in runs} == {"succeeded"}
    assert len(project.runs()) == 20


def _is_daemon(pid: int) -> bool:
    line = Path(f"/proc/{pid}/cmdline").read_bytes()
    return b"taskrun" in line and b"--ready" in line


def test_without_autostart_nothing_is_started(project: Project) -> None:
    outcome = project.cli("start", "hello", env=project.env | {"TASKRUN_AUTOSTART": "0"})
    assert (outcome.code, outcome.out) == (4, "")
    assert "taskrun daemon start" in outcome.err
    until(lambda: not project.processes())
