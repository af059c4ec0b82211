"""What happens to runs: admitted, parked, ended, cancelled, paused, let go; each as functions of one transaction's `Book`.

A run has exactly one end, written here alone; with it go its waiters, its children and its place.
"""

from __future__ import annotations

from msgspec.structs import replace

from taskrun.engine.core import run_queue as lanes
from taskrun.engine.core import step_queue as permits
from taskrun.engine.core import waits
from taskrun.engine.core.transaction import Book
from taskrun.engine.messages import Cancelled, Failed, Finished, Succeeded, Unwound
from taskrun.model.codec import encode_error
from taskrun.model.durations import human
from taskrun.model.errors import WorkerCrashed
from taskrun.model.records import ErrorRecord, Run, Status, Step, StepKind, StepStatus
from taskrun.rules import transitions

BETWEEN = ("retry", "exhausted")  # why a run stands between two attempts: it has no `finally` block to run
CRASH_LOOP = 5  # deaths in a row after which a run is given up


def add(book: Book, run: Run, place: bool = False) -> Run:
    """Inserts a new run, unless an outcome that was unknown turns out to have inserted it.

    Parameters:
        place: a place of this engine is kept for it, so that it starts at once, if nobody is ahead of it.
    """
    run = lanes.enter(book, run)
    if place and lanes.goes_first(book, run):
        run = lanes.begin(book, run)
    run = (book.tx.run(run.id) if book.again else None) or book.tx.add_run(run)
    book.changed[run.id] = run
    book.fresh.append(run)
    if run.ended:
        book.ended.append(run)
    if run.id in book.begun:
        book.begun[run.id] = run
        book.granted.append(run)
    book.claimable = book.claimable or run.status is Status.QUEUED
    return run


def park(book: Book, run: Run, backoff: bool) -> None:
    """Takes the place of a run that does nothing but wait."""
    book.save(transitions.park(run, backoff))
    lanes.leave(book, run)


# ---- ends


def finished(book: Book, message: Finished, progress: str | None) -> None:
    """Writes how an attempt ended, unless the run is not this engine's any more."""
    run = book.mine(message.run)
    if run is None:
        return
    run = replace(run, progress=progress)
    match message.outcome:
        case Unwound():
            let_go(book, [run], blame=False)
        case Cancelled() | Succeeded() | Failed() if run.cancel is not None:
            end_cancelled(book, run, run.cancel)
        case Succeeded(output):
            end(book, run, Status.SUCCEEDED, output=output)
        case Failed(error, retry_in, pause):
            fail(book, run, error, retry_in, pause)
        case _:
            end_cancelled(book, run, "explicit")


def fail(book: Book, run: Run, error: ErrorRecord, retry_in: float | None, pause: bool) -> None:
    """Keeps a failed attempt: schedules the next, pauses, or ends the run."""
    book.failed.append((run, error))
    if retry_in is None and not pause:
        end(book, run, Status.FAILED, error=error)
        return
    _forget_unfinished(book, run)
    if retry_in is None:
        book.save(transitions.exhaust(run, error, book.now))
    else:
        book.save(transitions.retry(run, error, book.now + retry_in, book.now))
    lanes.leave(book, run)


def end_cancelled(book: Book, run: Run, reason: str) -> None:
    """Ends a run as cancelled, or as failed where its timeout was the reason."""
    if reason != "timeout":
        end(book, run, Status.CANCELLED, reason=reason)
        return
    limit = "" if run.timeout is None else f" of {human(run.timeout)}"
    error = ErrorRecord(type="taskrun.RunTimeout", message=f"it took longer than its timeout{limit}")
    end(book, run, Status.FAILED, reason="timeout", error=error)


def end(
    book: Book,
    run: Run,
    status: Status,
    *,
    reason: str | None = None,
    output: str | None = None,
    error: ErrorRecord | None = None,
) -> Run:
    """Gives a run its one end, tells who waits for it, and cancels the children that it was waiting for."""
    ended = book.save(transitions.end(run, status, book.now, reason=reason, output=output, error=error))
    book.ended.append(ended)
    lanes.leave(book, run)
    if run.started_at is not None:
        _end_steps(book, ended)
    waits.tell_end(book, ended)
    return ended


def _end_steps(book: Book, run: Run) -> None:
    """Ends the steps in flight of an ended run, and with them the children that it was waiting for."""
    for step in book.tx.open_steps(run.id):
        _cut_off(book, book.save_step(replace(step, status=StepStatus.CANCELLED, ended_at=book.now, wake_at=None)))


def _cut_off(book: Book, step: Step) -> None:
    """Cancels the child that a cancelled step was waiting for; not a run that it found by its key, nor one it only joined."""
    child = book.tx.run(step.child) if step.kind is StepKind.CHILD and step.child is not None else None
    if child is not None and child.parent == step.run:
        cancel(book, child.id, "parent")


def _forget_unfinished(book: Book, run: Run) -> None:
    """Drops what the next attempt does afresh: all steps but the finished ones and children still under way."""
    steps = book.tx.steps(run.id)
    keep = {step.key for step in steps if step.status is StepStatus.SUCCEEDED}
    keep |= {step.key for step in steps if step.kind is StepKind.CHILD and step.status is StepStatus.RUNNING}
    drop = [step for step in steps if step.key not in keep]
    for step in drop:
        book.free(step)
    if drop:
        book.tx.drop_steps(run.id, [step.key for step in drop])


# ---- requests


def cancel(book: Book, run_id: str, reason: str) -> bool:
    """Cancels a run, or asks the engine that holds it to; returns False when it has ended already."""
    run = book.tx.run(run_id)
    if run is None or run.ended:
        return False
    if run.cancel is not None:
        return True
    if run.started_at is None or run.reason in BETWEEN:
        end_cancelled(book, run, reason)
    elif run.engine is None:
        _requeue_to_cancel(book, replace(run, cancel=reason, blocked=None))
    else:
        book.cancels.append(book.save(replace(run, cancel=reason)))
    return True


def _requeue_to_cancel(book: Book, run: Run) -> None:
    """Sends a run without a coroutine through one more replay, so that its `finally` blocks run."""
    book.save(run if run.status is Status.QUEUED else transitions.advance(run, Status.QUEUED, wake_at=None))


def pause(book: Book, run: Run, by: str) -> Run:
    """Pauses a run, or asks the engine that holds it to, once its step in flight is done."""
    if run.status is Status.PAUSED or run.pause is not None:
        return run
    if run.engine is None:
        held = book.save(transitions.hold(run, by))
        permits.release(book, run)
        lanes.leave(book, run)
        return held
    asked = book.save(replace(run, pause=by))
    book.pauses.append(asked)
    return asked


def resume(book: Book, run: Run) -> Run:
    """Lets a paused run go on."""
    if run.status is Status.PAUSED:
        return book.save(transitions.unhold(run, book.now))
    if run.pause is not None:
        run = book.save(replace(run, pause=None))
        book.pauses.append(run)
    return run


def note(book: Book, step: Step) -> None:
    """Keeps that a step has begun or was cancelled; the child that it was waiting for is cancelled with it."""
    cut_off = waits.note(book, step)
    if cut_off is not None:
        _cut_off(book, cut_off)


# ---- the clock


def fire(book: Book, limit: int = 500) -> bool:
    """Does what is due; returns whether there may be more."""
    steps = book.tx.due_steps(book.engine, book.now, limit)
    for step in steps:
        waits.fire(book, step)
    runs = book.tx.due_runs(book.engine, book.now, limit)
    for run in runs:
        _fire_run(book, run)
    return len(steps) == limit or len(runs) == limit


def _fire_run(book: Book, run: Run) -> None:
    """Ends a run's delay or backoff, or calls its timeout."""
    if run.deadline is not None and run.deadline <= book.now:
        book.save(replace(run, deadline=None))
        cancel(book, run.id, "timeout")
    elif run.started_at is None and book.tx.get(f"paused:{run.job}") is not None:
        book.save(transitions.hold(run, "job"))
    elif run.status is Status.SCHEDULED and run.wake_at is not None:
        lanes.fire(book, run)


# ---- deaths


def take_over(book: Book, engine: str, blame: bool) -> None:
    """Releases everything that a dead engine held."""
    let_go(book, book.tx.owned(engine), blame)
    book.tx.drop_engine(engine)


def let_go(book: Book, runs: list[Run], blame: bool) -> None:
    """Releases runs whose coroutines are gone; with `blame` their execution is suspected of it."""
    executing = [run for run in runs if run.status is Status.RUNNING]
    suspected = any(run.crashes for run in executing)
    for run in runs:
        guilty = blame and run.status is Status.RUNNING and (not suspected or run.crashes > 0)
        _let_go(book, replace(run, crashes=run.crashes + 1) if guilty else run)


def _let_go(book: Book, run: Run) -> None:
    if run.crashes >= CRASH_LOOP:
        death = WorkerCrashed(f"its execution killed its worker {run.crashes} times in a row")
        end(book, run, Status.FAILED, reason="crash loop", error=encode_error(death))
        return
    released = transitions.release(run)
    if released.status is Status.WAITING and not book.tx.open_steps(
        run.id
    ):  # its waits were over before it was written as waiting
        released = transitions.wake(released)
    book.save(released)
    if released.cancel is not None:  # it was asked for while the coroutine was taken down
        _requeue_to_cancel(book, released)
    if run.status is not Status.WAITING or run.pause is not None:
        permits.release(book, run)
    lanes.leave(book, run)
