"""The body of a step whose command goes on without its worker: follows it, by whoever it was begun.

Its lines enter the log together with the position up to which they go, as the step's `cursor`, in one transaction: so whoever
adopts it reads on exactly there. Its timeout counts from its beginning.
"""

from __future__ import annotations

import asyncio

from taskrun.declarations.calls import StepCall
from taskrun.engine.executor.attempt_state import AttemptState
from taskrun.engine.executor.backlog import Pending
from taskrun.model.clock import Alarm, Clock, SystemClock
from taskrun.model.errors import StepTimeout
from taskrun.model.records import Run, Step
from taskrun.processes.command import CommandResult
from taskrun.processes.command_file import STREAMS, Record
from taskrun.processes.surviving_command import CommandKey, CommandSpec, SurvivingCommands, TimedOut


async def follow(
    commands: SurvivingCommands, call: StepCall, step: Step, attempt: AttemptState, clock: Clock, grace: float
) -> CommandResult:
    """Follows the command of a step to its end; begins it, if that has not been done.

    Raises:
        StepTimeout: it took longer than its timeout.
    """
    spec = CommandSpec(
        step=step.key,
        command=call.command or "",
        cwd=call.cwd,
        env=call.env,
        stdin=call.stdin,
        call=step.call,
        now=clock.now(),
        timeout=call.timeout,
        grace=grace,
        rerun=call.rerun,
    )
    follower = Follower(step, attempt, clock, call.timeout)
    attempt.following += 1
    attempt.look_soon()
    try:
        async with follower.limit:
            return await commands.run(command_key(step, attempt.run), spec, step.cursor or 0, follower)
    except (TimeoutError, TimedOut) as error:
        if isinstance(error, TimedOut) or follower.limit.expired():
            raise timed_out(step.key, call.timeout or 0.0) from error
        raise
    finally:
        follower.end()
        attempt.following -= 1


def command_key(step: Step, run: Run) -> CommandKey:
    """Returns by what the command of a step is known."""
    return CommandKey(run.id, run.attempt, step.key, step.attempt)


def timed_out(key: str, seconds: float) -> StepTimeout:
    """Returns the error of a step that took too long."""
    return StepTimeout(f'step "{key}" took longer than its timeout of {seconds:g} s')


class Follower:
    """Follows a command for a step."""

    def __init__(self, step: Step, attempt: AttemptState, clock: Clock, timeout: float | None) -> None:
        self.limit = asyncio.timeout(None)
        self._step = step
        self._attempt = attempt
        self._clock = clock
        self._timeout = timeout
        self._alarm: Alarm | None = None

    def begun(self, at: float) -> None:
        """It has begun: from that moment its timeout counts."""
        self.end()
        if self._timeout is not None:
            loop = asyncio.get_running_loop()
            left = max(0.0, at + self._timeout - self._clock.now())
            self._alarm = self._clock.alarm(left, lambda: self.limit.reschedule(loop.time()))

    def end(self) -> None:
        """It has ended."""
        if self._alarm is not None:
            self._alarm.cancel()

    def take(self, lines: list[Record]) -> bool:
        """Puts lines of its output into the log; returns whether that is enough for now."""
        moment = None if isinstance(self._clock, SystemClock) else self._clock.now()  # time that only the engine has
        log, key = self._attempt.run_log, self._step.key
        log.take(
            [Pending(moment or line.at, STREAMS[line.kind], line.text, key, line.after) for line in lines], self._step
        )
        return log.full

    async def durable(self) -> None:
        """Returns when the log is in the journal."""
        await self._attempt.settle_log()

    def leaves(self) -> bool:
        """Whether a cancel only takes the handler down."""
        return self._attempt.goes_on_elsewhere
