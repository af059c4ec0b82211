"""Starting and stopping the daemon: one per project, its errors reach who asked, nothing of the caller is kept."""

from __future__ import annotations

import os
import signal
import stat
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from taskrun.daemon.client import Client
from taskrun.daemon.launch import environment, find_holder, stop_daemon
from taskrun.daemon.lock import Lock
from taskrun.daemon.paths import daemon_paths
from taskrun.daemon.unix_socket import socket_path
from taskrun.model.errors import ConfigError, DaemonError, TaskrunError
from tests.waiting import until

from .conftest import Project, processes

STARTER = """
import os, sys
from pathlib import Path
from taskrun.daemon.client import Client
from taskrun.model.config import load
with Client.connect(load(Path(sys.argv[1]), os.environ)) as client:
    print(client.daemon.pid)
"""

FOREGROUND = """
import os, sys
from pathlib import Path
from taskrun.daemon.server import serve
from taskrun.model.config import load
serve(load(Path(sys.argv[1]), os.environ), foreground=True, ready=print)
"""


def starter(project: Project) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", STARTER, str(project.root / "taskrun.toml")],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env=environment({}),
    )


def test_it_holds_no_pipe_of_whoever_started_it(project: Project) -> None:
    with starter(project) as process:
        assert process.stdout is not None
        assert process.stdout.read().strip() == str(project.pid())  # to the end of the pipe, which nobody else holds
    assert project.pid()


def test_what_it_makes_is_this_users_alone(project: Project) -> None:
    before = os.umask(0)
    try:
        project.connect().close()
    finally:
        os.umask(before)
    held = find_holder(project.config)
    assert held is not None
    socket = Path(held.socket)
    folder = project.root / ".taskrun"
    modes = {path: stat.S_IMODE(path.stat().st_mode) for path in (socket, *folder.iterdir())}
    assert set(modes.values()) == {0o600}, modes
    assert stat.S_IMODE(folder.stat().st_mode) == stat.S_IMODE(socket.parent.stat().st_mode) == 0o700


def test_it_can_be_stopped_and_started_again(project: Project) -> None:
    project.connect().close()
    first, socket = project.pid(), socket_path(project.root / ".taskrun" / "daemon.lock")
    assert socket.exists()
    assert stop_daemon(project.config)
    assert not socket.exists()
    assert not stop_daemon(project.config)
    project.connect().close()
    assert project.pid() not in (0, first)


def test_killed_it_comes_back_with_the_next_command(project: Project) -> None:
    project.connect().close()
    killed = project.kill()
    with project.connect() as client:
        assert client.daemon.pid != killed


def test_without_autostart_none_is_started(project: Project) -> None:
    with pytest.raises(DaemonError, match="taskrun daemon start"):
        project.connect(autostart=False)
    assert project.pid() == 0


def test_a_second_daemon_gives_way_and_names_the_first(project: Project) -> None:
    project.connect().close()
    config = str(project.root / "taskrun.toml")
    second = subprocess.run(
        [sys.executable, "-c", FOREGROUND, config], env=environment({}), capture_output=True, text=True, timeout=60
    )
    assert second.returncode == 1
    assert f"pid {project.pid()}" in second.stderr


@pytest.mark.parametrize(
    ("spoil", "error", "says"),
    [
        (lambda p, r: (r / "taskrun").symlink_to("/tmp"), DaemonError, "symbolic link"),
        (lambda p, r: (r / "taskrun").mkdir() or (r / "taskrun").chmod(0o777), DaemonError, "open to other users"),
        (lambda p, r: p.write(".taskrun/journal.db", "no journal" * 100), TaskrunError, "journal"),
    ],
)
def test_why_it_cannot_start_reaches_who_asked(
    project: Project, runtime: Path, spoil: object, error: type[Exception], says: str
) -> None:
    assert callable(spoil)
    spoil(project, runtime)
    with pytest.raises(error, match=says):
        project.connect()
    assert project.pid() == 0


def test_a_broken_configuration_is_named(project: Project) -> None:
    project.write("taskrun.toml", "[taskrun]\njbos = []\n")
    with pytest.raises(ConfigError, match="did you mean jobs"):
        project.connect()


def test_a_daemon_that_does_not_answer_is_named_in_time(project: Project) -> None:
    with project.connect() as client:
        pid = client.daemon.pid
    os.kill(pid, signal.SIGSTOP)
    try:
        with pytest.raises(DaemonError, match=r"no answer within 0\.3 seconds"):
            Client.connect(project.config, timeout=0.3)
    finally:
        os.kill(pid, signal.SIGCONT)
    assert project.pid() == pid


def test_one_that_is_only_just_starting_is_waited_for(project: Project) -> None:
    lock = Lock.take(daemon_paths(project.config).lock)
    assert lock is not None
    with pytest.raises(DaemonError, match="starting or stopping"):
        Client.connect(project.config, timeout=0.1)
    threading.Timer(0.2, lock.release).start()
    project.connect().close()


HANGING = """
import asyncio, os, sys
from pathlib import Path
from taskrun.daemon import server
from taskrun.engine.core.core import Core
from taskrun.model.config import load
async def close(self, grace=None): await asyncio.Event().wait()
Core.close = close
server.OVERDUE = 0.2
server.serve(load(Path(sys.argv[1]), os.environ), foreground=True, ready=lambda: print("ready", flush=True))
"""


def test_what_does_not_end_in_order_ends_by_force(project: Project) -> None:
    line = [sys.executable, "-c", HANGING, str(project.root / "taskrun.toml")]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.DEVNULL, "text": True}
    with subprocess.Popen(line, env=environment({}), **pipes) as daemon:  # type: ignore[call-overload]
        assert daemon.stdout.readline() == "ready\n"
        assert stop_daemon(project.config)
        assert daemon.wait(20) == 1
    assert "ending by force" in (project.root / ".taskrun" / "daemon.log").read_text()
    until(lambda: not processes(project.root), 5)


def test_nothing_is_signalled_that_is_not_the_daemon(project: Project) -> None:
    """The lock is held, and names a process that is not the one behind the socket."""
    with project.connect() as client, subprocess.Popen(["sleep", "60"]) as bystander:
        path = project.root / ".taskrun" / "daemon.lock"
        told = path.read_text()
        path.write_text(told.replace(str(client.daemon.pid), str(bystander.pid)))
        try:
            with pytest.raises(DaemonError, match="nothing was signalled"):
                stop_daemon(project.config)
            assert bystander.poll() is None
        finally:
            path.write_text(told)
            bystander.kill()


def test_a_long_path_and_no_runtime_folder_work(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("XDG_RUNTIME_DIR")
    deep = Project(project.root / "/".join(["deep" * 10] * 5))
    deep.root.mkdir(parents=True)
    deep.write("taskrun.toml", "")
    with deep.connect() as client:
        assert client.call("status")["running"]
    stop_daemon(deep.config)
    until(lambda: deep.pid() == 0)
