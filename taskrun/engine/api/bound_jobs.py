"""Jobs and pipes bound to a queue: what `queue.jobs.x` and `queue.pipes.p` are."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any, Generic, Protocol, TypeVar, overload

from taskrun.declarations.calls import Caller, caller
from taskrun.declarations.job import Event, Job
from taskrun.declarations.pipe import Pipe
from taskrun.declarations.registry import Registry
from taskrun.engine.api.run import Run, output_of
from taskrun.engine.core.admit import Trigger, new_id
from taskrun.engine.core.core import Core
from taskrun.engine.core.enlisted import note
from taskrun.model import records
from taskrun.model.codec import encode
from taskrun.model.errors import DefinitionError, JobNotFound, NotFound, PipeNotFound

B = TypeVar("B")
L = TypeVar("L", bound=Callable[[Event], Any])


class QueueLike(Protocol):
    """The queue, as far as its bound jobs and pipes need it."""

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
        """Whether a handler's calls on this queue can be steps of its run: not if its run is in another journal."""
        ...


class BoundJob:
    """A job of a queue."""

    def __init__(self, queue: QueueLike, job: Job) -> None:
        self._queue = queue
        self._job = job
        self.name = job.name
        self.fn = job.fn

    async def start(self, /, *args: Any, connection: Any = None, **fields: Any) -> Run:
        """Triggers a run; returns its handle as soon as the trigger is durable.

        Parameters:
            args: one mapping or model instead of `fields`.
            connection: of psycopg, in whose transaction the trigger is written: rolled back means no run.
            fields: the fields of the input.

        Raises:
            InputInvalid: naming every bad field; nothing is recorded then.
            DefinitionError: `connection` is given within a handler, or the journal is not in Postgres.
        """
        if connection is not None:
            return await self._enlist(connection, self._job.gather(args, fields))
        if _in_handler(self._queue):
            handle: Run = await self._job.start(*args, **fields)
            return handle
        return self._queue.handle(await self._queue.core.trigger(self._trigger(self._job.gather(args, fields))))

    async def _enlist(self, connection: Any, given: Any) -> Run:
        if _in_handler(self._queue):
            raise DefinitionError("connection= is for calls outside of a handler, or within a step's function")
        trigger = self._trigger(given)
        await self._queue.core.journal.store.enlist(connection, *note(trigger), self.name)
        now = self._queue.core.clock.now()
        return self._queue.handle(
            records.Run(id=trigger.id, job=self.name, created_at=now, source="queue", input=trigger.prepared.input)
        )

    async def run(self, /, *args: Any, **fields: Any) -> Any:
        """Triggers a run, waits for its end, and returns its output.

        Raises:
            InputInvalid: naming every bad field.
            RunFailed, RunTimeout, RunCancelled, RunDiscarded: how else it ended.
        """
        if _in_handler(self._queue):
            return await self._job.run(*args, **fields)
        ended = await self._queue.core.run(self._trigger(self._job.gather(args, fields)))
        return output_of(ended, self._job.read)

    def _trigger(self, given: Any) -> Trigger:
        prepared = self._job.prepare(given, self._queue.max_payload)
        return Trigger(prepared=prepared, id=new_id(), source="queue")

    async def cancel(self, /, *args: Any, **fields: Any) -> int:
        """Cancels every unfinished run of the job with exactly this input; returns how many."""
        data = encode(self._job.gather(args, fields), f"input of {self.name}")
        return await self._queue.core.cancel_runs(self.name, data)

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

    def __init__(self, queue: QueueLike, pipe: Pipe) -> None:
        self._queue = queue
        self._pipe = pipe
        self.name = pipe.name

    async def send(self, /, *args: Any, **fields: Any) -> str:
        """Sends an event; returns its id once it is durable.

        Raises:
            InputInvalid: naming every bad field.
        """
        if _in_handler(self._queue):
            return await self._pipe.send(*args, **fields)
        data = encode(self._pipe.gather(args, fields), f"event for {self.name}", self._queue.max_payload)
        return (await self._queue.core.send(self.name, data)).id


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


def bind_jobs(queue: QueueLike) -> Names[BoundJob]:
    """Returns a queue's jobs."""
    return Names({name: BoundJob(queue, job) for name, job in queue.registry.jobs.items()}, JobNotFound, "job")


def bind_pipes(queue: QueueLike) -> Names[BoundPipe]:
    """Returns a queue's pipes."""
    return Names({name: BoundPipe(queue, pipe) for name, pipe in queue.registry.pipes.items()}, PipeNotFound, "pipe")


def _in_handler(queue: QueueLike) -> bool:
    """Whether the caller is a handler's own code, where calls are durable steps."""
    current = caller.get()
    return current is not None and not current.inside_step and queue.shares_journal(current)
