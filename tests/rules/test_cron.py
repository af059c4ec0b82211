"""Slots of cron expressions, over clock changes too."""

from __future__ import annotations

import math
import time
from datetime import datetime
from itertools import pairwise
from pathlib import Path
from zoneinfo import TZPATH, ZoneInfo

import pytest
from cronsim import CronSim
from hypothesis import assume, given
from hypothesis import strategies as st

from taskrun.model.errors import DefinitionError
from taskrun.model.local_zone import local_zone
from taskrun.rules.cron import CronRule

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


def test_a_wildcard_goes_on_through_the_hour_that_is_repeated() -> None:
    found = slots("*/20 * * * *", epoch("2026-10-25T02:20"), 6)
    assert [one[11:16] + one[19:22] for one in found] == [
        "02:40+02",
        "02:00+01",
        "02:20+01",
        "02:40+01",
        "03:00+01",
        "03:20+01",
    ]


@pytest.mark.parametrize("expr", ["0 * * * *", "@hourly", "0 */1 * * *", "0 0 * * * *"])
def test_every_hour_is_every_hour_that_passes(expr: str) -> None:
    rule, at = CronRule(expr, BERLIN), epoch("2026-10-24T20:00")
    found = [at := rule.next_after(at) for _ in range(12)]
    assert [later - earlier for earlier, later in pairwise(found)] == [3600.0] * 11


@pytest.mark.parametrize(
    ("expr", "hours"), [("0 */2 * * *", ["00+01", "04+02"]), ("0 0-23 * * *", ["00+01", "01+01", "03+02"])]
)
def test_what_a_wildcard_has_in_a_gap_does_not_happen(expr: str, hours: list[str]) -> None:
    found = slots(expr, epoch("2026-03-28T23:30"), len(hours))
    assert [one[11:13] + one[19:22] for one in found] == hours


def test_a_change_that_lies_between_two_slots_far_apart_is_seen() -> None:
    assert slots("*/20 2 25 10 *", epoch("2026-10-25T02:50"), 4) == [
        f"{day}-10-25T02:{minute}:00+0{offset}:00"
        for day, minute, offset in [(2026, "00", 1), (2026, "20", 1), (2026, "40", 1), (2027, "00", 2)]
    ]


FIELD = st.sampled_from(["*", "*/7", "*/20", "0", "2", "17", "1-3", "0,3"])


@given(
    minute=FIELD,
    hour=FIELD,
    zone=st.sampled_from([BERLIN, "UTC", "America/New_York", "Africa/Casablanca", "America/St_Johns", "Pacific/Apia"]),
    start=st.one_of(
        st.integers(0, 2_000_000_000),
        st.sampled_from(["2026-03-28T20:00", "2026-10-24T20:00", "2026-11-01T00:30"]).map(
            lambda text: int(epoch(text))
        ),
    ),
)
def test_slots_are_those_of_debians_cron(minute: str, hour: str, zone: str, start: int) -> None:
    begun = datetime.fromtimestamp(start, ZoneInfo(zone))
    rule, theirs, at = CronRule(f"{minute} {hour} * * *", zone), CronSim(f"{minute} {hour} * * *", begun), float(start)
    assume(begun.fold == 0 and begun.second == 0)  # there cronsim returns to the first pass
    for _ in range(6):
        at = rule.next_after(at)
        assert at == next(theirs).timestamp()


def test_the_next_slot_is_searched_once(monkeypatch: pytest.MonkeyPatch) -> None:
    searched: list[str] = []

    class Counting(CronSim):
        def __init__(self, expr: str, dt: datetime) -> None:
            searched.append(expr)
            super().__init__(expr, dt)

    monkeypatch.setattr("taskrun.rules.cron.CronSim", Counting)
    rule = CronRule("*/5 * * * *", BERLIN)
    searched.clear()
    for moment in (100.0, 100.0, 100.0, 100.0, 400.0):
        rule.next_after(moment)
    assert len(searched) == 2


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


def test_when_the_machine_moves_to_another_zone_its_slots_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TZ", raising=False)
    monkeypatch.setattr("taskrun.model.local_zone.LOCALTIME", file := tmp_path / "localtime")
    rule = CronRule("0 9 * * *")
    for zone in (BERLIN, "America/New_York", BERLIN):
        file.unlink(missing_ok=True)
        file.symlink_to(next(found for at in TZPATH if (found := Path(at, zone)).exists()))
        assert rule.next_after(epoch("2026-06-01T00:00")) == epoch("2026-06-01T09:00", zone=zone)
    file.unlink()
    assert CronRule("0 9 * * *").next_after(0.0) > 0.0  # as the C library sees it
    file.write_bytes(b"no zone")
    assert local_zone() is None


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
    with pytest.raises(DefinitionError, match="unknown time zone"):
        CronRule("* * * * *", zone)


def test_where_the_calendar_ends_nothing_comes() -> None:
    assert CronRule("@daily", "UTC").next_after(1e300) == math.inf
    assert CronRule("@daily", "UTC").next_after(math.inf) == math.inf


@pytest.mark.parametrize(("until", "newest"), [("13:00", "13:00"), ("12:59", "12:00"), ("11:00", "11:00")])
def test_the_newest_slot_of_a_time_is_found(until: str, newest: str) -> None:
    rule = CronRule("@hourly", BERLIN)
    assert rule.newest(epoch("2026-06-01T10:00"), epoch(f"2026-06-01T{until}")) == epoch(f"2026-06-01T{newest}")


def test_where_there_is_no_slot_there_is_no_newest() -> None:
    assert CronRule("@hourly", BERLIN).newest(epoch("2026-06-01T10:00"), epoch("2026-06-01T10:59")) is None


def test_the_newest_of_very_many_slots_is_found() -> None:
    assert CronRule("* * * * * *", "UTC").newest(0, 1.7e9 + 0.5) == 1.7e9
    may = CronRule("* * 1 5 *", "UTC").newest(0, epoch("2026-11-01T00:00", zone="UTC"))
    assert may == epoch("2026-05-01T23:59", zone="UTC")
