"""Places and turns: which ready runs start now, by priority, concurrency, throttle, and one at a time where a worker has died.

A limit is counted by its *group* (`window:disk`, `rolling:api`, `throttle:mail`). A run that it holds back is blocked in the
*queue* of those with the same limit in that group, and no claim looks at it until it is offered what became free: a place of a
window when a run leaves it; a turn of the clock one after the other, each head of a queue waiting for its own moment and
handing on at its start. So ten thousand runs behind one limit cost a busy engine nothing.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import msgspec
from msgspec.structs import replace

from taskrun.engine.core.transaction import Book
from taskrun.model.records import Run, Status
from taskrun.rules import transitions
from taskrun.rules.admission import THROTTLE, Starts, rolling_opens, rolling_room, throttle_opens, window_room

SPARE = 32  # rows read beyond the free places, since some will turn out to be blocked
OFFERS = 256  # runs of one queue that are offered what is free at once
WINDOW, ROLLING = "window:", "rolling:"
QUEUES = "queues:"  # fact `queues:GROUP` is a JSON object from the queues of a group to their heads
AHEAD = frozenset({Status.SCHEDULED, Status.QUEUED})


class Gate(NamedTuple):
    """A limit, as it stands before one run."""

    group: str
    queue: str


def gates(run: Run) -> list[Gate]:
    """Returns the limits that a run has to pass to start, or to go on."""
    first, found = run.started_at is None, []
    if run.throttle is not None and first:
        found.append(_gate(f"{THROTTLE}{run.throttle}", f"{run.throttle_period:g}"))
    if run.lane is not None and run.lane_period is None:
        found.append(_gate(f"{WINDOW}{run.lane}", f"{run.lane_limit}"))
    elif run.lane is not None and first:
        found.append(_gate(f"{ROLLING}{run.lane}", f"{run.lane_limit}/{run.lane_period:g}"))
    return found


def _gate(group: str, limit: str) -> Gate:
    return Gate(group, f"{group}:{limit}")


class Claim(NamedTuple):
    """What became of a look at the ready runs."""

    started: list[Run]
    more: bool  # there may be more to start now
    backlog: bool  # there are, or may be, ready runs left


def claim(book: Book, jobs: list[str], limit: int, suspects: int) -> Claim:
    """Gives places to ready runs, the best first.

    Parameters:
        limit: free places of the engine.
        suspects: how many runs are executing that were executing when a worker died; they go one at a time, so that the next
            death blames the right one.
    """
    started: list[Run] = []
    passed_over = suspects > 0  # there may be more of them
    ready = book.tx.ready(
        book.engine, jobs, limit + SPARE, suspects=not suspects
    )  # else they fill it up while they wait
    whole = len(ready) >= limit + SPARE
    for run in ready:
        if run.cancel is not None:  # its end needs no place
            started.append(book.save(replace(transitions.start(run, book.engine, book.now), placed=False)))
        elif limit <= 0 or (run.crashes and suspects):
            passed_over = True
        elif _admits(book, run):
            started.append(_start(book, run))
            suspects += bool(run.crashes)
            limit -= 1
    return Claim(started, limit > 0 and whole, passed_over or whole)


def goes_first(book: Book, run: Run) -> bool:
    """Whether a new run may start at once: no limit concerns it, and no ready run is ahead of it."""
    return (
        run.status is Status.QUEUED
        and run.blocked is None
        and run.job in book.jobs
        and not gates(run)
        and not book.tx.ready(book.engine, book.jobs, 1)
    )


def begin(book: Book, run: Run) -> Run:
    """Returns a new run at its very first start."""
    book.begun[run.id] = run
    return transitions.start(run, book.engine, book.now)


def enter(book: Book, run: Run) -> Run:
    """Returns a new run as its limits let it begin: ready, or held back at once, so that no claim need look at it."""
    return run if run.status is not Status.QUEUED else _held_back(book, run) or run


def leave(book: Book, run: Run) -> None:
    """After a run has given up its place or its turn: offers them to those that are held back.

    Parameters:
        run: as it was while it had them.
    """
    book.left = True
    for gate in gates(run):
        _hand_on(book, gate.group)


def fire(book: Book, run: Run) -> None:
    """Lets the head of a queue have its turn; one that is better by now goes with it, and ahead of it."""
    book.wake(run)
    for gate in gates(run) if run.reason == "throttle" else ():
        for better in book.tx.blocked(gate.queue, 1):
            if (-better.priority, better.seq) < (-run.priority, run.seq):
                book.save(replace(better, blocked=None))


def look(book: Book) -> None:
    """Offers whatever is free, for an engine whose jobs have changed."""
    for key in book.tx.facts(QUEUES):
        _hand_on(book, key.removeprefix(QUEUES))


# ---- what the limits say


def _opens(book: Book, gate: Gate, run: Run) -> float | None:
    """Returns when a limit lets a run through: None now, infinity when somebody leaves."""
    if gate.group.startswith(WINDOW):
        return None if _room(book, gate, run) > 0 else math.inf
    if gate.group.startswith(ROLLING):
        return rolling_opens(_starts(book, gate.group).at, run.lane_limit or 1, run.lane_period or 0.0, book.now)
    last = book.tx.get(gate.group)
    return throttle_opens(None if last is None else float(last), run.throttle_period or 0.0, book.now)


def _room(book: Book, gate: Gate, run: Run) -> int:
    """Returns how many runs like this one a limit lets through now."""
    if gate.group.startswith(WINDOW):
        return window_room(run.lane_limit or 1, book.tx.placed(run.lane or ""))
    if gate.group.startswith(ROLLING):
        return rolling_room(_starts(book, gate.group).at, run.lane_limit or 1, run.lane_period or 0.0, book.now)
    return 1 if _opens(book, gate, run) is None else 0


def _starts(book: Book, group: str) -> Starts:
    text = book.tx.get(group)
    return Starts() if text is None else msgspec.json.decode(text, type=Starts)


def _admits(book: Book, run: Run) -> bool:
    """Whether the limits let a ready run start; one that must wait is put where it waits."""
    held = _held_back(book, run)
    if held is not None:
        book.save(held)
    return held is None


def _held_back(book: Book, run: Run) -> Run | None:
    for gate in gates(run):
        opens = _opens(book, gate, run)
        if opens is not None:
            return _in_line(book, gate, run, opens)
    return None


def _in_line(book: Book, gate: Gate, run: Run, opens: float) -> Run:
    """Puts a run into the queue of a limit; the head of one that the clock opens waits for its moment."""
    queues = _queues(book, gate.group)
    head = queues.get(gate.queue)
    if opens < math.inf and (head == run.id or not _on_its_way(book, gate.queue, head)):
        _keep(book, gate.group, {**queues, gate.queue: run.id}, queues)
        return transitions.postpone(replace(run, blocked=None), opens)
    _keep(book, gate.group, {**queues, gate.queue: head or ""}, queues)
    return replace(run, blocked=gate.queue)


def _on_its_way(book: Book, queue: str, head: str | None) -> bool:
    """Whether the head of a queue will hand on: it has not started, and nothing but its turn holds it."""
    run = book.tx.run(head) if head else None
    if run is None or run.started_at is not None or run.job not in book.jobs:
        return False
    return run.status in AHEAD and run.blocked != queue


def _start(book: Book, run: Run) -> Run:
    """Starts a run, counts its first start where starts are limited, and hands its turn on."""
    started = book.save(transitions.start(run, book.engine, book.now))
    if run.started_at is None:
        book.begun[run.id] = started
    for gate in gates(run):
        if gate.group.startswith(THROTTLE):
            book.tx.put(gate.group, repr(book.now))
        elif gate.group.startswith(ROLLING):
            starts = _starts(book, gate.group).plus(book.now, run.lane_limit or 1)
            book.tx.put(gate.group, msgspec.json.encode(starts).decode())
        else:
            continue
        _hand_on(book, gate.group)
    return started


# ---- queues


def _hand_on(book: Book, group: str) -> None:
    """Offers what is free in a group to its queues, and forgets those that are empty."""
    queues = _queues(book, group)
    if not queues:
        return
    left = {}
    for queue, head in queues.items():
        if not group.startswith(WINDOW) and _on_its_way(book, queue, head):
            left[queue] = head
        elif (first := _offer(book, Gate(group, queue))) is not None:
            left[queue] = first
    _keep(book, group, left, queues)


def _offer(book: Book, gate: Gate) -> str | None:
    """Offers what is free to the first of a queue; returns its head, None when nobody is left in it.

    Runs of jobs that this engine lacks are offered it as well, but not alone: no engine may have their jobs.
    """
    ours = book.tx.blocked(gate.queue, 1, book.jobs)
    known = ours or book.tx.blocked(gate.queue, 1)
    if not known:
        return None
    room = min(_room(book, gate, known[0]), OFFERS)
    if room > 0:
        ours = book.tx.blocked(gate.queue, room, book.jobs)
        offered = {run.id: run for run in (*ours, *book.tx.blocked(gate.queue, room))}
        for run in offered.values():
            book.save(replace(run, blocked=None))
        return ours[-1].id if ours else ""
    opens = _opens(book, gate, known[0])
    if opens is None or opens == math.inf:
        return ""
    book.save(transitions.postpone(replace(known[0], blocked=None), opens))
    return known[0].id


def _queues(book: Book, group: str) -> dict[str, str]:
    text = book.tx.get(f"{QUEUES}{group}")
    return {} if text is None else msgspec.json.decode(text, type=dict[str, str])


def _keep(book: Book, group: str, queues: dict[str, str], before: dict[str, str]) -> None:
    if queues != before:
        book.tx.put(f"{QUEUES}{group}", msgspec.json.encode(queues).decode() if queues else None)
