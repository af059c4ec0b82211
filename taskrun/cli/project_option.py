"""The commands that a message or a screen names, as they work when they are pasted: with the option that chose the project."""

from __future__ import annotations

import re
from shlex import quote

from taskrun.cli.command_table import COMMANDS

_ANYWHERE = frozenset({"init", "completion"})  # they do the same whatever the project is
_COMMAND = rf"(?<![\w./-])taskrun (?=(?:{'|'.join(COMMANDS.keys() - _ANYWHERE)})\b)"


def project_option(user: bool, config_file: str | None) -> str:
    """Returns the option that chose the project; empty where the current folder or the environment did."""
    if user:
        return "--user"
    return f"--config {quote(config_file)}" if config_file else ""


def for_project(text: str, option: str) -> str:
    """Returns a text with the option in each command that it names, as in `taskrun --user show @last`."""
    return re.sub(_COMMAND, lambda found: f"{found[0]}{option} ", text) if option else text
