"""What happens to runs: added, parked, ended, cancelled, paused, let go; each as functions of one `Transaction`.

A run has exactly one end, written here alone; with it go its waiters, its children and its place.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

from msgspec.structs import replace

from taskrun.engine.core import dependents, run_queue, step_queue, waits
from taskrun.engine.core.engine_reports import REPORTS
from taskrun.engine.core.facts import JOBS
from taskrun.engine.core.outbox import (
    AttemptFailed,
    CancelAsked,
    PauseAsked,
    RunAdded,
    RunChanged,
    RunOver,
    RunStarted,
    SlotUsed,
)
from taskrun.engine.core.transaction import Transaction
from taskrun.engine.messages import Cancelled, Failed, Outcome, Succeeded, Unwound
from taskrun.model.codec import encode_error
from taskrun.model.durations import human
from taskrun.model.errors import WorkerCrashed
from taskrun.model.records import (
    UNFINISHED,
    Cause,
    Engine,
    ErrorRecord,
    Run,
    RunFilter,
    Status,
    Step,
    StepKind,
    StepStatus,
)
from taskrun.rules import transitions
from taskrun.rules.policies import Prepared

CRASH_LOOP = 5  # deaths in a row after which a run is given up
BUSY = 0.05  # seconds until what another engine is at is looked at again


def add(t: Transaction, run: Run, reserved: bool = False) -> Run:
    """Inserts a new run.

    Parameters:
        reserved: a slot of this engine is reserved for it, so that it starts at once, if nobody is ahead of it.
    """
    run = run_queue.enter(t, run)
    starts = reserved and run_queue.goes_first(t, run)
    new = transitions.start(run, t.engine, t.now) if starts else run
    run = t.add(new)
    if (run.status, run.engine) != (new.status, new.engine):
        return run  # it was inserted before, with an unknown outcome, and others have gone on with it
    t.outbox += (RunAdded(run), RunChanged(run))
    if starts:
        t.outbox += (RunStarted(run), SlotUsed(run))
    if run.ended:
        t.outbox.append(RunOver(run))
    elif run.after is not None:
        for hopeless in dependents.note(t, run):
            end(t, hopeless.id, Status.CANCELLED, cause=Cause.DEPENDENCY)
        run = t.run(run.id) or run
    return run


def park(t: Transaction, run: Run, backoff: bool) -> None:
    """Takes the place of a run that does nothing but wait."""
    t.change(run.id, transitions.park, backoff)
    run_queue.leave(t, run)


# ---- ends


def finished(t: Transaction, run_id: str, outcome: Outcome, progress: str | None) -> None:
    """Writes how an attempt ended, if this engine still holds the run."""
    run = t.mine(run_id)
    if run is None:
        return
    if progress != run.progress:
        run = t.set(run_id, progress=progress)
    match outcome:
        case Unwound():
            let_go(t, [run_id], blame=False)
        case _ if run.cancel is not None:
            end_cancelled(t, run, run.cancel, run.cancel_cause)
        case Succeeded(output):
            end(t, run_id, Status.SUCCEEDED, output=output)
        case Failed(error, retry_in, pause, left):
            fail(t, run, error, retry_in, pause, left)
        case Cancelled():
            end_cancelled(t, run, Cause.USER.value, Cause.USER)


def fail(
    t: Transaction, run: Run, error: ErrorRecord, retry_in: float | None, pause: bool, output: str | None = None
) -> None:
    """Keeps a failed attempt: schedules the next, pauses, or ends the run, with what it leaves as its output."""
    t.outbox.append(AttemptFailed(run, error))
    if retry_in is None and not pause:
        end(t, run.id, Status.FAILED, error=error, output=output)
        return
    _forget_unfinished(t, run)
    if retry_in is None:
        t.change(run.id, transitions.exhaust, error, t.now, t.next_order())
    else:
        t.change(run.id, transitions.retry, error, t.now + retry_in, t.now, t.next_order())
    run_queue.leave(t, run)


def end_cancelled(t: Transaction, run: Run, reason: str, cause: Cause | None) -> None:
    """Ends a run as cancelled, or as failed where its timeout was the cause."""
    if cause is not Cause.TIMEOUT:
        end(t, run.id, Status.CANCELLED, reason=reason, cause=cause)
        return
    limit = "" if run.timeout is None else f" of {human(run.timeout)}"
    error = ErrorRecord(type="taskrun.RunTimeout", message=f"it took longer than its timeout{limit}")
    end(t, run.id, Status.FAILED, cause=Cause.TIMEOUT, error=error)


def end(
    t: Transaction,
    run_id: str,
    status: Status,
    *,
    reason: str | None = None,
    cause: Cause | None = None,
    output: str | None = None,
    error: ErrorRecord | None = None,
) -> Run:
    """Gives a run its one end, and ends those that were to start after its success; each with all that hangs on it."""
    ended = _end(t, run_id, status, reason, cause, output, error)
    over = [ended]
    while over:  # a chain of them may be long
        last = over.pop()
        hopeless = dependents.tell(t, last) if last.awaited else []
        over += [_end(t, run.id, Status.CANCELLED, cause=Cause.DEPENDENCY) for run in t.each(hopeless) if not run.ended]
    return ended


def _end(
    t: Transaction,
    run_id: str,
    status: Status,
    reason: str | None = None,
    cause: Cause | None = None,
    output: str | None = None,
    error: ErrorRecord | None = None,
) -> Run:
    """Gives a run its end, tells the steps that wait for it, and cancels the children that it was waiting for."""
    before = t.run(run_id)
    assert before is not None
    if before.after is not None:
        dependents.forget(t, before)
    left = [] if before.started_at is None else t.tx.open_steps(run_id)
    for step in left:  # before its run: whoever follows it hears nothing more of it after its end
        t.save_step(replace(step, status=StepStatus.CANCELLED, ended_at=t.now, wake_at=None))
    ended = t.change(run_id, transitions.end, status, t.now, reason=reason, cause=cause, output=output, error=error)
    t.outbox.append(RunOver(ended))
    run_queue.leave(t, before)
    for step in left:
        _cut_off(t, step)
    waits.tell_end(t, ended)
    return ended


def _cut_off(t: Transaction, step: Step) -> None:
    """Cancels the child that a cancelled step was waiting for.

    Not a run that it found by its key, nor one that it only joined, nor one that another run waits for.
    """
    child = t.run(step.child) if step.kind is StepKind.CHILD else None
    if child is None or child.parent != step.run:
        return
    if all(waiting.run == step.run for waiting in t.tx.waiting_steps(f"run:{child.id}")):
        cancel(t, child.id, Cause.PARENT.value, Cause.PARENT)


def _forget_unfinished(t: Transaction, run: Run) -> None:
    """Drops what the next attempt does again: all steps but the finished ones and children still under way.

    Values that were drawn after a failed step in its branch go too: what led to them was that failure.
    """
    steps = t.tx.steps(run.id)
    failed = first_failures(steps)
    drop = [step for step in steps if not is_kept(step, failed) and not _is_under_way(step)]
    for step in drop:
        t.free(step)
    if drop:
        t.tx.drop_steps(run.id, [step.key for step in drop])


def first_failures(steps: list[Step]) -> dict[str, int]:
    """Returns where in each branch the first failed step stands."""
    failed: dict[str, int] = {}
    for step in steps:
        if step.status is StepStatus.FAILED and step.order is not None:
            branch = _branch(step)
            failed[branch] = min(failed.get(branch, step.order), step.order)
    return failed


def is_kept(step: Step, failed: dict[str, int]) -> bool:
    """Whether a new attempt, or a retry, keeps the record of a step: a finished one, and a value not drawn after a failure."""
    if step.kind is StepKind.VALUE and step.order is not None:
        return step.order < failed.get(_branch(step), step.order + 1)
    return step.status is StepStatus.SUCCEEDED


def _is_under_way(step: Step) -> bool:
    return step.kind is StepKind.CHILD and step.status is StepStatus.RUNNING


def _branch(step: Step) -> str:
    return step.key.rpartition("/")[0]


# ---- requests


def cancel(t: Transaction, run_id: str, reason: str, cause: Cause = Cause.USER) -> bool:
    """Cancels a run, or asks the engine that holds it to; returns False when it has ended already.

    One without a coroutine goes through one more replay, so that its `finally` blocks run, where an engine has its job.
    """
    run = t.run(run_id)
    if run is None or run.ended:
        return False
    if run.cancel is not None:
        return True
    if run.started_at is None or run.cause in (Cause.RETRY, Cause.EXHAUSTED):  # no `finally` block is waiting to be run
        end_cancelled(t, run, reason, cause)
    elif run.engine is not None:
        t.outbox.append(CancelAsked(t.change(run_id, transitions.ask_to_cancel, reason, cause)))
    elif t.state.awaits_executors or some_engine_has(t, run.job):  # those to come may have it
        t.change(run_id, transitions.ask_to_cancel, reason, cause)
        t.change(run_id, transitions.ready_to_cancel)
    else:
        end_cancelled(t, run, reason, cause)
    return True


def some_engine_has(t: Transaction, job: str) -> bool:
    """Whether an engine of this journal has a job."""
    return job in t.state.jobs or any(job in jobs for jobs in JOBS.all(t.tx).values())


def cancel_same(t: Transaction, prepared: Prepared) -> int:
    """Cancels every unfinished run of a job that has this input; returns how many."""
    unfinished = t.tx.runs(RunFilter(job=prepared.job, statuses=tuple(UNFINISHED)))
    same = [run for run in unfinished if (run.input, run.secrets) == (prepared.input, prepared.secrets)]
    return sum(cancel(t, run.id, Cause.USER.value) for run in same)


def end_abandoned(t: Transaction) -> None:
    """Ends runs that were asked to cancel and whose job no engine has: nobody would ever take them."""
    if not t.state.jobs:
        return  # the executors of this engine are still to come
    for run in t.each(t.tx.asked(None)):
        if run.cancel is not None and not run.ended and not some_engine_has(t, run.job):
            end_cancelled(t, run, run.cancel, run.cancel_cause)


def pause(t: Transaction, run: Run, by: str) -> Run:
    """Pauses a run, or asks the engine that holds it to, once its step in flight is done."""
    if run.status is Status.PAUSED or run.pause is not None:
        return run
    if run.engine is None:
        held = t.change(run.id, transitions.hold, by, Cause.USER)
        step_queue.release(t, run)
        run_queue.leave(t, run)
        return held
    asked = t.change(run.id, transitions.ask_to_pause, by)
    t.outbox.append(PauseAsked(asked))
    return asked


def resume(t: Transaction, run: Run) -> Run:
    """Lets a paused run go on."""
    if run.status is Status.PAUSED:
        return t.change(run.id, transitions.unhold, t.now)
    if run.pause is not None:
        run = t.change(run.id, transitions.ask_to_pause, None)
        t.outbox.append(PauseAsked(run))
    return run


def note(t: Transaction, step: Step) -> None:
    """Keeps that a step has begun or was cancelled; the child that it was waiting for is cancelled with it."""
    cut_off = waits.note(t, step)
    if cut_off is not None:
        _cut_off(t, cut_off)


# ---- the clock


def offer_all(t: Transaction) -> None:
    """Offers what is free behind all limits, of runs and of steps."""
    run_queue.offer_all(t)
    step_queue.offer_all(t)


def fire(t: Transaction, limit: int = 500, set_back: bool = False) -> float | None:
    """Does what is due; returns the next due moment.

    Parameters:
        set_back: whether the clock was: what waits for a limit may have reckoned its moment by one that was ahead.
    """
    if set_back:
        offer_all(t)
    steps = t.tx.due_steps(t.engine, t.now, limit)
    for step in steps:
        waits.fire(t, step)
    runs = t.tx.due_runs(t.engine, t.now, limit)
    for run in t.each(runs):
        _fire_run(t, run)
    if len(steps) == limit or len(runs) == limit:
        return t.now
    upcoming = t.tx.next_due(t.engine)
    # What is due still was left to another engine, which is at it.
    return t.now + BUSY if upcoming is not None and upcoming <= t.now else upcoming


def _fire_run(t: Transaction, run: Run) -> None:
    """Ends a run's delay or backoff, or cancels it for its timeout."""
    if run.ended:
        return
    if run.deadline is not None and run.deadline <= t.now:
        t.set(run.id, deadline=None)
        cancel(t, run.id, Cause.TIMEOUT.value, Cause.TIMEOUT)
    elif run.status is Status.SCHEDULED and run.wake_at is not None and run.wake_at <= t.now:
        dependents.release(t, run)


# ---- deaths


def take_over(t: Transaction, engine: str, blame: bool) -> None:
    """Releases everything that a dead engine held."""
    let_go(t, [run.id for run in t.tx.owned(engine)], blame)
    JOBS.drop(t.tx, engine)
    REPORTS.drop_if_any(t.tx, engine)
    t.tx.drop_engine(engine)
    end_abandoned(t)


def take_over_dead(t: Transaction, engine: str, dead: Callable[[Engine], bool], blame: bool) -> bool:
    """Releases what an engine held, unless it has renewed its lease meanwhile, or another one was faster."""
    row = t.tx.engine(engine)
    if row is None or not dead(row):
        return False
    take_over(t, engine, blame)
    return True


def let_go(t: Transaction, run_ids: Iterable[str], blame: bool) -> None:
    """Releases runs whose coroutines are gone; with `blame`, those that were executing become suspects."""
    runs = [run for run_id in run_ids if (run := t.run(run_id)) is not None and not run.ended]
    executing = {run.id for run in runs if run.status is Status.RUNNING and not (blame and _only_follows(t, run))}
    suspected = any(run.crashes for run in runs if run.id in executing)
    for run in t.each(runs):
        if run.ended:
            continue
        if blame and run.id in executing and (not suspected or run.crashes > 0):
            run = t.set(run.id, crashes=run.crashes + 1)
        _let_go(t, run)


def _only_follows(t: Transaction, run: Run) -> bool:
    """Whether all that a run does is follow commands that survive, which cannot kill a worker."""
    busy = [step for step in t.tx.open_steps(run.id) if not step.is_wait]
    return bool(busy) and all(step.survives for step in busy)


def _let_go(t: Transaction, run: Run) -> None:
    if run.crashes >= CRASH_LOOP:
        death = WorkerCrashed(f"its execution killed its worker {run.crashes} times in a row")
        end(t, run.id, Status.FAILED, cause=Cause.CRASH_LOOP, error=encode_error(death))
        return
    released = t.change(run.id, transitions.release)
    step_queue.release(t, run, keep_turns=run.status is Status.WAITING and run.pause is None)
    if released.cancel is not None:
        t.change(run.id, transitions.ready_to_cancel)  # it was asked for while the coroutine was taken down
    elif waits_for_nothing(t, released):
        t.wake(run.id)
    run_queue.leave(t, run)


def waits_for_nothing(t: Transaction, run: Run) -> bool:
    """Whether a run is written as waiting for its steps, and none of them waits: its waits were over before."""
    waits_for_time = run.wake_at is not None or run.cause is Cause.AFTER
    parked = run.status is Status.WAITING or (run.status is Status.SCHEDULED and not waits_for_time)
    return parked and not any(step.is_wait for step in t.tx.open_steps(run.id))
