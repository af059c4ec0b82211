"""`taskrun journal …`: the journal as a whole."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import typer

from taskrun.cli.command_group import CommandGroup
from taskrun.cli.common_options import COMMON
from taskrun.cli.exit_codes import Code, Stop
from taskrun.cli.sanitize import cell
from taskrun.cli.session import Session
from taskrun.daemon.paths import daemon_paths
from taskrun.model.config import is_server, without_password
from taskrun.model.errors import ConfigError, JournalDamaged, JournalError, JournalLocked, JournalUnavailable
from taskrun.model.records import StepStatus
from taskrun.processes.surviving_command import CommandKey, files_of, has_ended, run_of, under_way
from taskrun.processes.threads import in_thread
from taskrun.stores.addresses import server_side
from taskrun.stores.journal_copy import COLUMNS, InUse, Side, SqliteSide, copy

app = typer.Typer(
    cls=CommandGroup, rich_markup_mode=None, add_completion=False, help="Copy the journal to another file or server."
)


@app.callback()
def journal() -> None:
    """Copy the journal to another file or server."""


@app.command("copy")
def copy_journal(
    source: str = typer.Argument(..., metavar="FROM", help="A SQLite file, or postgresql://…"),
    target: str = typer.Argument(..., metavar="TO", help="Another one, which is empty or not there."),
    json: bool = COMMON.json,
) -> Any:
    """Copy a journal with all that is in flight into another one, and compare both by counts and checksums.

    Both sides must be stopped, and so must commands that go on without the daemon. The source stays
    as it is.

    Example: taskrun journal copy .taskrun/journal.db postgresql://me@host/db
    """
    return partial(perform, source, target, json)


async def perform(source: str, target: str, as_json: bool, session: Session) -> int:
    """Copies it and says how much that was."""
    places = [one if is_server(one) else str(Path(session.facts.cwd, one)) for one in (source, target)]
    counts = await in_thread(lambda: _copied(places[0], places[1], session))
    if as_json:
        session.json({"from": without_password(places[0]), "to": without_password(places[1]), "rows": counts})
        return Code.DONE
    session.say(f"copied and compared: {', '.join(f'{count:,} {table}' for table, count in counts.items() if count)}")
    session.say(f'  use it: journal = "{without_password(target)}" in taskrun.toml')
    return Code.DONE


def _copied(source: str, target: str, session: Session) -> dict[str, int]:
    def progress(table: str, count: int) -> None:
        if session.facts.err_tty:
            session.say(f"  {table} {count:,}")

    sides: list[Side] = []
    try:
        for place, first in ((source, True), (target, False)):
            sides.append(server_side(place, first) if is_server(place) else SqliteSide(place, first))
            if first and (folder := _commands_of(place, session)) is not None:
                _refuse_commands(sides[0], folder)
        return copy(sides[0], sides[1], progress)
    except (InUse, JournalLocked) as error:
        raise Stop(Code.REFUSED, str(error), hint="stop who uses it: taskrun daemon stop") from error
    except JournalDamaged as error:
        raise Stop(Code.FAILED, str(error)) from error
    except JournalUnavailable as error:
        raise Stop(Code.UNREACHABLE, str(error)) from error
    except JournalError as error:
        raise Stop(Code.NOT_FOUND, str(error), hint="name a file or an address: taskrun journal copy --help") from error
    finally:
        for side in sides:
            side.close()


def _commands_of(place: str, session: Session) -> Path | None:
    """Returns the folder with the files of a journal's commands; those of a server's are in the project, if this is one."""
    if not is_server(place):
        return Path(f"{place}.commands")
    try:
        return daemon_paths(session.project, make=False).commands
    except ConfigError:
        return None


def _refuse_commands(source: Side, folder: Path) -> None:
    """Refuses to copy runs whose commands the copy would have executed once more, since their files stay behind.

    Raises:
        Stop: some are alive, or have ended and the journal does not know how.
    """
    runs = {run_of(path) for path in files_of(folder)}
    if not runs:
        return
    attempts = {run["id"]: run["attempt"] for run in _named(source, "runs") if run["id"] in runs}
    alive = [one for one in under_way(folder) if one.run in attempts]
    if alive:
        told = [cell(f"{one.step} of run {one.run} goes on without the daemon") for one in alive]
        raise Stop(Code.REFUSED, *told, hint="wait for what goes on, or end it: taskrun daemon stop --kill")
    running = [
        CommandKey(step["run"], attempts[step["run"]], step["key"], step["attempt"])
        for step in _named(source, "steps")
        if step["run"] in attempts and step["status"] == StepStatus.RUNNING
    ]
    if ended := [key for key in running if has_ended(folder / key.name)]:
        told = [cell(f"{key.step} of run {key.run} has ended, but the journal does not know how") for key in ended]
        raise Stop(
            Code.REFUSED, *told, hint="start the daemon, which notes it, and stop it again: taskrun daemon start"
        )


def _named(side: Side, table: str) -> Iterator[dict[str, Any]]:
    return (dict(zip(COLUMNS[table], row, strict=True)) for row in side.rows(table))
