"""Step identity: (branch, name, nth use), taken when a step is called. See `docs/architecture.md`."""

from __future__ import annotations

import asyncio
from contextvars import ContextVar


class Branch:
    """One task's part of a handler."""

    __slots__ = ("_children", "_path", "_task", "_uses")

    def __init__(self, path: str, task: asyncio.Task[object] | None) -> None:
        self._path = path
        self._task = task
        self._children = 0
        self._uses: dict[str, int] = {}

    def key(self, name: str) -> str:
        """Returns the identity of the next use of `name` here."""
        use = self._uses[name] = self._uses.get(name, 0) + 1
        plain = name if "/" not in name and "#" not in name else name.replace("/", "%2F").replace("#", "%23")
        return f"{self._path}{plain}" if use == 1 else f"{self._path}{plain}#{use}"

    def of_caller(self) -> Branch:
        """Returns the branch of the task that calls, made at that task's first step call."""
        task = _current_task()
        if task is self._task or task is None:
            return self
        self._children += 1
        branch = Branch(f"{self._path}{self._children}/", task)
        _branch.set(branch)  # in the calling task's own context: it is found there at its next call
        return branch


_branch: ContextVar[Branch] = ContextVar("taskrun-branch")


def enter_root() -> None:
    """Makes the running task the root branch of a handler."""
    _branch.set(Branch("", asyncio.current_task()))


def identify(name: str) -> str:
    """Returns the identity of a step that is being called now."""
    return _branch.get().of_caller().key(name)


def _current_task() -> asyncio.Task[object] | None:
    try:
        return asyncio.current_task()
    except RuntimeError:  # a plain `def` handler, in its thread
        return None
