"""What was typed after `taskrun exec`, and the input of the run that it makes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from taskrun.cli.commands.start import Start
from taskrun.cli.exit_codes import Code, Stop
from taskrun.cli.session import Session
from taskrun.model import durations
from taskrun.model.group_config import check_group, slots_of


class Exec(msgspec.Struct, frozen=True):
    """What was typed."""

    start: Start
    command: Sequence[str]
    name: str = ""
    group: str = ""
    slots: int | None = None
    retry: int = 0
    timeout: str = ""
    cwd: str = ""
    env: Sequence[str] = ()
    priority: int = 0
    rerun: bool = True
    save: str = ""


def input_of(options: Exec, session: Session, groups: Mapping[str, int]) -> dict[str, Any]:
    """Returns the input of the run.

    Raises:
        Stop, DurationInvalid, DefinitionError: something was typed that cannot be.
    """
    facts = session.facts
    group = check_group(options.group) if options.group else None
    return {
        "command": options.command[0] if len(options.command) == 1 else list(options.command),
        "cwd": str(facts.cwd / options.cwd),
        "path": facts.env.get("PATH"),
        "env": variables(options.env, facts.env),
        "group": group,
        "slots": 1 if group is None else slots_of(group, options.slots, groups),
        "retry": options.retry,
        "timeout": durations.seconds(options.timeout, "--timeout") if options.timeout else None,
        "priority": options.priority,
        "rerun": options.rerun,
    }


def variables(given: Sequence[str], environ: Mapping[str, str]) -> dict[str, str]:
    """Returns the variables that were typed; `NAME` alone is that of the caller, if it is set.

    Raises:
        Stop: one has no name.
    """
    found = {}
    for each in given:
        name, equals, value = each.partition("=")
        if not name:
            raise Stop(Code.USAGE, "--env takes NAME=VALUE or NAME, as in --env LANG=C")
        if equals:
            found[name] = value
        elif name in environ:
            found[name] = environ[name]
    return found
