"""Durations, frequencies and sizes as people write them."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from taskrun.model.durations import UNITS, Frequency, frequency, human, human_size, period, seconds, size
from taskrun.model.errors import DefinitionError, DurationInvalid

READ = [
    (0, 0.0),
    (1.5, 1.5),
    (300, 300.0),
    (timedelta(minutes=2, milliseconds=5), 120.005),
    ("250ms", 0.25),
    ("5m", 300.0),
    ("2 hours", 7200.0),
    ("1.5h", 5400.0),
    (".5 s", 0.5),
    ("  10s  ", 10.0),
    ("1h 30m", 5400.0),
    ("1h30m15s", 5415.0),
    ("3 MSEC", 0.003),
    ("2 Hrs", 7200.0),
    ("1 min", 60.0),
    ("1d", 86400.0),
    ("2w", 1209600.0),
    ("1y", 31557600.0),
]


@pytest.mark.parametrize(("written", "meant"), READ, ids=repr)
def test_a_duration_is_read_as_seconds(written: Any, meant: float) -> None:
    assert seconds(written) == pytest.approx(meant)


REFUSED: list[Any] = ["", " ", "5", "1.5", "-5s", "+5s", "s", "1 fortnight", "1e3s", "nan", "inf", "٣s", "1.s", "5 m s"]
REFUSED += ["1_000s", "1,5s", "9" * 400 + "y", -1, -0.001, float("nan"), float("inf"), 10**400, timedelta(-1)]
REFUSED += [True, None, [5], b"5s"]


@pytest.mark.parametrize("written", REFUSED, ids=lambda value: repr(value)[:20])
def test_what_is_no_duration_is_refused_naming_the_units(written: Any) -> None:
    with pytest.raises(DurationInvalid, match=r"^timeout.*ms, s, m, h, d, w and y"):
        seconds(written, "timeout")


@given(st.text())
@example("1" * 5000)
def test_any_text_is_a_duration_or_a_duration_invalid(text: str) -> None:
    try:
        assert seconds(text) >= 0
    except DurationInvalid as error:
        assert "the units are" in str(error)


@given(st.integers(0, 10**6), st.sampled_from(sorted(UNITS)), st.sampled_from(["", " ", "\t"]), st.booleans())
def test_every_spelling_of_every_unit_is_read_in_any_case(number: int, unit: str, space: str, upper: bool) -> None:
    written = f"{number}{space}{unit.upper() if upper else unit}"
    assert seconds(written) == pytest.approx(number * UNITS[unit])


@pytest.mark.parametrize("read", [seconds, frequency, period, size])
@pytest.mark.parametrize("text", ["1", "1 ", "1.", "1s", "a", "1/ ", " ", "1 1s "])
def test_a_megabyte_of_nonsense_is_read_in_no_time(read: Callable[[Any], Any], text: str) -> None:
    try:  # a quadratic scan would meet the suite's own timeout
        read(text * (1_000_000 // len(text)) + "!")
    except (DurationInvalid, DefinitionError) as error:
        assert len(str(error)) < 300


@pytest.mark.parametrize(
    ("written", "count", "every"),
    [
        ("3/s", 3, 1),
        ("1 per second", 1, 1),
        ("2 per 5 minutes", 2, 300),
        ("100 / hour", 100, 3600),
        ("2 PER Hour", 2, 3600),
        ("1/1h 30m", 1, 5400),
        ("007/s", 7, 1),
        (Frequency(1, 2.0), 1, 2),
    ],
    ids=str,
)
def test_a_frequency_is_so_many_in_a_period(written: Any, count: int, every: float) -> None:
    assert frequency(written) == Frequency(count, every)
    assert period(written) == every


@pytest.mark.parametrize(
    "written", ["", "5s", 5, 1.5, "0/s", "3/0s", "3/", "/s", "1.5/s", "3perday", "9" * 5000 + "/s"]
)
def test_what_is_no_frequency_is_refused(written: Any) -> None:
    with pytest.raises(DurationInvalid, match="2 per 5 minutes"):
        frequency(written)


def test_a_frequency_of_an_unknown_unit_names_the_units() -> None:
    with pytest.raises(DurationInvalid, match="the units are"):
        frequency("3 per fortnight")


@given(
    st.integers(1, 10**8), st.floats(0.001, 1e9).map(lambda number: round(number, 3)), st.sampled_from(["/", " per "])
)
def test_a_frequency_written_out_is_read_back(count: int, every: float, mark: str) -> None:
    found = frequency(f"{count}{mark}{every:.3f}s")
    assert found.count == count
    assert found.period == pytest.approx(every)


@given(st.text(alphabet="0123456789/per sminhour.", max_size=30))
def test_any_text_is_a_frequency_or_a_duration_invalid(text: str) -> None:
    try:
        found = frequency(text)
    except DurationInvalid:
        return
    assert found.count > 0 and found.period > 0


@pytest.mark.parametrize(("written", "meant"), [(5, 5.0), ("5s", 5.0), (timedelta(seconds=2), 2.0), ("3/s", 1.0)])
def test_a_throttle_takes_a_duration_or_the_period_of_a_frequency(written: Any, meant: float) -> None:
    assert period(written) == meant


@pytest.mark.parametrize(
    ("amount", "shown"),
    [
        (0, "0ms"),
        (0.0004, "0ms"),
        (0.25, "250ms"),
        (0.9996, "1s"),
        (1.2, "1.2s"),
        (41.3, "41.3s"),
        (59.96, "1m"),
        (180, "3m"),
        (200, "3m 20s"),
        (3599.9, "1h"),
        (7200, "2h"),
        (7230, "2h"),
        (3 * 86400 + 4 * 3600 + 50, "3d 4h"),
        (-5, "-5s"),
    ],
)
def test_seconds_are_shown_in_two_units(amount: float, shown: str) -> None:
    assert human(amount) == shown


@settings(max_examples=200)
@given(st.floats(0, 1e9))
def test_what_is_shown_can_be_read_and_is_near(amount: float) -> None:
    coarse = next((step for above, step in ((86400, 3600), (3600, 60), (60, 1), (1, 0.1)) if amount >= above), 0.001)
    assert seconds(human(amount)) == pytest.approx(amount, abs=coarse)


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        (5, 5),
        ("10", 10),
        ("512MB", 512 << 20),
        ("1.5 GiB", 3 << 29),
        ("4k", 4096),
        ("1 tb", 1 << 40),
        ("7 B", 7),
        (0, 0),
    ],
)
def test_a_size_counts_in_1024(written: Any, meant: int) -> None:
    assert size(written) == meant


@pytest.mark.parametrize(
    "written", ["", "MB", "-1", -1, 1.5, True, None, "1 eB", "1MBs", 2**70, "9" * 5000, "9" * 30 + "TB"]
)
def test_what_is_no_size_is_refused(written: Any) -> None:
    with pytest.raises(DefinitionError, match=r"memory must be bytes or a size like \"512MB\""):
        size(written, "memory")


@given(st.integers(0, 2**62))
def test_a_size_shown_can_be_read_and_is_near(count: int) -> None:
    assert size(human_size(count)) == pytest.approx(count, rel=0.06)
