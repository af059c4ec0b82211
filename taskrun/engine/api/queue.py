"""`Queue`: the engine in your own process. Joins a core and an executor; the public face of both."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import math
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Mapping, Sequence
from contextvars import Context
from datetime import datetime, timedelta
from functools import partial
from types import ModuleType, TracebackType
from typing import Any, TypeVar, overload

from msgspec.structs import replace

from taskrun.declarations.calls import Caller
from taskrun.declarations.job import Event, Job
from taskrun.declarations.options import check_hook_kind
from taskrun.declarations.pipe import Pipe
from taskrun.declarations.registry import Registry
from taskrun.engine.api.bound_jobs import bind_jobs, bind_pipes
from taskrun.engine.api.run import Run
from taskrun.engine.core.core import RESIDENT, Core
from taskrun.engine.core.executor_messages import ExecutorMessages
from taskrun.engine.executor.executor import Executor
from taskrun.engine.executor.hooks import Listener
from taskrun.engine.messages import LocalPeer
from taskrun.model import records
from taskrun.model.clock import Clock, SystemClock
from taskrun.model.codec import MAX_PAYLOAD
from taskrun.model.durations import seconds, shown
from taskrun.model.errors import DefinitionError, JournalUnavailable
from taskrun.model.records import RunFilter, Status
from taskrun.model.stored_text import storable
from taskrun.rules.policies import check_whole
from taskrun.stores.base import Store
from taskrun.stores.memory import MemoryStorage

PAGE = 500  # runs that are read at once
T = TypeVar("T", bound="Queue")
R = TypeVar("R")
L = TypeVar("L", bound=Listener)


class Queue:
    """Runs jobs in this process, on a journal that other queues may share.

    Parameters:
        jobs: a list of jobs, a dict from names to jobs, or a module that holds them.
        pipes: pipes that no job names as a trigger.
        storage: where the journal is; in memory by default.
        logger: gets the queue's own messages; what a run logs is in the run's log.
        concurrency: runs that execute at once; None for no limit.
        clock: the source of time, for tests.
        grace: seconds (or a duration) that handlers get to end after a cancel or at close.
        lease: seconds (or a duration) after which the runs of a silent queue are taken over by another.
        name: shown to others on the same storage.
        max_payload: bytes of one input, output or step result.
        resident: coroutines of waiting runs that are kept; the longest waiting ones beyond them go on by replay.

    Raises:
        DefinitionError: two jobs have one name, a key in `jobs` differs from the job's name, or a setting is invalid.
        DurationInvalid: `grace` or `lease` is not a duration.
    """

    def __init__(
        self,
        jobs: Sequence[Job] | Mapping[str, Job] | ModuleType = (),
        pipes: Sequence[Pipe] | Mapping[str, Pipe] = (),
        storage: Store | None = None,
        logger: logging.Logger | None = None,
        concurrency: int | None = None,
        clock: Clock | None = None,
        grace: float | str | timedelta = 10,
        lease: float | str | timedelta = 15,
        name: str = "default",
        max_payload: int = MAX_PAYLOAD,
        resident: int = RESIDENT,
    ) -> None:
        self.logger = logger or logging.getLogger("taskrun.queue")
        _check(storage, concurrency, max_payload, resident)
        self._storage = storage if storage is not None else MemoryStorage()
        self._clock = clock or self._storage.clock or SystemClock()
        self._grace = seconds(grace, "grace")
        self.max_payload = max_payload
        self.registry = Registry(jobs, pipes)
        self._new_core = partial(
            Core,
            self._storage,
            clock=self._clock,
            concurrency=concurrency,
            grace=self._grace,
            lease=_lease(lease),
            name=name,
            heartbeat=self._heartbeat,
            timezone=self._zone,
            resident=resident,
        )
        self.jobs = bind_jobs(self)
        self.pipes = bind_pipes(self)
        self._core: Core | None = None
        self._executor: Executor | None = None
        self._ready: asyncio.Future[None] | None = None
        self._started: asyncio.Task[None] | None = None
        self._closing: asyncio.Task[None] | None = None
        self._early: list[tuple[str, Listener]] = []

    _heartbeat = True
    _zone: str | None = None  # the time zone of schedules that name none

    # ---- life

    async def start(self) -> None:
        """Opens the journal, takes over what a dead queue left, and begins to run jobs; does nothing once it has started.

        Raises:
            JournalError: the journal cannot be used; the message says why and what helps.
        """
        if self._started is None or self._started.get_loop() is not asyncio.get_running_loop():
            self._started = _apart(self._start())
        try:
            await asyncio.shield(self._started)
        except asyncio.CancelledError:  # the caller does not get a started queue, and so would not close it
            await self.close()
            raise

    async def _start(self) -> None:
        try:
            await self._join()
        except BaseException as error:
            ready, self._ready = self._ready, None
            if ready is not None and not ready.done():
                cut_off = JournalUnavailable("the start was cut off")
                ready.set_exception(error if isinstance(error, Exception) else cut_off)
                ready.exception()  # whether or not anybody awaits it
            with contextlib.suppress(Exception):
                await self._end(0.0)
            self._core = self._executor = self._started = None
            raise

    async def _join(self) -> None:
        self._ready = self._ready or asyncio.get_running_loop().create_future()
        self._core = self._new_core()
        await self.core.start()
        lock = self.core.lease.liveness_lock
        self._executor = Executor(
            self.registry,
            clock=self._clock,
            grace=self._grace,
            lock_fd=None if lock is None else lock.fd,
            commands=self.core.commands.folder,
            max_payload=self.max_payload,
            make_handle=Run,
        )
        for kind, listener in self._early:
            self._executor.listeners.add(kind, listener)
        to_executor, to_core = LocalPeer(self._executor), LocalPeer(ExecutorMessages(self.core))
        to_executor.back, to_core.back = to_core, to_executor
        self._executor.connect(to_core)
        self.core.hooks.hears = self._executor.listeners.hears
        await self.core.join(to_executor)
        _open.add(self)
        if not self._ready.done():
            self._ready.set_result(None)

    @property
    def ready(self) -> Awaitable[None]:
        """An awaitable that is done once the queue has started."""
        self._ready = self._ready or asyncio.get_running_loop().create_future()
        return asyncio.shield(self._ready)

    async def close(self, grace: float | str | timedelta | None = None) -> None:
        """Closes the queue: runs get the grace period; unfinished ones stay in the journal and go on at the next start.

        It closes even if the caller is cancelled while it waits: a handler of this very queue, or a caller that timed out.
        """
        if self._executor is not None:
            self._executor.listeners.pass_over(asyncio.current_task())
        if self._closing is None:
            self._closing = _apart(self._close(None if grace is None else seconds(grace, "grace")))
        await asyncio.shield(self._closing)

    async def _close(self, grace: float | None) -> None:
        try:
            if self._started is not None:
                await asyncio.wait([self._started])
            await self._end(grace)
        finally:
            _open.discard(self)
            self._core = self._executor = self._ready = self._started = self._closing = None

    async def _end(self, grace: float | None) -> None:
        if self._core is not None:
            await self._core.close(grace)
        if self._executor is not None:
            await self._executor.close()

    async def __aenter__(self: T) -> T:
        await self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    def shares_journal(self, handler: Caller) -> bool:
        """Whether a handler's calls on this queue can be steps of its run: not if its run is in another journal."""
        for queue in tuple(_open):
            if queue._executes(handler):
                return _same(queue._storage, self._storage)
        return True

    def _executes(self, handler: Caller) -> bool:
        return self._executor is not None and handler in self._executor.contexts.values()

    # ---- runs

    def handle(self, record: records.Run) -> Run:
        """Returns the handle of a run; its job, if the queue has it, says how the output is read."""
        job = self.registry.jobs.get(record.job)
        return Run(self.core, record) if job is None else Run(self.core, record, job.read)

    async def get(self, run_id: str) -> Run:
        """Returns the handle of a run.

        Raises:
            RunNotFound: no run of this id.
        """
        return self.handle(await self.core.get(storable(run_id)))

    async def runs(
        self,
        job: str | None = None,
        status: str | Sequence[str] | None = None,
        since: datetime | float | str | timedelta | None = None,
        limit: int | None = None,
    ) -> AsyncIterator[Run]:
        """Yields handles of runs, newest first.

        Parameters:
            job: only of this job.
            status: only in this state, or these.
            since: only triggered at or after a moment, or within a duration before now.
            limit: at most so many.
        """
        states = None if status is None else tuple(Status(s) for s in ([status] if isinstance(status, str) else status))
        if limit is not None:
            check_whole(limit, 0, "limit")
        want = RunFilter(job=job, statuses=states, since=self._moment(since))
        left: float = math.inf if limit is None else limit
        while left > 0:
            want = replace(want, limit=int(min(left, PAGE)))
            page = await self.core.read(lambda tx, want=want: tx.runs(want))  # type: ignore[misc]  # a default, not a parameter
            for run in page:
                yield self.handle(run)
            if len(page) < PAGE:
                return
            want, left = replace(want, before=page[-1].seq), left - PAGE

    def _moment(self, since: datetime | float | str | timedelta | None) -> float | None:
        if since is None:
            return None
        if isinstance(since, datetime):
            return since.timestamp()
        return self._clock.now() - seconds(since, "since")

    # ---- events

    @overload
    def on(self, kind: str, callback: L) -> L: ...
    @overload
    def on(self, kind: str, callback: None = None) -> Callable[[L], L]: ...
    def on(self, kind: str, callback: Any = None) -> Any:
        """Calls `callback(event)` for every job's `kind` of event; as a decorator without `callback`."""
        if callback is None:
            return lambda fn: (self.on(kind, fn), fn)[1]
        check_hook_kind(kind)
        if not callable(callback):
            raise TypeError(f"a listener is a function, not {callback!r}")
        self._early.append((kind, callback))
        if self._executor is not None:
            self._executor.listeners.add(kind, callback)
        return callback

    def off(self, kind: str, callback: Callable[[Event], Any]) -> None:
        """Stops calling `callback`."""
        self._early = [entry for entry in self._early if entry != (kind, callback)]
        if self._executor is not None:
            self._executor.listeners.remove(kind, callback)

    @property
    def core(self) -> Core:
        """The half that owns the journal.

        Raises:
            JournalUnavailable: the queue is not running.
        """
        if self._core is None:
            raise JournalUnavailable(
                "the queue is not running: use it within `async with`, or after `await queue.start()`"
            )
        return self._core

    @property
    def executor(self) -> Executor:
        """The half that owns user code, once the queue has started."""
        assert self._executor is not None, "the queue has not been started"
        return self._executor


_open: set[Queue] = set()  # the started queues of this process


def _same(one: Store, other: Store) -> bool:
    return one is other or (one.address is not None and one.address == other.address)


def _check(storage: object, concurrency: object, max_payload: object, resident: object) -> None:
    if storage is not None and not callable(getattr(storage, "open", None)):
        raise DefinitionError(
            f"storage must be a MemoryStorage, a SqliteStorage or a PostgresStorage, not {shown(storage)}"
        )
    if concurrency is not None:
        check_whole(concurrency, 1, "concurrency of Queue")
    check_whole(max_payload, 1, "max_payload of Queue")
    check_whole(resident, 0, "resident of Queue")


def _lease(lease: float | str | timedelta) -> float:
    if (amount := seconds(lease, "lease")) <= 0:
        raise DefinitionError("lease of Queue must be more than 0")
    return amount


def _apart(work: Coroutine[Any, Any, R]) -> asyncio.Task[R]:
    """Runs a coroutine in a task that belongs to no run, even if a handler asks for it."""
    return asyncio.get_running_loop().create_task(work, context=Context())
