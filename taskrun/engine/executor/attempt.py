"""One attempt as a pipeline: enter → call → close → classify → `Outcome`. Called by the executor."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

from msgspec.structs import replace

from taskrun.declarations.calls import caller
from taskrun.declarations.job import Job
from taskrun.engine import messages as m
from taskrun.engine.executor.capture import Capture
from taskrun.engine.executor.sink import sink
from taskrun.engine.executor.step_bodies import Bodies
from taskrun.engine.executor.step_context import Context
from taskrun.engine.executor.step_ids import enter_root
from taskrun.model.codec import encode, encode_error
from taskrun.model.errors import Unwind
from taskrun.model.records import ErrorRecord, Run
from taskrun.rules.policies import next_try


async def attempt(context: Context, job: Job, bodies: Bodies, max_payload: int) -> m.Outcome:
    """Runs a handler once, from its beginning, and says how that ended. Never raises."""
    enter_root()
    caller.set(context)
    sink.set(context.transcript)
    Capture.refresh()
    error: BaseException | None = None
    output = "null"
    try:
        value = await _call(context, job, bodies)
        output = encode(job.check_output(value), f"output of {job.name}", max_payload)
        await context.flush_values()
    except BaseException as caught:
        error = caught
    outcome = _classify(context, job, output, error)
    await _close(context)
    return outcome


async def _call(context: Context, job: Job, bodies: Bodies) -> object:
    value = job.input.load(context.run.input)
    if job.is_async:
        return await job.call(value)
    return await bodies.in_thread(job.call_sync, value)


def _classify(context: Context, job: Job, output: str, error: BaseException | None) -> m.Outcome:
    if context.cancel_reason is not None and (context.given_up or not context.unwinding):
        return m.Cancelled()
    if context.unwinding or _holds(error, Unwind):
        return m.Unwound()
    if error is None:
        return m.Succeeded(output=output)
    return _failed(context.run, job, error, context.used_up)


def _failed(run: Run, job: Job, error: BaseException, used_up: list[tuple[BaseException, ErrorRecord]]) -> m.Failed:
    delay: float | None = None
    if not _final(job, error, used_up):
        delay, error = next_try(job.options.backoff, run.attempt, run.retry, error, job.input.load(run.input))
    pause = delay is None and job.options.on_exhausted == "pause"
    return m.Failed(error=_told(error, used_up), retry_in=delay, pause=pause)


def _told(error: BaseException, used_up: list[tuple[BaseException, ErrorRecord]]) -> ErrorRecord:
    """Returns an error as the journal keeps it; one that came out of a step says where it was raised there."""
    record = encode_error(error)
    for used, origin in used_up:
        if used is error and origin.where:
            return replace(record, where=origin.where, traceback=origin.traceback)
    return record


def _final(job: Job, error: BaseException, used_up: list[tuple[BaseException, ErrorRecord]]) -> bool:
    """Whether a step has retried it already, and the job sets no retry itself."""
    return not job.options.retry_given and any(leaf is used for leaf in _leaves(error) for used, _ in used_up)


async def _close(context: Context) -> None:
    """Ends what the handler has left in flight: no step outlives its attempt."""
    context.over = True
    left = [task for task in context.tasks if not task.done()]
    for task in left:
        task.cancel()
    if left:
        await asyncio.wait(left, timeout=1.0)


def _holds(error: BaseException | None, kind: type[BaseException]) -> bool:
    return error is not None and any(isinstance(leaf, kind) for leaf in _leaves(error))


def _leaves(error: BaseException) -> Iterator[BaseException]:
    if isinstance(error, BaseExceptionGroup):
        for inner in error.exceptions:
            yield from _leaves(inner)
    else:
        yield error
