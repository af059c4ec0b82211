"""Jobs and pipes bound to a queue: what `queue.jobs.x` and `queue.pipes.p` are."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any, Generic, Protocol, TypeVar, overload

from taskrun.declarations.calls import Caller, caller
from taskrun.declarations.job import Event, Job
from taskrun.declarations.pipe import Pipe
from taskrun.declarations.registry import Registry
from taskrun.engine.api.run import Run
from taskrun.engine.core.admit import Trigger, new_id
from taskrun.engine.core.core import Core
from taskrun.model import records
from taskrun.model.codec import encode
from taskrun.model.errors import JobNotFound, NotFound, PipeNotFound

B = TypeVar("B")
L = TypeVar("L", bound=Callable[[Event], Any])


class Home(Protocol):
    """What bound things need of their queue."""

    registry: Registry
    max_payload: int

    @property
    def core(self) -> Core:
        """The half of the engine that owns the journal."""
        ...

    def handle(self, record: records.Run) -> Run:
        """Returns the handle of a run."""
        ...

    def shares_journal(self, handler: Caller) -> bool:
        """Whether what a handler calls here can be a step of its run: not where another queue on another journal has it."""
        ...


class BoundJob:
    """A job of a queue."""

    def __init__(self, home: Home, job: Job) -> None:
        self._home = home
        self._job = job
        self.name = job.name
        self.fn = job.fn

    async def start(self, /, *args: Any, **fields: Any) -> Run:
        """Triggers a run; returns its handle as soon as the trigger is durable.

        Parameters:
            args: one mapping or model instead of `fields`.
            fields: the fields of the input.

        Raises:
            InputInvalid: naming every bad field; nothing is recorded then.
        """
        if _in_handler(self._home):
            handle: Run = await self._job.start(*args, **fields)
            return handle
        prepared = self._job.prepare(self._job.gather(args, fields), self._home.max_payload)
        run, _ = await self._home.core.trigger(Trigger(prepared=prepared, id=new_id(), source="queue"))
        return self._home.handle(run)

    async def run(self, /, *args: Any, **fields: Any) -> Any:
        """Triggers a run, waits for its end, and returns its output.

        Raises:
            InputInvalid: naming every bad field.
            RunFailed, RunTimeout, RunCancelled, RunDiscarded: how else it ended.
        """
        if _in_handler(self._home):
            return await self._job.run(*args, **fields)
        return await (await self.start(*args, **fields)).result()

    async def cancel(self, /, *args: Any, **fields: Any) -> int:
        """Cancels every unfinished run of the job with exactly this input; returns how many."""
        data = encode(self._job.gather(args, fields), f"input of {self.name}")
        return await self._home.core.cancel_runs(self.name, data)

    @overload
    def on(self, kind: str, callback: L) -> L: ...
    @overload
    def on(self, kind: str, callback: None = None) -> Callable[[L], L]: ...
    def on(self, kind: str, callback: Any = None) -> Any:
        """Calls `callback(event)` for this job's `kind` of event; as a decorator without `callback`."""
        return self._job.on(kind, callback)

    @overload
    def once(self, kind: str, callback: L) -> L: ...
    @overload
    def once(self, kind: str, callback: None = None) -> Callable[[L], L]: ...
    def once(self, kind: str, callback: Any = None) -> Any:
        """Like `on`, for the next event only."""
        return self._job.once(kind, callback)

    def off(self, kind: str, callback: Callable[[Event], Any]) -> None:
        """Stops calling `callback`."""
        self._job.off(kind, callback)


class BoundPipe:
    """A pipe of a queue."""

    def __init__(self, home: Home, pipe: Pipe) -> None:
        self._home = home
        self._pipe = pipe
        self.name = pipe.name

    async def send(self, /, *args: Any, **fields: Any) -> str:
        """Sends an event; returns its id once it is durable.

        Raises:
            InputInvalid: naming every bad field.
        """
        if _in_handler(self._home):
            return await self._pipe.send(*args, **fields)
        data = encode(self._pipe.gather(args, fields), f"event for {self.name}", self._home.max_payload)
        return (await self._home.core.send(self.name, data)).id


class Names(Generic[B], Mapping[str, B]):
    """Bound things by name: `queue.jobs["x"]`, `queue.jobs.x`."""

    def __init__(self, things: dict[str, B], error: type[NotFound], what: str) -> None:
        self._things = things
        self._error = error
        self._what = what

    def __getitem__(self, name: str) -> B:
        try:
            return self._things[name]
        except KeyError:
            known = ", ".join(sorted(self._things)) or "none"
            raise self._error(f'no {self._what} "{name}" (there are: {known})') from None

    def __getattr__(self, name: str) -> B:
        if name.startswith("__"):
            raise AttributeError(name)
        return self[name]

    def __contains__(self, name: object) -> bool:
        return name in self._things

    def __iter__(self) -> Iterator[str]:
        return iter(self._things)

    def __len__(self) -> int:
        return len(self._things)


def bind_jobs(home: Home) -> Names[BoundJob]:
    """Returns a queue's jobs."""
    return Names({name: BoundJob(home, job) for name, job in home.registry.jobs.items()}, JobNotFound, "job")


def bind_pipes(home: Home) -> Names[BoundPipe]:
    """Returns a queue's pipes."""
    return Names({name: BoundPipe(home, pipe) for name, pipe in home.registry.pipes.items()}, PipeNotFound, "pipe")


def _in_handler(home: Home) -> bool:
    """Whether the caller is a handler's own code, where calls are durable steps."""
    current = caller.get()
    return current is not None and not current.inside_step and home.shares_journal(current)
