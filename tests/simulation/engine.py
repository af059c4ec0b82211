"""The only module of the simulation that knows the project's insides: patches, both halves of an engine, what is read of them.

`install` is called once in a process that does nothing else: it takes threads, clocks and chance away from the engine.
"""

from __future__ import annotations

import asyncio
import os
import secrets
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any

from taskrun.daemon.frames import PIPE_CAP, FrameReader, frame
from taskrun.daemon.workers.worker_main import ANYTIME, finish
from taskrun.daemon.workers.worker_rpc import DECODE, ENCODE, Ask, PipePeer, PipeProtocol, answer
from taskrun.engine import messages as m
from taskrun.engine.api.run import Run as Handle
from taskrun.engine.core import journal, lease, rescuer
from taskrun.engine.core.admit import Trigger, new_id
from taskrun.engine.core.core import Core
from taskrun.engine.core.executor_messages import ExecutorMessages
from taskrun.engine.executor import step_bodies
from taskrun.engine.executor.capture import Capture
from taskrun.engine.executor.executor import Executor
from taskrun.model.notify_config import NotifyTable, Way
from taskrun.model.records import Awaited, Run
from taskrun.rules import policies
from taskrun.stores import highwater
from tests.simulation.disk import SimStore, SimWriter
from tests.simulation.handlers import Code
from tests.simulation.timeline import Process, SimClock, SimLoop, Timeline

# ---- patches


class _Time:
    """Stands for the module `time` where the engine asks it past its clock."""

    timeline: Timeline

    def time(self) -> float:
        return self.timeline.wall()

    def monotonic(self) -> float:
        return self.timeline.now

    def time_ns(self) -> int:
        return int(self.timeline.wall() * 1e9)


class _Event:
    """Stands for the event by which a heartbeat thread is stopped: each beat waits for it once, and then ends."""

    def __init__(self) -> None:
        self.every = 1.0
        self._set = False
        self._waits = 0

    def set(self) -> None:
        self._set = True

    def is_set(self) -> bool:
        return self._set

    def wait(self, seconds: float) -> bool:
        self.every = seconds
        self._waits += 1
        return self._set or self._waits % 2 == 0


class _Thread:
    """Stands for a heartbeat thread: its target is called on the time line, as often as it would wait."""

    def __init__(self, target: Callable[[], None], name: str = "", daemon: bool = False) -> None:
        self._target = target
        self._stop: _Event = target.__self__._stop  # type: ignore[attr-defined]

    def start(self) -> None:
        loop = asyncio.get_running_loop()
        assert isinstance(loop, SimLoop)
        self._process = loop.process
        self._process.timeline.after(self._stop.every, self._beat, self._process)

    def _beat(self) -> None:
        if not self._stop.is_set():
            self._target()
            self._process.timeline.after(self._stop.every, self._beat, self._process)


class _Threading:
    Event = _Event
    Thread = _Thread


class _LivenessLock:
    """Stands for the locked file that tells whether an engine lives."""

    held: dict[str, Process] = {}  # noqa: RUF012

    def __init__(self, path: Path) -> None:
        loop = asyncio.get_running_loop()
        assert isinstance(loop, SimLoop)
        self.path, self.fd = path, -1
        self.held[str(path)] = loop.process

    def close(self) -> None:
        self.held.pop(str(self.path), None)

    @classmethod
    def free(cls, path: Path) -> bool:
        holder = cls.held.get(str(path))
        return holder is None or not holder.alive


async def _in_thread(fn: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    await asyncio.sleep(0.002)
    return fn(*args, **kwargs)


_time = _Time()
_chance = Random(0)


def install() -> None:
    """Takes threads, clocks and chance away from the engine, for the life of this process."""
    patches: list[tuple[Any, str, Any]] = [
        (lease, "time", _time),
        (lease, "threading", _Threading),
        (lease, "LivenessLock", _LivenessLock),
        (highwater, "time", _time),
        (journal, "JournalWriter", SimWriter),
        (step_bodies, "in_thread", _in_thread),
        (Capture, "install", classmethod(lambda cls, echo: None)),
        (Capture, "remove", classmethod(lambda cls: None)),
        (Capture, "refresh", classmethod(lambda cls: None)),
        (os, "urandom", lambda size: _chance.randbytes(size)),
        (secrets, "token_hex", lambda size=8: _chance.randbytes(size).hex()),
    ]
    for owner, name, value in patches:
        setattr(owner, name, value)


def begin(timeline: Timeline, seed: int) -> None:
    """Readies what is shared by all engines for one seed."""
    _time.timeline = timeline
    _chance.seed(seed)
    policies._RNG.seed(seed)
    _LivenessLock.held.clear()
    look_every(0.5)


def look_every(seconds: float) -> None:
    """Sets how often an engine looks at what others wrote: seldom once nothing happens any more, to be fast."""
    SimStore.pace = seconds
    lease.WATCHED = 0.4 * seconds
    rescuer.EVERY = 10 * seconds


# ---- engines


@dataclass
class Settings:
    """How the engines of a seed are set up."""

    concurrency: int | None = None
    grace: float = 1.0
    lease: float = 15.0
    resident: int = 1_000
    tells: bool = False  # people are told of each end


class Engine:
    """One engine in one process, as a `Queue` joins the halves; the base of the daemon's.

    Parameters:
        fell: told when it could not start.
    """

    def __init__(self, process: Process, store: SimStore, settings: Settings) -> None:
        self.process = process
        self.store = store
        self.settings = settings
        self.core = Core(
            store,
            clock=store.clock or SimClock(process.timeline),
            concurrency=settings.concurrency,
            grace=settings.grace,
            lease=settings.lease,
            name=process.name,
            resident=settings.resident,
            **self._kind(),
        )
        if settings.tells:
            self.core.notify_runs.set([NotifyTable(("failed", "succeeded"), (), (Way(desktop=True),))])
        self.up = False
        self.closing = False
        self.asked: set[asyncio.Task[Any]] = set()  # the requests of clients

    def _kind(self) -> dict[str, Any]:
        return {"timezone": "UTC"}

    async def start(self, code: Code) -> None:
        """Starts as `Queue.start` does."""
        await self.core.start()
        executor = Executor(code.registry, clock=self.core.clock, grace=self.settings.grace, make_handle=Handle)
        to_executor, to_core = m.LocalPeer(executor), m.LocalPeer(ExecutorMessages(self.core))
        to_executor.back, to_core.back = to_core, to_executor
        executor.connect(to_core)
        self.executor = executor
        executor.listeners.add("settled", lambda event: code.watch.settled(event.run_id, event.kind))
        await self.core.join(to_executor)
        self.up = True

    async def close(self, grace: float | None) -> None:
        """Closes as `Queue.close` does."""
        self.up, self.closing = False, True
        await self.core.close(grace)
        await self.executor.close()

    @property
    def id(self) -> str:
        """The id under which it is registered now."""
        return self.core.state.id

    def slots(self) -> int:
        """Returns how many slots it has given out and not back."""
        return self.core.slots.used + self.core.claims.suspects.used

    def left(self) -> list[str]:
        """Returns the tasks of the project that close has left behind."""
        current = asyncio.current_task()
        left = [task for task in self.process.loop.tasks if not task.done() and task is not current]
        coroutines: list[Any] = [task.get_coro() for task in left if task not in self.asked]
        return [coro.__qualname__ for coro in coroutines if "/taskrun/" in coro.cr_code.co_filename]

    # ---- what clients ask

    async def trigger(self, job: str, data: str, delay: float | None, after: Sequence[Awaited]) -> str:
        """Triggers a run; returns its id once that is acknowledged."""
        prepared = await self.core.prepare(job, data)
        until = None if delay is None else self.core.clock.now() + delay
        trigger = Trigger(prepared=prepared, id=new_id(), source="sim", delay_until=until, after=after)
        run = await self.core.trigger(trigger)
        return run.id

    async def wait(self, run_id: str) -> Run:
        """Returns a run once it has ended."""
        return await self.core.wait(run_id)

    async def follow(self, run_id: str, pace: float) -> str:
        """Follows a run's events to their end, as slowly as whoever works with them; returns the last one."""
        last = ""
        async for event in Handle(self.core, await self.core.get(run_id)).events():
            last = event.kind
            await asyncio.sleep(pace)
        return last

    async def send(self, pipe: str, data: str) -> str:
        """Sends an event; returns its id once that is acknowledged."""
        return (await self.core.send(pipe, data)).id

    async def order(self, run_id: str, verb: str, argument: str | None = None) -> Any:
        """Cancels, pauses, resumes or retries a run."""
        return await self.core.request(run_id, verb, argument)

    async def hold_job(self, job: str, held: bool) -> Any:
        """Pauses or resumes a job."""
        return await (self.core.jobs.pause(job) if held else self.core.jobs.resume(job))

    async def end_schedules(self) -> None:
        """Drops the schedules of all jobs, as if their code named none any more."""
        jobs = [{"name": name} for name in self.core.state.jobs]
        await self.core.schedules.join(m.Description(jobs=jobs, pipes=[], problems=[]))

    async def why(self, run_id: str) -> Any:
        """Returns why a run does not go on."""
        return await self.core.why(run_id)


class _Wire:
    """One way of a pipe between two processes: in order, after a while."""

    def __init__(self, timeline: Timeline, to: Process, latency: Callable[[], float]) -> None:
        self.deliver: Callable[[bytes], None]
        self._timeline = timeline
        self._to = to
        self._latency = latency
        self._last = 0.0

    def write(self, data: bytes) -> None:
        self.then(lambda: self.deliver(data))

    def then(self, call: Callable[[], None]) -> None:
        """Calls `call` at the other end, behind everything that was sent before."""
        self._last = max(self._last, self._timeline.now + self._latency())
        self._timeline.after(self._last - self._timeline.now, call, self._to)


class _Transport(asyncio.Transport):
    """The daemon's end of a pipe."""

    def __init__(self, wire: _Wire, closed: Callable[[], None]) -> None:
        super().__init__()
        self._wire = wire
        self._closed = closed

    def write(self, data: Any) -> None:
        self._wire.write(bytes(data))

    def close(self) -> None:
        self._closed()

    def abort(self) -> None:
        self._closed()


class Worker:
    """A worker of the daemon in a process of its own, as `daemon.worker_main` joins an executor to its pipe."""

    def __init__(self, engine: DaemonEngine, process: Process, code: Code, latency: Callable[[], float]) -> None:
        self.process = process
        self.code = code
        self.retired = False
        self._engine = engine
        timeline = process.timeline
        self._to_worker = _Wire(timeline, process, latency)
        self._to_daemon = _Wire(timeline, engine.process, latency)
        self._to_worker.deliver = self._arrived
        self._frames = FrameReader(PIPE_CAP)
        self.protocol = PipeProtocol(ExecutorMessages(engine.core))  # in the daemon's loop, as everything of it
        loop = engine.process.loop
        self._to_daemon.deliver = lambda data: loop.call_soon_threadsafe(self._received, data)
        self.protocol.connection_made(_Transport(self._to_worker, self.end))
        process.loop.call_soon(self._begin)

    def _received(self, data: bytes) -> None:
        """In the daemon's loop, as its transport does it."""
        while data:
            buffer = self.protocol.get_buffer(-1)
            part, data = data[: len(buffer)], data[len(buffer) :]
            buffer[: len(part)] = part
            self.protocol.buffer_updated(len(part))

    def _begin(self) -> None:
        """In the worker's loop."""
        settings, clock = self._engine.settings, SimClock(self.process.timeline)
        self._executor = Executor(
            self.code.registry, clock=clock, grace=settings.grace, echo=False, sealed=True, make_handle=Handle
        )
        self._peer = PipePeer(self._executor, self._to_daemon.write)
        self._executor.connect(self._peer)

    def _arrived(self, data: bytes) -> None:
        """As the thread that reads the pipe: some asks are answered past the loop."""
        if not hasattr(self, "_peer"):
            self.process.timeline.after(0.001, lambda: self._arrived(data), self.process)
            return
        for_loop = []
        for envelope in map(DECODE, self._frames.feed(data)):
            if isinstance(envelope, Ask) and isinstance(envelope.message, ANYTIME):
                reply = finish(answer(self._executor, self._peer, envelope))
                self._to_daemon.write(frame(ENCODE(reply), PIPE_CAP))
            else:
                for_loop.append(envelope)
        if for_loop:
            self.process.loop.call_soon_threadsafe(self._peer.receive, for_loop)

    def end(self) -> None:
        """Its process ends; the daemon sees the end of the pipe."""
        if self.process.alive:
            self.process.kill()
            self._to_daemon.then(self._seen_dead)

    def _seen_dead(self) -> None:
        self._engine.process.loop.call_soon_threadsafe(self.protocol.connection_lost, None)


class DaemonEngine(Engine):
    """The daemon: a core in one process, its workers in others, looked after as the worker pool does.

    Parameters:
        hire: makes the process of a worker, with the newest code.
    """

    def __init__(
        self,
        process: Process,
        store: SimStore,
        settings: Settings,
        hire: Callable[[], tuple[Process, Code]],
        latency: Callable[[], float],
    ) -> None:
        super().__init__(process, store, settings)
        self.workers: list[Worker] = []
        self._hire = hire
        self._latency = latency
        self._tasks: set[asyncio.Task[None]] = set()

    def _kind(self) -> dict[str, Any]:
        return {"timezone": "UTC", "alone": True, "blame": False}

    async def start(self, code: Code) -> None:
        """Starts as the daemon does, with one worker; more join by `add`."""
        await self.core.start()
        self.add()
        self.up = True

    def add(self) -> Worker:
        """Brings up a worker."""
        process, code = self._hire()
        worker = Worker(self, process, code, self._latency)
        self.workers.append(worker)
        self._spawn(self._look_after(worker))
        return worker

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _look_after(self, worker: Worker) -> None:
        try:
            await self.core.join(worker.protocol.peer)
            await worker.protocol.ended
        except Exception:
            if worker.process.alive:
                raise
        if worker.retired or self.closing:
            return
        self.core.retire(worker.protocol.peer)
        self.workers.remove(worker)
        await self.core.leave(worker.protocol.peer, crashed=True)
        if not self.closing:
            self.add()

    async def reload(self, grace: float) -> None:
        """Changes to new workers, as a reload of the daemon does."""
        old = [worker for worker in self.workers if not worker.retired]
        for _ in old:
            self.add()
        for worker in old:
            worker.retired = True
            self.core.retire(worker.protocol.peer)
        await asyncio.gather(*(self._let_go(worker, grace) for worker in old))

    async def _let_go(self, worker: Worker, grace: float) -> None:
        try:
            async with asyncio.timeout(grace + 2.0):
                await self.core.hooks.drain(worker.protocol.peer, grace)
        except (TimeoutError, Exception):
            pass
        worker.end()
        await worker.protocol.ended
        if worker in self.workers:
            self.workers.remove(worker)
        await self.core.leave(worker.protocol.peer, crashed=False)

    async def close(self, grace: float | None) -> None:
        """Closes as the daemon does."""
        self.up, self.closing = False, True
        await self.core.close(grace)
        for worker in self.workers:
            worker.end()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
