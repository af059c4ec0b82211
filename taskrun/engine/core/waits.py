"""Waits: a step that begins to wait, and what ends it: time, an event, the end of another run.

A wait registers itself, then looks in the journal, then parks, all in one transaction, so that nothing falls between.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import msgspec
from msgspec.structs import replace

from taskrun.engine.core import step_queue
from taskrun.engine.core.event_index import ANYTHING, addressed, subject, topic_of, topics_of
from taskrun.engine.core.facts import NEWS, ROUTES, SUBSCRIBED, SUBSCRIPTIONS
from taskrun.engine.core.outbox import EventRouted
from taskrun.engine.core.transaction import Transaction
from taskrun.model.codec import encode_error, error_from, error_text
from taskrun.model.errors import (
    RunCancelled,
    RunDiscarded,
    RunFailed,
    RunNotFound,
    RunTimeout,
    TaskrunError,
    WaitTimeout,
)
from taskrun.model.records import Cause, ErrorRecord, PipeEvent, Run, RunFilter, Status, Step, StepKind, StepStatus
from taskrun.rules.matching import matches

FEW, PAGE = 8, 1_000  # events that are read at once: first, and then
SAME = 0.001  # seconds: ends of runs and triggers at one instant have no order


def begin(t: Transaction, step: Step, since: float) -> Step:
    """Registers a wait, then looks whether it is over already.

    One for an event without `match` has a predicate, which its attempt must judge: it is answered with the next event after
    its `cursor`, still running.
    """
    t.must_hold(step.run)
    if step.asks_place:
        return step_queue.ask(t, step)
    known = t.tx.step(step.run, step.key)
    if known is not None and known.finished:
        return known
    if known is not None and known.has_place:  # a try of it has failed, and its backoff begins
        t.free(known)
    if step.kind is StepKind.SLEEP and step.wake_at is not None and step.wake_at <= t.now:
        return finish(t, step, output="null")
    if step.child is not None:
        return _join(t, t.save_step(step), step.child)
    if step.kind is StepKind.WAIT:
        # its order says when it began, until it ends: what others take from then on it gets as well
        step = replace(addressed(t, step), order=t.next_order() if known is None else known.order)
    step = t.save_step(step)
    if step.topic is not None and (event := _unseen(t, step, since)) is not None:
        return _take(t, step, event)
    return step


def _join(t: Transaction, step: Step, child: str) -> Step:
    run = t.run(child)
    return ended(t, step, run) if run is None or run.ended else step


def ended(t: Transaction, step: Step, run: Run | None) -> Step:
    """Ends a wait for a run that has ended, or is gone."""
    if run is None:
        return finish(t, step, error=encode_error(RunNotFound(f"run {step.child} was pruned")))
    return finish_with(t, step, run)


def finish(
    t: Transaction,
    step: Step,
    *,
    output: str | None = None,
    error: ErrorRecord | None = None,
    cursor: int | None = None,
) -> Step:
    """Ends a wait."""
    return t.save_step(
        replace(
            step,
            status=StepStatus.SUCCEEDED if error is None else StepStatus.FAILED,
            output=output,
            error=None if error is None else error_text(error),
            ended_at=t.now,
            wake_at=None,
            cursor=cursor,
            order=t.next_order(),
        )
    )


def finish_with(t: Transaction, step: Step, run: Run) -> Step:
    """Ends a wait for a run with that run's end."""
    if run.status is Status.SUCCEEDED:
        return finish(t, step, output=run.output)
    return finish(t, step, error=encode_error(end_of(run)))


def take_news(t: Transaction, run_id: str) -> list[Step]:
    """Returns those waits of a run of this engine that another one has ended, or has an event for, as they are now."""
    keys, run = NEWS.get(t.tx, run_id), t.mine(run_id)
    if keys is None or run is None:
        return []
    NEWS.drop(t.tx, run_id)
    return [step for key in keys if (step := _news(t, run, key)) is not None]


def _news(t: Transaction, run: Run, key: str) -> Step | None:
    step = t.tx.step(run.id, key)
    if step is None or not step.is_wait:  # it has ended, its backoff is over, or it was given a place
        return step
    if step.asks_place:
        return step if step_queue.is_offered(t, step) else None
    if step.kind is StepKind.WAIT and step.match is None:
        event = _unseen(t, step, run.created_at)
        return None if event is None else _take(t, step, event)
    return None


def tell_end(t: Transaction, run: Run) -> None:
    """Ends the waits for a run that has ended: only a child, a retry, or a run found by its key can have any."""
    if run.parent is not None or run.key is not None or run.retried_from is not None:
        for step in t.tx.waiting_steps(f"run:{run.id}"):
            t.deliver(finish_with(t, step, run))
    if run.status is Status.SUCCEEDED:
        announce(t, success(run))


def note(t: Transaction, step: Step) -> Step | None:
    """Keeps that a step has begun or was cancelled; returns a child to be cancelled with it.

    A step that its handler cut off is cancelled though its end is recorded: the handler has not seen that, and a replay must not
    either. When its whole run is cancelled the end stays: there is no replay, and a retry is to keep it.
    """
    known, run = t.tx.step(step.run, step.key), t.mine(step.run)
    if run is None:
        return None
    if known is not None and known.finished and (step.status is not StepStatus.CANCELLED or run.cancel is not None):
        return None
    child, cursor = step.child, step.cursor
    if known is not None:
        child = child or known.child
        cursor = max(cursor or 0, known.cursor or 0) if known.survives and known.attempt == step.attempt else cursor
    kept = t.save_step(replace(step, child=child, cursor=cursor))
    return kept if kept.status is StepStatus.CANCELLED else None


# ---- the clock


def fire(t: Transaction, due: Step) -> None:
    """Does what is due for a step: ends a sleep, times out a wait, or ends a backoff."""
    step, run = t.tx.step(due.run, due.key), t.run(due.run)
    if step is None or step.finished or step.wake_at is None or step.wake_at > t.now or run is None or run.ended:
        return  # something else that was due at the same time has changed that
    if step.kind is StepKind.SLEEP:
        t.deliver(finish(t, step, output="null"))
    elif step.kind is StepKind.WAIT:
        timeout = WaitTimeout(f'no event came in time for the wait "{step.key}"')
        t.deliver(finish(t, step, error=encode_error(timeout)))
    elif step.asks_place:
        step_queue.fire(t, step)
    else:
        t.deliver(t.save_step(replace(step, wake_at=None)))


# ---- events


class Sent(NamedTuple):
    """An event that was sent: the runs that it `woke`, if only to try their predicates, and the `jobs` that it may start."""

    id: str
    woke: tuple[str, ...]
    jobs: tuple[str, ...]


def emit(t: Transaction, topic: str, event_id: str, data: str) -> Sent:
    """Keeps an event, ends the waits that it matches, and has it routed to the jobs that it triggers."""
    event = t.tx.add_event(PipeEvent(id=event_id, topic=topic, at=t.state.moments.send(t.now), data=data))
    return Sent(event.id, tuple(dict.fromkeys(announce(t, event))), _triggered(t, topic))


def send(t: Transaction, step: Step, data: str) -> Step:
    """Sends an event from a handler: the event and the step are one."""
    t.must_hold(step.run)
    known = t.tx.step(step.run, step.key)
    if known is not None and known.finished:
        return known
    event_id = f"{step.run}-{step.key}"
    emit(t, step.topic or "", event_id, data)
    return finish(t, step, output=msgspec.json.encode(event_id).decode())


def announce(t: Transaction, event: PipeEvent) -> list[str]:
    """Ends the waits that an event matches, and has it routed; returns the runs that waited."""
    woke = []
    for topic in topics_of(t, event):
        for step in t.tx.waiting_steps(topic):
            if step.match is None or _fits(step.match, event):
                if step.match is None and event.seq < (step.cursor or 0) and event.input is None:
                    # a later event was committed first and is judged already: the cursor goes back, so that this one is read too
                    step = t.save_step(replace(step, cursor=event.seq - 1))
                t.deliver(_take(t, step, event))
                woke.append(step.run)
    for job in _triggered(t, event.topic):
        ROUTES.put(t.tx, f"{job}:{event.id}", event)
        t.outbox.append(EventRouted(job, event))
    return woke


def _triggered(t: Transaction, topic: str) -> tuple[str, ...]:
    """Returns the jobs that a topic triggers, also one of which another engine has said so just now."""
    subscribed = SUBSCRIBED.get(t.tx, "")
    if t.state.triggered[0] != subscribed:
        jobs: dict[str, list[str]] = {}
        for job, subscription in SUBSCRIPTIONS.all(t.tx).items():
            for one in subscription.topics:
                jobs.setdefault(one, []).append(job)
        t.state.triggered = (subscribed, jobs)
    return tuple(t.state.triggered[1].get(topic, ()))


def success(run: Run) -> PipeEvent:
    """Returns the success of a run as an event: its output, matched by its input."""
    at = run.ended_at or 0.0
    return PipeEvent(
        id=f"success-{run.id}", topic=f"job:{run.job}", at=at, data=run.output or "null", input=run.input, seq=run.seq
    )


def _take(t: Transaction, step: Step, event: PipeEvent) -> Step:
    """Gives an event to a wait: as its end, or for its predicate to judge, with what it judges as `match`."""
    if step.match is None:
        judged = event.data if event.input is None else event.input
        return replace(step, output=event.data, match=judged, cursor=event.seq)
    return finish(t, step, output=event.data, cursor=event.seq)


def _unseen(t: Transaction, step: Step, since: float) -> PipeEvent | None:
    """Returns the first event since a moment that fits, and that its run had not consumed before the wait began."""
    events = _past(t, step, since, step.cursor or 0)
    return next((event for event in events if step.match is None or _fits(step.match, event)), None)


def _past(t: Transaction, step: Step, since: float, after: int) -> Iterator[PipeEvent]:
    """Yields what the run of a wait had not consumed when it began, behind the event `after`: a few first, which often do."""
    kind, _, name = topic_of(step).partition(":")
    limit = FEW
    if kind == "job":
        yield from _successes(t, step, name, since - SAME, after)
        return
    while events := t.tx.events(topic_of(step), since, after, limit, step):
        yield from events
        after, limit = events[-1].seq, PAGE


def _successes(t: Transaction, step: Step, job: str, since: float, after: int) -> Iterator[PipeEvent]:
    """Yields the successes of a job since a moment in the order in which they came, those behind the one of run `after`."""
    behind, limit = (since, 0), FEW
    if after and (judged := t.tx.runs(RunFilter(before=after + 1, limit=1))) and judged[0].seq == after:
        behind = (judged[0].ended_at or since, after)
    while runs := t.tx.successes(job, *behind, limit, step):
        yield from map(success, runs)
        behind, limit = (runs[-1].ended_at or since, runs[-1].seq), PAGE


def _fits(match: str, event: PipeEvent) -> bool:
    """Whether an event is what a wait with a mapping is for."""
    return match == ANYTHING or matches(msgspec.json.decode(match), subject(event))


# ---- ends


def end_of(run: Run) -> TaskrunError:
    """Returns the exception that whoever waits for a run's output gets, for a run that did not succeed."""
    if run.status is Status.CANCELLED:
        return RunCancelled(run.id, run.reason or Cause.USER.value)
    if run.status is Status.DISCARDED:
        return RunDiscarded(run.id, run.reason or Cause.THROTTLE.value)
    error = error_from(run.error) if run.error else ErrorRecord(type="", message="")
    kind = RunTimeout if run.cause is Cause.TIMEOUT else RunFailed
    return kind(run.id, error.type, error.message, error.traceback, run.reason)
