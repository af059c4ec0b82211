"""Places of steps: `concurrency` of `run`, `thread` and `shell`, counted by id across all runs and engines of a journal.

A step that has a place is a running row with the topic `placed:ID`, one that waits for it has `place:ID` and its limit as
`match`; so the journal's own index is the queue and the count, and a row that ends, or whose coroutine is gone, has given
its place back. Waiting for a place is a wait like any other: the run parks. A transaction that frees places notes their
ids, and hands them on before it ends. A place of a window is given to who waits. It is only offered, and taken by asking
again, where starts are counted, since the run may have to wait for a slot before the body begins; and where the coroutine is
gone, since the code that the run goes on with may not come to the step any more, or there may be none.
"""

from __future__ import annotations

import math
from collections.abc import Iterable

import msgspec
from msgspec.structs import replace

from taskrun.engine.core.facts import JOBS, STARTS
from taskrun.engine.core.transaction import Transaction
from taskrun.model.records import PLACE, PLACED, Run, Step
from taskrun.rules.admission import Starts, rolling_opens, window_room
from taskrun.rules.policies import Concurrency

PAGE = 64


def fire(t: Transaction, step: Step) -> None:
    """The clock has come to where the first of a queue may have its place."""
    t.free(t.save_step(replace(step, wake_at=None)))


def offer_all(t: Transaction) -> None:
    """Has the first of each queue that the clock opens look at it anew, since it was set back."""
    t.freed |= dict.fromkeys(STARTS.all(t.tx))


def ask(t: Transaction, step: Step) -> Step:
    """Gives a step its place, or lets it wait for one: at its old turn, if it has asked before."""
    known = t.tx.step(step.run, step.key)
    if known is not None and (known.finished or known.has_place):
        return known
    opens = _opens(t, step)
    if t.tx.waiting_steps(step.topic or "", 1):
        t.save_step(step)
        first = t.tx.waiting_steps(step.topic or "", 1)[0]
        offered = not _same(first, step) and _opens(t, first) is None
    else:
        offered = False
    if opens is None and not offered:
        return _give(t, step)
    t.freed[place_of(step)] = None  # the first of those who wait, whoever that is now, has its moment then
    return t.save_step(step)


def _same(one: Step, other: Step) -> bool:
    return (one.run, one.key) == (other.run, other.key)


def hand_on(t: Transaction, place: str) -> None:
    """Gives what is free to the steps that wait for it, in their order; the clock calls for the first one that it opens."""
    offered = 0  # to the first ones, who stay in the queue until they ask again
    while waiting := t.tx.waiting_steps(f"{PLACE}{place}", PAGE + offered)[offered:]:
        for step in waiting:
            run = t.run(step.run)
            if run is None or (run.engine is None and _is_gone(t, run.job)):
                _take_back(t, step)
                if run is not None:
                    t.wake(run.id)  # it asks anew, at its old turn, once its job is back
                continue
            opens = _opens(t, step, offered)
            if opens is not None:
                if step.wake_at != _moment(opens):
                    t.save_step(replace(step, wake_at=_moment(opens)))
                return
            if terms_of(step).period is None and run.engine is not None:
                t.deliver(_give(t, step))
                continue
            t.deliver(step)
            offered += 1
            if terms_of(step).period is not None:
                return


def _is_gone(t: Transaction, job: str) -> bool:
    """Whether no engine has a job, as far as the engines have said what they have."""
    known = JOBS.all(t.tx).values()
    return bool(known) and not any(job in jobs for jobs in known)


def is_offered(t: Transaction, step: Step) -> bool:
    """Whether a waiting step may take its place by asking again."""
    first = next(iter(t.tx.waiting_steps(step.topic or "", 1)), step)
    return _same(first, step) and _opens(t, step) is None


def release(t: Transaction, run: Run, keep_turns: bool = False) -> None:
    """Takes back the places of a run whose coroutine is gone; its steps ask anew when it goes on, at their old turn.

    Parameters:
        keep_turns: whether those that wait for a place go on waiting.
    """
    for step in t.tx.open_steps(run.id):
        if step.has_place or (step.asks_place and not keep_turns):
            _take_back(t, step)


def give_up(t: Transaction, run: Run, keys: Iterable[str]) -> None:
    """Takes back the places and turns of steps that the code of a run does not come to."""
    for key in keys:
        step = t.tx.step(run.id, key)
        if step is not None and (step.asks_place or step.has_place):
            _take_back(t, step)


def _take_back(t: Transaction, step: Step) -> None:
    t.free(step)
    t.save_step(replace(step, topic=None, match=None, wake_at=None))


def _give(t: Transaction, step: Step) -> Step:
    terms, place = terms_of(step), place_of(step)
    if terms.period is not None:
        STARTS.put(t.tx, place, _starts(t, place).plus(t.now, terms.limit, terms.period))
        t.freed[place] = None  # the next one has a moment now
    return t.save_step(replace(step, topic=f"{PLACED}{place}", wake_at=None, started_at=t.now))


def _opens(t: Transaction, step: Step, offered: int = 0) -> float | None:
    """Returns when a step may have its place, beside those that are offered: None now, infinity when another one ends."""
    terms, place = terms_of(step), place_of(step)
    if terms.period is not None:
        return rolling_opens(_starts(t, place).at, terms.limit, terms.period, t.now)
    held = len(t.tx.waiting_steps(f"{PLACED}{place}", terms.limit))
    return None if window_room(terms.limit, held + offered) > 0 else math.inf


def _moment(opens: float | None) -> float | None:
    return opens if opens is not None and opens < math.inf else None


def _starts(t: Transaction, place: str) -> Starts:
    return STARTS.get(t.tx, place) or Starts()


def terms_of(step: Step) -> Concurrency:
    """Returns the limit of a step that asks for its place."""
    return msgspec.json.decode(step.match or "", type=Concurrency)


def place_of(step: Step) -> str:
    """Returns the id of a step's place."""
    return (step.topic or "").partition(":")[2]
