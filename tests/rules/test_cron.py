"""Slots of cron expressions, over clock changes too."""

from __future__ import annotations

import math
import time
from datetime import datetime
from itertools import pairwise
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from taskrun.model.errors import DefinitionError
from taskrun.rules.cron import CatchUp, CronRule

BERLIN = "Europe/Berlin"  # clocks go forward on 2026-03-29 at 02:00, back on 2026-10-25 at 03:00


def epoch(text: str, fold: int = 0, zone: str = BERLIN) -> float:
    return datetime.fromisoformat(text).replace(tzinfo=ZoneInfo(zone), fold=fold).timestamp()


def slots(expr: str, start: float, count: int, zone: str = BERLIN) -> list[str]:
    rule, found, at = CronRule(expr, zone), [], start
    for _ in range(count):
        at = rule.next_after(at)
        found.append(datetime.fromtimestamp(at, ZoneInfo(zone)).isoformat(timespec="seconds"))
    return found


@pytest.mark.parametrize(
    ("expr", "first"),
    [
        ("*/15 * * * *", "2026-06-01T10:15:00"),
        ("30 9 * * MON-FRI", "2026-06-02T09:30:00"),
        ("0 0 L * *", "2026-06-30T00:00:00"),
        ("*/20 * * * * *", "2026-06-01T10:00:20"),
        ("15 30 9 * * *", "2026-06-02T09:30:15"),
        ("@hourly", "2026-06-01T11:00:00"),
        ("@daily", "2026-06-02T00:00:00"),
        ("@midnight", "2026-06-02T00:00:00"),
        ("@weekly", "2026-06-07T00:00:00"),
        ("@monthly", "2026-07-01T00:00:00"),
        ("@yearly", "2027-01-01T00:00:00"),
        (" @Hourly ", "2026-06-01T11:00:00"),
    ],
)
def test_an_expression_means_what_cron_users_know(expr: str, first: str) -> None:
    assert CronRule(expr, BERLIN).next_after(epoch("2026-06-01T10:00:00")) == epoch(first)


def test_a_slot_in_a_gap_fires_right_after_it() -> None:
    assert slots("30 2 * * *", epoch("2026-03-28T12:00"), 2) == [
        "2026-03-29T03:00:00+02:00",
        "2026-03-30T02:30:00+02:00",
    ]


def test_several_slots_in_one_gap_fire_once() -> None:
    found = slots("*/20 * * * *", epoch("2026-03-29T01:40"), 3)
    assert [one[11:16] for one in found] == ["03:00", "03:20", "03:40"]


def test_a_slot_in_an_overlap_fires_the_first_time_only() -> None:
    assert slots("30 2 * * *", epoch("2026-10-24T12:00"), 2) == [
        "2026-10-25T02:30:00+02:00",
        "2026-10-26T02:30:00+01:00",
    ]


def test_from_the_second_pass_of_an_overlap_the_next_slot_is_after_it() -> None:
    assert slots("30 2 * * *", epoch("2026-10-25T02:10", fold=1), 1) == ["2026-10-26T02:30:00+01:00"]


def test_a_day_that_a_zone_skipped_fires_at_its_end() -> None:
    found = slots("0 12 * * *", epoch("2011-12-29T13:00", zone="Pacific/Apia"), 2, "Pacific/Apia")
    assert found == ["2011-12-31T00:00:00+14:00", "2011-12-31T12:00:00+14:00"]


def test_without_a_zone_the_machines_own_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TZ", BERLIN)
    time.tzset()
    try:
        rule = CronRule("30 2 * * *")
        assert rule.next_after(epoch("2026-03-28T12:00")) == epoch("2026-03-29T03:00")
        assert rule.next_after(epoch("2026-10-24T12:00")) == epoch("2026-10-25T02:30")
    finally:
        monkeypatch.undo()
        time.tzset()


@given(
    start=st.floats(min_value=0, max_value=4e9),
    expr=st.sampled_from(["*/7 * * * *", "30 2 * * *", "0 */5 * * *", "59 59 1 * * *", "0 0 29 2 *"]),
    zone=st.sampled_from([BERLIN, "UTC", "America/New_York", "Australia/Lord_Howe", "Africa/Casablanca"]),
)
def test_slots_strictly_increase(start: float, expr: str, zone: str) -> None:
    rule, found = CronRule(expr, zone), [start]
    for _ in range(6):
        found.append(rule.next_after(found[-1]))
    assert all(earlier < later < math.inf for earlier, later in pairwise(found))
    assert all(slot == int(slot) for slot in found[1:])


@pytest.mark.parametrize(
    ("expr", "says"),
    [
        ("61 * * * *", 'minute field "61"'),
        ("* 24 * * *", 'hour field "24"'),
        ("* * 0 * *", 'day-of-month field "0"'),
        ("* * * 13 *", 'month field "13"'),
        ("* * * * 9", 'day-of-week field "9"'),
        ("60 * * * * *", 'second field "60"'),
        ("*/0 * * * *", 'minute field "*/0"'),
        ("* * * *", "has 4 fields"),
        ("", "has 0 fields"),
        ("* * * * * * *", "has 7 fields"),
        ("0 0 30 2 *", "never fires"),
        ("@dayly", "did you mean @daily"),
        (5, "is text"),
    ],
)
def test_a_wrong_expression_names_what_is_wrong(expr: str, says: str) -> None:
    with pytest.raises(DefinitionError) as error:
        CronRule(expr)
    assert says in str(error.value)


@pytest.mark.parametrize("zone", ["Mars/Olympus", "", "../etc/passwd", "Europe"])
def test_a_wrong_zone_is_named(zone: str) -> None:
    with pytest.raises(DefinitionError, match="no time zone"):
        CronRule("* * * * *", zone)


def test_where_the_calendar_ends_nothing_comes() -> None:
    assert CronRule("@daily", "UTC").next_after(1e300) == math.inf
    assert CronRule("@daily", "UTC").next_after(math.inf) == math.inf


@pytest.mark.parametrize(
    ("catch_up", "hours"), [("skip", []), ("one", ["13:00"]), ("all", ["11:00", "12:00", "13:00"])]
)
def test_missed_slots_are_made_up_for_as_asked(catch_up: CatchUp, hours: list[str]) -> None:
    made = CronRule("@hourly", BERLIN).slots(epoch("2026-06-01T10:00"), epoch("2026-06-01T13:00"), catch_up)
    assert made == [epoch(f"2026-06-01T{hour}") for hour in hours]


@pytest.mark.parametrize("catch_up", ["skip", "one", "all"])
def test_where_nothing_was_missed_nothing_is_made_up_for(catch_up: CatchUp) -> None:
    rule = CronRule("@hourly", BERLIN)
    assert rule.slots(epoch("2026-06-01T10:00"), epoch("2026-06-01T10:59"), catch_up) == []


def test_the_newest_of_very_many_slots_is_found() -> None:
    assert CronRule("* * * * * *", "UTC").slots(0, 1.7e9 + 0.5, "one") == [1.7e9]
    may = CronRule("* * 1 5 *", "UTC").slots(0, epoch("2026-11-01T00:00", zone="UTC"), "one")
    assert may == [epoch("2026-05-01T23:59", zone="UTC")]


def test_all_of_very_many_slots_come_in_portions_that_lose_none() -> None:
    rule = CronRule("* * * * * *", "UTC")
    first = rule.slots(0, 100, "all", most=60)
    assert first + rule.slots(first[-1], 100, "all", most=60) == [float(second) for second in range(1, 101)]
