"""Places of steps: `concurrency` of `run`, `thread` and `shell`, counted by id across all runs and engines of a journal.

A step that has a place is a running row with the topic `placed:ID`, one that waits for it has `place:ID` and its limit as
`match`; so the journal's own index is the queue and the count, and a row that ends, or whose coroutine is gone, has given its
place back. Waiting for a place is a wait like any other: the run parks. A transaction that frees places notes their ids in
`Book.freed`, and hands them on before it ends.
"""

from __future__ import annotations

import math

import msgspec
from msgspec.structs import replace

from taskrun.engine.core.transaction import Book
from taskrun.model.records import Run, Step
from taskrun.rules.admission import Starts, rolling_opens, window_room
from taskrun.rules.policies import Concurrency

WAITS, HOLDS = "place:", "placed:"
STARTS = "rolling:"  # fact `rolling:ID` has the newest starts, as for lanes: the ids of steps begin with `step:`
PAGE = 64


def wanted(step: Step, terms: Concurrency) -> Step:
    """Returns a step as it asks for its place."""
    return replace(step, topic=f"{WAITS}{terms.id}", match=msgspec.json.encode(terms).decode())


def asks(step: Step) -> bool:
    """Whether a step waits for its place."""
    return step.topic is not None and step.topic.startswith(WAITS)


def holds(step: Step) -> bool:
    """Whether a step has its place."""
    return step.topic is not None and step.topic.startswith(HOLDS) and not step.finished


def fire(book: Book, step: Step) -> None:
    """The clock has come to where the first of a queue may have its place."""
    book.free(book.save_step(replace(step, wake_at=None)))


def ask(book: Book, step: Step) -> Step:
    """Gives a step its place, or lets it wait for one."""
    known = book.tx.step(step.run, step.key)
    if known is not None and (known.finished or holds(known)):
        return known
    opens = _opens(book, step)
    if opens is None:
        return _give(book, step)
    first = next(iter(book.tx.waiting_steps(step.topic or "", 1)), step)
    return book.save_step(_until(step, opens) if first.run == step.run and first.key == step.key else step)


def hand_on(book: Book, place: str) -> None:
    """Gives what is free to the steps that wait for it, in their order; the clock calls for the first one that it opens."""
    while waiting := book.tx.waiting_steps(f"{WAITS}{place}", PAGE):
        for step in waiting:
            opens = _opens(book, step)
            if opens is not None:
                _call_at(book, step, opens)
                return
            book.deliver(_give(book, step))


def release(book: Book, run: Run) -> None:
    """Takes back the places of a run whose coroutine is gone; its steps ask anew when it goes on, at their old turn."""
    for step in book.tx.steps(run.id):
        if holds(step) or asks(step):
            book.free(step)
            book.save_step(replace(step, topic=None, match=None, wake_at=None))


def _give(book: Book, step: Step) -> Step:
    terms, place = terms_of(step), place_of(step)
    if terms.period is not None:
        starts = _starts(book, place).plus(book.now, terms.limit)
        book.tx.put(f"{STARTS}{place}", msgspec.json.encode(starts).decode())
    return book.save_step(replace(step, topic=f"{HOLDS}{place}", wake_at=None, started_at=book.now))


def _opens(book: Book, step: Step) -> float | None:
    """Returns when a step may have its place: None now, infinity when another one ends."""
    terms, place = terms_of(step), place_of(step)
    if terms.period is not None:
        return rolling_opens(_starts(book, place).at, terms.limit, terms.period, book.now)
    held = len(book.tx.waiting_steps(f"{HOLDS}{place}", terms.limit))
    return None if window_room(terms.limit, held) > 0 else math.inf


def _until(step: Step, opens: float) -> Step:
    return replace(step, wake_at=opens if opens < math.inf else None)


def _call_at(book: Book, step: Step, opens: float) -> None:
    if step.wake_at != _until(step, opens).wake_at:
        book.save_step(_until(step, opens))


def _starts(book: Book, place: str) -> Starts:
    text = book.tx.get(f"{STARTS}{place}")
    return Starts() if text is None else msgspec.json.decode(text, type=Starts)


def terms_of(step: Step) -> Concurrency:
    """Returns the limit of a step that asks for its place."""
    return msgspec.json.decode(step.match or "", type=Concurrency)


def place_of(step: Step) -> str:
    """Returns the id of a step's place."""
    return (step.topic or "").partition(":")[2]
