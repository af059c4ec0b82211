"""One attempt as a pipeline: read → enter → call → flush → close → classify → `Outcome`. Called by the executor.

Whatever goes wrong on the way, in the input, in the handler or in its output, is the attempt's failure.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence

from msgspec.structs import replace

from taskrun.declarations.calls import caller
from taskrun.declarations.job import Job
from taskrun.engine import messages as m
from taskrun.engine.executor.capture import Capture
from taskrun.engine.executor.run_context import sink
from taskrun.engine.executor.step_bodies import Bodies
from taskrun.engine.executor.step_context import Context, see
from taskrun.engine.executor.step_ids import enter_root
from taskrun.model.codec import encode, encode_error
from taskrun.model.errors import Fatal, JournalError, Unwind, single_errors
from taskrun.model.records import ErrorRecord, Run
from taskrun.model.secrets import whole_input
from taskrun.rules.policies import next_try

NAMED = 3  # steps that a warning names


async def attempt(
    context: Context, job: Job, bodies: Bodies, max_payload: int, before: asyncio.Task[None] | None
) -> m.Outcome:
    """Runs a handler once, from its beginning, and says how that ended.

    Parameters:
        before: the hooks that the start waits for, if any.
    """
    context.root = enter_root()
    caller.set(context)
    sink.set(context.run_log)
    Capture.refresh()
    error: BaseException | None = None
    output = "null"
    try:
        if before is not None:
            await asyncio.wait([before])
        value = await _call(context, job, bodies)
        output = encode(job.check_output(value), f"output of {job.name}", max_payload)
    except BaseException as caught:
        error = caught
    if context.has_values:
        error = await _keep_values(context) or error
    outcome = _classify(context, job, output, error, max_payload)
    context.over = True
    if context.stepping:
        await _end_steps(context, outcome)
    return outcome


async def _call(context: Context, job: Job, bodies: Bodies) -> object:
    value = job.input.load(whole_input(context.run))
    try:
        if job.is_async:
            return await job.call(value)
        return await bodies.in_thread(job.call_sync, value)
    except SystemExit as exit:
        if exit.code in (None, 0):  # as every `main` of a command ends
            return None
        raise


async def _keep_values(context: Context) -> BaseException | None:
    """Has the values that were drawn recorded, even if the attempt has failed; returns the error if that is impossible."""
    try:
        await context.flush_values()
    except (Unwind, JournalError, asyncio.CancelledError) as error:
        return error
    return None


def _classify(context: Context, job: Job, output: str, error: BaseException | None, max_payload: int) -> m.Outcome:
    if (interrupted := taken_down(context)) is not None:
        return interrupted
    if error is not None and any(isinstance(one, Unwind) for one in single_errors(error)):
        return m.Unwound()
    if error is None:
        return m.Succeeded(output=output)
    return failed(context.run, job, error, context.used_up, max_payload)


def taken_down(context: Context) -> m.Outcome | None:
    """Returns the outcome of an attempt that was cancelled or taken down, None for one that ended by itself."""
    if context.cancel_reason is not None and (context.given_up or not context.unwinding):
        return m.Cancelled()
    return m.Unwound() if context.unwinding else None


def failed(
    run: Run,
    job: Job | None,
    error: BaseException,
    used_up: Sequence[tuple[BaseException, ErrorRecord]],
    max_payload: int | None = None,
) -> m.Failed:
    """Returns the failure of an attempt: with whether, and when, the next one starts."""
    if job is None:
        return m.Failed(error=encode_error(error), retry_in=None)
    delay: float | None = None
    output: str | None = None
    if not _final(job, error, used_up):
        try:
            delay, error = next_try(job.options.backoff, run.attempt, run.retry, error, _input(job, run))
        except Exception as wrong:  # the backoff function
            error = wrong
    if isinstance(error, Fatal) and error.output is not None:
        try:
            output = encode(error.output, f"output of {job.name}", max_payload)
        except Exception as wrong:
            error = wrong
    pause = delay is None and job.options.on_exhausted == "pause"
    return m.Failed(error=_as_recorded(error, used_up), retry_in=delay, pause=pause, output=output)


def _input(job: Job, run: Run) -> object:
    """Returns the input for a function of the job's options, None if it no longer fits the code."""
    try:
        return job.input.load(whole_input(run))
    except Exception:
        return None


def _as_recorded(error: BaseException, used_up: Sequence[tuple[BaseException, ErrorRecord]]) -> ErrorRecord:
    """Returns an error as the journal keeps it; one that came out of a step says where it was raised there."""
    record = encode_error(error)
    for used, origin in used_up:
        if used is error and origin.where:
            return replace(record, where=origin.where, traceback=origin.traceback)
    return record


def _final(job: Job, error: BaseException, used_up: Sequence[tuple[BaseException, ErrorRecord]]) -> bool:
    """Whether the error comes from a step that has used up its own retries, and the job sets no retry itself."""
    return not job.options.retry_given and any(single is used for single in single_errors(error) for used, _ in used_up)


async def _end_steps(context: Context, outcome: m.Outcome) -> None:
    """Ends what the handler has left in flight: no step outlives its attempt."""
    left = {task: key for task, key in context.stepping.items() if not task.done()}
    if left and isinstance(outcome, m.Succeeded | m.Failed):
        context.log(logging.WARNING, _left_behind(sorted(left.values())))
    for task in left:
        task.add_done_callback(see)
        task.cancel()
    if left:
        await asyncio.wait(left, timeout=1.0)


def _left_behind(keys: list[str]) -> str:
    named = ", ".join(f'"{key}"' for key in keys[:NAMED]) + (f" and {len(keys) - NAMED} more" if keys[NAMED:] else "")
    steps, were = ("step", "was") if len(keys) == 1 else ("steps", "were")
    return f"{steps} {named} {were} left behind and ended with the handler: await every task that calls a step"
