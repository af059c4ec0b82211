"""When a run is to start: `--in` and `--at`."""

from __future__ import annotations

import time
from datetime import date, datetime, timedelta

from taskrun.cli.exit_codes import Code, Stop
from taskrun.model import durations

LONGEST = durations.seconds("1000y")
LAST_YEAR = 9000  # time zones and durations can still be added without leaving the calendar
# days from today in which a time of day is looked for: it may be typed with the offset of another zone
NEAR = range(-2, 4)


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
    """Returns the moment of `--at`: RFC 3339, a local date and time, or a time of day, which means its next moment.

    Raises:
        Stop: it is none of these.
    """
    if not text:
        return None
    try:
        return _moment(text, time.time() if now is None else now)
    except (ValueError, OverflowError, OSError):
        example = "18:30, 2030-01-31T18:30 or 2030-01-31T18:30:00Z"
        raise Stop(Code.USAGE, f'--at "{text}" is not a time, as in {example}') from None


def _moment(text: str, now: float) -> float:
    if "-" in text:
        moment = datetime.fromisoformat(text)
        if moment.year > LAST_YEAR:
            raise ValueError
        return moment.timestamp()
    # Each day has an offset of its own, and where clocks are set back a time of day comes twice.
    days = [date.fromtimestamp(now) + timedelta(days=ahead) for ahead in NEAR]
    typed = (datetime.fromisoformat(f"{day} {text}").replace(fold=fold) for day in days for fold in (0, 1))
    return next(at for at in map(datetime.timestamp, typed) if at > now)
