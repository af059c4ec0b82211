"""All schedules: those in the journal, those of the code and of `taskrun.toml` that are not there yet, and invalid ones."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from taskrun.cli import times
from taskrun.cli.lazy_imports import CRON, JOB_FILES, SCHEDULE_TABLES, import_late
from taskrun.cli.session import Backend, Session
from taskrun.model.config import ScheduleTable, schedule_tables
from taskrun.model.errors import ConfigError, DaemonError
from taskrun.model.names import RESERVED
from taskrun.processes.threads import in_thread

Entry = dict[str, Any]


async def all_schedules(session: Session, backend: Backend) -> tuple[list[Entry], list[str]]:
    """Returns the schedules, the next one first, and what is wrong with inputs; `problem` says why a schedule never fires."""
    entries, tables = await backend.call("schedule"), _tables(session)
    jobs: list[dict[str, Any]] | None = None
    inputs: dict[str, str] = {}
    if backend.live or tables or not entries:  # without a daemon the job files are imported, which takes a while
        with suppress(DaemonError):  # no worker is ready: nothing is known about the jobs
            answer = await backend.call("jobs")
            jobs = answer["jobs"]
            inputs = (await backend.call("config"))["inputs"] if backend.live else answer["inputs"]
    checked = _checked(tables, session.project.path, inputs)
    return merged(entries, checked, jobs, session.now), list(inputs.values())


async def check_before_start(session: Session) -> None:
    """Checks that a daemon could start, before the running one is stopped for it.

    Raises:
        ConfigError: it could not.
    """
    config = session.config
    if config.schedules or config.files:
        await in_thread(lambda: import_late(JOB_FILES).check_inputs(config))


def _tables(session: Session) -> list[ScheduleTable]:
    try:
        return schedule_tables(session.project.path)
    except ConfigError:  # the whole file is invalid, which is reported elsewhere
        return []


def _checked(tables: list[ScheduleTable], path: Path, inputs: dict[str, str]) -> list[ScheduleTable]:
    """Returns the tables, each with what is wrong with it."""
    if not tables:
        return []
    problem_of = import_late(SCHEDULE_TABLES).problem_of
    return [
        ScheduleTable(table.place, table.written, table.entry, problem_of(table, path) or inputs.get(table.place, ""))
        for table in tables
    ]


def merged(
    entries: Sequence[Entry], tables: Sequence[ScheduleTable], jobs: Sequence[dict[str, Any]] | None, now: float
) -> list[Entry]:
    """Adds to the schedules of the journal those that are only in the code or the file, and what is wrong with each."""
    found = [{**entry, "problem": None} for entry in entries]
    left = list(found)
    for job in jobs or ():
        for cron in job["schedules"]:
            found += _unless_there(left, job["name"], cron, "", now)
    for table in tables:
        found += _unless_there(left, str(table.written.get("job", "")), table.written, table.problem, now)
    if jobs is not None:
        names = {job["name"]: job for job in jobs}
        for entry in found:
            entry["paused"] = bool(names.get(entry["job"], entry).get("paused"))
            known = entry["job"] in names or entry["job"] in RESERVED
            entry["problem"] = entry["problem"] or (None if known else f'no job "{entry["job"]}"')
    return sorted(found, key=lambda entry: (entry["next"] or "~", entry["job"]))


def obstacles(entries: Sequence[Entry], live: bool) -> list[tuple[str, str]]:
    """Returns why schedules that are in order do not start anything, or did not, and what to type for each reason."""
    paused = sorted({entry["job"] for entry in entries if entry.get("paused")})
    missed = Counter[str]()
    for entry in entries:
        missed[entry["job"]] += entry.get("missed") or 0
    found = [("none fires while no daemon runs", "start it: taskrun daemon start")] if entries and not live else []
    found += [(f"{job} is paused: its slots are skipped", f"let it go on: taskrun resume {job}") for job in paused]
    return found + [
        (f"{job} missed its last {'slot' if number == 1 else f'{number} slots'}", f"see them: taskrun schedule {job}")
        for job, number in sorted(missed.items())
        if number
    ]


def _unless_there(left: list[Entry], job: str, written: dict[str, Any], problem: str, now: float) -> list[Entry]:
    """Returns a schedule unless it is among those that are `left`, which then take note of its problem."""
    cron, timezone = str(written.get("cron", "")), written.get("timezone")
    timezone = None if timezone is None else str(timezone)
    for at, entry in enumerate(left):
        if (entry["job"], entry["cron"], entry["timezone"]) == (job, cron, timezone):
            entry["problem"] = problem or None
            del left[at]
            return []
    upcoming = math.inf if problem else import_late(CRON).CronRule(cron, timezone).next_after(now)
    return [
        {
            "job": job,
            "cron": cron,
            "timezone": timezone,
            "next": None if upcoming == math.inf else times.rfc3339(upcoming),
            "last": None,
            "last_run": None,
            "last_status": None,
            "paused": False,
            "missed": 0,
            "problem": problem or None,
        }
    ]
