"""Whether what a trigger gives out can ever be the input of its job, as far as both say how they look. Pure functions."""

from __future__ import annotations

from typing import Any

from taskrun.declarations.files import SCHEMA, Files
from taskrun.declarations.job import Job
from taskrun.declarations.pipe import Pipe, Source


def never_fits(job: Job, source: Source) -> str:
    """Returns why a trigger can never start a job; empty where it may, or where user code makes the input."""
    if source.fn is not None and not source.picks:
        return ""
    event, wanted = _schema(source), job.input.json_schema()
    given, taken = event.get("properties"), wanted.get("properties")
    if not given or taken is None:
        return ""
    lacking = [name for name in wanted.get("required", ()) if name not in given] if _is_closed(event) else []
    surplus = [name for name in event.get("required", ()) if name not in taken] if _is_closed(wanted) else []
    if lacking:
        hint = "give it a default" if source.picks else "give it with .into(…)"
        return f"it gives {', '.join(given)}, but not {', '.join(lacking)}, which {job.name} requires; {hint}"
    if surplus and not source.picks:
        return f"it gives {', '.join(surplus)}, which {job.name} does not take; choose the fields with .into(…)"
    return ""


def _schema(source: Source) -> dict[str, Any]:
    """Returns how what a trigger gives out looks, empty where that is not known."""
    match source.ref:
        case Files():
            return SCHEMA
        case Pipe():
            return source.ref.schema.json_schema()
        case Job():
            return source.ref.output.json_schema()
    return {}


def _is_closed(schema: dict[str, Any]) -> bool:
    return schema.get("additionalProperties") is False
