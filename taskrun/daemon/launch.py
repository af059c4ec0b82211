"""Finds, starts and stops the daemon. Blocking and import-light.

When several commands want to start it at once, one of them does and the others wait. An error while it starts is reported
through a pipe to the command that started it.
"""

from __future__ import annotations

import os
import select
import signal
import socket
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

import msgspec

from taskrun.daemon.lock import Holder, Lock, holder
from taskrun.daemon.log import open_log
from taskrun.daemon.paths import DaemonPaths, daemon_paths
from taskrun.daemon.protocol import remote_error
from taskrun.daemon.unix_socket import check_peer, connect
from taskrun.model.codec import encode_error
from taskrun.model.config import Config
from taskrun.model.errors import DaemonError
from taskrun.model.records import ErrorRecord
from taskrun.processes.open_files import opened_by

PATIENCE = 10.0
PAUSE = 0.02
READY = b"ready"
PROGRAM = "taskrun.cli.daemon_main"  # by name: it imports the command line, which stands above the daemon
DETACHED, ATTACHED, FOREGROUND, WORKER = "detached", "attached", "foreground", "worker"  # its modes
PACKAGE = Path(__file__).resolve().parents[2]  # the folder from which `taskrun` is imported


class AttachedDaemon(NamedTuple):
    """A daemon that ends when `held`, the end of a pipe, is closed; at the latest when this process ends."""

    process: subprocess.Popen[bytes]
    held: int

    def end(self) -> None:
        """Stops it, and waits until it has ended."""
        os.close(self.held)
        self.process.wait()


def find_holder(config: Config) -> Holder | None:
    """Returns what the project's daemon has written about itself, or None when none runs."""
    return holder(daemon_paths(config, make=False).lock)


def find_daemon(config: Config, timeout: float = PATIENCE) -> socket.socket:
    """Returns a connection to the running daemon.

    Raises:
        DaemonError: none runs, or it cannot be reached.
    """
    return find_connection(daemon_paths(config, make=False), timeout)


def find_connection(paths: DaemonPaths, timeout: float) -> socket.socket:
    """Returns a connection to the daemon of these files; waits for one that is not listening yet.

    Raises:
        DaemonError: none runs, or it cannot be reached.
    """
    deadline = time.monotonic() + timeout
    while (connection := _reach(paths, timeout)) is None:
        if (held := holder(paths.lock)) is None:
            raise DaemonError("no daemon runs for this project; start it: taskrun daemon start")
        _pause(deadline, held)
    return connection


def ensure_daemon(config: Config, timeout: float = PATIENCE) -> socket.socket:
    """Returns a connection to the daemon, which is started if none runs.

    Raises:
        DaemonError: it cannot be reached, or did not start in time.
        TaskrunError: why it could not start.
    """
    paths = daemon_paths(config)
    deadline = time.monotonic() + timeout
    while (connection := _reach(paths, timeout)) is None:
        held = holder(paths.lock)
        if held is None and (launching := Lock.take(paths.launch, tries=1)) is not None:
            try:
                _launch_unless_there(config, paths, deadline)
            finally:
                launching.release()
        else:
            _pause(deadline, held)
    return connection


def launch_attached(config: Config, timeout: float = PATIENCE) -> AttachedDaemon:
    """Replaces the project's daemon by one that watches the code and ends with this process.

    Raises:
        TaskrunError: why it could not start, or that the former one does not end.
    """
    paths = daemon_paths(config)
    launching = Lock.take(paths.launch, tries=round(timeout / PAUSE))
    if launching is None:
        raise DaemonError("another command keeps starting the daemon; try again")
    try:
        stop_daemon(config)
        return _launch_attached(config, paths, time.monotonic() + timeout)
    finally:
        launching.release()


def stop_daemon(config: Config, timeout: float | None = None) -> bool:
    """Stops the daemon and waits until its process is gone; returns whether one was running.

    Raises:
        DaemonError: it does not end.
    """
    paths = daemon_paths(config, make=False)
    held = _known_holder(paths)
    if held is None:
        return False
    _signal(paths, held, signal.SIGTERM)
    deadline = time.monotonic() + (config.grace + PATIENCE if timeout is None else timeout)
    while (left := holder(paths.lock)) is not None and left.pid in (0, held.pid):
        if time.monotonic() > deadline:
            raise DaemonError(f"the daemon (pid {held.pid}) does not stop; kill it with: kill -9 {held.pid}")
        time.sleep(PAUSE)
    _await_end(held.pid, PATIENCE)
    return True


def _await_end(pid: int, patience: float) -> None:
    """Waits until a process that is about to end is gone; it is not our child."""
    deadline = time.monotonic() + patience
    with suppress(OSError):
        if sys.platform == "linux":  # a zombie that nobody reaps must not be waited for
            with os.fdopen(os.pidfd_open(pid), "rb") as process:
                select.select([process], [], [], patience)
            return
        while time.monotonic() < deadline:
            os.kill(pid, 0)
            time.sleep(PAUSE)


# ---- reaching it


def _reach(paths: DaemonPaths, timeout: float) -> socket.socket | None:
    """Returns a connection to the socket that the holder of the lock has written down, or None when nobody listens there.

    Whoever answers at another path is a daemon whose files were removed, and which is about to end.
    """
    held = holder(paths.lock)
    if held is None or not held.socket:
        return None
    try:
        return connect(Path(held.socket), timeout)
    except (FileNotFoundError, ConnectionRefusedError):
        return None
    except OSError as error:
        raise DaemonError(f"the daemon cannot be reached: {error}") from error


def _pause(deadline: float, held: Holder | None) -> None:
    if time.monotonic() > deadline:
        who = f" (pid {held.pid})" if held is not None and held.pid else ""
        raise DaemonError(f"the daemon{who} is starting or stopping and does not answer yet; see: taskrun daemon logs")
    time.sleep(PAUSE)


def _signal(paths: DaemonPaths, held: Holder, number: int) -> None:
    """Signals the holder of the lock, after checking that the process which it names really holds it.

    Raises:
        DaemonError: it does not.
    """
    holds = opened_by(paths.lock, held.pid)
    if holds is None:
        with find_connection(paths, PATIENCE) as connection:
            holds = check_peer(connection) == held.pid
    if not holds:
        raise DaemonError(f"pid {held.pid} does not hold {paths.lock}; nothing was signalled")
    with suppress(ProcessLookupError):
        os.kill(held.pid, number)


def _known_holder(paths: DaemonPaths) -> Holder | None:
    """Returns the holder of the lock, once it has written its pid; None when nobody holds the lock."""
    deadline = time.monotonic() + PATIENCE
    while (held := holder(paths.lock)) is not None and not held.pid:
        _pause(deadline, held)
    return held


# ---- starting it


def _launch_unless_there(config: Config, paths: DaemonPaths, deadline: float) -> None:
    """Starts a daemon and waits until it has started, unless another one has meanwhile."""
    if holder(paths.lock) is not None:
        return
    ready, theirs = os.pipe()
    try:
        try:
            process = _spawn(config, paths, theirs, DETACHED)
        finally:
            os.close(theirs)
        process.wait()  # it detaches itself before it does anything else
        _await_start(ready, deadline)
    finally:
        os.close(ready)


def _launch_attached(config: Config, paths: DaemonPaths, deadline: float) -> AttachedDaemon:
    ready, theirs = os.pipe()
    end, held = os.pipe()
    try:
        process = _spawn(config, paths, theirs, ATTACHED, end)
    finally:
        os.close(theirs)
        os.close(end)
    try:
        _await_start(ready, deadline)
    except BaseException:
        os.close(held)
        process.wait()
        raise
    finally:
        os.close(ready)
    return AttachedDaemon(process, held)


def _spawn(
    config: Config, paths: DaemonPaths, ready: int, mode: str, until: int | None = None
) -> subprocess.Popen[bytes]:
    attached = [] if until is None else ["--until", str(until)]
    log = open_log(paths.log)
    try:
        return subprocess.Popen(
            [*python(PROGRAM), mode, "--config", str(config.path), "--ready", str(ready), *attached],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            cwd=config.root,
            env=environment({}),
            pass_fds=[ready] if until is None else [ready, until],
            start_new_session=True,
        )
    finally:
        os.close(log)


def python(module: str) -> list[str]:
    """Returns a command that runs a module of ours; the current folder cannot shadow it (`-P`)."""
    return [sys.executable, "-P", "-u", "-m", module]


def environment(env: dict[str, str]) -> dict[str, str]:
    """Returns this process's environment with `env` added, and with what it takes to import `taskrun`."""
    added = {**os.environ, **env}
    if "-packages" not in PACKAGE.name:
        added["PYTHONPATH"] = os.pathsep.join(filter(None, [str(PACKAGE), added.get("PYTHONPATH", "")]))
    return added


def _await_start(ready: int, deadline: float) -> None:
    text = b""
    while True:
        left = deadline - time.monotonic()
        if left <= 0 or not select.select([ready], [], [], left)[0]:
            raise DaemonError("the daemon did not start within 10 seconds; see: taskrun daemon logs")
        data = os.read(ready, 65536)
        if not data:
            break
        text += data
    if text == READY:
        return
    if not text:
        raise DaemonError("the daemon died while it was starting; see: taskrun daemon logs")
    raise remote_error(msgspec.json.decode(text, type=ErrorRecord))


class ReadyPipe:
    """The daemon's end of the pipe to the command that launched it: reports once whether it could start.

    Parameters:
        fd: the pipe; closed after the report.
    """

    def __init__(self, fd: int) -> None:
        os.set_inheritable(fd, False)
        self._fd = fd

    def started(self) -> None:
        """Reports that clients are answered."""
        self._report(READY)

    def failed(self, error: Exception) -> None:
        """Reports why the daemon cannot start."""
        self._report(msgspec.json.encode(encode_error(error)))

    def _report(self, text: bytes) -> None:
        if self._fd >= 0:
            with suppress(OSError):  # the command is gone
                os.write(self._fd, text)
            os.close(self._fd)
            self._fd = -1
