"""The checks of `taskrun doctor`: each is a function that returns what it found, and what to type where that is wrong.

Nothing is repaired, and no daemon is started. The journal is opened by this process only if no daemon has it.
"""

from __future__ import annotations

import platform
import shutil
import sqlite3
import stat
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from pathlib import Path
from shlex import quote
from typing import Any, NamedTuple

from taskrun import __version__
from taskrun.cli.backend.all_schedules import all_schedules, obstacles
from taskrun.cli.backend.unknown_jobs import unknown_jobs
from taskrun.cli.commands.daemon_service import service_of
from taskrun.cli.exit_codes import NO_PROJECT
from taskrun.cli.sanitize import cell
from taskrun.cli.screens.jobs import problem_line, refusals, with_relative_file
from taskrun.cli.screens.phrases import short
from taskrun.cli.session import Session
from taskrun.daemon.launch import find_holder
from taskrun.daemon.paths import daemon_paths
from taskrun.daemon.unix_socket import socket_path
from taskrun.model.config import Config, is_server, without_password
from taskrun.model.durations import human_size
from taskrun.model.errors import ConfigError, JournalError, NoProject, TaskrunError
from taskrun.model.names import NOTIFY, RESERVED
from taskrun.model.notify_config import TEST
from taskrun.processes.threads import in_thread
from taskrun.rules.file_patterns import FilePattern
from taskrun.stores.addresses import server_reader
from taskrun.stores.highwater import is_absent, log_size
from taskrun.stores.sqlite import SqliteStorage

LITTLE_SPACE = 200_000_000  # bytes that are free on the journal's disk
LATELY = 20  # notifications
WAL_RESET_FIXED = (3, 51, 3)
MOST_NAMES = 10  # of variables that are listed
TELLING = {"VIRTUAL_ENV", "LANG", "LC_ALL", "TZ", "HOME", "USER"}  # listed first
SESSION = {"PATH", "PWD", "OLDPWD", "SHLVL", "_", "COLUMNS", "LINES", "PYTHONPATH", "WINDOWID", "DISPLAY", "COLORTERM"}
OF_TERMINALS = ("TERM", "SSH_", "TMUX", "STY", "XDG_SESSION", "GNOME_", "VTE_", "KITTY_", "ITERM_", "WT_", "TASKRUN_")
OTHERS = stat.S_IRWXG | stat.S_IRWXO


class Check(NamedTuple):
    """The result of a check; `hint`: what to type, where that helps."""

    check: str
    ok: bool
    text: str
    hint: str = ""


Checking = Callable[[Session, Config], Awaitable[Check]]


async def examine(session: Session) -> AsyncIterator[Check]:
    """Yields the result of each check. Without a configuration there is nothing more to check; with an invalid one there is."""
    yield Check("versions", True, f"taskrun {__version__}, Python {platform.python_version()}")
    yield _sqlite()
    try:
        config = session.project
    except ConfigError as error:  # there is no configuration
        yield Check("configuration", False, str(error), NO_PROJECT if isinstance(error, NoProject) else "")
        return
    yield _configuration(session)
    for name, look in _CHECKS.items():
        try:
            yield await look(session, config)
        except TaskrunError as error:
            yield Check(name, False, str(error), "see its log: taskrun daemon logs" if name == "daemon" else "")


def _configuration(session: Session) -> Check:
    session.warned = True  # it is reported here
    if session.fault is not None:
        return Check("configuration", False, str(session.fault), "edit that file")
    return Check("configuration", True, str(session.project.path))


def _sqlite() -> Check:
    version = sqlite3.sqlite_version
    if sqlite3.sqlite_version_info >= WAL_RESET_FIXED:
        return Check("sqlite", True, version)
    note = "has the WAL-reset bug (fixed in 3.51.3), which can show when several processes share a journal"
    return Check("sqlite", True, f"{version} {note}; the daemon is safe, since nobody else opens its journal")


async def _socket(session: Session, config: Config) -> Check:
    path = await in_thread(lambda: socket_path(daemon_paths(config).lock, session.facts.env))
    return Check("socket", True, f"{path.parent} belongs to you alone")


async def _daemon(session: Session, config: Config) -> Check:
    held = await in_thread(find_holder, config)
    if held is None:
        return Check(
            "daemon", True, f"stopped; nobody holds {daemon_paths(config).lock}", "start it: taskrun daemon start"
        )
    status = await (await session.daemon(start=False)).call("status")
    running = f"running, pid {status['pid']}, version {status['version']}"
    if status["fault"]:
        what = f"{running}; its journal cannot be written: {status['fault']}"
        return Check("daemon", False, what, "free space on its disk, or check the disk: work then goes on by itself")
    if status["version"] != __version__:
        return Check("daemon", False, f"{running}, but this command is {__version__}", "taskrun daemon restart")
    return Check("daemon", True, running)


async def _environment(session: Session, config: Config) -> Check:
    """Compares the environment: a daemon keeps the Python and the variables of the command that started it."""
    if await in_thread(find_holder, config) is None:
        return Check(
            "environment", True, f"{sys.executable}; a daemon that is started now gets this Python and your variables"
        )
    backend = await session.daemon(start=False)
    status = await backend.call("status")
    if "python" not in status:
        return Check("environment", True, "the daemon is an older version that does not tell", "taskrun daemon restart")
    theirs = await backend.call("environment")
    ours = session.facts.env
    parts = [f"the daemon's Python is {status['python']}"]
    other = (status["prefix"], status["python_version"]) != (sys.prefix, platform.python_version())
    parts += [f"yours is {sys.executable} ({platform.python_version()})"] if other else []
    if theirs.get("PATH") != ours.get("PATH"):
        parts += [f"its PATH is not yours but {theirs.get('PATH')}"]
    if names := differing(ours, theirs):
        parts += [f"variables that differ from yours: {', '.join(names)}"]
    same = len(parts) == 1
    text = parts[0] + ", and its environment is yours" if same else "; ".join(parts)
    return Check("environment", not other, text, "" if same else "to give it yours: taskrun daemon restart")


def differing(ours: Mapping[str, str], theirs: Mapping[str, str]) -> list[str]:
    """Returns the names of the variables that differ from the daemon's; those of a terminal do not count."""
    names = sorted(name for name in ours.keys() | theirs.keys() if ours.get(name) != theirs.get(name))
    names.sort(key=lambda name: name not in TELLING)
    found = [name for name in names if name not in SESSION and not name.startswith(OF_TERMINALS)]
    return found[:MOST_NAMES] + ([f"and {len(found) - MOST_NAMES} more"] if len(found) > MOST_NAMES else [])


async def _schedules(session: Session, config: Config) -> Check:
    backend = await session.reader(lenient=True)
    entries, _ = await all_schedules(session, backend)
    wrong = [f"{one['job']} {one['cron']}: {one['problem']}" for one in entries if one["problem"]]
    if wrong:
        return Check("schedules", False, "; ".join(wrong), "see them: taskrun schedule")
    held = obstacles(entries, backend.live)
    text = "; ".join([str(len(entries)) if entries else "none", *(what for what, _ in held)])
    return Check("schedules", backend.live or not entries, text, "; ".join(hint for _, hint in held))


async def _notifications(session: Session, config: Config) -> Check:
    """Whether what was told lately has arrived."""
    if not config.notify:
        return Check("notifications", True, "none: there is no [[notify]]")
    backend = await session.reader(lenient=True)
    found = await backend.call("runs", job=NOTIFY, limit=LATELY)
    runs = [run for run in found if (run["input"] or {}).get("event") != TEST]
    failed = [run for run in runs if run["status"] == "failed"]
    ways = [way.label for table in config.notify for way in table.ways]
    if failed:
        told = f"{len(failed)} of the last {len(runs)} could not be delivered"
        hint = f"see why: taskrun show {short(failed[0]['id'])}; try them: taskrun notify test"
        return Check("notifications", False, told, hint)
    described = await backend.call("jobs")
    unknown = unknown_jobs(config, {job["name"] for job in described["jobs"]}, "notify")
    return Check(
        "notifications",
        True,
        "; ".join([", ".join(dict.fromkeys(ways)), f"{len(runs)} told lately, none lost", *unknown]),
    )


async def _journal(session: Session, config: Config) -> Check:
    if is_server(config.journal):
        return await _server(config.journal)
    path = Path(config.journal)
    if await in_thread(find_holder, config) is None:
        if is_absent(config.journal):
            return Check("journal", True, f"{path} does not exist yet; the first run creates it")
        await in_thread(_look_through, path)
        state = "is undamaged and complete"
    else:
        state = "was undamaged and complete when the daemon opened it"
    return _file(path, state)


async def _server(journal: str) -> Check:
    reader, where = server_reader(journal), f"on a server: {without_password(journal)}"
    try:
        engines = await reader.read(lambda tx: len(tx.engines()))
    except JournalError as error:
        return Check("journal", False, str(error), "see that the server runs, and who may connect")
    finally:
        await reader.close()
    if engines is None:
        return Check("journal", True, f"{where}; there is none yet; the first run creates it")
    return Check("journal", True, f"{where}, {engines} engine{'' if engines == 1 else 's'}")


def _look_through(path: Path) -> None:
    """Checks for lost commits (by the high-water mark) and for damage; opening alone does the latter only after a crash."""
    store = SqliteStorage(path, exclusive=True)
    store.open()
    try:
        store.check()
    finally:
        store.close()


def _file(path: Path, state: str) -> Check:
    try:
        found = path.stat()
    except OSError as error:  # it was removed while its daemon runs
        return Check("journal", False, f"{path}: {error.strerror}", "see its log: taskrun daemon logs")
    free = shutil.disk_usage(path.parent).free
    text = f"{path} {state}, {human_size(found.st_size + log_size(str(path)))}"
    if found.st_mode & OTHERS:
        return Check("journal", False, f"{path} is open to other users", f"chmod 600 {path}")
    if free < LITTLE_SPACE:
        return Check("journal", False, f"{text}; its disk has only {human_size(free)} left", "free some space there")
    return Check("journal", True, text)


async def _jobs(session: Session, config: Config) -> Check:
    answer = await (await session.reader(lenient=True)).call("jobs")
    names = {job["name"] for job in answer["jobs"]} - RESERVED
    problems = [problem_line(with_relative_file(problem, config.root)) for problem in answer["problems"]]
    if problems:
        return Check("jobs", False, "; ".join(problems), "see what was found: taskrun jobs")
    if not names:
        return Check("jobs", False, f"none found in {', '.join(config.jobs)}", "write one: taskrun init")
    commands = len(config.declared.commands)
    places = [*(config.jobs if commands < len(names) else ()), *(["taskrun.toml"] if commands else ())]
    return Check("jobs", True, f"{len(names)} in {', '.join(places)}")


async def _files(session: Session, config: Config) -> Check:
    backend = await session.reader(lenient=True)
    answer = await backend.call("jobs")
    inputs = (await backend.call("config"))["inputs"] if backend.live else answer["inputs"]
    watched = [
        (job["name"], one) for job in answer["jobs"] for files in job.get("files") or () for one in files["patterns"]
    ]
    watched += [(table.job, one) for table in config.files for one in table.pattern]
    if not watched:
        return Check("files", True, "none are watched")
    faults = [text for place, text in inputs.items() if place.startswith("[[files]]")]
    faults += unknown_jobs(config, {job["name"] for job in answer["jobs"]}, "files")
    missing: dict[str, None] = {}
    for job, pattern in watched:
        folder = FilePattern(pattern, str(config.root)).folder
        if not Path(folder).is_dir():
            faults.append(f"{pattern} of {job}: there is no folder {folder}")
            missing[folder] = None
    if faults:
        hint = f"mkdir -p {' '.join(map(quote, missing))}" if missing else "list them: taskrun jobs"
        return Check("files", False, "; ".join(faults), hint)
    return Check("files", True, f"{len(watched)} pattern{'' if len(watched) == 1 else 's'} watched")


async def _triggers(session: Session, config: Config) -> Check:
    """Whether jobs have refused what was to start them: nothing else tells of it."""
    answer = await (await session.reader(lenient=True)).call("jobs")
    refused = {job["name"]: refusals(job, session.now, lasting=True) for job in answer["jobs"]}
    found = [f"{name}: {line}" for name, lines in refused.items() for line in lines]
    if found:
        first = next(name for name, lines in refused.items() if lines)
        hint = f"compare its input: taskrun jobs {quote(first)}; it is told until the trigger starts it again"
        return Check("triggers", False, "; ".join(found), hint)
    return Check("triggers", True, "no job has refused what was to start it")


async def _service(session: Session, config: Config) -> Check:
    service = service_of(config, session.facts.env)
    if service.path.exists():
        return Check("service", True, f"installed: {service.path}")
    return Check(
        "service",
        True,
        "not installed; the next command that needs the daemon starts it",
        "start it at login: taskrun daemon install",
    )


_CHECKS: dict[str, Checking] = {
    "socket": _socket,
    "daemon": _daemon,
    "journal": _journal,
    "environment": _environment,
    "jobs": _jobs,
    "schedules": _schedules,
    "notifications": _notifications,
    "files": _files,
    "triggers": _triggers,
    "service": _service,
}


def check_view(check: Check) -> dict[str, Any]:
    """Returns a check as JSON."""
    return {**check._asdict(), "text": cell(check.text)}
