"""What is left of a command whose supervisor is gone or hears nothing: found by marks that no other process has, and ended.

Every process of a command has its mark in the environment, and its session is that of one that has. A process id alone says
nothing: it is given again, so it counts only together with the start of the process, within one boot of the machine.
"""

from __future__ import annotations

import os
import signal
import time
from contextlib import suppress

from taskrun.processes.kept_file import Identity
from taskrun.processes.process_table import ProcessEntry, all_processes, boot, process, with_environment

MARK = "TASKRUN_COMMAND"  # the variable in the environment of a command, with its token
PATIENCE = 10.0  # seconds for the kernel to end what was killed
PAUSE = 0.02


def signal_supervisor(command: Identity, number: int) -> None:
    """Signals the supervisor of a command, if it is there."""
    if _is_there(command, command.processes.supervisor, command.processes.supervisor_started):
        with suppress(OSError):
            os.kill(command.processes.supervisor, number)


def end_leftovers(command: Identity) -> None:
    """Kills what there is of a command beside its supervisor; returns when it is gone."""
    deadline = time.monotonic() + PATIENCE
    while (left := leftovers(command)) and time.monotonic() < deadline:
        for entry in left:
            with suppress(OSError):
                os.kill(entry.pid, signal.SIGKILL)
        time.sleep(PAUSE)


def leftovers(command: Identity) -> list[ProcessEntry]:
    """Returns the processes of a command that are there."""
    if command.boot != boot():
        return []
    marked = with_environment(f"{MARK}={command.token}")
    sessions = {entry.session for entry in marked}
    if _is_there(command, command.processes.leader, command.processes.leader_started):
        sessions.add(command.processes.leader)
    found = {entry.pid: entry for entry in marked}
    if sessions:
        found |= {entry.pid: entry for entry in all_processes() if entry.session in sessions}
    return list(found.values())


def _is_there(command: Identity, pid: int, started: int) -> bool:
    found = process(pid) if pid and command.boot == boot() else None
    return found is not None and found.started == started
