"""Cron expressions: when a schedule's slots are, in its time zone. Used by `Cron` to check, by the core to fire.

A slot is a wall-clock time. One that a clock change skips fires right after the gap, one that comes twice fires the
first time. cronsim reads the fields and searches, on wall-clock times without a zone; the zone's rules are kept here.
"""

from __future__ import annotations

import math
from bisect import bisect_left
from datetime import UTC, datetime, tzinfo
from difflib import get_close_matches
from typing import Literal
from zoneinfo import ZoneInfo

from cronsim import CronSim, CronSimError

from taskrun.model.errors import DefinitionError

CatchUp = Literal["skip", "one", "all"]

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
MOST = 10_000  # slots that one answer holds
_SOME_DAY = datetime(2024, 1, 1)


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
        try:
            next(CronSim(self._fields, _SOME_DAY))
        except (CronSimError, ValueError) as error:
            raise DefinitionError(_explain(expr, self._fields, str(error))) from None
        except StopIteration:
            raise DefinitionError(f'cron "{expr}" never fires: no such day comes within 50 years') from None

    def next_after(self, epoch: float) -> float:
        """Returns the first slot after a moment; infinity where the calendar ends."""
        try:
            wall = self._wall(math.floor(epoch)).replace(tzinfo=None, fold=0)
            for slot in CronSim(self._fields, wall):
                if (at := self._epoch(slot)) > epoch:
                    return at
        except (OverflowError, ValueError, OSError):
            pass
        return math.inf

    def slots(self, after: float, until: float, catch_up: CatchUp, most: int = MOST) -> list[float]:
        """Returns those of the slots missed in `after < slot <= until` that are to be made up for.

        Parameters:
            catch_up: `skip`: none of them; `one`: the newest; `all`: the oldest `most`; ask again after the last.
        """
        if catch_up == "skip":
            return []
        if catch_up == "one":
            return self._newest(after, until)
        found: list[float] = []
        while len(found) < most and (after := self.next_after(after)) <= until:
            found.append(after)
        return found

    def _newest(self, after: float, until: float) -> list[float]:
        """Bisects for the last whole second after which there is no slot: that is the newest one, if it is one."""
        if self.next_after(after) > until:
            return []
        seconds = range(math.floor(after), math.floor(until) + 1)
        return [float(seconds[bisect_left(seconds, True, key=lambda second: self.next_after(second) > until)])]

    def _wall(self, epoch: float) -> datetime:
        return datetime.fromtimestamp(epoch, UTC).astimezone(self._zone)

    def _epoch(self, slot: datetime) -> float:
        early, late = (_stamp(slot.replace(fold=fold), self._zone) for fold in (1, 0))
        if early >= late:  # it exists; where it does twice, fold 0 is the first
            return late
        before = self._wall(early).utcoffset()
        seconds = range(int(early), int(late) + 1)
        return float(seconds[bisect_left(seconds, True, key=lambda second: self._wall(second).utcoffset() != before)])


def _stamp(slot: datetime, zone: tzinfo | None) -> float:
    return slot.replace(tzinfo=zone).timestamp()


def _zone(name: str) -> ZoneInfo:
    try:
        return ZoneInfo(name)
    except (KeyError, ValueError, TypeError, OSError):
        raise DefinitionError(f'no time zone is called "{name}"; use a name such as "Europe/Berlin"') from None


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
