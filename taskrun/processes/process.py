"""A command under its supervisor, as the engine sees it: start it, order it to stop, wait for its end.

`command.py` runs shell steps with it, `pool.py` its worker processes. What the supervisor does is told in `supervisor.py`.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

SUPERVISOR = Path(__file__).with_name("supervisor.py")
Stdio = tuple[int, int, int]
OVERDUE = 12.0  # seconds beyond the grace after which a supervisor is killed; it gives up what it cannot kill before


class Process:
    """A command in a process group of its own. `ended` gets its exit code, or the error that kept it from starting."""

    def __init__(self, command: Sequence[str], supervisor: subprocess.Popen[bytes], control: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        self.ended: asyncio.Future[int | OSError] = loop.create_future()
        self._command = command
        self._supervisor = supervisor
        self._control = control
        self._report = b""
        self._forced: asyncio.TimerHandle | None = None  # the end of a supervisor that hears nothing
        control.setblocking(False)
        loop.add_reader(control, self._read)

    @classmethod
    def start(
        cls,
        command: Sequence[str],
        *,
        stdio: Stdio,
        cwd: str | os.PathLike[str] | None = None,
        env: Mapping[str, str] | None = None,
        inherit: Iterable[int] = (),
        lock_fd: int | None = None,
    ) -> Process:
        """Starts `command` without a wait, so that no cancel can come between start and supervision.

        Parameters:
            stdio: descriptors of its stdin, stdout and stderr.
            env: added to this process's environment.
            inherit: further descriptors that it gets.
            lock_fd: a liveness lock, kept open by the supervisor, not by the command.
        Raises:
            OSError: `cwd` is wrong, or there are no more processes or descriptors.
        """
        ours, theirs = socket.socketpair()
        facts = [theirs.fileno(), -1 if lock_fd is None else lock_fd, os.getpid()]
        stdin, stdout, stderr = stdio
        try:
            with theirs:
                supervisor = subprocess.Popen(
                    [sys.executable, "-I", "-S", str(SUPERVISOR), *map(str, facts), *command],
                    stdin=stdin,
                    stdout=stdout,
                    stderr=stderr,
                    cwd=cwd,
                    env={**os.environ, **env} if env else None,
                    pass_fds=[*inherit, *(fd for fd in facts[:2] if fd >= 0)],
                    start_new_session=True,
                )
        except BaseException:
            ours.close()
            raise
        return cls(command, supervisor, ours)

    def stop(self, grace: float) -> None:
        """Orders its end: TERM now, KILL after `grace` seconds. A second order can only bring the end nearer."""
        if not self.ended.done():
            with contextlib.suppress(OSError):
                self._control.send(f"stop {grace}\n".encode())
            self._force(grace + OVERDUE)

    def _force(self, seconds: float) -> None:
        """Kills the supervisor in a while: one that is stopped hears no order."""
        loop = asyncio.get_running_loop()
        if self._forced is None or loop.time() + seconds < self._forced.when():
            if self._forced is not None:
                self._forced.cancel()
            self._forced = loop.call_later(seconds, self._supervisor.kill)

    async def end(self, grace: float) -> None:
        """Stops it and returns when nothing of it is left. A cancel during that ends the grace, not the wait."""
        self.stop(grace)
        cancelled: asyncio.CancelledError | None = None
        while not self.ended.done():
            try:
                await asyncio.wait([self.ended])
            except asyncio.CancelledError as error:
                cancelled = error
                self.stop(0)
        if cancelled:
            raise cancelled

    def poll(self) -> bool:
        """Whether it is alive as far as can be seen now, without a wait."""
        if not self.ended.done():
            self._read()
        return not self.ended.done()

    async def wait(self) -> int:
        """Returns its exit code, negative for a signal; nothing of it is left then.

        Raises:
            OSError: it could not be started.
        """
        outcome = await asyncio.shield(self.ended)
        if isinstance(outcome, OSError):
            raise outcome
        return outcome

    def _read(self) -> None:
        with contextlib.suppress(BlockingIOError):
            while data := self._receive():
                self._report += data
            self._finish()

    def _receive(self) -> bytes:
        try:
            return self._control.recv(4096)
        except ConnectionError:
            return b""

    def _finish(self) -> None:
        if self._forced is not None:
            self._forced.cancel()
        asyncio.get_running_loop().remove_reader(self._control)
        self._control.close()
        self._supervisor.wait()  # at once: its end of the socket closed because it exited
        self.ended.set_result(self._outcome())

    def _outcome(self) -> int | OSError:
        facts = {word: int(number) for word, number in map(str.split, self._report.decode().splitlines())}
        if "error" in facts:
            return OSError(facts["error"], os.strerror(facts["error"]), self._command[0])
        if "exit" in facts:
            return facts["exit"]
        with contextlib.suppress(OSError, KeyError):  # somebody killed the supervisor: do its work
            os.killpg(facts["pid"], signal.SIGKILL)
        return -signal.SIGKILL
