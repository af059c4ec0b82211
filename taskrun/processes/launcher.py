"""The supervisors of commands which survive, and the process that forks them, as the worker that starts it sees them.

It ends with the worker; a supervisor does when it has no command. What they are and why: `detached_supervisor.py`.
"""

from __future__ import annotations

import socket
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from taskrun.processes.command_link import Live
from taskrun.processes.kept_file import KeptFile

SPARE = 1.0  # seconds that a supervisor waits for its next command
PACKAGE = Path(__file__).resolve().parents[2]  # the folder from which `taskrun` is imported
PROGRAM = (
    "import sys; sys.path.append(sys.argv[1]); "
    "from taskrun.processes.detached_supervisor import main; main(int(sys.argv[2]), float(sys.argv[3]))"
)


class Launcher:
    """Started when the first command needs it."""

    def __init__(self) -> None:
        self._process: subprocess.Popen[bytes] | None = None
        self._connection: socket.socket | None = None
        self._spare: list[Live] = []

    def begin(self, file: KeptFile, fds: Sequence[int]) -> Live:
        """Gives a command to a supervisor that is spare, else to a new one.

        Raises:
            OSError: there are no more processes or descriptors.
        """
        while self._spare:
            live = self._spare.pop()
            try:
                live.begin(file, fds)
                return live
            except OSError:  # it was killed
                live.dismiss()
        ours, theirs = socket.socketpair()
        live = Live(ours, self._spare)
        try:
            with theirs:
                self._fork(theirs)
            live.begin(file, fds)
        except BaseException:
            live.dismiss()
            raise
        return live

    def dismiss(self) -> None:
        """Has no further command for the supervisors that are spare."""
        for live in [*self._spare]:
            live.dismiss()

    def _fork(self, control: socket.socket) -> None:
        """Has a supervisor forked; a launcher that somebody has killed is replaced."""
        if self._connection is not None:
            try:
                socket.send_fds(self._connection, [b"f"], [control.fileno()])
                return
            except OSError:
                self.close()
        socket.send_fds(self._start(), [b"f"], [control.fileno()])

    def close(self) -> None:
        """Ends it, if it was started."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None
        if self._process is not None:
            self._process.wait()
            self._process = None

    def _start(self) -> socket.socket:
        ours, theirs = socket.socketpair()
        utf8 = ["-X", "utf8"] if sys.flags.utf8_mode else []
        try:
            with theirs:
                self._process = subprocess.Popen(
                    [sys.executable, "-I", "-S", *utf8, "-c", PROGRAM, str(PACKAGE), str(theirs.fileno()), str(SPARE)],
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.DEVNULL,  # not ours: whoever reads that would wait for the end of the commands
                    stderr=subprocess.DEVNULL,
                    pass_fds=[theirs.fileno()],
                    start_new_session=True,
                )
        except BaseException:
            ours.close()
            raise
        self._connection = ours
        return ours
