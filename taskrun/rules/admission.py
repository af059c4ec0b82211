"""Whether a trigger becomes a run, and when it may start: each rule once, as a pure function of (request, facts, now).

Called by the engine inside a transaction, which reads the facts before and writes the decision after. The order is
validate (done before) → key → the ends of other runs → throttle (discard) → debounce → delay; at a start: throttle (queue), then
concurrency.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec
from msgspec.structs import replace

from taskrun.model.records import Awaited, Cause, Run, Status
from taskrun.rules.dependencies import after_text, is_failed, is_open
from taskrun.rules.policies import Debounce, Terms, Throttle


class Request(msgspec.Struct, frozen=True, gc=False, kw_only=True):
    """A validated trigger.

    Parameters:
        run: the new run; its status and what follows from `terms` are not decided yet.
        delay_until: the moment before which it does not start.
        after: the runs that it starts after, with the ends that there are.
        paused: its job is paused: the run is recorded and held.
    """

    run: Run
    terms: Terms
    delay_until: float | None = None
    after: Sequence[Awaited] = ()
    paused: bool = False


class BurstFact(msgspec.Struct, frozen=True, gc=False, omit_defaults=True):
    """What is kept of a debounce id."""

    since: float | None = None
    leading_until: float | None = None


class LastStart(msgspec.Struct, frozen=True, omit_defaults=True):
    """What is kept of a throttle: its last start, in mode discard the one that was accepted last, and its longest period.

    `others` are further ones whose period is not over: delayed triggers are accepted for later.
    """

    at: float
    period: float = 0.0
    others: list[float] = []

    def plus(self, start: float, period: float, now: float) -> LastStart:
        """Returns it with one more start."""
        period = max(self.period, period)
        return LastStart(start, period, [one for one in (self.at, *self.others) if now < one + period])


class Facts(msgspec.Struct, frozen=True, gc=False, kw_only=True):
    """What the journal knows that bears on a request.

    Parameters:
        known: the newest run of the job with this key.
        accepted: what is kept of this throttle, in mode discard.
        burst: the scheduled run that holds the debounce id.
        kept: what is kept of that id.
    """

    known: Run | None = None
    accepted: LastStart | None = None
    burst: Run | None = None
    kept: BurstFact = BurstFact()


class Decision(msgspec.Struct, gc=False, kw_only=True):
    """What becomes of a request.

    Parameters:
        run: the run to insert, or the one that there is already.
        new: which of the two.
        superseded: a run that ends `cancelled`, reason `debounce`.
        accepted, kept: what is to be kept of the throttle, and of the debounce id; None: as it is.
    """

    run: Run
    new: bool = True
    superseded: Run | None = None
    accepted: LastStart | None = None
    kept: BurstFact | None = None


class Starts(msgspec.Struct, frozen=True, omit_defaults=True):
    """The newest starts in a lane of mode "rolling": as many as the highest limit of those that share it."""

    most: int = 0
    at: list[float] = []
    period: float = 0.0  # the longest of those that share it

    def plus(self, start: float, limit: int, period: float) -> Starts:
        """Returns them with one more."""
        most = max(self.most, limit)
        return Starts(most=most, at=[*self.at, start][-most:], period=max(self.period, period))


# ---- admission


def decide(request: Request, facts: Facts, now: float) -> Decision:
    """Decides what becomes of a trigger."""
    if facts.known is not None and answers(facts.known, request.terms.key_ttl, now):
        return Decision(run=facts.known, new=False)
    run = with_terms(request.run, request.terms)
    if request.after:
        run = replace(run, after=after_text(request.after))
        if is_failed(request.after):
            return Decision(run=replace(run, status=Status.CANCELLED, reason=Cause.DEPENDENCY.value, ended_at=now))
    start = now if request.delay_until is None else max(now, request.delay_until)
    if _is_throttled(request.terms, facts, start):
        return Decision(run=replace(run, status=Status.DISCARDED, reason=Cause.THROTTLE.value, ended_at=now))
    if facts.burst is not None and not _is_in_burst(facts.burst):
        facts = replace(facts, burst=None)
    decision = _debounced(run, request.terms.debounce, facts, now)
    run = _delayed(decision.run, start, now)
    waits = bool(request.after) and is_open(request.after)
    decision.run = _held(_awaiting(run) if waits else run, request.paused)
    decision.accepted = _accepted(request.terms.throttle, facts.accepted, start, now)
    return decision


def answers(known: Run, ttl: float, now: float) -> bool:
    """Whether a run answers a further trigger with its key: it is unfinished, or succeeded within the time to live."""
    if not known.ended:
        return True
    return known.status is Status.SUCCEEDED and now < (known.ended_at or known.created_at) + ttl


def with_terms(run: Run, terms: Terms) -> Run:
    """Returns a run that carries its terms."""
    lane, throttle = terms.concurrency, terms.throttle
    queued = throttle is not None and throttle.mode == "queue"
    return replace(
        run,
        key=terms.key,
        retry=terms.retry,
        priority=terms.priority,
        timeout=terms.timeout,
        lane=lane and lane.id,
        lane_limit=lane and lane.limit,
        lane_period=lane and lane.period,
        throttle=throttle.id if throttle is not None and queued else None,
        throttle_period=throttle.duration if throttle is not None and queued else None,
    )


def _is_throttled(terms: Terms, facts: Facts, start: float) -> bool:
    throttle = terms.throttle
    if throttle is None or throttle.mode != "discard" or facts.accepted is None:
        return False
    return any(abs(start - one) < throttle.duration for one in (facts.accepted.at, *facts.accepted.others))


def _accepted(throttle: Throttle | None, known: LastStart | None, start: float, now: float) -> LastStart | None:
    if throttle is None or throttle.mode != "discard":
        return None
    return LastStart(start, throttle.duration) if known is None else known.plus(start, throttle.duration, now)


def _debounced(run: Run, debounce: Debounce | None, facts: Facts, now: float) -> Decision:
    """Puts a trigger into its burst, unless it leads one."""
    if debounce is None:
        return Decision(run=run)
    quiet_at = now + debounce.duration
    if _leads(debounce, facts, now):
        return Decision(run=run, kept=BurstFact(leading_until=quiet_at))
    since = facts.kept.since if facts.burst is not None and facts.kept.since is not None else now
    wake_at = quiet_at if debounce.timeout is None else min(quiet_at, since + debounce.timeout)
    cause = Cause.DEBOUNCE
    run = replace(run, status=Status.SCHEDULED, reason=cause.value, cause=cause, debounce=debounce.id, wake_at=wake_at)
    kept = BurstFact(since=since, leading_until=quiet_at if debounce.mode == "leading" else None)
    return Decision(run=run, superseded=facts.burst, kept=kept)


def _is_in_burst(run: Run) -> bool:
    """Whether a scheduled run still waits for the end of its burst; not for a limit, for others, or for another attempt."""
    return run.started_at is None and run.cause in (Cause.DEBOUNCE, Cause.DELAY)


def _leads(debounce: Debounce, facts: Facts, now: float) -> bool:
    quiet = facts.kept.leading_until is None or now >= facts.kept.leading_until
    return debounce.mode == "leading" and facts.burst is None and quiet


def _delayed(run: Run, start: float, now: float) -> Run:
    """Schedules a run for its moment, queues one whose moment is now."""
    wake_at = max(start, run.wake_at or start)
    if wake_at <= now:
        queued = run.status is Status.QUEUED
        return run if queued else replace(run, status=Status.QUEUED, reason=None, cause=None, wake_at=None)
    cause = run.cause or Cause.DELAY
    return replace(run, status=Status.SCHEDULED, reason=cause.value, cause=cause, wake_at=wake_at)


def _awaiting(run: Run) -> Run:
    """Schedules a run for the end of others; one in a burst waits for its moment first, so that bursts stay whole."""
    if run.cause is Cause.DEBOUNCE:
        return run
    return replace(run, status=Status.SCHEDULED, reason=Cause.AFTER.value, cause=Cause.AFTER)


def _held(run: Run, paused: bool) -> Run:
    """Holds a run whose job is paused; one that waits for its moment is held when that has come, so that bursts stay whole."""
    if not paused or run.status is not Status.QUEUED:
        return run
    return replace(run, status=Status.PAUSED, reason=Cause.JOB.value, cause=Cause.JOB)


# ---- starts


def window_room(limit: int, placed: int) -> int:
    """Returns how many may start in a lane that `placed` runs are in."""
    return max(0, limit - placed)


def rolling_opens(starts: Sequence[float], limit: int, period: float, now: float) -> float | None:
    """Returns when a lane of `limit` starts in any sliding `period` opens, None if it is open."""
    counted = _counted(starts, period, now)
    return None if len(counted) < limit else sorted(counted)[-limit] + period


def rolling_room(starts: Sequence[float], limit: int, period: float, now: float) -> int:
    """Returns how many may start now in a lane of `limit` starts in any sliding `period`."""
    return max(0, limit - len(_counted(starts, period, now)))


def throttle_opens(last_start: float | None, period: float, now: float) -> float | None:
    """Returns when a throttle with a last start allows the next one, None if it does now."""
    return None if last_start is None or not _counted([last_start], period, now) else last_start + period


def _counted(starts: Sequence[float], period: float, now: float) -> list[float]:
    """Returns the starts that count: those further ahead than a period were noted by a clock that was wrong."""
    return [start for start in starts if start - period < now < start + period]
