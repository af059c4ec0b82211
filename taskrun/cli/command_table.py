"""The commands by name, and the modules that hold them; each is imported when it is asked for."""

from __future__ import annotations

from functools import cache
from typing import Any

from typer.main import get_command

from taskrun.cli.lazy_imports import import_late

COMMANDS = {  # in the order of the help
    "init": "init",
    "jobs": "jobs",
    "start": "start",
    "run": "run",
    "exec": "exec",
    "send": "send",
    "list": "list",
    "ps": "list",
    "show": "show",
    "tail": "tail",
    "wait": "wait",
    "cancel": "cancel",
    "retry": "retry",
    "pause": "pause",
    "resume": "pause",
    "why": "why",
    "schedule": "schedule",
    "notify": "notify",
    "watch": "watch",
    "worker": "worker",
    "workers": "workers",
    "prune": "prune",
    "export": "export",
    "journal": "journal",
    "config": "config",
    "doctor": "doctor",
    "completion": "completion",
    "_complete": "completion",
    "daemon": "daemon",
}
HIDDEN = frozenset({"ps", "_complete"})


@cache
def find(name: str) -> Any:
    """Returns a command, importing it; None when there is none of that name."""
    if name not in COMMANDS:
        return None
    found: Any = get_command(import_late(f"taskrun.cli.commands.{COMMANDS[name]}").app)
    return vars(found).get("commands", {}).get(name, found)  # of a module with several commands
