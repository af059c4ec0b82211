"""One virtual time line, and the event loops on it: each process of the simulation has a loop of its own, interleaved by a seed.

Nothing here knows of taskrun. Time moves when nothing is ready, to the next moment at which something is; a process that is
stopped gets no turns, and what is due to it meanwhile waits; one that was killed is never heard of again.
"""

from __future__ import annotations

import asyncio
import contextvars
import heapq
import itertools
import math
import zlib
from asyncio import events
from collections.abc import Callable, Coroutine
from random import Random
from typing import Any, TypeAlias, TypeVar

T = TypeVar("T")
START = 1_000.0  # seconds of the monotonic clock at the beginning: small, so that microseconds are exact
WALL = 1_000_000.0  # what the wall clock is ahead of it
MOMENT = 1e-9  # what a timer may be early by
NAP = 300.0  # seconds that a loop sleeps at most before it looks at the wall clock again

Due: TypeAlias = "tuple[float, int, Callable[[], None], Process | None]"  # when, in which order, what, and to whom

_made = itertools.count(1)  # of tasks and futures, for their hashes


class SimTask(asyncio.Task[Any]):
    """A task whose place in a set depends on when it was made, not on its address."""

    def __init__(self, coro: Coroutine[Any, Any, Any], **options: Any) -> None:
        self._hash = next(_made)
        super().__init__(coro, **options)

    def __hash__(self) -> int:
        return self._hash


class SimFuture(asyncio.Future[Any]):
    """A future whose place in a set depends on when it was made, not on its address."""

    def __init__(self, **options: Any) -> None:
        self._hash = next(_made)
        super().__init__(**options)

    def __hash__(self) -> int:
        return self._hash


class SimLoop(asyncio.BaseEventLoop):
    """An event loop without a selector that gets one turn at a time, on the time of its time line."""

    _ready: Any
    _task_factory: Any
    _scheduled: list[asyncio.TimerHandle]

    def __init__(self, process: Process) -> None:
        super().__init__()
        self.set_task_factory(lambda loop, coro, **options: SimTask(coro, loop=loop, **options))
        self.process = process
        self.tasks: list[asyncio.Task[Any]] = []

    def time(self) -> float:
        """Returns the time of the time line."""
        return self.process.timeline.now

    def create_task(self, coro: Any, *, name: object = None, context: contextvars.Context | None = None) -> Any:
        """Makes a task that hashes alike in every run of a seed."""
        options: dict[str, Any] = {} if context is None else {"context": context}
        task: asyncio.Task[Any] = self._task_factory(self, coro, **options)
        if name is not None:
            task.set_name(name)
        self.tasks.append(task)
        return task

    def create_future(self) -> Any:
        """Makes a future that hashes alike in every run of a seed."""
        return SimFuture(loop=self)

    def call_soon_threadsafe(  # type: ignore[override]
        self, callback: Any, *args: Any, context: contextvars.Context | None = None
    ) -> Any:
        """Like `call_soon`; as a loop that was closed, the one of a dead process refuses."""
        if not self.process.alive:
            raise RuntimeError("Event loop is closed")
        return self.call_soon(callback, *args, context=context)

    def run_in_executor(self, executor: Any, func: Callable[..., T], *args: Any) -> asyncio.Future[T]:  # type: ignore[override]
        """Calls a function at the next turn: there are no threads here."""
        future: asyncio.Future[T] = self.create_future()

        def work() -> None:
            try:
                future.set_result(func(*args))
            except Exception as error:
                future.set_exception(error)

        self.call_soon(work)
        return future

    def call_exception_handler(self, context: dict[str, Any]) -> None:
        """Reports what nobody caught."""
        if self.process.alive:
            self.process.timeline.on_error(self.process, context)

    def next(self) -> float:
        """Returns when the next thing of this loop is to be done."""
        if self._ready:
            return 0.0
        scheduled = self._scheduled
        while scheduled and scheduled[0]._cancelled:
            heapq.heappop(scheduled)
        return scheduled[0].when() if scheduled else math.inf

    def turns(self, count: int, tick: float) -> None:
        """Executes so many handles, if there are so many; each takes a tick."""
        timeline = self.process.timeline
        ready, scheduled = self._ready, self._scheduled
        events._set_running_loop(self)
        try:
            while count and self.process.alive:
                due = timeline.now + MOMENT
                while scheduled and scheduled[0].when() <= due:
                    handle: Any = heapq.heappop(scheduled)
                    handle._scheduled = False
                    ready.append(handle)
                if not ready:
                    return
                handle = ready.popleft()
                if not handle._cancelled:
                    count -= 1
                    timeline.turns += 1
                    timeline.now += tick
                    handle._run()
        finally:
            events._set_running_loop(None)

    def abandon(self) -> None:
        """Ends what is left without letting it say anything: the process is gone."""
        for task in self.tasks:
            if not task.done():
                task._log_destroy_pending = False  # type: ignore[attr-defined]
                try:
                    task.get_coro().close()
                except BaseException:  # it would have gone on: it is gone all the same
                    continue
        self.tasks.clear()
        self._ready.clear()
        self._scheduled.clear()
        self.close()

    def _write_to_self(self) -> None:
        """Wakes nobody: there is no selector."""


class Process:
    """A process of the simulation: a loop, alive or not, stopped or not."""

    def __init__(self, timeline: Timeline, name: str) -> None:
        self.timeline = timeline
        self.name = name
        self.alive = True
        self.stopped = False  # the whole process: SIGSTOP
        self.stalled = False  # its loop alone
        self.loop = SimLoop(self)
        self._held: list[Due] = []
        self._asked: dict[Coroutine[Any, Any, Any], None] = {}  # not begun yet
        timeline.processes.append(self)

    def __repr__(self) -> str:
        return self.name

    def spawn(
        self,
        work: Coroutine[Any, Any, T],
        done: Callable[[asyncio.Task[T]], None] | None = None,
        begun: Callable[[asyncio.Task[T]], None] | None = None,
    ) -> None:
        """Begins a task in the process's loop, as a request from outside does."""

        def begin() -> None:
            del self._asked[work]
            task: asyncio.Task[T] = self.loop.create_task(work)
            if begun is not None:
                begun(task)
            if done is not None:
                task.add_done_callback(done)

        self._asked[work] = None
        self.loop.call_soon(begin)

    def stop(self) -> None:
        """Gets no turns from now on."""
        self.stopped = True

    def go_on(self) -> None:
        """Gets turns again, and first what was due meanwhile."""
        self.stopped = self.stalled = False
        held, self._held = self._held, []
        for due in held:
            self.timeline.put(due)

    def hold(self, due: Due) -> None:
        """Keeps what is due while it is stopped, with its place before what is due later."""
        self._held.append(due)

    def kill(self) -> None:
        """Is gone, with all its memory."""
        self.alive = False
        for work in self._asked:
            work.close()
        self.timeline.processes.remove(self)
        self.timeline.dead.append(self)


class Timeline:
    """Virtual time, what is due on it, and who gets the next turn."""

    def __init__(self, rng: Random, tick: float, bursts: tuple[int, ...]) -> None:
        global _made
        _made = itertools.count(1)
        self.now = START
        self.jumped = 0.0  # what the wall clock was set forward in all
        self.turns = 0
        self.trace = 0  # a checksum of everything that was seen to happen
        self.processes: list[Process] = []
        self.dead: list[Process] = []
        self.on_error: Callable[[Process, dict[str, Any]], None] = lambda process, context: None
        self.rng = rng
        self._tick = tick
        self._bursts = bursts
        self._due: list[Due] = []
        self._count = itertools.count()

    def wall(self) -> float:
        """Returns the wall clock."""
        return self.now + WALL + self.jumped

    def note(self, *what: object) -> None:
        """Adds to the checksum by which two runs of a seed are compared."""
        self.trace = zlib.crc32(repr((round(self.now, 9), *what)).encode(), self.trace)

    def after(self, seconds: float, call: Callable[[], None], process: Process | None = None) -> None:
        """Calls `call` after some time; not if the process that it is for is dead by then."""
        self.put((self.now + seconds, next(self._count), call, process))

    def put(self, due: Due) -> None:
        """Keeps what is due."""
        heapq.heappush(self._due, due)

    def step(self, until: float) -> bool:
        """Lets one thing happen; returns False when nothing does before `until`, which it is then."""
        now, rng = self.now, self.rng
        ready, soonest = [], math.inf
        for process in self.processes:
            if not process.stopped and not process.stalled:
                at = process.loop.next()
                if at <= now + MOMENT:
                    ready.append(process)
                soonest = min(soonest, at)
        if self._due and self._due[0][0] <= now and (not ready or rng.random() < 0.5):
            self._fire()
        elif ready:
            process = ready[0] if len(ready) == 1 else ready[int(rng.random() * len(ready))]
            process.loop.turns(self._bursts[int(rng.random() * len(self._bursts))], self._tick)
        else:
            soonest = min(soonest, self._due[0][0] if self._due else math.inf)
            self.now = max(now, min(soonest, until))
            return soonest <= until
        return True

    def _fire(self) -> None:
        due = heapq.heappop(self._due)
        _, _, call, process = due
        if process is None or (process.alive and not process.stopped):
            call()
        elif process.alive:
            process.hold(due)


class SimClock:
    """A clock on the time line.

    Parameters:
        jumping: whether it is set now and then, as the wall clock of a machine is.
    """

    def __init__(self, timeline: Timeline, jumping: bool = True) -> None:
        self._timeline = timeline
        self._jumping = jumping

    def now(self) -> float:
        """Returns its time."""
        return self._timeline.wall() if self._jumping else self._timeline.now + WALL

    async def sleep(self, seconds: float) -> None:
        """Waits, a while at most."""
        await asyncio.sleep(max(1e-6, min(seconds, NAP)))  # else rounding could hold time still

    def alarm(self, seconds: float, call: Callable[[], None]) -> asyncio.TimerHandle:
        """Calls `call` after so many seconds."""
        return asyncio.get_running_loop().call_later(max(0.0, seconds), call)
