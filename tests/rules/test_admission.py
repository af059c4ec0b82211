"""What becomes of a trigger: tables of requests, facts and decisions, without an event loop or a store."""

from __future__ import annotations

from typing import Any

import pytest
from msgspec.structs import replace

from taskrun.model.records import Cause, Run, Status
from taskrun.rules.admission import (
    Decision,
    Facts,
    LastStart,
    Request,
    Starts,
    decide,
    rolling_opens,
    rolling_room,
    throttle_opens,
    window_room,
)
from taskrun.rules.policies import Concurrency, Debounce, Terms, Throttle

NOW = 1000.0


def a_run(id: str = "new", **fields: Any) -> Run:
    return Run(id=id, job="j", created_at=NOW, **fields)


def admitted(terms: Terms | None = None, facts: Facts | None = None, now: float = NOW, **fields: Any) -> Decision:
    return decide(Request(run=a_run(), terms=terms or Terms(), **fields), facts or Facts(), now)


class Journal:
    """Remembers what decisions write, as an engine would."""

    def __init__(self, terms: Terms) -> None:
        self.terms = terms
        self.facts = Facts()
        self.count = 0

    def trigger(self, now: float) -> Decision:
        self.count += 1
        decision = decide(Request(run=a_run(f"r{self.count}"), terms=self.terms), self.facts, now)
        for name in ("accepted", "kept"):
            if (value := getattr(decision, name)) is not None:
                self.facts = replace(self.facts, **{name: value})
        if decision.run.status is Status.SCHEDULED:
            self.facts = replace(self.facts, burst=decision.run)
        return decision

    def fire(self) -> None:
        """The burst's run starts."""
        self.facts = replace(self.facts, burst=None)


def outcome(decision: Decision) -> tuple[str, float | None]:
    return decision.run.status.value, decision.run.wake_at


# ---- plain


def test_a_trigger_without_terms_is_queued() -> None:
    assert admitted() == Decision(run=a_run(status=Status.QUEUED))


def test_a_run_carries_its_terms() -> None:
    terms = Terms(
        retry=1,
        priority=5,
        timeout=60,
        key="k",
        concurrency=Concurrency("lane", "2/s"),
        throttle=Throttle("slow", 9, "queue"),
    )
    run = admitted(terms).run
    assert (run.retry, run.priority, run.timeout, run.key) == (1, 5, 60, "k")
    assert (run.lane, run.lane_limit, run.lane_period) == ("lane", 2, 1)
    assert (run.throttle, run.throttle_period) == ("slow", 9)


def test_a_delayed_trigger_is_scheduled() -> None:
    run = admitted(delay_until=NOW + 5).run
    assert (run.status, run.wake_at, run.reason) == (Status.SCHEDULED, NOW + 5, "delay")


def test_a_delay_that_is_over_is_none() -> None:
    assert outcome(admitted(delay_until=NOW - 5)) == ("queued", None)


def test_a_paused_job_records_and_holds() -> None:
    run = admitted(paused=True).run
    assert (run.status, run.reason) == (Status.PAUSED, "job")


def test_what_has_a_moment_of_its_own_is_held_when_that_has_come() -> None:
    run = admitted(paused=True, delay_until=NOW + 5).run
    assert (run.status, run.reason, run.wake_at) == (Status.SCHEDULED, "delay", NOW + 5)


# ---- key


@pytest.mark.parametrize("status", [Status.SCHEDULED, Status.QUEUED, Status.RUNNING, Status.WAITING, Status.PAUSED])
def test_an_unfinished_run_with_the_key_answers_however_old_it_is(status: Status) -> None:
    known = replace(a_run("old", status=status), created_at=0.0)
    assert admitted(Terms(key="k", key_ttl=1), Facts(known=known)) == Decision(run=known, new=False)


@pytest.mark.parametrize(
    ("status", "ended_at", "new"),
    [
        (Status.SUCCEEDED, NOW - 59, False),
        (Status.SUCCEEDED, NOW - 60, True),
        (Status.FAILED, NOW - 1, True),
        (Status.CANCELLED, NOW - 1, True),
        (Status.DISCARDED, NOW - 1, True),
    ],
)
def test_an_ended_run_with_the_key_answers_if_it_succeeded_within_the_ttl(
    status: Status, ended_at: float, new: bool
) -> None:
    known = a_run("old", status=status, ended_at=ended_at)
    assert admitted(Terms(key="k", key_ttl=60), Facts(known=known)).new is new


def test_the_key_comes_before_throttle_and_debounce() -> None:
    terms = Terms(key="k", throttle=Throttle("t", 60), debounce=Debounce("d", 5))
    known = a_run("old", status=Status.RUNNING)
    decision = admitted(terms, Facts(known=known, accepted=LastStart(at=NOW), burst=a_run("burst")))
    assert decision == Decision(run=known, new=False)


# ---- throttle


@pytest.mark.parametrize(
    ("ago", "status"), [(None, "queued"), (59.9, "discarded"), (60, "queued"), (0, "discarded"), (1e6, "queued")]
)
def test_a_trigger_inside_the_period_is_discarded(ago: float | None, status: str) -> None:
    at = None if ago is None else NOW - ago
    run = admitted(Terms(throttle=Throttle("t", 60)), Facts(accepted=None if at is None else LastStart(at=at))).run
    assert run.status.value == status
    assert (run.reason, run.ended_at) == (("throttle", NOW) if status == "discarded" else (None, None))


def test_discarded_triggers_do_not_prolong_the_period() -> None:
    journal = Journal(Terms(throttle=Throttle("t", 60)))
    statuses = [journal.trigger(at).run.status.value for at in (0, 30, 59, 60, 61, 120)]
    assert statuses == ["queued", "discarded", "discarded", "queued", "discarded", "queued"]


def test_a_queueing_throttle_admits_everything() -> None:
    journal = Journal(Terms(throttle=Throttle("t", 60, "queue")))
    assert [journal.trigger(at).run.status.value for at in (0, 1, 2)] == ["queued"] * 3
    assert journal.facts == Facts()


def test_a_delayed_trigger_counts_at_its_start() -> None:
    terms = Terms(throttle=Throttle("t", 60))
    later = admitted(terms, delay_until=NOW + 600)
    facts = Facts(accepted=later.accepted)
    assert admitted(terms, facts).run.status is Status.QUEUED
    assert admitted(terms, facts, now=NOW + 590).run.status is Status.DISCARDED


def test_no_period_holds_the_starts_of_a_delayed_trigger_and_of_one_that_came_after_another() -> None:
    """Each accepted start counts until its period is over, not only the one that was accepted last."""
    terms, accepted = Terms(throttle=Throttle("t", 10)), None
    statuses = []
    for now, delay in [(0, 15), (0, 0), (0, 14), (4, 30), (12, 0), (21, 0), (25, 0), (26, 0), (40, 0)]:
        decision = admitted(terms, Facts(accepted=accepted), now=NOW + now, delay_until=NOW + now + delay)
        accepted = decision.accepted or accepted
        statuses.append(decision.run.status.value)
    discarded, starts = "discarded", ["scheduled", "queued"]
    assert statuses == [*starts, discarded, "scheduled", discarded, discarded, discarded, discarded, discarded]
    assert accepted is not None
    assert len(accepted.others) == 2


def test_a_discarded_trigger_leaves_a_burst_alone() -> None:
    terms = Terms(throttle=Throttle("t", 60), debounce=Debounce("d", 5))
    decision = admitted(terms, Facts(accepted=LastStart(at=NOW), burst=a_run("burst")))
    assert (decision.run.status, decision.superseded) == (Status.DISCARDED, None)
    assert (decision.accepted, decision.kept) == (None, None)


# ---- debounce


def test_the_newest_trigger_of_a_burst_runs_after_the_quiet() -> None:
    journal = Journal(Terms(debounce=Debounce("d", 10)))
    first, second, third = (journal.trigger(at) for at in (0, 4, 8))
    assert [outcome(one) for one in (first, second, third)] == [("scheduled", 10), ("scheduled", 14), ("scheduled", 18)]
    assert (first.superseded, second.superseded, third.superseded) == (None, first.run, second.run)
    assert (third.run.debounce, third.run.reason) == ("d", "debounce")


def test_a_burst_runs_at_the_latest_after_its_timeout() -> None:
    journal = Journal(Terms(debounce=Debounce("d", 10, timeout=15)))
    assert [outcome(journal.trigger(at))[1] for at in (0, 4, 8, 14)] == [10, 14, 15, 15]
    journal.fire()
    assert outcome(journal.trigger(16)) == ("scheduled", 26)  # a new burst, with a timeout of its own


def test_a_burst_that_is_overdue_runs_at_once() -> None:
    journal = Journal(Terms(debounce=Debounce("d", 10, timeout=15)))
    first = journal.trigger(0)
    late = journal.trigger(20)
    assert (outcome(late), late.superseded) == (("queued", None), first.run)


def test_a_leading_burst_runs_its_first_trigger_at_once_and_the_rest_as_trailing() -> None:
    journal = Journal(Terms(debounce=Debounce("d", 10, "leading")))
    assert outcome(journal.trigger(0)) == ("queued", None)
    assert outcome(journal.trigger(3)) == ("scheduled", 13)
    assert outcome(journal.trigger(6)) == ("scheduled", 16)
    journal.fire()
    assert outcome(journal.trigger(16)) == ("queued", None)  # quiet for ten seconds: the next burst


def test_a_leading_trigger_alone_runs_once() -> None:
    journal = Journal(Terms(debounce=Debounce("d", 10, "leading")))
    assert outcome(journal.trigger(0)) == ("queued", None)
    assert journal.facts.burst is None
    assert outcome(journal.trigger(10)) == ("queued", None)


def test_a_burst_of_steady_triggers_is_led_once() -> None:
    journal = Journal(Terms(debounce=Debounce("d", 10, "leading", timeout=12)))
    led = []
    for at in range(0, 100, 5):
        burst = journal.facts.burst
        if burst is not None and (burst.wake_at or 0) <= at:
            journal.fire()
        led.append(journal.trigger(at).run.status is Status.QUEUED)
    assert led == [True] + [False] * 19


@pytest.mark.parametrize(
    ("cause", "started_at", "superseded"),
    [
        (Cause.DEBOUNCE, None, True),
        (Cause.DELAY, None, True),  # it was paused in its burst and resumed
        (Cause.THROTTLE, None, False),  # its burst is over, and it has its turn in a queue
        (Cause.AFTER, None, False),
        (Cause.RETRY, NOW - 5, False),
        (Cause.BACKOFF, NOW - 5, False),
    ],
)
def test_a_run_is_superseded_only_until_its_burst_is_over(
    cause: Cause, started_at: float | None, superseded: bool
) -> None:
    terms = Terms(debounce=Debounce("d", 10))
    held = a_run("old", status=Status.SCHEDULED, cause=cause, debounce="d", started_at=started_at, wake_at=NOW + 60)
    assert admitted(terms, Facts(burst=held)).superseded == (held if superseded else None)


def test_a_delay_and_a_debounce_both_hold() -> None:
    terms = Terms(debounce=Debounce("d", 10))
    assert admitted(terms, delay_until=NOW + 3).run.wake_at == NOW + 10
    assert admitted(terms, delay_until=NOW + 30).run.wake_at == NOW + 30


# ---- starts


@pytest.mark.parametrize(("limit", "placed", "room"), [(1, 0, 1), (1, 1, 0), (3, 2, 1), (3, 5, 0)])
def test_a_window_has_as_many_places_as_its_limit(limit: int, placed: int, room: int) -> None:
    assert window_room(limit, placed) == room


def test_a_limit_is_open_at_the_moment_at_which_it_opens() -> None:
    for start in [NOW + n / 7 for n in range(500)]:
        for period in (0.1, 1.1, 60 / 7):
            opens = throttle_opens(start, period, start)
            assert opens is not None
            assert throttle_opens(start, period, opens) is None
            assert rolling_opens([start], 1, period, opens) is None
            assert rolling_room([start], 1, period, opens) == 1


@pytest.mark.parametrize(
    ("starts", "limit", "room"),
    [
        *(([NOW - 30, NOW - 3, NOW], limit, room) for limit, room in [(1, 0), (2, 0), (3, 1), (9, 7)]),
        ([NOW + 1e7, NOW - 3], 2, 1),  # the clock was wrong
    ],
)
def test_a_rolling_lane_has_room_for_what_its_limit_leaves(starts: list[float], limit: int, room: int) -> None:
    assert rolling_room(starts, limit, 10, NOW) == room


def test_starts_are_kept_for_the_highest_limit_that_shares_them() -> None:
    starts = Starts().plus(1, 3, 9).plus(2, 1, 1).plus(3, 1, 1).plus(4, 1, 1)
    assert starts.at == [2, 3, 4]
    assert starts.period == 9


@pytest.mark.parametrize(
    ("starts", "limit", "opens"),
    [
        ([], 1, None),
        ([NOW - 10], 1, None),
        ([NOW - 9.9], 1, NOW + 0.1),
        ([NOW - 3, NOW - 8, NOW - 5], 3, NOW + 2),
        ([NOW - 3, NOW - 8, NOW - 5], 2, NOW + 5),
        ([NOW - 3, NOW - 8, NOW - 5], 4, None),
        ([NOW - 30, NOW - 20, NOW - 1], 2, None),
        ([NOW + 9.9], 1, NOW + 19.9),  # the clock was set back
        ([NOW + 10], 1, None),  # it was wrong
        ([NOW + 1e7, NOW + 1e7], 2, None),
        ([NOW + 1e7, NOW - 3], 1, NOW + 7),
        ([NOW + 1e7, NOW - 3], 2, None),
    ],
)
def test_a_rolling_lane_opens_when_enough_starts_are_a_period_old(
    starts: list[float], limit: int, opens: float | None
) -> None:
    assert rolling_opens(starts, limit, 10, NOW) == (None if opens is None else pytest.approx(opens))


def test_no_sliding_period_holds_more_starts_than_the_limit() -> None:
    starts: list[float] = []
    now = 0.0
    for _ in range(20):
        now = rolling_opens(starts, 3, 1.1, now) or now
        starts.append(now)
    assert all(later - earlier >= 1.1 - 1e-9 for earlier, later in zip(starts, starts[3:], strict=False))
    assert starts[3] == pytest.approx(1.1)


@pytest.mark.parametrize(
    ("last", "opens"),
    [
        (None, None),
        (NOW - 10, None),
        (NOW - 4, NOW + 6),
        (NOW, NOW + 10),
        (NOW + 9, NOW + 19),
        (NOW + 10, None),
        (NOW + 1e7, None),
    ],
)
def test_a_throttle_opens_a_period_after_the_last_start(last: float | None, opens: float | None) -> None:
    assert throttle_opens(last, 10, NOW) == opens
