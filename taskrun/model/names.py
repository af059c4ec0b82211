"""What jobs and pipes may be called."""

from __future__ import annotations

import re

from taskrun.model.durations import shown
from taskrun.model.errors import DefinitionError

NAME = r"[A-Za-z_][A-Za-z0-9_.-]{0,99}"
LONGEST_TITLE = 200  # characters
EACH, EXEC, NOTIFY = "each", "exec", "notify"
RESERVED = frozenset({EACH, EXEC, NOTIFY})  # jobs that come with taskrun: every project has them, no list shows them


def check_name(name: object, what: str) -> str:
    """Returns the name of a job or pipe.

    Raises:
        DefinitionError: it is not a valid name.
    """
    if isinstance(name, str) and re.fullmatch(NAME, name):
        return name
    rule = "a letter or _, then at most 99 letters, digits, _, . or -"
    raise DefinitionError(f"{shown(name)} cannot be the name of a {what}: it takes {rule}")


def check_title(name: str) -> str:
    """Returns the name of a run, which screens show in place of its job's.

    Raises:
        DefinitionError: it is none.
    """
    if not name.strip() or not name.isprintable() or len(name) > LONGEST_TITLE:
        raise DefinitionError(f"a run is named by at most {LONGEST_TITLE} characters that can be printed")
    return name


def check_free(job: str) -> None:
    """Checks that a job of a project has a name of its own.

    Raises:
        DefinitionError: it is the name of a job that comes with taskrun.
    """
    if job in RESERVED:
        raise DefinitionError(f'"{job}" is the name of a job that comes with taskrun; give this one another name')
