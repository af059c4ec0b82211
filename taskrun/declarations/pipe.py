"""`pipe(name)` → `Pipe`: a channel of events; and `Source`, what a job names as its trigger."""

from __future__ import annotations

import sys
from collections.abc import Callable, Coroutine, Mapping
from typing import Any, Literal

import msgspec

from taskrun.declarations.calls import Caller, Match, Target, caller, is_async
from taskrun.declarations.plain import reach
from taskrun.model.durations import seconds
from taskrun.model.errors import DefinitionError, NotBound
from taskrun.model.names import check_name
from taskrun.model.schema import Schema
from taskrun.rules.policies import Duration

Into = Callable[[Any], Any]


class Source(msgspec.Struct, frozen=True):
    """What starts a job: the events of a pipe, the outputs of another job, or files.

    Parameters:
        ref: the pipe, the job or the files.
        fn: makes the input of what it gives out, None to skip it; without one that is the input.
        picks: `fn` takes the fields that the job has, as they are.
    """

    kind: Literal["pipe", "job", "files"]
    ref: Target
    fn: Into | None = None
    picks: bool = False

    @property
    def topic(self) -> str:
        """`pipe:NAME`, `job:NAME` or `files:PATTERN`."""
        return self.ref.topic

    def input_for(self, text: str) -> Any:
        """Returns the input that an event (JSON text) makes, None for none."""
        value = self.ref.read(text)
        return value if self.fn is None else self.fn(value)


class Pipe:
    """A channel of events. Made by `pipe`."""

    def __init__(self, name: str, input: Any = None, file: str = "", line: int = 0) -> None:
        self.name = check_name(name, "pipe")
        self.schema = Schema.of(input, name)
        self.file = file
        self.line = line

    def __repr__(self) -> str:
        return f"<pipe {self.name}>"

    @property
    def topic(self) -> str:
        """The name under which events are kept."""
        return f"pipe:{self.name}"

    def send(self, /, *args: Any, **fields: Any) -> Coroutine[Any, Any, str]:
        """Sends an event, in a handler; returns its id once it is durable.

        Parameters:
            args: one mapping or model instead of `fields`.
            fields: the fields of the event.

        Raises:
            InputInvalid: naming every bad field.
            NotBound: outside a handler; use `queue.pipes`.
        """
        here = bound(f"{self.name}.send", f"queue.pipes.{self.name}.send")
        return here.send(self, self.gather(args, fields))

    def wait_for(self, match: Match = None, *, timeout: Duration | None = None) -> Coroutine[Any, Any, Any]:
        """Waits, in a handler, for an event sent since the run was triggered; returns its data.

        Parameters:
            match: a mapping that the event must contain, or a predicate on it.
            timeout: how long to wait.

        Raises:
            WaitTimeout: no such event came in time.
        """
        return wait_for(self, match, timeout)

    def into(self, fn: Into | None = None) -> Source:
        """Returns a trigger: `fn(event)` makes the job's input, None skips the event."""
        return Source("pipe", self, check_into(fn))

    def gather(self, args: tuple[Any, ...], fields: dict[str, Any]) -> Any:
        """Returns the one value that a call gives: its only argument, or its fields."""
        return gather(f"{self.name}.send", args, fields)

    def prepare(self, data: object) -> str:
        """Validates an event; returns it as JSON text.

        Raises:
            InputInvalid: naming every bad field, also one that would not come back from the journal as it was.
        """
        _, text = self.schema.record(data)
        return text

    def read(self, text: str) -> Any:
        """Returns an event from its JSON text."""
        return self.schema.load(text)

    def describe(self) -> dict[str, Any]:
        """Returns what screens show of it, as JSON."""
        return {"name": self.name, "file": self.file, "line": self.line, "input_schema": self.schema.json_schema()}


def pipe(name: str, input: Any = None) -> Pipe:
    """Makes a channel of events.

    Parameters:
        name: unique among the pipes of a queue.
        input: what an event must look like: a type, or an object with `validate(value) -> value`. Anything by default.
    """
    frame = sys._getframe(1)
    return Pipe(name, input, frame.f_code.co_filename, frame.f_lineno)


# ---- shared with jobs


def check_into(fn: Into | None) -> Into | None:
    """Returns the function of a trigger."""
    if fn is not None and not callable(fn):
        raise DefinitionError(f"into takes a function, not {fn!r}")
    if fn is not None and is_async(fn):
        raise DefinitionError("into takes a plain function, not an async one")
    return fn


def gather(call: str, args: tuple[Any, ...], fields: dict[str, Any]) -> Any:
    """Returns the one value that a call gives.

    Raises:
        TypeError: it gives several, or both an argument and fields.
    """
    if len(args) > 1 or (args and fields):
        raise TypeError(f"{call} takes one mapping or model, or the fields by name: {call}(field=value)")
    return args[0] if args else fields


def bound(call: str, instead: str) -> Caller:
    """Returns the caller of something that needs a run around it.

    Raises:
        NotBound: there is none.
    """
    if caller.get() is None:
        raise NotBound(f"{call} works inside a handler; elsewhere use the queue's own: `await {instead}(…)`")
    return reach(call)


def wait_for(source: Target, match: Match, timeout: Duration | None) -> Coroutine[Any, Any, Any]:
    """Waits in a handler for an event, or for the success of a run."""
    if match is not None and not callable(match) and not isinstance(match, Mapping):
        raise TypeError(f"wait_for takes a mapping or a predicate, not {match!r}")
    if callable(match) and is_async(match):
        raise DefinitionError("the predicate of wait_for is a plain function, not an async one")
    limit = None if timeout is None else seconds(timeout, "timeout of wait_for")
    if caller.get() is None:
        raise NotBound(f"{source.name}.wait_for works inside a handler only")
    return reach(f"{source.name}.wait_for").wait(source, match, limit)
