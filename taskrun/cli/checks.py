"""What `taskrun doctor` looks at: each check is a function that says what it found, and what to type where it is bad.

Nothing is repaired, and no daemon is started: the journal is opened by this process only while no daemon has it.
"""

from __future__ import annotations

import platform
import shutil
import sqlite3
import stat
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any, NamedTuple

from taskrun.cli.gate import in_thread
from taskrun.cli.screens.jobs import problem_line
from taskrun.cli.service import service_of
from taskrun.cli.session import Session
from taskrun.cli.visible import cell
from taskrun.daemon.home import home_of
from taskrun.daemon.launch import find_holder
from taskrun.daemon.place import socket_path
from taskrun.daemon.protocol import VERSION
from taskrun.model.config import Config
from taskrun.model.durations import human_size
from taskrun.model.errors import ConfigError, TaskrunError
from taskrun.stores.sqlite import SqliteStorage

LITTLE_SPACE = 200_000_000  # bytes that are free on the journal's disk
WAL_RESET_FIXED = (3, 51, 3)
OTHERS = stat.S_IRWXG | stat.S_IRWXO


class Check(NamedTuple):
    """What a check found; `hint`: what to type, where that helps."""

    check: str
    ok: bool
    text: str
    hint: str = ""


Checking = Callable[[Session, Config], Awaitable[Check]]


async def examine(session: Session) -> AsyncIterator[Check]:
    """Yields what each check finds; without a configuration there is nothing more to look at."""
    yield Check("versions", True, f"taskrun {VERSION}, Python {platform.python_version()}")
    yield _sqlite()
    try:
        config = session.config
    except ConfigError as error:
        yield Check("configuration", False, str(error), "" if "taskrun init" in str(error) else "edit that file")
        return
    yield Check("configuration", True, str(config.path))
    for name, look in _CHECKS.items():
        try:
            yield await look(session, config)
        except TaskrunError as error:
            yield Check(name, False, str(error), "see what it says: taskrun daemon logs" if name == "daemon" else "")


def _sqlite() -> Check:
    version = sqlite3.sqlite_version
    if sqlite3.sqlite_version_info >= WAL_RESET_FIXED:
        return Check("sqlite", True, version)
    note = "has the WAL-reset bug (fixed in 3.51.3), which can bite when several processes share a journal"
    return Check("sqlite", True, f"{version} {note}; the daemon has its journal to itself and is safe")


async def _socket(session: Session, config: Config) -> Check:
    path = await in_thread(lambda: socket_path(home_of(config).lock, session.facts.env))
    return Check("socket", True, f"{path.parent} is yours alone")


async def _daemon(session: Session, config: Config) -> Check:
    held = await in_thread(lambda: find_holder(config))
    if held is None:
        return Check("daemon", True, f"stopped; nobody holds {home_of(config).lock}", "start it: taskrun daemon start")
    status = await (await session.daemon(start=False)).call("status")
    running = f"running, pid {status['pid']}, version {status['version']}"
    if status["fault"]:
        return Check("daemon", False, f"{running}; its journal refuses: {status['fault']}", "taskrun daemon restart")
    if status["version"] != VERSION:
        return Check("daemon", False, f"{running}, but this command is {VERSION}", "taskrun daemon restart")
    return Check("daemon", True, running)


async def _journal(session: Session, config: Config) -> Check:
    if "://" in config.journal:
        return Check("journal", True, "on a server: " + config.journal.rpartition("@")[2])
    path = Path(config.journal)
    if await in_thread(lambda: find_holder(config)) is None:
        if not path.exists() and not path.with_name(path.name + ".high").exists():
            return Check("journal", True, f"{path} is not there yet; the first run makes it")
        await in_thread(lambda: _open_and_close(path))
        state = "is sound and complete"
    else:
        state = "was sound and complete when the daemon opened it"
    return _file(path, state)


def _open_and_close(path: Path) -> None:
    """Opening looks for damage (`quick_check`) and for lost commits (the high-water mark)."""
    store = SqliteStorage(path, exclusive=True)
    store.open()
    store.close()


def _file(path: Path, state: str) -> Check:
    found = path.stat()
    free = shutil.disk_usage(path.parent).free
    text = f"{path} {state}, {human_size(found.st_size)}"
    if found.st_mode & OTHERS:
        return Check("journal", False, f"{path} is open to others", f"chmod 600 {path}")
    if free < LITTLE_SPACE:
        return Check("journal", False, f"{text}; its disk has only {human_size(free)} left", "taskrun prune")
    return Check("journal", True, text)


async def _jobs(session: Session, config: Config) -> Check:
    answer = await (await session.reader()).call("jobs")
    names = {job["name"] for job in answer["jobs"]}
    problems = [problem_line(problem) for problem in answer["problems"]]
    problems += [
        f"[[schedule]] of a job that is not there: {one.job}" for one in config.schedules if one.job not in names
    ]
    if problems:
        return Check("jobs", False, "; ".join(problems), "see what was found: taskrun jobs")
    if not names:
        return Check("jobs", False, f"there are none in {', '.join(config.jobs)}", "write one: taskrun init")
    return Check("jobs", True, f"{len(names)} in {', '.join(config.jobs)}")


async def _service(session: Session, config: Config) -> Check:
    service = service_of(config, session.facts.env)
    if service.path.exists():
        return Check("service", True, f"installed: {service.path}")
    return Check(
        "service", True, "none; the next command starts the daemon", "start it at login: taskrun daemon install"
    )


_CHECKS: dict[str, Checking] = {
    "socket": _socket,
    "daemon": _daemon,
    "journal": _journal,
    "jobs": _jobs,
    "service": _service,
}


def check_view(check: Check) -> dict[str, Any]:
    """Returns a check as JSON."""
    return {**check._asdict(), "text": cell(check.text)}
