"""Which ready runs start now: by priority, concurrency, throttle, and one at a time where a worker has died.

A limit is counted by its *group* (`window:disk`, `rolling:api`, `throttle:mail`). A run that it holds back is blocked in
the *queue* of those with the same limit in that group, and no claim looks at it until it is offered what became free: a
place of a window when a run leaves it; a turn of the clock one after the other, each head of a queue waiting for its own
moment and handing on at its start. So ten thousand runs behind one limit cost a busy engine nothing.
"""

from __future__ import annotations

import math
from typing import NamedTuple
from urllib.parse import quote

from msgspec.structs import replace

from taskrun.engine.core.facts import QUEUES, STARTS, THROTTLES
from taskrun.engine.core.outbox import RunStarted
from taskrun.engine.core.transaction import Transaction
from taskrun.model.records import Cause, Run, Status
from taskrun.rules import transitions
from taskrun.rules.admission import LastStart, Starts, rolling_opens, rolling_room, throttle_opens, window_room

SPARE = 4  # rows read beyond the free slots, since some may turn out to be blocked
OFFERS = 256  # runs of one queue that are offered what is free at once
WINDOW, ROLLING, THROTTLE = "window:", "rolling:", "throttle:"
AHEAD = frozenset({Status.SCHEDULED, Status.QUEUED})


class Limit(NamedTuple):
    """A limit, as it stands before one run."""

    group: str
    queue: str


class Started(NamedTuple):
    """A run that was started: for the first time, or with its coroutine in this engine, or neither."""

    run: Run
    first: bool
    alive: bool


class Claim(NamedTuple):
    """What became of a look at the ready runs."""

    started: list[Started]
    left: bool  # whether the journal holds ready runs that were not started


def limits_of(run: Run) -> list[Limit]:
    """Returns the limits that a run has to pass to start, or to go on.

    Where the clock opens a limit, only runs that pass the same further limit share a queue: its head may be held back there,
    and nobody whom that does not concern must wait for it.
    """
    first, found = run.started_at is None, []
    throttled = run.throttle is not None and first
    if throttled:
        further = "" if run.lane is None else f"{run.lane}/{run.lane_limit}/{run.lane_period}"
        found.append(_limit(f"{THROTTLE}{run.throttle}", f"{run.throttle_period:g}", further))
    if run.lane is not None and run.lane_period is None:
        found.append(_limit(f"{WINDOW}{run.lane}", f"{run.lane_limit}"))
    elif run.lane is not None and first:
        further = f"{run.throttle}/{run.throttle_period}" if throttled else ""
        found.append(_limit(f"{ROLLING}{run.lane}", f"{run.lane_limit}/{run.lane_period:g}", further))
    return found


def _limit(group: str, terms: str, further: str = "") -> Limit:
    return Limit(group, f"{group}:{terms}+{quote(further, safe='')}" if further else f"{group}:{terms}")


# ---- starting


def claim(t: Transaction, slots: int, suspect: bool) -> Claim:
    """Starts ready runs, the best first.

    Parameters:
        slots: how many at most; those that are to be cancelled need none.
        suspect: whether one may be among them that was executing when a worker died. They go one at a time, so that the next
            death blames the right one.
    """
    started: list[Started] = []
    more = True
    while more:
        page = t.tx.ready(t.engine, t.state.jobs, slots + SPARE, suspects=suspect)
        more = len(page) == slots + SPARE  # unless one of them has to stay where it is
        for run in t.each(page):
            if run.status is not Status.QUEUED or run.blocked is not None:
                continue  # an earlier turn has put it elsewhere
            if run.cancel is not None:
                now = t.change(run.id, transitions.start, t.engine, t.now, placed=False)
                started.append(Started(now, False, run.engine == t.engine))
            elif slots == 0 or (run.crashes and not suspect):
                more = False
            elif _held_back(t, run):
                more = True  # the place that it leaves may have made another one ready
            else:
                started.append(Started(_start(t, run), run.started_at is None, run.engine == t.engine))
                slots -= 1
                suspect = suspect and not run.crashes
    return Claim(started, bool(t.tx.ready(t.engine, t.state.jobs, 1, suspects=suspect)))


def goes_first(t: Transaction, run: Run) -> bool:
    """Whether a new run may start at once: no limit concerns it, and no ready run is ahead of it."""
    return (
        run.status is Status.QUEUED
        and run.blocked is None
        and run.job in t.state.jobs
        and not limits_of(run)
        and not t.tx.ready(t.engine, t.state.jobs, 1)
    )


def enter(t: Transaction, run: Run) -> Run:
    """Returns a new run as its limits let it begin: ready, or held back at once, so that no claim need look at it."""
    closed = _closed(t, run) if run.status is Status.QUEUED else None
    return run if closed is None else _in_line(run, t, *closed)


def leave(t: Transaction, run: Run) -> None:
    """After a run has given up its place or its turn: offers them to those that are held back.

    Parameters:
        run: as it was while it had them.
    """
    groups = {limit.group: None for limit in limits_of(run)}
    if run.lane is not None:  # whatever limits its own starts, those who count who runs have counted it
        groups[f"{WINDOW}{run.lane}"] = None
    for group in groups:
        _hand_on(t, group, 1)  # what this run leaves: others that end in the same commit offer theirs


def fire(t: Transaction, run: Run) -> None:
    """Lets the head of a queue have its turn; one that is better by now goes with it, and ahead of it."""
    t.wake(run.id)
    for limit in limits_of(run) if run.cause is Cause.THROTTLE else ():
        for better in t.each(t.tx.blocked(limit.queue, 1)):
            if _goes_before(better, run):
                t.change(better.id, transitions.block, None)


def offer_all(t: Transaction) -> None:
    """Offers whatever is free, for an engine whose jobs have changed, or whose clock was set back."""
    for group, queues in QUEUES.all(t.tx).items():
        for head in [run for run_id in queues.values() if (run := t.run(run_id or None)) is not None]:
            if head.status is Status.SCHEDULED and head.cause is Cause.THROTTLE and _opens_before(t, head):
                fire(t, head)
        _hand_on(t, group)


def _opens_before(t: Transaction, head: Run) -> bool:
    """Whether the limits of a run that waits for its moment open before that: it was reckoned by a clock that was ahead."""
    closed = _closed(t, head)
    return closed is None or (head.wake_at is not None and closed[1] < head.wake_at)


def offer_forgotten(t: Transaction) -> list[Run]:
    """Offers what is free to queues that nobody serves; returns the first of each. There should be none."""
    found = []
    for queue in t.tx.blocked_queues():
        limit = Limit(queue.rpartition(":")[0], queue)
        queues, first = _queues(t, limit.group), t.tx.blocked(queue, 1, t.state.jobs)
        head = t.run(queues.get(queue) or "")
        offered = head is not None and head.status is Status.QUEUED and head.blocked is None  # it starts in a moment
        if not first or offered or _on_its_way(t, queue, queues.get(queue)):
            continue
        opens = _opens(t, limit, first[0])
        if opens is None or opens < math.inf or queue not in queues:
            found += first
            _keep(t, limit.group, {**queues, queue: ""}, queues)
            _hand_on(t, limit.group)
    return found


def _start(t: Transaction, run: Run) -> Run:
    """Starts a run, counts its first start where starts are limited, and hands its turn on."""
    started = t.change(run.id, transitions.start, t.engine, t.now)
    if run.started_at is None:
        t.outbox.append(RunStarted(started))
    for limit in limits_of(run):
        if limit.group.startswith(THROTTLE):
            known = THROTTLES.get(t.tx, run.throttle or "") or LastStart(at=t.now)
            period = max(run.throttle_period or 0.0, known.period)
            THROTTLES.put(t.tx, run.throttle or "", replace(known, at=t.now, period=period))
        elif limit.group.startswith(ROLLING):
            starts = _starts(t, run).plus(t.now, run.lane_limit or 1, run.lane_period or 0.0)
            STARTS.put(t.tx, run.lane or "", starts)
        else:
            continue
        _hand_on(t, limit.group)
    return started


# ---- what the limits say


def _opens(t: Transaction, limit: Limit, run: Run) -> float | None:
    """Returns when a limit lets a run through: None now, infinity when somebody leaves."""
    if limit.group.startswith(WINDOW):
        return None if _room(t, limit, run) > 0 else math.inf
    if limit.group.startswith(ROLLING):
        return rolling_opens(_starts(t, run).at, run.lane_limit or 1, run.lane_period or 0.0, t.now)
    last = THROTTLES.get(t.tx, run.throttle or "")
    return throttle_opens(None if last is None else last.at, run.throttle_period or 0.0, t.now)


def _room(t: Transaction, limit: Limit, run: Run) -> int:
    """Returns how many runs like this one a limit lets through now."""
    if limit.group.startswith(WINDOW):
        return window_room(run.lane_limit or 1, t.tx.placed(run.lane or ""))
    if limit.group.startswith(ROLLING):
        return rolling_room(_starts(t, run).at, run.lane_limit or 1, run.lane_period or 0.0, t.now)
    return 1 if _opens(t, limit, run) is None else 0


def _starts(t: Transaction, run: Run) -> Starts:
    return STARTS.get(t.tx, run.lane or "") or Starts()


def _closed(t: Transaction, run: Run) -> tuple[Limit, float] | None:
    """Returns the first limit that holds a run back, and when it opens: infinity where others have their turn first."""
    for limit in limits_of(run):
        opens = _opens(t, limit, run)
        if opens is None and _comes_later(t, limit, run):
            opens = math.inf
        if opens is not None:
            return limit, opens
    return None


def _comes_later(t: Transaction, limit: Limit, run: Run) -> bool:
    """Whether others are ahead of a run in the queue of a limit that the clock has opened, and the head is about to start."""
    if limit.group.startswith(WINDOW):
        return False
    head = t.run(_queues(t, limit.group).get(limit.queue) or "")
    if head is None or head.id == run.id or not _on_its_way(t, limit.queue, head.id, run.id):
        return False
    return any(_goes_before(one, run) for one in (head, *t.tx.blocked(limit.queue, 1)))


def _goes_before(one: Run, other: Run) -> bool:
    """Whether one run has its turn before another, which has no place in the order of triggers while it is new."""
    return (-one.priority, one.seq) < (-other.priority, other.seq or math.inf)


def _held_back(t: Transaction, run: Run) -> bool:
    """Whether a limit holds a ready run back; it is put where it waits then, and leaves a place that it was offered to others."""
    closed = _closed(t, run)
    if closed is None:
        return False
    t.change(run.id, _in_line, t, *closed)
    if run.lane is not None and not closed[0].group.startswith(WINDOW):
        _hand_on(t, f"{WINDOW}{run.lane}", 1)
    return True


# ---- queues


def _in_line(run: Run, t: Transaction, limit: Limit, opens: float) -> Run:
    """Puts a run into the queue of a limit; the head of one that the clock opens waits for its moment."""
    queues = _queues(t, limit.group)
    head = queues.get(limit.queue)
    if opens < math.inf and (head == run.id or not _on_its_way(t, limit.queue, head, run.id)):
        _keep(t, limit.group, {**queues, limit.queue: run.id}, queues)
        return transitions.postpone(run, opens)
    _keep(t, limit.group, {**queues, limit.queue: head or ""}, queues)
    return transitions.block(run, limit.queue)


def _on_its_way(t: Transaction, queue: str, head: str | None, behind: str | None = None) -> bool:
    """Whether the head of a queue will hand on: it has not started, and nothing but a turn holds it that comes.

    Parameters:
        behind: a run that is to wait for it. Where it waits itself in a queue whose head waits for that run, no turn comes.
    """
    met = {queue}
    while (run := t.run(head) if head else None) is not None:
        if run.started_at is not None or run.status not in AHEAD or run.job not in t.state.jobs or run.id == behind:
            return False
        if run.blocked is None or run.blocked in met:
            return run.blocked is None
        if run.blocked.startswith(WINDOW):
            return True
        met.add(run.blocked)
        head = _queues(t, run.blocked.rpartition(":")[0]).get(run.blocked)
    return False


def _hand_on(t: Transaction, group: str, most: int = OFFERS) -> None:
    """Offers what is free in a group, at most so many places, to its queues, and forgets those that are empty."""
    queues = _queues(t, group)
    if not queues:
        return
    left = {}
    for queue, head in queues.items():
        if not group.startswith(WINDOW) and _on_its_way(t, queue, head):
            left[queue] = head
        elif (first := _offer(t, Limit(group, queue), most)) is not None:
            left[queue] = first
    _keep(t, group, left, queues)


def _offer(t: Transaction, limit: Limit, most: int) -> str | None:
    """Offers what is free to the first of a queue; returns its head, None when nobody is left in it.

    Runs of jobs that this engine lacks are offered it as well, but not alone: no engine may have their jobs.
    """
    ours = t.tx.blocked(limit.queue, 1, t.state.jobs)
    known = ours or t.tx.blocked(limit.queue, 1)
    if not known:
        return None
    room = min(_room(t, limit, known[0]), most)
    if room > 0:
        ours = t.tx.blocked(limit.queue, room, t.state.jobs) if room > 1 else ours
        for run in t.each({run.id: run for run in (*ours, *t.tx.blocked(limit.queue, room))}.values()):
            t.change(run.id, transitions.block, None)
        return ours[-1].id if ours else ""
    opens = _opens(t, limit, known[0])
    if opens is None or opens == math.inf:
        return ""
    t.change(known[0].id, transitions.postpone, opens)
    return known[0].id


def _queues(t: Transaction, group: str) -> dict[str, str]:
    return QUEUES.get(t.tx, group) or {}


def _keep(t: Transaction, group: str, queues: dict[str, str], before: dict[str, str]) -> None:
    if queues == before:
        return
    if queues:
        QUEUES.put(t.tx, group, queues)
    else:
        QUEUES.drop(t.tx, group)
