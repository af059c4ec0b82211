"""Records to rows and back, for the SQL stores. A row is a record's fields in their order; what follows is ignored."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from operator import attrgetter
from typing import Any

from taskrun.model.records import Cause, Engine, LogLine, PipeEvent, Run, Status, Step, StepKind, StepStatus

Row = tuple[Any, ...]

RUN_FIELDS = Run.__struct_fields__
STEP_FIELDS = Step.__struct_fields__
EVENT_FIELDS = PipeEvent.__struct_fields__
LOG_FIELDS = LogLine.__struct_fields__
ENGINE_FIELDS = Engine.__struct_fields__

_FIRST, _LAST = RUN_FIELDS.index("status"), RUN_FIELDS.index("awaited") + 1
RUN_CHANGING = RUN_FIELDS[_FIRST:_LAST]
RUN_NEW = (*RUN_FIELDS[: _FIRST - 1], *RUN_FIELDS[_FIRST:])  # all but `seq`, which is the store's

# Exact `str` and `int` are bound twice as fast as their subclasses.
_PLAIN = {"status": "status._value_", "kind": "kind._value_", "placed": "placed.real", "awaited": "awaited.real"}


def values_of(fields: Sequence[str]) -> Callable[[Any], Row]:
    """Returns a function that takes these fields out of a record, as values that a database knows."""
    return attrgetter(*(_PLAIN.get(field, field) for field in fields))


_STATUS = {str(status): status for status in Status}
_KIND = {str(kind): kind for kind in StepKind}
_STEP_STATUS = {str(status): status for status in StepStatus}


def run_of(row: Row) -> Run:
    """Returns the run that a row holds."""
    values = dict(zip(RUN_FIELDS, row, strict=False))
    values["status"] = _STATUS[values["status"]]
    values["placed"] = values["placed"] == 1
    values["awaited"] = values["awaited"] == 1
    for field in ("cause", "cancel_cause"):
        if values[field] is not None:
            values[field] = Cause(values[field])
    return Run(**values)


def step_of(row: Row) -> Step:
    """Returns the step that a row holds."""
    values = dict(zip(STEP_FIELDS, row, strict=False))
    values["kind"] = _KIND[values["kind"]]
    values["status"] = _STEP_STATUS[values["status"]]
    return Step(**values)


def event_of(row: Row) -> PipeEvent:
    """Returns the event that a row holds."""
    return PipeEvent(**dict(zip(EVENT_FIELDS, row, strict=False)))


def log_of(row: Row) -> LogLine:
    """Returns the log line that a row holds."""
    return LogLine(**dict(zip(LOG_FIELDS, row, strict=False)))


def engine_of(row: Row) -> Engine:
    """Returns the engine that a row holds."""
    return Engine(**dict(zip(ENGINE_FIELDS, row, strict=False)))
