"""Calls outside of runs: steps in place, nothing recorded or retried. For unit tests of handlers, and inside steps.

The `Caller` of a job object that is called plainly, and what step calls fall back to where there is no attempt.
"""

from __future__ import annotations

import asyncio
import inspect
import logging
import os
import time
import uuid
from collections.abc import Callable, Coroutine
from functools import lru_cache
from typing import Any

import msgspec

from taskrun.declarations.calls import Caller, Current, JobTarget, Match, PipeTarget, StepCall, caller, is_async
from taskrun.model.errors import CommandFailed, NotBound
from taskrun.model.records import StepKind
from taskrun.model.start_errors import plain_start_errors

log = logging.getLogger("taskrun.run")


class Completed(msgspec.Struct, frozen=True):
    """The end of a command: its exit code, negative for a signal, and at most 1 MB of each stream."""

    code: int
    stdout: str
    stderr: str


class PlainRun(msgspec.Struct, frozen=True):
    """The handle that `start` gives in a plain call: the handler has been executed already."""

    id: str
    job: str
    input: Any
    _task: asyncio.Future[Any]

    async def result(self, timeout: float | None = None) -> Any:
        """Returns the output, or raises what the handler raised."""
        return await self._task


class PlainCaller:
    """The caller where there is no engine.

    Parameters:
        run: the job whose handler is called plainly, if it is one.
    """

    inside_step = False

    def __init__(self, run: Current | None = None) -> None:
        self._run = run

    @property
    def current(self) -> Current:
        """The job that is called; its run id is `plain`."""
        if self._run is None:
            raise NotBound("current() works in handlers and steps; there is no run here")
        return self._run

    async def step(self, call: StepCall) -> Any:
        """Executes a step's body."""
        if call.kind is StepKind.SHELL:
            return await _shell(call)
        assert call.fn is not None
        value = call.fn(*call.args, **call.kwargs) if is_async(call.fn) else await _in_thread(call)
        return await value if inspect.isawaitable(value) else value

    async def sleep(self, until: float | None, seconds: float | None) -> None:
        """Sleeps for real."""
        await asyncio.sleep(max(0.0, until - time.time()) if until is not None else seconds or 0.0)

    def find_job(self, name: str) -> JobTarget:
        """Cannot be: only a queue has jobs by name."""
        raise NotBound(f'job_ref("{name}") needs a queue: test this handler with taskrun.testing.TestQueue')

    def child(self, job: JobTarget, input: object, wait: bool) -> Coroutine[Any, Any, Any]:
        """Executes another handler in place."""
        return job.perform(input) if wait else _started(job, input)

    async def cancel_runs(self, job: JobTarget, input: object) -> int:
        """There is nothing to cancel."""
        return 0

    async def send(self, pipe: PipeTarget, data: object) -> str:
        """Validates an event and drops it, since nobody can wait for it."""
        pipe.prepare(data)
        return uuid.uuid4().hex

    async def wait(self, source: JobTarget | PipeTarget, match: Match, timeout: float | None) -> Any:
        """Raises NotBound: no event would ever come."""
        raise NotBound(f"{source.name}.wait_for needs a queue: test this handler with taskrun.testing.TestQueue")

    def value(self, name: str, make: Callable[[], Any], kind: Any) -> Any:
        """Makes a value."""
        return make()

    def progress(self, done: float, total: float | None, note: str) -> None:
        """Does nothing: nobody watches."""

    def log(self, level: int, text: str) -> None:
        """Logs as any library does."""
        log.log(level, text)


PLAIN = PlainCaller()


def reach(what: str) -> Caller:
    """Returns the caller of a step call: that of the attempt, or a plain one outside of runs and inside steps."""
    here = caller.get()
    if here is None:
        return PLAIN
    if here.inside_step:
        _warn_nested(here.current.run_id, what)
        return PlainCaller(here.current)
    return here


@lru_cache(maxsize=1024)  # once for each run and call, not once for each turn of a loop
def _warn_nested(run_id: str, what: str) -> None:
    log.warning("%s is called inside a step: it is a plain call there, not recorded and not retried", what)


async def _in_thread(call: StepCall) -> Any:
    assert call.fn is not None
    return await asyncio.to_thread(call.fn, *call.args, **call.kwargs)


async def _started(job: JobTarget, input: object) -> PlainRun:
    task = asyncio.ensure_future(job.perform(input))
    await asyncio.wait([task])
    if not task.cancelled():
        task.exception()  # marks it as seen, in case nobody asks for the result
    return PlainRun("plain", job.name, input, task)


async def _shell(call: StepCall) -> Completed:
    environment = None if call.env is None else {**os.environ, **call.env}
    pipe = asyncio.subprocess.PIPE
    stdin = asyncio.subprocess.DEVNULL if call.stdin is None else pipe
    words = ["/bin/sh", "-c", call.command] if isinstance(call.command, str) else list(call.command or ())
    with plain_start_errors(call.command or "", call.cwd, call.env):
        process = await asyncio.create_subprocess_exec(
            *words, cwd=call.cwd, env=environment, stdin=stdin, stdout=pipe, stderr=pipe
        )
    try:
        out, err = await process.communicate(call.stdin.encode() if isinstance(call.stdin, str) else call.stdin)
    except asyncio.CancelledError:
        process.kill()
        await process.wait()
        raise
    code = process.returncode or 0
    done = Completed(code, out.decode(errors="replace"), err.decode(errors="replace"))
    if not call.accepts(code):
        shown = call.command if isinstance(call.command, str) else " ".join(words)
        raise CommandFailed(shown, done.code, done.stdout, done.stderr)
    return done
