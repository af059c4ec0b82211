"""Waits: a step that begins to wait, and what ends it: time, an event, the end of another run.

A wait registers itself, then looks in the journal, then parks, all in one transaction, so that nothing falls between.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import msgspec
from msgspec.structs import replace

from taskrun.engine.core import step_queue as permits
from taskrun.engine.core.transaction import Book
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
from taskrun.model.records import ErrorRecord, PipeEvent, Run, RunFilter, Status, Step, StepKind, StepStatus
from taskrun.rules.matching import address, leaf, matches

PAGE = 1_000
ANYTHING = "{}"
PATHS = "paths:"  # fact `paths:TOPIC` is a JSON list of the paths that addresses of waits for the topic have
MOST_PATHS = 32  # of one topic; waits with others are found the slow way
SAME = 0.001  # seconds: ends of runs and triggers at one instant have no order


def begin(book: Book, step: Step, since: float) -> Step:
    """Registers a wait, then looks whether it is over already.

    One for an event without `match` has a predicate, which its attempt must judge: it is answered with the next event after
    its `cursor`, still running.
    """
    book.must_hold(step.run)
    if permits.asks(step):
        return permits.ask(book, step)
    known = book.tx.step(step.run, step.key)
    if known is not None and known.finished:
        return known
    if known is not None and permits.holds(known):  # a try of it has failed, and its backoff begins
        book.free(known)
    if step.kind is StepKind.SLEEP and step.wake_at is not None and step.wake_at <= book.now:
        return finish(book, step, output="null")
    if step.child is not None:
        return _join(book, book.save_step(step), step.child)
    step = book.save_step(_addressed(book, step) if step.kind is StepKind.WAIT else step)
    if step.topic is not None and (event := _unseen(book, step, since)) is not None:
        return _take(book, step, event)
    return step


def _join(book: Book, step: Step, child: str) -> Step:
    run = book.tx.run(child)
    if run is None:
        return finish(book, step, error=encode_error(RunNotFound(f"run {child} was pruned")))
    return finish_with(book, step, run) if run.ended else step


def finish(
    book: Book, step: Step, *, output: str | None = None, error: ErrorRecord | None = None, cursor: int | None = None
) -> Step:
    """Ends a wait."""
    return book.save_step(
        replace(
            step,
            status=StepStatus.SUCCEEDED if error is None else StepStatus.FAILED,
            output=output,
            error=None if error is None else error_text(error),
            ended_at=book.now,
            wake_at=None,
            cursor=cursor,
            order=book.order(),
        )
    )


def finish_with(book: Book, step: Step, run: Run) -> Step:
    """Ends a wait for a run with that run's end."""
    if run.status is Status.SUCCEEDED:
        return finish(book, step, output=run.output)
    return finish(book, step, error=encode_error(end_of(run)))


def news(book: Book, run: Run, key: str) -> Step | None:
    """Returns a wait that is over, or for whose predicate there is an event, as another engine may have written it."""
    step = book.tx.step(run.id, key)
    over = step is not None and step.topic is None and step.wake_at is None  # a backoff
    if step is None or step.finished or permits.holds(step) or over:
        return step
    if step.kind is StepKind.WAIT and step.match is None:
        event = _unseen(book, step, run.created_at)
        return None if event is None else _take(book, step, event)
    return None


def tell_end(book: Book, run: Run) -> None:
    """Ends the waits for a run that has ended: only a child, a retry, or a run found by its key can have any."""
    if run.parent is not None or run.key is not None or run.retried_from is not None:
        for step in book.tx.waiting_steps(f"run:{run.id}"):
            book.deliver(finish_with(book, step, run))
    if run.status is Status.SUCCEEDED:
        announce(book, success(run))


def note(book: Book, step: Step) -> Step | None:
    """Keeps that a step has begun or was cancelled, unless its end is recorded; returns a child to be cancelled with it."""
    known = book.tx.step(step.run, step.key)
    if (known is not None and known.finished) or not book.tx.holds(book.engine, step.run):
        return None
    child = step.child or (known.child if known is not None else None)
    kept = book.save_step(replace(step, child=child))
    return kept if kept.status is StepStatus.CANCELLED else None


# ---- the clock


def fire(book: Book, step: Step) -> None:
    """Does what the time of a step says: ends a sleep, times out a wait, or ends a backoff."""
    if step.kind is StepKind.SLEEP:
        book.deliver(finish(book, step, output="null"))
    elif step.kind is StepKind.WAIT:
        timeout = WaitTimeout(f'no event came in time for the wait "{step.key}"')
        book.deliver(finish(book, step, error=encode_error(timeout)))
    elif permits.asks(step):
        permits.fire(book, step)
    else:
        book.deliver(book.save_step(replace(step, wake_at=None)))


# ---- events


def emit(book: Book, topic: str, event_id: str, data: str) -> PipeEvent:
    """Keeps an event, ends the waits that it matches, and has it routed to the jobs that it triggers."""
    event = book.tx.add_event(PipeEvent(id=event_id, topic=topic, at=book.moments.send(book.now), data=data))
    announce(book, event)
    return event


def send(book: Book, step: Step, data: str) -> Step:
    """Sends an event from a handler: the event and the step are one."""
    book.must_hold(step.run)
    known = book.tx.step(step.run, step.key)
    if known is not None and known.finished:
        return known
    event_id = f"{step.run}-{step.key}"
    emit(book, step.topic or "", event_id, data)
    return finish(book, step, output=msgspec.json.encode(event_id).decode())


def announce(book: Book, event: PipeEvent) -> None:
    """Ends the waits that an event matches, and has it routed."""
    for topic in (event.topic, *_addresses(book, event)):
        for step in book.tx.waiting_steps(topic):
            if step.match is None or _fits(step.match, event):
                book.deliver(_take(book, step, event))
    for job in book.routed.get(event.topic, ()):
        book.tx.put(f"route:{job}:{event.id}", msgspec.json.encode(event).decode())
        book.routes.append((job, event))


def success(run: Run) -> PipeEvent:
    """Returns the success of a run as an event: its output, matched by its input."""
    at = run.ended_at or 0.0
    return PipeEvent(
        id=f"success-{run.id}", topic=f"job:{run.job}", at=at, data=run.output or "null", input=run.input, seq=run.seq
    )


def _take(book: Book, step: Step, event: PipeEvent) -> Step:
    """Gives an event to a wait: as its end, or for its predicate to judge, with what it judges as `match`."""
    if step.match is None:
        return replace(
            step, output=event.data, match=event.data if event.input is None else event.input, cursor=event.seq
        )
    return finish(book, step, output=event.data, cursor=event.seq)


def _unseen(book: Book, step: Step, since: float) -> PipeEvent | None:
    """Returns the first event since a moment that the run of a wait has not consumed, and that fits."""
    topic, consumed = topic_of(step), None
    for event in _past(book, topic, since, step.cursor or 0):
        if step.match is not None and not _fits(step.match, event):
            continue
        if consumed is None:
            consumed = {wait.cursor for wait in book.tx.steps(step.run) if wait.finished and topic_of(wait) == topic}
        if event.seq not in consumed:
            return event
    return None


def _past(book: Book, topic: str, since: float, after: int) -> Iterator[PipeEvent]:
    kind, _, name = topic.partition(":")
    if kind == "job":
        yield from _successes(book, name, since - SAME, after)
        return
    while events := book.tx.events(topic, since, after, PAGE):
        yield from events
        after = events[-1].seq


def _successes(book: Book, job: str, since: float, after: int) -> list[PipeEvent]:
    """Returns the successes of a job since a moment in the order in which they came, those behind the one of run `after`."""
    runs = book.tx.runs(RunFilter(job=job, statuses=(Status.SUCCEEDED,), ended_since=since))
    events = sorted((success(run) for run in runs), key=lambda event: (event.at, event.seq))
    seen = next((n for n, event in enumerate(events) if event.seq == after), -1)
    return events[seen + 1 :]


def _fits(match: str, event: PipeEvent) -> bool:
    """Whether an event is what a wait with a mapping is for."""
    return match == ANYTHING or matches(msgspec.json.decode(match), _subject(event))


def _subject(event: PipeEvent) -> Any:
    """Returns what waits match: the event, for a job the input of its run."""
    return msgspec.json.decode(event.data if event.input is None else event.input)


# ---- addresses: `pipe:NAME#LEAF` instead of `pipe:NAME`, so that an event finds the waits that it may match


def topic_of(step: Step) -> str:
    """Returns the topic of a wait without its address."""
    return (step.topic or "").partition("#")[0]


def _addressed(book: Book, step: Step) -> Step:
    """Puts the address of its pattern into the topic of a wait, and the path of that among those that events are looked at."""
    topic = topic_of(step)
    if step.match is None or step.match == ANYTHING:
        return step
    pattern, known = msgspec.json.decode(step.match), _paths(book, topic)
    path = leaf(pattern, known)
    if path is None or (path not in known and len(known) >= MOST_PATHS):
        return step
    if path not in known:
        book.tx.put(f"{PATHS}{topic}", msgspec.json.encode([*known, path]).decode())
    return replace(step, topic=f"{topic}#{address(pattern, path)}")


def _addresses(book: Book, event: PipeEvent) -> list[str]:
    """Returns the topics of the waits with an address that an event may match."""
    paths = _paths(book, event.topic)
    if not paths:
        return []
    subject = _subject(event)
    found = (address(subject, path) for path in paths)
    return [f"{event.topic}#{one}" for one in found if one is not None]


def _paths(book: Book, topic: str) -> list[list[str]]:
    text = book.tx.get(f"{PATHS}{topic}")
    return [] if text is None else msgspec.json.decode(text, type=list[list[str]])


# ---- ends


def end_of(run: Run) -> TaskrunError:
    """Returns the exception that a run's end is to whoever waits for its output."""
    if run.status is Status.CANCELLED:
        return RunCancelled(run.id, run.reason or "explicit")
    if run.status is Status.DISCARDED:
        return RunDiscarded(run.id, run.reason or "throttle")
    error = error_from(run.error) if run.error else ErrorRecord(type="", message="")
    kind = RunTimeout if run.reason == "timeout" else RunFailed
    return kind(run.id, error.type, error.message, error.traceback)
