"""How declarations reach an engine without knowing it: a context variable with the `Caller` of whoever calls.

The engine's step context implements `Caller` and sets it for an attempt; `plain.py` implements it for calls outside of
runs. Step calls, `job.run` and the like ask it. Its methods are plain functions: a step's identity is taken when they are
called.
"""

from __future__ import annotations

import inspect
import os
from collections.abc import Callable, Coroutine, Mapping, Sequence
from contextvars import ContextVar
from datetime import datetime
from functools import partial
from typing import Any, Protocol

import msgspec

from taskrun.model.records import StepKind
from taskrun.rules.policies import BackoffPolicy, Concurrency


class Current(msgspec.Struct, frozen=True):
    """The run that the caller is in."""

    run_id: str
    job: str
    input: Any
    attempt: int = 1
    parent: str | None = None
    slot: datetime | None = None
    tags: Mapping[str, str] = {}


class StepCall(msgspec.Struct, frozen=True, kw_only=True):
    """A call of `run`, `thread` or `shell`, with its arguments checked.

    `backoff` None is the job's. `output_type` is what the result is decoded as. From `command` on they are of `shell` alone;
    `check` may be the exit codes that are no error. `compared` is what makes it the same call, where that is not the command
    itself, with its folder and variables.
    """

    kind: StepKind
    name: str
    fn: Callable[..., Any] | None = None
    args: tuple[Any, ...] = ()
    kwargs: dict[str, Any] = {}
    retry: int = 0
    backoff: BackoffPolicy | None = None
    timeout: float | None = None
    concurrency: Concurrency | None = None
    memory: int | None = None
    cpu_time: float | None = None
    output_type: Any = Any
    command: str | Sequence[str] | None = None
    cwd: str | os.PathLike[str] | None = None
    env: Mapping[str, str] | None = None
    stdin: str | bytes | None = None
    check: bool | tuple[int, ...] = True
    survive: bool = False  # it goes on when its worker dies
    rerun: bool = True  # it is begun again after it was cut off
    compared: Any = None

    def accepts(self, code: int) -> bool:
        """Says whether an exit code is no error."""
        return self.check is False or code in ((0,) if self.check is True else self.check)


class Target(Protocol):
    """What a caller needs of a job or pipe."""

    @property
    def name(self) -> str:
        """Its name."""
        ...

    @property
    def topic(self) -> str:
        """`job:NAME` or `pipe:NAME`."""
        ...

    def read(self, text: str) -> Any:
        """Returns what it gives out, from its JSON text: an event, or a job's output."""
        ...


class JobTarget(Target, Protocol):
    """What a caller needs of a job."""

    async def perform(self, data: object) -> Any:
        """Executes its handler in place for an input that is not validated yet."""
        ...


class PipeTarget(Target, Protocol):
    """What a caller needs of a pipe."""

    def prepare(self, data: object) -> str:
        """Validates an event; returns it as JSON text."""
        ...


Match = Mapping[str, Any] | Callable[[Any], Any] | None


class Caller(Protocol):
    """The attempt that a call comes from."""

    def step(self, call: StepCall) -> Coroutine[Any, Any, Any]:
        """A run, thread or shell step."""
        ...

    def sleep(self, until: float | None, seconds: float | None) -> Coroutine[Any, Any, None]:
        """A durable timer: to a moment, or for a while."""
        ...

    def find_job(self, name: str) -> Any:
        """Returns a job by its name."""
        ...

    def child(self, job: Any, input: object, wait: bool) -> Coroutine[Any, Any, Any]:
        """A child run: its output with `wait`, else its handle."""
        ...

    def cancel_runs(self, job: Any, input: object) -> Coroutine[Any, Any, int]:
        """Cancels the unfinished runs of a job with exactly this input; returns how many."""
        ...

    def send(self, pipe: Any, data: object) -> Coroutine[Any, Any, str]:
        """Sends an event; returns its id."""
        ...

    def wait(self, source: Any, match: Match, timeout: float | None) -> Coroutine[Any, Any, Any]:
        """Waits for an event of a pipe, or for the success of a run of a job."""
        ...

    def value(self, name: str, make: Callable[[], Any], kind: Any) -> Any:
        """A recorded value."""
        ...

    def progress(self, done: float, total: float | None, note: str) -> None:
        """What live tables draw as a bar."""
        ...

    def log(self, level: int, text: str) -> None:
        """A line for the run's log."""
        ...

    @property
    def current(self) -> Current:
        """The run."""
        ...

    @property
    def inside_step(self) -> bool:
        """Whether the call comes from the body of a step."""
        ...


caller: ContextVar[Caller | None] = ContextVar("taskrun-caller", default=None)


def is_async(fn: Callable[..., Any]) -> bool:
    """Whether a function is called on the event loop, rather than in a thread."""
    while isinstance(fn, partial):
        fn = fn.func
    return inspect.iscoroutinefunction(fn) or inspect.iscoroutinefunction(getattr(type(fn), "__call__", None))  # noqa: B004
