"""The process that forks supervisors for commands which survive, as the worker that starts it sees it.

It ends with the worker; what it has forked does not. What it is and why: `detached_supervisor.py`.
"""

from __future__ import annotations

import socket
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

PACKAGE = Path(__file__).resolve().parents[2]  # the folder from which `taskrun` is imported
PROGRAM = (
    "import sys; sys.path.append(sys.argv[1]); "
    "from taskrun.processes.detached_supervisor import main; main(int(sys.argv[2]))"
)


class Launcher:
    """Started when the first command needs it."""

    def __init__(self) -> None:
        self._process: subprocess.Popen[bytes] | None = None
        self._connection: socket.socket | None = None

    def launch(self, fds: Sequence[int]) -> None:
        """Has a supervisor forked that gets these descriptors; a launcher that somebody has killed is replaced.

        Raises:
            OSError: there are no more processes or descriptors.
        """
        if self._connection is not None:
            try:
                socket.send_fds(self._connection, [b"c"], fds)
                return
            except OSError:
                self.close()
        socket.send_fds(self._start(), [b"c"], fds)

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
                    [sys.executable, "-I", "-S", *utf8, "-c", PROGRAM, str(PACKAGE), str(theirs.fileno())],
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
