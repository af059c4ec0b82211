"""Runs that start after others: what of that is open, and whether it can still come true. Pure functions of what is awaited."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import msgspec
from msgspec.structs import replace

from taskrun.model.records import Awaited, Run, Status


def awaited_by(run: Run) -> list[Awaited]:
    """Returns the runs that a run starts after."""
    return msgspec.json.decode(run.after, type=list[Awaited]) if run.after is not None else []


def after_text(awaited: Sequence[Awaited]) -> str | None:
    """Returns them as a run keeps them."""
    return msgspec.json.encode(awaited).decode() if awaited else None


def is_open(awaited: Iterable[Awaited]) -> bool:
    """Whether one of them has not ended."""
    return any(one.ended is None for one in awaited)


def is_failed(awaited: Iterable[Awaited]) -> bool:
    """Whether one of them has ended otherwise than it should."""
    return any(not one.any and one.ended not in (None, Status.SUCCEEDED) for one in awaited)


def with_end(awaited: Iterable[Awaited], run_id: str, status: Status) -> list[Awaited]:
    """Returns them with the end of one of them."""
    return [replace(one, ended=status) if one.run == run_id else one for one in awaited]
