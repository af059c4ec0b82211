"""The one place where modules are imported late, so that a command pays only for what it needs itself."""

from __future__ import annotations

from functools import cache
from importlib import import_module
from types import ModuleType
from typing import Any

from typer.main import get_command

COMMANDS = {  # the command line's words, in the order of the help, and the modules behind them
    "init": "commands.init",
    "jobs": "commands.jobs",
    "start": "commands.start",
    "run": "commands.run",
    "send": "commands.send",
    "list": "commands.list",
    "ps": "commands.list",
    "show": "commands.show",
    "tail": "commands.tail",
    "wait": "commands.wait",
    "cancel": "commands.cancel",
    "retry": "commands.change",
    "pause": "commands.change",
    "resume": "commands.change",
    "why": "commands.why",
    "schedule": "commands.schedule",
    "watch": "commands.watch",
    "prune": "commands.prune",
    "export": "commands.export",
    "doctor": "commands.doctor",
    "completion": "commands.completion",
    "_complete": "commands.completion",
    "daemon": "commands.daemon",
}
HIDDEN = frozenset({"ps", "_complete"})
LOCAL = "local"  # the engine in this process, for `run --local` alone
OFFLINE = "offline"  # the journal, where no daemon runs
CLIENT = "client"  # of a daemon that runs
DESCRIBE = "describe"  # the job files, where no daemon runs
CRON = "cron"  # where there are schedules
TABLES = "schedule_tables"  # where `taskrun.toml` has schedules
SLOTS = "core.schedule_slots"  # for `schedule` alone
CONSOLE = "console"  # of rich: a pipe is written to without it


def load(module: str) -> ModuleType:
    """Returns a module of the command by its name below `taskrun.cli`."""
    return import_module(f"taskrun.cli.{module}")


def load_rich(module: str) -> ModuleType:
    """Returns a module of rich by its name."""
    return import_module(f"rich.{module}")


def load_daemon(module: str) -> ModuleType:
    """Returns a module of the daemon by its name."""
    return import_module(f"taskrun.daemon.{module}")


def load_engine(module: str) -> ModuleType:
    """Returns a module of the engine by its name."""
    return import_module(f"taskrun.engine.{module}")


def load_rules(module: str) -> ModuleType:
    """Returns a module of the rules by its name."""
    return import_module(f"taskrun.rules.{module}")


@cache
def find(name: str) -> Any:
    """Returns a command, importing it; None when there is none of that name."""
    if name not in COMMANDS:
        return None
    found: Any = get_command(load(COMMANDS[name]).app)
    return getattr(found, "commands", {}).get(name, found)
