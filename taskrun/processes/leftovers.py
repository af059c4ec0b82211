"""What is left of a command whose supervisor is gone or hears nothing: found by marks that no other process has, and ended.

Every process of a command has its mark in the environment, and its session is that of one that has. A process id alone says
nothing: it is given again, so it counts only together with the start of the process, within one boot of the machine.
"""

from __future__ import annotations

import os
import signal
import time
from contextlib import suppress
from typing import Any

from taskrun.processes.process_table import ProcessEntry, all_processes, boot, process, with_environment

MARK = "TASKRUN_COMMAND"  # the variable in the environment of a command, with its token
PATIENCE = 10.0  # seconds for the kernel to end what was killed
PAUSE = 0.02


def signal_supervisor(facts: dict[str, Any], number: int) -> None:
    """Signals the supervisor of a command, if it is there."""
    if _is_there(facts, "supervisor"):
        with suppress(OSError):
            os.kill(facts["supervisor"][0], number)


def end_leftovers(facts: dict[str, Any]) -> None:
    """Kills what there is of a command; returns when it is gone."""
    signal_supervisor(facts, signal.SIGKILL)
    deadline = time.monotonic() + PATIENCE
    while (left := leftovers(facts)) and time.monotonic() < deadline:
        for entry in left:
            with suppress(OSError):
                os.kill(entry.pid, signal.SIGKILL)
        time.sleep(PAUSE)


def leftovers(facts: dict[str, Any]) -> list[ProcessEntry]:
    """Returns the processes of a command that are there."""
    if facts.get("boot") != boot():
        return []
    marked = with_environment(f"{MARK}={facts['token']}")
    sessions = {entry.session for entry in marked}
    if _is_there(facts, "leader"):
        sessions.add(facts["leader"][0])
    found = {entry.pid: entry for entry in marked}
    if sessions:
        found |= {entry.pid: entry for entry in all_processes() if entry.session in sessions}
    return list(found.values())


def _is_there(facts: dict[str, Any], role: str) -> bool:
    pid, started = facts.get(role) or (0, "")
    if not pid or facts.get("boot") != boot():
        return False
    found = process(pid)
    return found is not None and found.started == started
