"""Cron expressions: when a schedule's slots are, in its time zone. Used by `Cron` to check, by the core to fire.

As in Debian's cron: where minute and hour are fixed, a slot is a time of the day. One that a clock change skips fires right
after the gap, one that comes twice fires the first time. Where one of them is a wildcard (`*`, `*/5`), every moment fires whose
wall-clock time fits, so that such a schedule goes on through the hour that is repeated. cronsim reads the fields and searches,
on wall-clock times without a zone; the zone's rules are kept here.
"""

from __future__ import annotations

import math
from bisect import bisect_left
from datetime import UTC, datetime, timedelta, tzinfo
from difflib import get_close_matches
from zoneinfo import ZoneInfo

from cronsim import CronSim, CronSimError

from taskrun.model.errors import DefinitionError
from taskrun.model.local_zone import local_zone

ALIASES = {
    "@hourly": "0 * * * *",
    "@daily": "0 0 * * *",
    "@midnight": "0 0 * * *",
    "@weekly": "0 0 * * 0",
    "@monthly": "0 0 1 * *",
    "@yearly": "0 0 1 1 *",
    "@annually": "0 0 1 1 *",
}
FIELDS = {  # in order, by cronsim's names for them
    "second": "0-59",
    "minute": "0-59",
    "hour": "0-23",
    "day-of-month": "1-31, L or LW",
    "month": "1-12 or JAN-DEC",
    "day-of-week": "0-7 or SUN-SAT",
}
_SOME_DAY = datetime(2024, 1, 1)
_SECOND = timedelta(seconds=1)
_DAY = 86_400  # seconds: no zone changes its offset twice within one


class CronRule:
    """The slots of one cron expression.

    Parameters:
        expr: five fields, six with seconds first, or `@hourly` and its like.
        timezone: name of a time zone; the machine's own unless given.

    Raises:
        DefinitionError: names the field that is wrong, or the zone.
    """

    def __init__(self, expr: str, timezone: str | None = None) -> None:
        self.expr = expr
        self.timezone = timezone
        self._zone = None if timezone is None else _zone(timezone)
        self._fields = _fields(expr)
        self._answer: tuple[float, tzinfo | None, float] | None = None  # the last one, for a moment in a zone
        try:
            next(CronSim(self._fields, _SOME_DAY))
        except (CronSimError, ValueError) as error:
            raise DefinitionError(_explain(expr, self._fields, str(error))) from None
        except StopIteration:
            raise DefinitionError(f'cron "{expr}" never fires: no such day comes within 50 years') from None

        minute, hour = self._fields.split()[-5:-3]
        self._search = self._elapsed if minute.startswith("*") or hour.startswith("*") else self._time_of_day

    def next_after(self, epoch: float) -> float:
        """Returns the first slot after a moment; infinity where the calendar ends."""
        zone = self._zone or local_zone()
        if self._answer is None or self._answer[:2] != (epoch, zone):
            try:
                self._answer = epoch, zone, self._search(epoch, zone)
            except (OverflowError, ValueError, OSError, StopIteration):
                self._answer = epoch, zone, math.inf
        return self._answer[2]

    def newest(self, after: float, until: float) -> float | None:
        """Returns the newest slot in `after < slot <= until`, None where there is none.

        It bisects for the last whole second after which there is no slot: that is the newest one.
        """
        if self.next_after(after) > until:
            return None
        seconds = range(math.floor(after), math.floor(until) + 1)
        return float(seconds[bisect_left(seconds, True, key=lambda second: self.next_after(second) > until)])

    def _time_of_day(self, epoch: float, zone: tzinfo | None) -> float:
        """Searches the times of days, which a zone has once, twice or never."""
        for slot in CronSim(self._fields, _naive(_wall(math.floor(epoch), zone))):
            if (at := _first(slot, zone)) > epoch:
                return at
        return math.inf

    def _elapsed(self, epoch: float, zone: tzinfo | None) -> float:
        """Searches the seconds as they pass, from one change of the zone's offset to the next."""
        at = math.floor(epoch)
        wall = _wall(at, zone)
        start = _naive(wall)
        while True:
            slot = next(CronSim(self._fields, start))
            found = at + round((slot - _naive(wall)).total_seconds())
            if (change := _change(at, found, zone)) is None:
                return float(found)
            at, wall = change, _wall(change, zone)
            start = _naive(wall) - _SECOND


# ---- wall clocks


def _wall(epoch: float, zone: tzinfo | None) -> datetime:
    return datetime.fromtimestamp(epoch, UTC).astimezone(zone)


def _naive(wall: datetime) -> datetime:
    return wall.replace(tzinfo=None, fold=0)


def _first(slot: datetime, zone: tzinfo | None) -> float:
    """Returns the first moment at which it is that time; where it never is, the end of the gap that holds it."""
    early, late = (slot.replace(tzinfo=zone, fold=fold).timestamp() for fold in (1, 0))
    if early >= late:  # it exists; where it does twice, fold 0 is the first
        return late
    change = _change(int(early), int(late), zone)
    return late if change is None else float(change)


def _change(start: int, end: int, zone: tzinfo | None) -> int | None:
    """Returns the first second after `start`, up to `end`, that has another offset than the one before."""
    days = ((day, min(day + _DAY, end)) for day in range(start, end, _DAY))
    within = next((day for day in days if _offset(day[0], zone) != _offset(day[1], zone)), None)
    if within is None:
        return None
    before = _offset(within[0], zone)
    seconds = range(within[0], within[1] + 1)
    return seconds[bisect_left(seconds, True, key=lambda second: _offset(second, zone) != before)]


def _offset(epoch: float, zone: tzinfo | None) -> timedelta | None:
    return _wall(epoch, zone).utcoffset()


def _zone(name: str) -> ZoneInfo:
    try:
        return ZoneInfo(name)
    except (KeyError, ValueError, TypeError, OSError):
        raise DefinitionError(f'unknown time zone "{name}"; use a name such as "Europe/Berlin"') from None


def _fields(expr: object) -> str:
    if not isinstance(expr, str):
        raise DefinitionError(f"a cron expression is text, not {expr!r}")
    text = expr.strip()
    if not text.startswith("@"):
        return text
    fields = ALIASES.get(text.lower())
    if fields is None:
        close = get_close_matches(text.lower(), ALIASES, 1) or list(ALIASES)
        raise DefinitionError(f'cron "{expr}" is unknown; did you mean {" or ".join(close)}?')
    return fields


def _explain(expr: str, fields: str, error: str) -> str:
    given = fields.split()
    if len(given) not in (5, 6):
        takes = "five (minute hour day month weekday), or six with seconds first"
        return f'cron "{expr}" has {len(given)} fields; it takes {takes}'
    name = error.removeprefix("Bad ")
    if name not in FIELDS:
        return f'cron "{expr}" is wrong: {error}'
    value = given[list(FIELDS).index(name) - (6 - len(given))]
    if name == "day-of-month" and value.isdigit() and 29 < int(value) < 32:
        return f'cron "{expr}" never fires: no month that it names has a day {value}'
    return f'cron "{expr}": the {name} field "{value}" is wrong; it takes {FIELDS[name]}, *, lists, ranges and /steps'
