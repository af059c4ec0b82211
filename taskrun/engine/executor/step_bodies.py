"""Executes the bodies of steps: async functions, sync ones in threads, worker processes, commands; under their timeouts.

Made once by the executor. Also says of a body that takes a while that it has begun: a fast one needs no such record.
"""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Callable
from pathlib import Path
from typing import Any

from taskrun.declarations.calls import StepCall
from taskrun.declarations.steps import Completed
from taskrun.engine import messages as m
from taskrun.engine.executor.attempt_state import AttemptState
from taskrun.engine.executor.process_body import in_process, process_pool, to_log
from taskrun.engine.executor.surviving_body import Follower, command_key, follow, timed_out
from taskrun.model.clock import Clock
from taskrun.model.errors import CommandFailed
from taskrun.model.records import Run, Step, StepKind
from taskrun.model.start_errors import plain_start_errors
from taskrun.processes.command import CommandResult, run_command
from taskrun.processes.surviving_command import SurvivingCommands
from taskrun.processes.threads import in_thread

SLOW = 0.05  # seconds after which a body's beginning is worth a record


class Bodies:
    """Executes step bodies for all attempts of an executor."""

    def __init__(self, clock: Clock, grace: float, lock_fd: int | None, commands: Path | None) -> None:
        self.threads = 0  # bodies and handlers in threads and processes, which virtual time must wait for
        self.started = 0  # bodies begun so far
        self._clock = clock
        self._grace = grace
        self._lock_fd = lock_fd
        self._pool = process_pool(lock_fd)
        self._commands = None if commands is None else SurvivingCommands(commands)
        self._fresh: dict[int, tuple[m.Peer, Step]] = {}
        self._ticking = False

    def survives(self, call: StepCall) -> bool:
        """Whether a call is of a command that goes on without its worker: it needs a journal that does."""
        return call.survive and self._commands is not None

    async def execute(self, call: StepCall, step: Step, attempt: AttemptState) -> Any:
        """Executes a body once.

        Raises:
            StepTimeout: it took longer than its timeout.
            Exception: whatever the body raises.
        """
        self.started += 1
        run = _KINDS[call.kind]
        try:
            if self.survives(call):
                return await self._surviving(call, step, attempt)
            if call.timeout is None:
                return await run(self, call, step.key)
            return await self._within(call.timeout, step.key, lambda: run(self, call, step.key))
        except SystemExit as exit:
            if exit.code in (None, 0):  # as every `main` of a command ends
                return None
            raise

    async def in_thread(self, fn: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        """Runs a sync function in a thread."""
        self.threads += 1
        try:
            return await in_thread(fn, *args, **kwargs)
        finally:
            self.threads -= 1

    def begun(self, host: m.Peer, step: Step) -> None:
        """Has the core told that a body has begun, if it is still going on at the next tick, at most 50 ms from now."""
        self._fresh[id(step)] = (host, step)
        if not self._ticking:
            self._ticking = True
            asyncio.get_running_loop().call_later(SLOW, self._tick)

    def ended(self, step: Step) -> None:
        """The body has ended: nobody needs to be told any more that it has begun."""
        self._fresh.pop(id(step), None)

    def forget(self, call: StepCall, step: Step, run: Run) -> None:
        """Lets go of what was kept for a step whose end is in the journal."""
        if self._commands is not None and self.survives(call):
            self._commands.forget(command_key(step, run))

    async def end_earlier(self, attempt: AttemptState, steps: list[Step]) -> None:
        """Ends the commands that a run has left: those of earlier attempts, and all of them when it is to be cancelled."""
        if (commands := self._commands) is None:
            return
        run = attempt.run
        if run.cancel is None:
            await commands.end_earlier(run.id, run.attempt, self._grace)
            return
        for step in steps:
            if step.kind is StepKind.SHELL and not step.finished:
                reader = Follower(step, attempt, self._clock, None)
                await commands.end(command_key(step, run), step.cursor or 0, reader, self._grace)
        await commands.end_earlier(run.id, run.attempt + 1, self._grace)

    async def close(self) -> None:
        """Ends the worker processes; commands that survive go on by themselves."""
        await self._pool.close()
        if self._commands is not None:
            await self._commands.close()

    def _tick(self) -> None:
        fresh, self._fresh = self._fresh, {}
        for host, step in fresh.values():
            host.tell(m.Noted(step))
        self._ticking = False

    async def _within(self, seconds: float, key: str, execute: Callable[[], Any]) -> Any:
        limit = asyncio.timeout(None)
        loop = asyncio.get_running_loop()
        alarm = self._clock.alarm(seconds, lambda: limit.reschedule(loop.time()))
        try:
            async with limit:
                return await execute()
        except TimeoutError as error:
            if limit.expired():
                raise timed_out(key, seconds) from error
            raise
        finally:
            alarm.cancel()

    async def _call(self, call: StepCall, key: str) -> Any:
        fn: Callable[..., Any] = call.fn  # type: ignore[assignment]
        if inspect.iscoroutinefunction(fn):
            return await fn(*call.args, **call.kwargs)
        value = await self.in_thread(fn, *call.args, **call.kwargs)
        return await value if inspect.isawaitable(value) else value  # such as `lambda: fetch(url)`

    async def _process(self, call: StepCall, key: str) -> Any:
        self.threads += 1
        try:
            return await in_process(self._pool, call, key, self._grace)
        finally:
            self.threads -= 1

    async def _command(self, call: StepCall, key: str) -> Completed:
        self.threads += 1
        try:
            with plain_start_errors(call.command or "", call.cwd, call.env):
                result = await run_command(
                    call.command or "",
                    cwd=call.cwd,
                    env=call.env,
                    stdin=call.stdin,
                    on_text=to_log(key),
                    grace=self._grace,
                    lock_fd=self._lock_fd,
                )
        finally:
            self.threads -= 1
        return _completed(call, result)

    async def _surviving(self, call: StepCall, step: Step, attempt: AttemptState) -> Completed:
        assert self._commands is not None
        self.threads += 1
        try:
            with plain_start_errors(call.command or "", call.cwd, call.env):
                result = await follow(self._commands, call, step, attempt, self._clock, self._grace)
        finally:
            self.threads -= 1
        return _completed(call, result)


def _completed(call: StepCall, result: CommandResult) -> Completed:
    """Returns the result of a command as the step has it; one that failed raises, with `check`."""
    if not call.accepts(result.code):
        shown = call.command if isinstance(call.command, str) else " ".join(call.command or ())
        raise CommandFailed(shown, result.code, result.stdout, result.stderr)
    return Completed(code=result.code, stdout=result.stdout, stderr=result.stderr)


_KINDS = {StepKind.RUN: Bodies._call, StepKind.THREAD: Bodies._process, StepKind.SHELL: Bodies._command}
