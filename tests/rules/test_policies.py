"""Limits, backoffs and schedules: what may be written, what it means, and when the next attempt is."""

from __future__ import annotations

import random
import sys
from collections.abc import Callable
from datetime import timedelta
from typing import Any
from zoneinfo import ZoneInfo

import msgspec
import pytest

from taskrun.model.errors import DefinitionError, DurationInvalid, Fatal, RetryAfter
from taskrun.rules.policies import (
    DEFAULT_BACKOFF,
    LONGEST,
    Backoff,
    BackoffPolicy,
    Concurrency,
    Cron,
    Debounce,
    Prepared,
    Terms,
    Throttle,
    backoff_of,
    concurrency_of,
    debounce_of,
    next_delay,
    throttle_of,
)


@pytest.mark.parametrize(
    ("value", "policy"),
    [
        (None, None),
        (3, Concurrency("job", 3)),
        ("3/s", Concurrency("job", 3, "rolling", 1)),
        ("2 per 5 minutes", Concurrency("job", 2, "rolling", 300)),
        (Concurrency("api", 2), Concurrency("api", 2)),
        (Concurrency(limit=2), Concurrency("job", 2)),
        (Concurrency("api", "3/s"), Concurrency("api", 3, "rolling", 1)),
        (Concurrency("api", limit="3/s", mode="rolling"), Concurrency("api", 3, "rolling", 1)),
    ],
)
def test_concurrency_is_a_number_or_a_frequency(value: object, policy: Concurrency | None) -> None:
    assert concurrency_of(value, "job") == policy


@pytest.mark.parametrize(
    ("value", "policy"),
    [
        (None, None),
        (2, Throttle("job", 2)),
        ("5m", Throttle("job", 300)),
        (timedelta(minutes=1), Throttle("job", 60)),
        ("3/s", Throttle("job", 1)),
        (Throttle("api", "1s", mode="queue"), Throttle("api", 1, "queue")),
        (Throttle(duration="1s"), Throttle("job", 1)),
    ],
)
def test_throttle_is_a_duration_or_the_period_of_a_frequency(value: object, policy: Throttle | None) -> None:
    assert throttle_of(value, "job") == policy


def test_debounce_is_a_duration_or_the_period_of_a_frequency() -> None:
    assert debounce_of(None, "job") is None
    assert debounce_of("2s", "job") == Debounce("job", 2)
    assert debounce_of("1 per minute", "job") == Debounce("job", 60)
    assert debounce_of(Debounce(None, "2s", timeout="1m"), "job") == Debounce("job", 2, "trailing", 60)


@pytest.mark.parametrize(
    "make",
    [
        lambda: Concurrency("x"),
        lambda: Concurrency("x", 0),
        lambda: Concurrency("x", True),
        lambda: Concurrency("x", 3, mode="rolling"),
        lambda: Concurrency("x", 3, mode="sliding"),  # type: ignore[arg-type]
        lambda: Concurrency("", 3),
        lambda: Concurrency("x", "3 apples"),
        lambda: Throttle("x"),
        lambda: Throttle("x", 0),
        lambda: Throttle("x", "5"),
        lambda: Throttle("x", -1),
        lambda: Throttle("x", 1, mode="drop"),  # type: ignore[arg-type]
        lambda: Debounce("x", float("nan")),
        lambda: Debounce("x", 1, timeout=0),
        lambda: Backoff("soon"),
        lambda: Backoff(1, factor=-1),
        lambda: Backoff(1, factor=float("inf")),
        lambda: Backoff(1, jitter=1.5),
        lambda: Backoff(1, attempts=-1),
        lambda: Cron("nonsense"),
        lambda: Cron("* * * * *", timezone="Nowhere"),
        lambda: Cron("* * * * *", catch_up="some"),  # type: ignore[arg-type]
        lambda: concurrency_of(True, "x"),
        lambda: concurrency_of(1.5, "x"),
        lambda: concurrency_of(Throttle("x", 1), "x"),
        lambda: throttle_of(Debounce("x", 1), "x"),
        lambda: throttle_of([], "x"),
        lambda: backoff_of([]),
        lambda: backoff_of(None),
        lambda: backoff_of("often"),
    ],
)
def test_what_cannot_be_is_refused_when_it_is_made(make: Callable[[], object]) -> None:
    with pytest.raises((DefinitionError, DurationInvalid)):
        make()


def test_terms_cross_a_pipe() -> None:
    terms = Terms(
        concurrency=Concurrency("api", "3/s"),
        throttle=Throttle("t", "1m", "queue"),
        debounce=Debounce("d", 2, "leading"),
    )
    prepared = Prepared(job="x", input="{}", terms=terms)
    for codec in (msgspec.json, msgspec.msgpack):
        assert codec.decode(codec.encode(prepared), type=Prepared) == prepared


def test_a_schedule_takes_a_zone_as_an_object() -> None:
    assert Cron("@daily", timezone=ZoneInfo("Europe/Berlin")).timezone == "Europe/Berlin"  # type: ignore[arg-type]


# ---- the next attempt


def delays(policy: BackoffPolicy, retries: int, count: int) -> list[float | None]:
    return [next_delay(policy, attempt, retries, ValueError(), {"n": 1}) for attempt in range(1, count + 1)]


def nothing(attempt: int) -> Any:
    return None


def broken(attempt: int) -> float:
    raise KeyError("gone")


@pytest.mark.parametrize(
    ("policy", "expected"),
    [
        ("2s", [2, 2, 2, 2]),
        (["1s", 5], [1, 5, 5, 5]),
        (Backoff(1, factor=3), [1, 3, 9, 27]),
        (Backoff("1s", max="2s"), [1, 2, 2, 2]),
        (Backoff(1, attempts=2), [1, 2, None, None]),
        (lambda attempt: f"{attempt}m", [60, 120, 180, 240]),
        (lambda attempt, input: attempt + input["n"], [2, 3, 4, 5]),
        (lambda attempt, input=None: timedelta(seconds=attempt), [1, 2, 3, 4]),
        (DEFAULT_BACKOFF, [1, 2, 4, 8]),
    ],
)
def test_the_wait_grows_as_the_policy_says(policy: object, expected: list[float | None]) -> None:
    assert delays(backoff_of(policy), 4, 4) == expected


def test_there_is_no_wait_after_the_last_attempt() -> None:
    assert delays(DEFAULT_BACKOFF, 2, 3) == [1, 2, None]
    assert delays(DEFAULT_BACKOFF, 0, 1) == [None]


def test_the_default_wait_is_at_most_an_hour() -> None:
    assert next_delay(DEFAULT_BACKOFF, 5000, 9999, ValueError(), None) == 3600


def test_a_wait_without_a_longest_one_stays_within_the_calendar() -> None:
    assert next_delay(Backoff(1), 5000, 9999, ValueError(), None) == LONGEST
    assert next_delay(lambda attempt: 1e300, 1, 3, ValueError(), None) == LONGEST


def test_jitter_is_a_fraction_of_the_wait() -> None:
    rng = random.Random(1)
    waits = [next_delay(Backoff(10, jitter=0.1), 1, 3, ValueError(), None, rng) or 0 for _ in range(200)]
    assert 9 <= min(waits) < 9.5
    assert 10.5 < max(waits) <= 11
    assert max(next_delay(Backoff(10, max=10, jitter=1), 1, 3, ValueError(), None, rng) or 0 for _ in range(50)) <= 10


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (Fatal("no"), None),
        (ExceptionGroup("several", [ValueError(), Fatal("no")]), None),
        (RetryAfter("30s"), 30),
        (RetryAfter(timedelta(minutes=1)), 60),
        (ExceptionGroup("several", [RetryAfter(5), ExceptionGroup("inner", [RetryAfter(9)])]), 9),
    ],
)
def test_errors_steer_the_retry(error: Exception, expected: float | None) -> None:
    assert next_delay(DEFAULT_BACKOFF, 1, 3, error, None) == expected


def test_retry_after_does_not_add_attempts() -> None:
    assert next_delay(DEFAULT_BACKOFF, 4, 3, RetryAfter(1), None) is None
    assert next_delay(Backoff(1, attempts=1), 2, 9, RetryAfter(1), None) is None


@pytest.mark.parametrize(
    ("policy", "says"),
    [
        (nothing, "nothing"),
        (broken, "KeyError"),
        (lambda attempt: "5", "unit"),
        (lambda attempt: sys.exit(3), "SystemExit: 3"),
    ],
)
def test_a_function_that_gives_no_duration_is_named(policy: BackoffPolicy, says: str) -> None:
    with pytest.raises(DefinitionError, match=says):
        next_delay(policy, 1, 3, ValueError(), None)


def test_a_retry_after_that_is_none_says_so() -> None:
    with pytest.raises(DefinitionError, match="RetryAfter"):
        next_delay(DEFAULT_BACKOFF, 1, 3, RetryAfter("soon"), None)


def test_an_async_backoff_function_is_refused() -> None:
    async def wait(attempt: int) -> float:
        return 1

    with pytest.raises(DefinitionError, match="plain function"):
        backoff_of(wait)
