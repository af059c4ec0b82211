"""Finds the job or pipe of a name that was typed, or says which one may have been meant."""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches
from typing import Any

from taskrun.cli.exit_codes import Code, Stop
from taskrun.cli.lazy_imports import JOB_FILES, import_late
from taskrun.cli.sanitize import cell
from taskrun.cli.screens.jobs import problem_line
from taskrun.cli.session import Backend, Session
from taskrun.model.names import RESERVED

LOAD = "just written? load it: taskrun daemon restart"
JOBS = "list them: taskrun jobs"


async def find_described(session: Session, backend: Backend, name: str, kind: str = "job") -> dict[str, Any]:
    """Returns the description of a job or pipe.

    Raises:
        Stop: there is none; suggests similar names, and how to load a new job.
    """
    return described_in(await backend.call("jobs"), name, kind, loads_late(session, backend))


def loads_late(session: Session, backend: Backend) -> bool:
    """Whether what was just written may not be loaded yet."""
    return backend.live and session.project.reload == "manual"


def described_in(answer: dict[str, Any], name: str, kind: str, late: bool) -> dict[str, Any]:
    """Returns the description of a job or pipe in an answer.

    Parameters:
        late: whether what was just written may not be loaded yet.

    Raises:
        Stop: as `find_described`.
    """
    found: dict[str, dict[str, Any]] = {one["name"]: one for one in answer["jobs" if kind == "job" else "pipes"]}
    if name in found:
        return found[name]
    if kind == "job" and name in RESERVED:
        described: dict[str, Any] = import_late(JOB_FILES).describe_builtin(name)
        return described
    broken = [f"there is a broken file: {problem_line(one)}" for one in answer.get("problems") or ()]
    hints = [did_you_mean(name, found, JOBS if kind == "job" else pipes_in(found)), *([LOAD] if late else [])]
    missing = f'no {kind} "{name}"'
    raise Stop(Code.NOT_FOUND, missing, *broken, hint="\n  ".join(hints), kind=f"{kind.title()}NotFound")


def pipes_in(names: Iterable[str]) -> str:
    """Returns which pipes there are, since no command lists them."""
    found = ", ".join(map(cell, names))
    return f"there are: {found}" if found else "there is none; declare one in taskrun.toml: [pipes.NAME]"


def did_you_mean(name: str, known: Iterable[str], otherwise: str = JOBS) -> str:
    """Returns similar names, or where to find all of them."""
    close = get_close_matches(name, list(known), 2, 0.6)
    return f"did you mean  {'  '.join(close)}" if close else otherwise
