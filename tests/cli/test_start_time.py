"""`--at`: the next moment at which the caller's clock shows a time of day, also where clocks are changed."""

from __future__ import annotations

import time
from collections.abc import Iterator
from datetime import UTC, datetime

import pytest

from taskrun.cli.inputs import start_time


@pytest.fixture(autouse=True)
def in_berlin(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("TZ", "Europe/Berlin")
    time.tzset()
    yield
    monkeypatch.undo()
    time.tzset()


@pytest.mark.parametrize(
    ("now", "text", "meant"),
    [
        ("2026-07-01 10:00+02:00", "18:30", "2026-07-01 18:30+02:00"),
        ("2026-07-01 19:00+02:00", "18:30", "2026-07-02 18:30+02:00"),
        ("2026-07-01 18:30+02:00", "18:30", "2026-07-02 18:30+02:00"),
        ("2026-12-31 19:00+01:00", "18:30:15", "2027-01-01 18:30:15+01:00"),
        ("2026-10-24 19:00+02:00", "18:30", "2026-10-25 18:30+01:00"),  # clocks are set back meanwhile
        ("2026-10-24 19:00+02:00", "02:30", "2026-10-25 02:30+02:00"),
        ("2026-10-25 02:45+02:00", "02:30", "2026-10-25 02:30+01:00"),  # it comes again
        ("2026-10-25 02:45+01:00", "02:30", "2026-10-26 02:30+01:00"),
        ("2026-03-28 19:00+01:00", "18:30", "2026-03-29 18:30+02:00"),  # clocks are set ahead meanwhile
        ("2026-03-29 00:30+01:00", "02:30", "2026-03-29 03:30+02:00"),  # which no clock shows
        ("2026-03-29 03:45+02:00", "02:30", "2026-03-30 02:30+02:00"),
        ("2026-10-24 19:00+02:00", "18:30Z", "2026-10-24 18:30+00:00"),
        ("2026-01-02 00:10+01:00", "23:30Z", "2026-01-01 23:30+00:00"),
        ("2026-01-02 23:30+01:00", "00:30+14:00", "2026-01-04 00:30+14:00"),
        ("2026-10-24 19:00+02:00", "2026-10-25T18:30", "2026-10-25 18:30+01:00"),
    ],
)
def test_a_time_of_day_is_its_next_moment(now: str, text: str, meant: str) -> None:
    found = start_time.at(text, datetime.fromisoformat(now).timestamp())
    assert found is not None
    assert datetime.fromtimestamp(found, UTC) == datetime.fromisoformat(meant)
