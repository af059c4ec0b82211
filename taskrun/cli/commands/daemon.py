"""`taskrun daemon …`: the process that runs a project's jobs."""

from __future__ import annotations

import asyncio
import os
import shlex
from collections.abc import Iterator
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

import typer

from taskrun.cli import times
from taskrun.cli.backend.all_schedules import check_before_start
from taskrun.cli.backend.unknown_jobs import unknown_jobs
from taskrun.cli.command_group import CommandGroup
from taskrun.cli.commands.daemon_service import service_of, switch
from taskrun.cli.common_options import COMMON
from taskrun.cli.exit_codes import Code, Stop
from taskrun.cli.lazy_imports import Text
from taskrun.cli.sanitize import cell, lines
from taskrun.cli.screens.jobs import problem_line, with_relative_file
from taskrun.cli.screens.look import stacked
from taskrun.cli.session import Session
from taskrun.daemon.launch import FOREGROUND, PROGRAM, environment, find_holder, python, stop_daemon
from taskrun.daemon.paths import daemon_paths
from taskrun.model import durations
from taskrun.model.config import Config, without_password
from taskrun.model.errors import DaemonError, TaskrunError
from taskrun.model.records import UNFINISHED
from taskrun.processes.surviving_command import end_command, under_way
from taskrun.processes.threads import in_thread
from taskrun.stores.highwater import log_size

app = typer.Typer(
    cls=CommandGroup, rich_markup_mode=None, add_completion=False, help="The process that runs a project's jobs."
)
POLL = 0.2  # seconds between two reads of the daemon's log
BLOCK = 65536


@app.command()
def start(json: bool = COMMON.json) -> Any:
    """Start the daemon, if none runs.

    Example: taskrun daemon start
    """
    return partial(perform_start, json)


@app.command()
def stop(
    kill: bool = typer.Option(False, "--kill", help="End the commands too that go on without it; they run again."),
) -> Any:
    """Stop the daemon; unfinished runs go on when it is back. Commands that survive it go on meanwhile.

    Example: taskrun daemon stop
    """
    return partial(perform_stop, kill)


@app.command()
def restart(json: bool = COMMON.json) -> Any:
    """Stop the daemon and start it again.

    Example: taskrun daemon restart
    """
    return partial(perform_restart, json)


@app.command()
def status(json: bool = COMMON.json) -> Any:
    """Say whether the daemon runs; exit code 3 when it does not.

    Example: taskrun daemon status --json
    """
    return partial(perform_status, json)


@app.command()
def run() -> Any:
    """Run the daemon in the foreground, as a service manager does.

    Example: taskrun daemon run
    """
    return foreground


@app.command()
def logs(
    limit: int = typer.Option(
        100, "-n", "--lines", min=0, metavar="NUMBER", help="How many of the lines that exist already."
    ),
    follow: bool = typer.Option(False, "-f", "--follow", help="Go on with new lines."),
) -> Any:
    """Print the log of the daemon itself.

    Example: taskrun daemon logs -f
    """
    return partial(show_logs, limit, follow)


@app.command()
def install(json: bool = COMMON.json) -> Any:
    """Install the daemon as a service of your session: a systemd user unit, or a launchd agent.

    It then starts at login, and is restarted at once when it dies.

    Example: taskrun daemon install
    """
    return partial(install_service, json)


@app.command()
def uninstall(json: bool = COMMON.json) -> Any:
    """Remove the service; a daemon that runs goes on.

    Example: taskrun daemon uninstall
    """
    return partial(remove_service, json)


async def perform_start(as_json: bool, session: Session) -> int:
    """Starts it, waits until its jobs are loaded, and shows its status."""
    backend = await session.daemon(forced=True)
    unknown: list[str] = []
    with suppress(DaemonError):  # no worker is ready: the status says why
        described = await backend.call("jobs")
        unknown = unknown_jobs(session.project, {job["name"] for job in described["jobs"]})
    code = await perform_status(as_json, session)
    for problem in unknown:
        session.say(f"warning: {lines(problem)}")
    return code


async def perform_stop(kill: bool, session: Session) -> int:
    """Stops it and reports that."""
    stopped = await in_thread(lambda: stop_daemon(_with_daemon(session)))
    left = "; unfinished runs wait in the journal" if stopped and await _has_unfinished(session) else ""
    session.say(f"stopped{left}" if stopped else "no daemon runs")
    commands = under_way(daemon_paths(session.project, make=False).commands)
    if kill:
        await asyncio.gather(*(end_command(one.path, session.project.grace, cut_off=True) for one in commands))
    for one in commands:
        pid = "" if one.pid is None else f", pid {one.pid}"
        session.say(cell(f"  {'ended' if kill else 'goes on'}: {one.step} of run {one.run}{pid}"))
    if commands and not kill:
        session.say("  end what goes on: taskrun daemon stop --kill")
    session.say("  start it: taskrun daemon start")
    return Code.DONE


async def _has_unfinished(session: Session) -> bool:
    with suppress(TaskrunError):  # the daemon was stopped, even if the journal cannot be read
        return bool(await (await session.reader()).call("runs", status=sorted(UNFINISHED), limit=1))
    return False


async def perform_restart(as_json: bool, session: Session) -> int:
    """Stops it and starts it again; if the new one could not start, the old one is not stopped."""
    await check_before_start(session)
    await in_thread(stop_daemon, session.config)
    return await perform_start(as_json, session)


def _with_daemon(session: Session) -> Config:
    """Returns the configuration, which may be invalid as long as a daemon runs.

    Raises:
        ConfigError: it is invalid, and no daemon runs.
    """
    if session.fault is None or find_holder(session.project) is None:
        return session.config
    session.warn()
    return session.project


async def perform_status(as_json: bool, session: Session) -> int:
    """Shows its status."""
    found = await _status(session)
    if as_json:
        session.json(found)
    else:
        session.show(status_screen(found, session))
    return Code.DONE if found["running"] else Code.NOT_FOUND


async def _status(session: Session) -> dict[str, Any]:
    project = _with_daemon(session)
    if find_holder(project) is None:
        return {
            "running": False,
            "pid": None,
            "version": None,
            "socket": None,
            "journal": without_password(project.journal),
        }
    found: dict[str, Any] = await (await session.daemon(start=False)).call("status")
    return found


def status_screen(found: dict[str, Any], session: Session) -> Text:
    """Returns the status of the daemon as a few lines."""
    service = service_of(session.project, session.facts.env).path
    places = [f"  journal  {found['journal']}{_size(found['journal'])} (keep {durations.human(session.project.keep)})"]
    places += [f"  service  {service}"] if service.exists() else []
    if not found["running"]:
        first = session.for_project("stopped   start it: taskrun daemon start")
        return stacked([Text(first), *(Text(cell(line)) for line in places)])
    states = [f"{count:,} {state}" for state, count in sorted(found["runs"].items())]
    if found.get("children"):  # an older version does not tell
        states.append(f"{found['children']:,} of them children")
    lines = [
        f"running  pid {found['pid']}  up {times.span(found['uptime'])}  {found['version']}",
        "  " + " · ".join([f"{found['jobs']} job{'' if found['jobs'] == 1 else 's'}", *states]),
        f"  socket   {found['socket']}",
        *places,
        *_environment(found),
    ]
    problems = [
        f"  broken   {problem_line(with_relative_file(problem, session.project.root))}" for problem in found["problems"]
    ]
    problems += [session.for_project(f"  fault    {found['fault']}: taskrun doctor")] if found["fault"] else []
    return stacked([Text(cell(line)) for line in lines + problems])


def _environment(found: dict[str, Any]) -> list[str]:
    """Returns the Python and the variables that the daemon uses; an older version does not tell."""
    if "python" not in found:
        return []
    venv = [f"  venv     {found['virtual_env']}"] if found["virtual_env"] else []
    return [
        f"  python   {found['python']} ({found['python_version']})",
        f"  PATH     {found['path'] or 'not set'}",
        *venv,
    ]


def _size(journal: str) -> str:
    """Returns how much room a journal takes, what is in its log and not yet in the file itself included."""
    path = Path(journal)
    return f"  {durations.human_size(path.stat().st_size + log_size(journal))}" if path.is_file() else ""


async def foreground(session: Session) -> int:
    """Becomes the daemon, in this process, so that a service manager sees it start and stop."""
    command = [*python(PROGRAM), FOREGROUND, "--config", str(session.config.path)]
    os.execve(command[0], command, environment({}))


async def install_service(as_json: bool, session: Session) -> int:
    """Writes the service and enables it; if the session has no tool for that, says what to do."""
    service = service_of(session.config, session.facts.env)
    await check_before_start(session)
    try:
        service.path.parent.mkdir(parents=True, exist_ok=True)
        service.path.write_bytes(service.text)
    except OSError as error:
        raise Stop(Code.USAGE, f"cannot write {error.filename}: {error.strerror}") from None
    complaint = await switch(service.look)
    if not complaint:
        await in_thread(stop_daemon, session.config)  # the service starts its own
        complaint = await switch(service.on)
    if as_json:
        session.json({"path": str(service.path), "enabled": not complaint})
        return Code.DONE
    session.say(f"written: {cell(str(service.path))}")
    if complaint:
        session.say(f"not enabled: {cell(complaint)}\n  enable it with: {_typed(service.look + service.on)}")
    else:
        session.say(
            "enabled; it starts at login\n  see it: taskrun daemon status   remove it: taskrun daemon uninstall"
        )
    return Code.DONE


async def remove_service(as_json: bool, session: Session) -> int:
    """Disables the service and removes its file."""
    service = service_of(session.config, session.facts.env)
    there = service.path.exists()
    if there:
        complaint = await switch(service.off)
        service.path.unlink()
        await switch(service.look)
        if complaint and not as_json:
            session.say(f"not disabled: {cell(complaint)}")
    if as_json:
        session.json({"path": str(service.path), "removed": there})
    else:
        session.say(
            f"removed: {cell(str(service.path))}" if there else "no service is installed: taskrun daemon install"
        )
    return Code.DONE


def _typed(commands: list[list[str]]) -> str:
    return cell(" && ".join(shlex.join(command) for command in commands))


async def show_logs(limit: int, follow: bool, session: Session) -> int:
    """Prints the daemon's log file."""
    path = daemon_paths(session.project, make=False).log
    session.warn(running=find_holder(session.project) is not None)
    at = 0
    if path.exists():
        last = path.read_text("utf-8", "replace").splitlines()[-limit:] if limit else []
        at = path.stat().st_size
        session.data("".join(lines(line) + "\n" for line in last))
    try:
        while follow:
            for text in _added(path, at):
                at += len(os.fsencode(text))
                session.data(lines(text))
            await asyncio.sleep(POLL)
    except asyncio.CancelledError:
        return Code.DONE
    return Code.DONE


def _added(path: Path, at: int) -> Iterator[str]:
    """Yields what was written to a file after its first `at` bytes."""
    if path.exists() and path.stat().st_size > at:
        with path.open("rb") as file:
            file.seek(at)
            while block := file.read(BLOCK):
                yield os.fsdecode(block)
