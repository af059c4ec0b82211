"""Hooks (`on_success=`) and listeners (`job.on`, `queue.on`): called by the executor when the core notifies of something.

At most once each, in order per run; one that raises is logged and leaves the run alone. `on_trigger` may be awaited before
the run starts, no other holds anything up.
"""

from __future__ import annotations

import asyncio
import inspect
import logging
from collections.abc import Callable, Coroutine
from typing import Any

from taskrun.declarations.job import Event, Job
from taskrun.declarations.registry import Registry
from taskrun.engine.messages import Notify
from taskrun.model.codec import decode, rebuild
from taskrun.model.errors import InputInvalid
from taskrun.model.records import Run
from taskrun.model.secrets import whole_input

logger = logging.getLogger("taskrun.engine.executor.hooks")
Listener = Callable[[Event], Any]


class Listeners:
    """The listeners of a queue, and the calls that are under way."""

    def __init__(self, registry: Registry) -> None:
        self._registry = registry
        self._all: dict[str, list[Listener]] = {}
        self._last: dict[str, asyncio.Task[None]] = {}  # the calls of a run that are under way
        self._triggers: dict[str, asyncio.Task[None]] = {}  # those of them that its start waits for

    def add(self, kind: str, listener: Listener) -> None:
        """Listens for all jobs."""
        self._all.setdefault(kind, []).append(listener)

    def remove(self, kind: str, listener: Listener) -> None:
        """Stops listening."""
        if listener in self._all.get(kind, []):
            self._all[kind].remove(listener)

    def hooked(self) -> list[str]:
        """Returns the jobs with hooks or listeners."""
        return [job.name for job in self._registry.jobs.values() if job.options.hooks or job.listeners]

    def hears(self, job: str) -> bool:
        """Whether a job has hooks or listeners."""
        found = self._registry.jobs.get(job)
        return bool(self._all) or (found is not None and bool(found.listeners or found.options.hooks))

    def notify(self, message: Notify, spawn: Callable[[Coroutine[Any, Any, None]], None]) -> None:
        """Calls all that listen for this kind, after the calls for the same run before."""
        job = self._registry.jobs.get(message.run.job)
        if job is None or not (self._all or job.listeners or job.options.hooks):
            return
        calls = [*job.hooks(message.kind), *self._all.get(message.kind, [])]
        if calls:
            spawn(self._call(message, job, calls))

    @property
    def under_way(self) -> list[asyncio.Task[None]]:
        """The calls that are under way, of each run the last."""
        return list(self._last.values())

    def pass_over(self, task: asyncio.Task[Any] | None) -> None:
        """Counts a task's calls as over: it waits itself for whoever would wait for them."""
        self._last = {run: one for run, one in self._last.items() if one is not task}

    def before(self, run: Run) -> asyncio.Task[None] | None:
        """Returns the calls of `trigger` hooks that the start of a run waits for."""
        return self._triggers.pop(run.id, None)

    async def _call(self, message: Notify, job: Job, calls: list[Listener]) -> None:
        previous = self._last.get(message.run.id)
        task = asyncio.current_task()
        assert task is not None
        self._last[message.run.id] = task
        if message.kind == "trigger":
            self._triggers[message.run.id] = task
        if previous is not None and not previous.done():
            await asyncio.wait([previous])
        for call in calls:
            try:
                result = call(_event(message, job))
                if inspect.isawaitable(result):
                    await result
            except asyncio.CancelledError:
                if task.cancelling():  # the executor is being closed
                    raise
                logger.exception("the %s hook of %s was cancelled", message.kind, job.name)
            except BaseException:  # it may not end the event loop, nor keep others from being called
                logger.exception("the %s hook of %s raised", message.kind, job.name)
        if self._last.get(message.run.id) is task:
            del self._last[message.run.id]
        if self._triggers.get(message.run.id) is task:
            del self._triggers[message.run.id]


def _input(job: Job, run: Run) -> Any:
    """Returns the input as the job reads it, or as plain data if it no longer fits the code."""
    try:
        return job.input.load(whole_input(run))
    except InputInvalid:
        return decode(run.input)


def _event(message: Notify, job: Job) -> Event:
    run = message.run
    return Event(
        kind=message.kind,
        run_id=run.id,
        job=run.job,
        input=_input(job, run),
        output=None if run.output is None else decode(run.output),
        error=None if message.error is None else rebuild(message.error, ""),
        reason=run.reason,
        attempt=run.attempt,
    )
