"""What is folded where there are many: children of one name, and ended steps between those that matter."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any

from taskrun.cli.screens.phrases import fault, short

ALONE = 3  # children of one name that have a line each
NAMED = 3  # of several things, how many are named


def with_groups(steps: Sequence[dict[str, Any]], alone: int = ALONE) -> list[dict[str, Any]]:
    """Returns steps, children of one name as one step with `group`: in place of the first, where there are more than `alone`."""
    sizes = Counter(step["name"] for step in steps if step["kind"] == "child")
    made: list[dict[str, Any]] = []
    seen: set[str] = set()
    for step in steps:
        if step["kind"] != "child" or sizes[step["name"]] <= alone:
            made.append(step)
        elif step["name"] not in seen:
            seen.add(step["name"])
            made.append(group([one for one in steps if one["kind"] == "child" and one["name"] == step["name"]]))
    return made


def group(children: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Returns several steps as one: from the first start to the last end."""
    states = Counter(step["status"] for step in children)
    status = next((one for one in ("running", "failed", "cancelled") if states[one]), "succeeded")
    ends = [step["ended_at"] for step in children]
    told = [f"{len(children) - states['running']:,} of {len(children):,}"]
    told += [f"{states[one]:,} {one}" for one in ("failed", "cancelled") if states[one]]
    told += same_errors(children)
    return {
        **children[0],
        "key": children[0]["name"],
        "status": status,
        "attempt": 1,
        "failures": [],
        "error": None,
        "started_at": min(step["started_at"] for step in children),
        "ended_at": max(ends) if all(ends) else None,
        "held": any(step.get("held") for step in children),
        "group": " · ".join(told),
    }


def same_errors(failed: Iterable[dict[str, Any]]) -> list[str]:
    """Returns each error once, however many steps or runs failed with it."""
    found = Counter(_inner(one["error"]) for one in failed if one["error"])
    return [error if count == 1 else f"{count:,} × {error}" for error, count in found.most_common(NAMED)]


def _inner(error: dict[str, Any]) -> str:
    """Returns an error as one line; of a child that failed the child's own, without its id."""
    inner = error["message"].partition(" failed: ")[2] if error["type"] == "taskrun.RunFailed" else ""
    kind, _, message = inner.partition(": ")
    return fault({"type": kind, "message": message} if message else error)


def folded_causes(causes: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
    """Returns why a run is held, with one cause for all of its children of a name that are in the same state."""
    alike: dict[Any, list[dict[str, Any]]] = {}
    for at, cause in enumerate(causes):
        told = cause.get("job") is not None and cause["kind"] == "child"
        alike.setdefault((cause["job"], cause["status"]) if told else at, []).append(cause)
    return [found[0] if len(found) == 1 else _one_cause(found) for found in alike.values()]


def _one_cause(children: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Returns one cause for several children, with why the first of them is held."""
    job, status = children[0]["job"], children[0]["status"]
    because = children[0]["text"].partition(f"which is {status}")[2]
    return {
        **children[0],
        "text": f"it waits for {len(children):,} children {job} that are {status}{because}",
        "command": None,
    }


def names(runs: Sequence[dict[str, Any]]) -> str:
    """Returns the ids of runs, of many the first."""
    more = f" and {len(runs) - NAMED:,} more" if len(runs) > NAMED else ""
    return " ".join(short(run["id"]) for run in runs[:NAMED]) + more


def around(steps: Sequence[dict[str, Any]], rows: int) -> list[dict[str, Any] | int]:
    """Returns as many steps as there are rows: those that have not succeeded with their neighbours, and the last ones.

    A number stands for as many steps that are left out.
    """
    if len(steps) <= rows:
        return list(steps)
    room = max(1, rows - 2)
    notable = [at for at, step in enumerate(steps) if step["status"] != "succeeded"][-room:]
    near = [at + off for off in (-1, 1) for at in notable if 0 <= at + off < len(steps)]
    order = [*notable, *near, *reversed(range(len(steps)))]
    kept = sorted(list(dict.fromkeys(order))[:room])
    made: list[dict[str, Any] | int] = []
    before = -1
    for at in [*kept, len(steps)]:
        if at - before > 1:
            made.append(at - before - 1)
        if at < len(steps):
            made.append(steps[at])
        before = at
    return made


class Siblings:
    """Children that run at the same time under one name: their ends are told by one line when the last has ended."""

    def __init__(self) -> None:
        self._open: dict[str, set[str]] = {}
        self._ended: dict[str, list[dict[str, Any]]] = {}

    def began(self, message: dict[str, Any]) -> None:
        """Takes a message of a `watch` stream."""
        for step in [message["step"]] if message["kind"] == "step" else message.get("run", {}).get("steps") or ():
            if step["kind"] == "child" and step["status"] == "running":
                self._open.setdefault(step["name"], set()).add(step["key"])

    def ended(self, step: dict[str, Any]) -> dict[str, Any] | None:
        """Returns the step to tell of: the one that has ended, all of its name, or none as long as others go on."""
        if step["kind"] != "child":
            return step
        still, told = self._open.setdefault(step["name"], set()), self._ended.setdefault(step["name"], [])
        still.discard(step["key"])
        if not told and len(still) < ALONE:
            return step
        told.append(step)
        if still:
            return None
        del self._ended[step["name"]]
        return group(told)

    def rest(self) -> list[dict[str, Any]]:
        """Returns those of which nothing was told, since others of their name had not ended when the run did."""
        return [group(told) for told in self._ended.values() if told]
