"""Amounts that people write: durations, frequencies and sizes, read from and shown as text.

Called by whatever takes a duration from a user (policies, steps, configuration, command line) and by the screens.
A year is 365.25 days. Sizes count in 1024, as Docker does: `KB` and `KiB` are the same.
"""

from __future__ import annotations

import math
import re
from datetime import timedelta

import msgspec

from taskrun.model.errors import DefinitionError, DurationInvalid

_SPELLINGS = {
    0.001: "ms msec msecs millisecond milliseconds",
    1.0: "s sec secs second seconds",
    60.0: "m min mins minute minutes",
    3600.0: "h hr hrs hour hours",
    86400.0: "d day days",
    604800.0: "w wk wks week weeks",
    31557600.0: "y yr yrs year years",
}
UNITS = {spelling: unit for unit, spellings in _SPELLINGS.items() for spelling in spellings.split()}
_UNITS_HELP = 'the units are ms, s, m, h, d, w and y, as in "250ms", "5m" or "1.5 hours"'

# Possessive quantifiers: no text, however long, is scanned twice.
_AMOUNT = r"([0-9]++(?:\.[0-9]++)?+|\.[0-9]++)"
_PART = re.compile(_AMOUNT + r"\s*+([A-Za-z]++)\s*+", re.ASCII)
_FREQUENCY = r"(?ais)\s*+([0-9]++)\s*+(?:/|per\s)\s*+(\S.*+)"
_SIZE = r"(?a)\s*+" + _AMOUNT + r"\s*+(?:([KMGTkmgt])?(?:[Ii]?[Bb])?)\s*+"
_POWERS = {"": 0, "k": 1, "m": 2, "g": 3, "t": 4}
_LARGEST = 2**63


class Frequency(msgspec.Struct, frozen=True):
    """So many (`count`) in every `period` of seconds."""

    count: int
    period: float


def seconds(value: float | timedelta | str, what: str = "duration") -> float:
    """Returns a duration in seconds.

    Parameters:
        value: a number of seconds, a `timedelta`, or text with units (`"250ms"`, `"2 hours"`, `"1h 30m"`).
        what: what it is, for the message.

    Raises:
        DurationInvalid: not a duration, negative, or not finite.
    """
    amount = _amount(value, what)
    if not 0 <= amount < math.inf:  # false for NaN too
        raise DurationInvalid(f"{what} must be finite and not negative, not {shown(value)}; {_UNITS_HELP}")
    return amount + 0.0  # -0.0 is 0.0


def frequency(value: float | timedelta | str | Frequency, what: str = "frequency") -> Frequency:
    """Returns a frequency: `"3/s"`, `"1 per second"`, `"2 per 5 minutes"`, `"100 / hour"`.

    Raises:
        DurationInvalid: not a frequency; a plain number or duration is none.
    """
    if isinstance(value, Frequency):
        return value
    found = re.fullmatch(_FREQUENCY, value) if isinstance(value, str) else None
    if found is None:
        raise _no_frequency(value, what)
    count, rest = found[1].lstrip("0"), found[2].strip().lower()
    period = UNITS.get(rest) or seconds(rest, what)
    if not 0 < len(count) <= 9 or period == 0:
        raise _no_frequency(value, what)
    return Frequency(int(count), period)


def period(value: float | timedelta | str | Frequency, what: str = "duration") -> float:
    """Returns the seconds of a duration, or the period of a frequency, as throttle and debounce take them."""
    if isinstance(value, Frequency) or (isinstance(value, str) and re.fullmatch(_FREQUENCY, value)):
        return frequency(value, what).period
    return seconds(value, what)


def size(value: int | str, what: str = "size") -> int:
    """Returns a size in bytes: a number of bytes, or text such as `"512MB"` or `"1.5 GiB"`.

    Raises:
        DefinitionError: not a size.
    """
    if isinstance(value, int) and not isinstance(value, bool) and 0 <= value < _LARGEST:
        return value
    found = re.fullmatch(_SIZE, value) if isinstance(value, str) else None
    amount = float(found[1]) * 1024 ** _POWERS[(found[2] or "").lower()] if found else math.inf
    if amount >= _LARGEST:
        raise DefinitionError(f'{what} must be bytes or a size like "512MB" (B, KB, MB, GB, TB), not {shown(value)}')
    return int(amount)


def human(amount: float) -> str:
    """Shows seconds for people, in the two largest units: `250ms`, `41.3s`, `3m`, `3d 4h`."""
    if amount < 0:
        return "-" + human(-amount)
    if round(amount, 3) < 1:
        return f"{round(amount * 1000)}ms"
    if round(amount, 1) < 60:
        return f"{_short(amount)}s"
    minutes, second = divmod(round(amount), 60)
    hours, minute = divmod(minutes, 60)
    days, hour = divmod(hours, 24)
    parts = [(days, "d"), (hour, "h"), (minute, "m"), (second, "s")]
    first = next(index for index, (number, _) in enumerate(parts) if number)
    return " ".join(f"{number}{unit}" for number, unit in parts[first : first + 2] if number)


def human_size(count: int) -> str:
    """Shows bytes for people: `512 B`, `4 MB`, `1.2 GB`."""
    amount = float(count)
    for unit in ("B", "KB", "MB", "GB"):
        if round(amount, 1) < 1024:
            return f"{_short(amount)} {unit}"
        amount /= 1024
    return f"{_short(amount)} TB"


def _short(amount: float) -> str:
    return f"{amount:.1f}".removesuffix(".0")


def _amount(value: object, what: str) -> float:
    if isinstance(value, str):
        return _parsed(value, what)
    if isinstance(value, timedelta):
        return value.total_seconds()
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise DurationInvalid(f"{what} must be seconds, a timedelta or text, not {shown(value)}; {_UNITS_HELP}")
    try:
        return float(value)
    except OverflowError:
        return math.inf


def _parsed(text: str, what: str) -> float:
    total, at = 0.0, len(text) - len(text.lstrip())
    while found := _PART.match(text, at):
        unit = UNITS.get(found[2].lower())
        if unit is None:
            raise DurationInvalid(f"{what}: unknown unit {shown(found[2])}; {_UNITS_HELP}")
        total, at = total + float(found[1]) * unit, found.end()
    if at < len(text) or not text.strip():
        raise DurationInvalid(f"{what} must be a number with a unit, not {shown(text)}; {_UNITS_HELP}")
    return total


def _no_frequency(value: object, what: str) -> DurationInvalid:
    return DurationInvalid(f'{what} must be like "3/s" or "2 per 5 minutes", not {shown(value)}; {_UNITS_HELP}')


def shown(value: object) -> str:
    """Returns a value as a message shows it: cut, and never an error of its own."""
    try:
        text = repr(value)
    except Exception:  # a repr may raise, that of an int of 5,000 digits does
        text = f"a {type(value).__name__}"
    return text if len(text) <= 60 else text[:59] + "…"
