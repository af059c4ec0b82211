"""Names that are typed: the job or pipe that one stands for, or else which was meant and what to do about it."""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches
from typing import Any

from taskrun.cli.exit_codes import Code, Stop
from taskrun.cli.screens.jobs import problem_line
from taskrun.cli.session import Backend

LOAD = "just written? load it: taskrun daemon restart   at every change: taskrun watch"


async def find_described(backend: Backend, name: str, kind: str = "job") -> dict[str, Any]:
    """Returns what is known of the job or pipe of a name.

    Raises:
        Stop: there is none; says which one was meant, and how a daemon comes to know of one that is new.
    """
    answer = await backend.call("jobs")
    found: dict[str, dict[str, Any]] = {one["name"]: one for one in answer["jobs" if kind == "job" else "pipes"]}
    if name in found:
        return found[name]
    broken = [f"there is a broken file: {problem_line(one)}" for one in answer.get("problems") or ()]
    hints = [did_you_mean(name, found), *([LOAD] if backend.live else [])]
    missing = f'no {kind} "{name}"'
    raise Stop(Code.NOT_FOUND, missing, *broken, hint="\n  ".join(hints), kind=f"{kind.title()}NotFound")


def did_you_mean(name: str, known: Iterable[str], otherwise: str = "see what there is: taskrun jobs") -> str:
    """Returns the names that are close, or where to find them all."""
    close = get_close_matches(name, list(known), 2, 0.6)
    return f"did you mean  {'  '.join(close)}" if close else otherwise
