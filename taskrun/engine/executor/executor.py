"""The executor: the half of an engine that owns user code and never touches the journal.

Holds the jobs, one `Context` per attempt under way, and the processes. Answers the core (`Prepare`, `Describe` …) and does
what it tells (`Execute`, `Cancel` …). Made by a `Queue`, or by a worker process of the daemon.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping, Sequence
from contextvars import copy_context
from pathlib import Path
from types import MappingProxyType
from typing import Any

import msgspec

from taskrun.declarations.job import Job
from taskrun.declarations.registry import Registry
from taskrun.engine import messages as m
from taskrun.engine.executor.attempt import attempt, failed, taken_down
from taskrun.engine.executor.capture import Capture
from taskrun.engine.executor.hooks import Listeners
from taskrun.engine.executor.replay import NOTHING, Replay
from taskrun.engine.executor.run_log import RunLog
from taskrun.engine.executor.step_bodies import Bodies
from taskrun.engine.executor.step_context import Context, MakeHandle
from taskrun.engine.executor.step_ids import TaskFactory, order_tasks
from taskrun.model.clock import Clock, SystemClock
from taskrun.model.codec import MAX_PAYLOAD, check_size, decode, encode, parse_json
from taskrun.model.errors import JobNotFound, PipeNotFound
from taskrun.model.records import Step
from taskrun.rules.policies import Cron, Prepared, Routed

logger = logging.getLogger("taskrun.engine.executor")
UNWIND = 1.0  # seconds that a handler gets to let itself be taken down
HOOK_TURNS = 20  # turns of the event loop in which hooks are called that await nothing


class Executor:
    """User code of one process.

    Parameters:
        problems: what is wrong with the job files; part of the description.
        files: the job files and what they import, likewise.
        sources: the text of those that could be loaded, likewise.
        lock_fd: descriptor of the liveness lock, that processes of steps keep open.
        echo: whether what runs print goes to the real stdout as well.
        max_payload: bytes of one input, output or step result.
        commands: the folder with the files of commands that survive; without one none does.
        sealed: no more listeners will be added, so that the core need only notify of jobs that have some.
        make_handle: makes the handle of a child that was started.
    """

    core: m.Peer  # the other half, from `connect` on

    def __init__(
        self,
        registry: Registry,
        *,
        clock: Clock | None = None,
        problems: Sequence[dict[str, Any]] = (),
        files: Sequence[str] = (),
        sources: Mapping[str, str] = MappingProxyType({}),
        grace: float = 10.0,
        lock_fd: int | None = None,
        commands: Path | None = None,
        echo: bool = True,
        max_payload: int = MAX_PAYLOAD,
        sealed: bool = False,
        make_handle: MakeHandle,
    ) -> None:
        self.registry = registry
        self.clock = clock or SystemClock()
        self.contexts: dict[str, Context] = {}
        self.listeners = Listeners(registry)
        self.bodies = Bodies(self.clock, grace, lock_fd, commands)
        self._problems = list(problems)
        self._files = list(files)
        self._sources = dict(sources)
        self._max_payload = max_payload
        self._sealed = sealed
        self._grace = grace
        self._make_handle = make_handle
        self._draining = False
        self._leaving = False
        self._factory: TaskFactory | None = None
        self._scope = copy_context()  # what each attempt begins with: nothing of the run that happened to come before
        self._tasks: dict[asyncio.Task[None], Context] = {}  # of attempts
        self._chores: set[asyncio.Task[Any]] = set()
        self._evicted: list[Context] = []  # attempts that are to be taken down, in the next turn
        self._backstop = self._must_have_reported  # made once, as is the next: thousands of runs refer to them
        self._on_held = self._take_down_held
        Capture.install(echo)
        order_tasks()

    def connect(self, core: m.Peer) -> None:
        """Sets how it reaches the core; handlers run on the event loop that runs now."""
        self.core = core
        self._factory = TaskFactory.install(asyncio.get_running_loop())

    async def close(self) -> None:
        """Ends what is left; the coroutines have been unwound by `Drain`."""
        for context in list(self.contexts.values()):
            await self._unwind(context)
        for chore in self._chores:
            chore.cancel()
        await self.bodies.close()
        if self._factory is not None:
            self._factory.remove(asyncio.get_running_loop())
        Capture.remove()

    # ---- what the core asks

    async def answer(self, peer: m.Peer, message: m.Asked) -> Any:
        """Answers the core."""
        return await _ANSWERS[type(message)](self, message)

    async def _describe(self, message: m.Describe) -> m.Description:
        return self.description()

    def description(self) -> m.Description:
        """Returns what there is."""
        return m.Description(
            jobs=self.registry.described_jobs(),
            pipes=[pipe.describe() for pipe in self.registry.pipes.values()],
            problems=self._problems,
            files=self._files,
            sources=self._sources,
            crons=[_schedule(job, cron) for job, cron in self.registry.crons()],
            watched=[{"job": job.name, **files.describe()} for job, files in self.registry.files()],
            hooked=self.listeners.hooked() if self._sealed else None,
        )

    async def _prepare(self, message: m.Prepare) -> Prepared:
        return self.prepare(message)

    def prepare(self, message: m.Prepare) -> Prepared:
        """Validates an input and evaluates the job's options for it; needs no event loop."""
        return self.job(message.job).prepare(self._read(message.input, message.job, "input of"))

    async def _prepare_event(self, message: m.PrepareEvent) -> str:
        return self.prepare_event(message)

    def prepare_event(self, message: m.PrepareEvent) -> str:
        """Validates an event; needs no event loop."""
        pipe = self.registry.pipes.get(message.pipe)
        if pipe is None:
            raise PipeNotFound(f'no pipe "{message.pipe}"')
        return pipe.prepare(self._read(message.data, message.pipe, "event for"))

    def _read(self, text: str, name: str, what: str) -> Any:
        """Checks that text from outside is JSON, and returns it undecoded, so that no number loses digits."""
        check_size(text.encode(), f"{what} {name}", self._max_payload)
        try:
            decode(text)
            return msgspec.Raw(text.encode())
        except (msgspec.DecodeError, RecursionError):
            return parse_json(text, name)  # says what is wrong with it

    async def _route(self, message: m.Route) -> Routed:
        return self.route(message)

    def route(self, message: m.Route) -> Routed:
        """Returns what an event starts of a job; needs no event loop."""
        return self.registry.route(message.topic, message.data, message.job)

    async def _drain(self, message: m.Drain) -> None:
        """Lets attempts end by themselves for a while, then takes them down."""
        self._draining = True
        for context in self.contexts.values():
            context.pause(True)  # the step in flight may end, no other begins
            context.leave()
        tasks = [context.task for context in self.contexts.values() if context.task is not None]
        if tasks and message.grace > 0:
            await self._settle(tasks, message.grace)
        await asyncio.gather(*(self._unwind(context) for context in list(self.contexts.values())))
        self._draining = False

    async def _finish_hooks(self, message: m.FinishHooks) -> None:
        """Waits for the calls of hooks, at least for those that await nothing."""
        for _ in range(HOOK_TURNS):
            await asyncio.sleep(0)
        if (calls := self.listeners.under_way) and message.grace > 0:
            await self._settle(calls, message.grace)

    async def _settle(self, tasks: list[asyncio.Task[Any]], grace: float) -> None:
        """Waits for tasks until `grace` seconds of the clock are over."""
        over = asyncio.Event()
        alarm = self.clock.alarm(grace, over.set)
        waits = [asyncio.ensure_future(asyncio.wait(tasks)), asyncio.ensure_future(over.wait())]
        try:
            await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
        finally:
            alarm.cancel()
            for wait in waits:
                wait.cancel()

    # ---- what the core tells

    def hear(self, peer: m.Peer, message: m.Told) -> None:
        """Takes what the core tells."""
        _HEARS[type(message)](self, message)

    def _execute(self, message: m.Execute) -> None:
        """Begins an attempt. It always reports: what cannot be read of it is its failure."""
        run = message.run
        job = self.registry.jobs.get(run.job)
        try:
            if job is None:
                raise JobNotFound(f'no job "{run.job}"')
            context = self._context(message, job)
        except BaseException as error:
            self.core.tell(m.Finished(run=run.id, outcome=failed(run, job, error, ())))
            return
        self.contexts[run.id] = context
        loop = asyncio.get_running_loop()
        begun = None if message.fresh else message.steps
        work = self._attempt(context, job, begun)
        context.task = loop.create_task(work, name=f"run {run.id}", context=self._scope.copy())
        self._tasks[context.task] = context
        context.task.add_done_callback(self._backstop, context=self._scope)
        if self._draining:
            context.pause(True)
        if self._draining or self._leaving:
            context.leave()
        if run.cancel is not None:
            self._cancel(m.Cancel(run=run.id, reason=run.cancel, grace=self._grace))

    async def _attempt(self, context: Context, job: Job, begun: list[Step] | None) -> None:
        """Executes an attempt and reports its end.

        Parameters:
            begun: the steps of earlier ones; None for the very first start.
        """
        before = self.listeners.before(context.run) if begun is None else None
        if begun is not None:
            await self.bodies.end_earlier(context, begun)
            context.look_soon()  # a cancel that came before the handler has begun is still to be told
        self._end(context, await attempt(context, job, self.bodies, self._max_payload, before))

    def _context(self, message: m.Execute, job: Job) -> Context:
        run = message.run
        replay = Replay(run, message.steps) if message.steps else NOTHING
        return Context(
            run=run,
            job=job,
            host=self.core,
            clock=self.clock,
            bodies=self.bodies,
            replay=replay,
            run_log=RunLog(run.id, message.log_seq, self.core, self.clock, replay.is_active if message.steps else None),
            on_held=self._on_held,
            max_payload=self._max_payload,
            make_handle=self._make_handle,
            jobs=self.registry.jobs,
        )

    def _end(self, context: Context, outcome: m.Outcome) -> None:
        """Reports the end of an attempt, unless that was reported before: what a given-up one does later is ignored."""
        if self.contexts.get(context.run.id) is not context:
            return
        del self.contexts[context.run.id]
        context.over = True
        try:
            context.run_log.close()
        except Exception:
            logger.exception("the last log lines of run %s are lost", context.run.id)
        self.core.tell(m.Finished(run=context.run.id, outcome=outcome))

    def _must_have_reported(self, task: asyncio.Task[None]) -> None:
        """The backstop: an attempt whose task has ended has reported, or does so now."""
        context = self._tasks.pop(task)
        error = RuntimeError("its task was cancelled") if task.cancelled() else task.exception()
        context.task = None  # it refers to the context: without this both would wait for the garbage collector
        if error is not None:
            self._end(context, taken_down(context) or failed(context.run, context.job, error, ()))

    def _over(self, message: m.Over) -> None:
        if (context := self.contexts.get(message.run)) is not None:
            context.deliver(message.steps)

    def _resume(self, message: m.Resume) -> None:
        if (context := self.contexts.get(message.run)) is not None:
            context.resume(message.steps)

    def _parked(self, message: m.Parked) -> None:
        if (context := self.contexts.get(message.run)) is not None:
            context.parked()

    def _cancel(self, message: m.Cancel) -> None:
        context = self.contexts.get(message.run)
        if context is not None:
            context.cancel(message.reason)
            self.clock.alarm(message.grace / 2, context.press_cancel)
            self.clock.alarm(message.grace, lambda: self._chore(self._give_up(context)))

    async def _give_up(self, context: Context) -> None:
        """Ends a cancelled attempt that has used up its grace."""
        if self.contexts.get(context.run.id) is context:
            context.given_up = True
            await self._take_down(context)
            self._end(context, m.Cancelled())

    def _evict(self, message: m.Evict) -> None:
        context = self.contexts.get(message.run)
        if context is None:
            return
        if message.anyway:
            self._chore(self._unwind(context))
            return
        if not self._evicted:
            self._chore(self._unwind_still())
        self._evicted.append(context)

    async def _unwind_still(self) -> None:
        """Takes down attempts that certainly do nothing but wait; checked twice, as tasks notice ends a turn later."""
        contexts, self._evicted = self._evicted, []
        still = [context for context in contexts if self._only_waits(context)]
        await asyncio.sleep(0)
        still = [context for context in still if self._only_waits(context)]
        for context in still:
            context.unwind()
        await asyncio.sleep(0)
        for context in still:
            if self.contexts.get(context.run.id) is context:
                self._chore(self._unwind(context))

    def _only_waits(self, context: Context) -> bool:
        if context.activating:
            return False  # the core has been told that it wants to go on
        if not (waits := context.only_waits()):
            self.core.tell(m.Stay(run=context.run.id))
        return waits

    async def _unwind(self, context: Context) -> None:
        """Takes an attempt down; one that resists is given up, and what it does later is ignored."""
        await self._take_down(context)
        self._end(context, m.Unwound())

    def _take_down_held(self, context: Context) -> None:
        self._chore(self._unwind(context))

    async def _take_down(self, context: Context) -> None:
        context.unwind()
        task, turns = context.task, 3
        while task is not None and not task.done() and turns:
            turns -= 1
            await asyncio.sleep(0)
        if task is not None and not task.done():
            for one in (task, *context.stepping):
                one.cancel()  # each of them: a task group that is already ending does not pass a cancel on
            await asyncio.wait([task], timeout=UNWIND)

    def _pause(self, message: m.Pause) -> None:
        if (context := self.contexts.get(message.run)) is not None:
            context.pause(True)

    def _unpause(self, message: m.Unpause) -> None:
        if (context := self.contexts.get(message.run)) is not None:
            context.pause(False)

    def _leave(self, message: m.Leave) -> None:
        self._leaving = True
        for context in self.contexts.values():
            context.leave()

    def _notify(self, message: m.Notify) -> None:
        self.listeners.notify(message, self._chore)

    # ---- inside

    def job(self, name: str) -> Job:
        """Returns a job by its name."""
        job = self.registry.jobs.get(name)
        if job is None:
            raise JobNotFound(f'no job "{name}"')
        return job

    def _chore(self, work: Any) -> None:
        chore = asyncio.get_running_loop().create_task(work, context=self._scope.copy())
        self._chores.add(chore)
        chore.add_done_callback(self._chores.discard)


def _schedule(job: Job, cron: Cron) -> dict[str, Any]:
    return {
        "job": job.name,
        "cron": cron.expr,
        "timezone": cron.timezone,
        "input": encode({} if cron.input is None else cron.input, f"input of the schedule of {job.name}"),
        "catch_up": cron.catch_up,
        "within": cron.within,
        "late": cron.late,
        "slow": cron.slow,
    }


_ANSWERS: dict[type[m.Message], Callable[[Executor, Any], Any]] = {
    m.Describe: Executor._describe,
    m.Prepare: Executor._prepare,
    m.PrepareEvent: Executor._prepare_event,
    m.Route: Executor._route,
    m.Drain: Executor._drain,
    m.FinishHooks: Executor._finish_hooks,
}
_HEARS: dict[type[m.Message], Callable[[Executor, Any], None]] = {
    m.Execute: Executor._execute,
    m.Over: Executor._over,
    m.Parked: Executor._parked,
    m.Resume: Executor._resume,
    m.Cancel: Executor._cancel,
    m.Evict: Executor._evict,
    m.Pause: Executor._pause,
    m.Unpause: Executor._unpause,
    m.Leave: Executor._leave,
    m.Notify: Executor._notify,
}
