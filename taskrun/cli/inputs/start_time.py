"""When a run is to start: `--in` and `--at`."""

from __future__ import annotations

import time
from datetime import datetime, timedelta

from taskrun.cli.exit_codes import Code, Stop
from taskrun.model import durations

LONGEST = durations.seconds("1000y")
LAST_YEAR = 9000  # time zones and durations can still be added without leaving the calendar


def delay(text: str) -> float | None:
    """Returns the seconds of `--in 5m`.

    Raises:
        Stop: it is too long for the calendar.
    """
    seconds = durations.seconds(text, "--in") if text else None
    if seconds is not None and seconds > LONGEST:
        raise Stop(Code.USAGE, f'--in "{text}" is too long: at most 1000y')
    return seconds


def at(text: str, now: float | None = None) -> float | None:
    """Returns the moment of `--at`: RFC 3339, a local date and time, or a local time of day, today or tomorrow.

    Raises:
        Stop: it is none of these.
    """
    if not text:
        return None
    local = datetime.fromtimestamp(time.time() if now is None else now).astimezone()
    try:
        return _moment(text, local).timestamp()
    except (ValueError, OverflowError, OSError):
        example = "18:30, 2030-01-31T18:30 or 2030-01-31T18:30:00Z"
        raise Stop(Code.USAGE, f'--at "{text}" is not a time, as in {example}') from None


def _moment(text: str, local: datetime) -> datetime:
    if "-" in text:
        moment = datetime.fromisoformat(text)
        if moment.year > LAST_YEAR:
            raise ValueError
        return moment
    moment = datetime.fromisoformat(f"{local:%Y-%m-%d} {text}").astimezone()
    return moment if moment > local else moment + timedelta(days=1)
