"""Step identity: (branch, name, nth use), taken when a step is called. See `docs/architecture.md`.

A branch is a task. It is numbered within the branch that created it, in the order of creation, so that no branch gets another's
record, whatever failed before. A task factory sees the creation; tasks made within the body of a step do not count, since a
replay does not execute the body.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextvars import ContextVar, copy_context
from functools import wraps
from typing import Any
from weakref import WeakKeyDictionary, WeakSet

from taskrun.engine.executor.run_context import inside

Task = asyncio.Task[Any]


class Branch:
    """One task's part of a handler.

    Parameters:
        made: the tasks that the handler has made, known to all of its branches; None until there is a second branch.
    """

    __slots__ = ("_children", "_made", "_path", "_uses", "claimed")

    def __init__(self, path: str, made: WeakSet[Task] | None = None) -> None:
        self.claimed = False  # whether it is known which task this is the branch of
        self._path = path
        self._made = made
        self._children = 0
        self._uses: dict[str, int] = {}

    def tasks(self) -> list[Task]:
        """Returns the tasks that the handler has made and that still exist."""
        return list(self._made or ())

    @property
    def alone(self) -> bool:
        """Whether none of the tasks that the handler has made is left."""
        return self._made is None or all(task.done() for task in self._made)

    def key(self, name: str) -> str:
        """Returns the identity of the next use of `name` here."""
        use = self._uses[name] = self._uses.get(name, 0) + 1
        plain = name if "/" not in name and "#" not in name else name.replace("/", "%2F").replace("#", "%23")
        return f"{self._path}{plain}" if use == 1 else f"{self._path}{plain}#{use}"

    def branch(self) -> Branch:
        """Returns the branch of the next task that is created here."""
        self._children += 1
        if self._made is None:
            self._made = WeakSet()
        return Branch(f"{self._path}{self._children}/", self._made)

    def claim(self, task: Task) -> None:
        """Makes this the branch of a task."""
        self.claimed = True
        _branches[task] = self
        if self._made is not None:
            self._made.add(task)


_branches: WeakKeyDictionary[Task, Branch] = WeakKeyDictionary()
_branch: ContextVar[Branch | None] = ContextVar("taskrun-branch", default=None)


def enter_root() -> Branch:
    """Makes the running task the root branch of a handler."""
    task = asyncio.current_task()
    assert task is not None
    root = _branches[task] = Branch("")
    root.claimed = True
    _branch.set(root)
    return root


def identify(name: str) -> str:
    """Returns the identity of a step that is being called now."""
    nearest = _branch.get()
    assert nearest is not None, "a step is called within a handler"
    task = _current_task()
    if task is None:  # a plain `def` handler, in its thread
        return nearest.key(name)
    branch = _branches.get(task)
    if branch is None:  # it is eager, or its creation was not seen: then it is numbered by its first step call
        branch = nearest.branch() if nearest.claimed else nearest
        branch.claim(task)
        _branch.set(branch)
    return branch.key(name)


def _current_task() -> Task | None:
    try:
        return asyncio.current_task()
    except RuntimeError:
        return None


class TaskFactory:
    """Sees the creation of tasks on one event loop, around whatever factory it has."""

    def __init__(self, prior: Callable[..., Any] | None) -> None:
        self.prior = prior
        self.users = 0

    def __call__(self, loop: asyncio.AbstractEventLoop, coro: Any, **options: Any) -> Any:
        """Creates a task."""
        creator = self._creator(loop)
        if self.prior is None:
            task = asyncio.Task(coro, loop=loop, **options)
        elif creator is None:
            task = self.prior(loop, coro, **options)
        else:  # it may be eager: the coroutine then calls its first steps before there is anything to number
            branch = creator.branch()
            context = options.setdefault("context", None) or copy_context()
            options["context"] = context
            context.run(_branch.set, branch)
            task = self.prior(loop, coro, **options)
            branch.claim(task)
            return task
        if creator is not None:
            creator.branch().claim(task)
        return task

    def _creator(self, loop: asyncio.AbstractEventLoop) -> Branch | None:
        """Returns the branch that creates a task, None outside of handlers and within the bodies of steps."""
        if _branch.get() is None or inside.get() is not None:
            return None
        running = asyncio.current_task(loop)
        return None if running is None else _branches.get(running)

    @classmethod
    def install(cls, loop: asyncio.AbstractEventLoop) -> TaskFactory:
        """Installs the factory on a loop; its users are counted."""
        factory: Any = loop.get_task_factory()
        if not isinstance(factory, TaskFactory):
            factory = cls(factory)
            loop.set_task_factory(factory)
        factory.users += 1
        return factory  # type: ignore[no-any-return]

    def remove(self, loop: asyncio.AbstractEventLoop) -> None:
        """Removes the factory with its last user, unless another one has replaced it."""
        self.users -= 1
        if not self.users and loop.get_task_factory() is self:
            loop.set_task_factory(self.prior)


# ---- order

_as_completed = asyncio.as_completed


@wraps(_as_completed)
def _in_order(fs: Any, **options: Any) -> Any:
    given = asyncio.isfuture(fs) or asyncio.iscoroutine(fs)  # which is an error
    if _branch.get() is not None and inside.get() is None and not given:
        fs = [asyncio.ensure_future(one) for one in dict.fromkeys(fs)]
    return _as_completed(fs, **options)


def order_tasks() -> None:
    """Has `asyncio.as_completed` make the tasks of a handler in the order in which it is given their coroutines.

    By itself it makes them in the order of a set, another one with each execution.
    """
    asyncio.as_completed = _in_order
