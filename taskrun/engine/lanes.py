"""Places: which ready runs start now, by priority, concurrency, throttle, and one at a time where a worker has died.

A lane is a concurrency id. A run that finds its lane full is blocked, so that the next claim does not look at it again; whoever
gives up a place of the lane unblocks the next. So a busy lane with ten thousand queued runs delays no other.
"""

from __future__ import annotations

import msgspec
from msgspec.structs import replace

from taskrun.engine.book import Book
from taskrun.rules import transitions
from taskrun.rules.admission import may_start_window, rolling_opens, throttle_opens
from taskrun.words.records import Run

SPARE = 32  # rows read beyond the free places, since some will turn out to be blocked


def claim(book: Book, jobs: list[str], limit: int, suspects: int) -> tuple[list[Run], bool]:
    """Gives places to ready runs, the best first; returns them started, and whether to look again.

    Parameters:
        limit: free places of the engine.
        suspects: how many runs are executing that were executing when a worker died; they go one at a time, so that the next
            death blames the right one.
    """
    started: list[Run] = []
    ready = book.tx.ready(book.engine, jobs, limit + SPARE)
    for run in ready:
        if run.cancel is not None:  # its end needs no place
            started.append(book.save(replace(transitions.start(run, book.engine, book.now), placed=False)))
        elif limit > 0 and not (run.crashes and suspects) and _admits(book, run):
            started.append(_start(book, run))
            suspects += bool(run.crashes)
            limit -= 1
    return started, limit > 0 and len(ready) >= limit + SPARE


def has_place(book: Book, run: Run) -> bool:
    """Whether the lane of a run has a place for it."""
    if run.lane is None or run.lane_limit is None or run.lane_period is not None:
        return True
    return may_start_window(run.lane_limit, book.tx.placed(run.lane))


def leave(book: Book, run: Run) -> None:
    """After a run has given up its place: unblocks as many runs of its lane as there are places now.

    Parameters:
        run: as it was while it held the place.
    """
    book.claimable = True
    if run.lane is None or not run.placed:
        return
    placed = book.tx.placed(run.lane)
    for blocked in book.tx.blocked(run.lane, 16):
        if blocked.lane_limit is None or placed < blocked.lane_limit:
            book.save(replace(blocked, blocked=False))
            placed += 1


def _admits(book: Book, run: Run) -> bool:
    """Whether the limits let a ready run start; one that must wait is put where it waits."""
    opens = _opens(book, run)
    if opens is not None:
        book.save(transitions.postpone(run, opens))
    elif not has_place(book, run):
        book.save(replace(run, blocked=True))
    else:
        return True
    return False


def _start(book: Book, run: Run) -> Run:
    """Starts a run, and counts its first start where starts are limited."""
    if run.started_at is None:
        if run.throttle is not None:
            book.tx.put(f"start:{run.throttle}", repr(book.now))
        if run.lane is not None and run.lane_period is not None and run.lane_limit is not None:
            starts = [*_starts(book, run.lane), book.now][-run.lane_limit :]
            book.tx.put(f"starts:{run.lane}", msgspec.json.encode(starts).decode())
    return book.save(transitions.start(run, book.engine, book.now))


def _opens(book: Book, run: Run) -> float | None:
    """Returns when the limits on starts allow the first start of a run; None: now."""
    if run.started_at is not None:
        return None
    moments: list[float | None] = []
    if run.throttle is not None and run.throttle_period is not None:
        last = book.tx.get(f"start:{run.throttle}")
        moments.append(throttle_opens(None if last is None else float(last), run.throttle_period, book.now))
    if run.lane is not None and run.lane_period is not None and run.lane_limit is not None:
        moments.append(rolling_opens(_starts(book, run.lane), run.lane_limit, run.lane_period, book.now))
    return max((moment for moment in moments if moment is not None), default=None)


def _starts(book: Book, lane: str) -> list[float]:
    """Returns the newest starts in a lane of mode "rolling"."""
    text = book.tx.get(f"starts:{lane}")
    return [] if text is None else msgspec.json.decode(text, type=list[float])
