"""`taskrun schedule`: the jobs that are started by schedules, and when."""

from __future__ import annotations

from collections.abc import MutableMapping
from functools import cache, partial
from typing import Any

import typer
from typer.main import get_command

from taskrun.cli.backend.all_schedules import all_schedules, hindrances
from taskrun.cli.command_group import CommandGroup
from taskrun.cli.common_options import COMMON
from taskrun.cli.exit_codes import Code
from taskrun.cli.lazy_imports import SCHEDULE_ADD, import_late
from taskrun.cli.sanitize import cell, lines
from taskrun.cli.screens.schedule import schedule_table, schedule_tsv
from taskrun.cli.session import Session


class ScheduleGroup(CommandGroup):
    """`schedule` and what is below it, which is imported when it is asked for."""

    @property
    def commands(self) -> MutableMapping[str, Any]:
        """The commands below by name."""
        return {"add": _add()}

    @commands.setter
    def commands(self, _: Any) -> None:
        """Keeps nothing: they are always the same."""


@cache
def _add() -> Any:
    return get_command(import_late(SCHEDULE_ADD).app)


app = typer.Typer(cls=ScheduleGroup, rich_markup_mode=None, add_completion=False)


@app.callback(invoke_without_command=True)
def schedule(ctx: typer.Context, json: bool = COMMON.json) -> Any:
    """List the schedules: when each fires next, when it last did, and how that ended.

    Example: taskrun schedule
    """
    return partial(perform, json) if ctx.invoked_subcommand is None else None


async def perform(as_json: bool, session: Session) -> int:
    """Lists them, the next one first. An invalid file is an error, unless a daemon still has the last valid one."""
    backend = await session.reader(lenient=True)
    entries, unfit = await all_schedules(session, backend)
    if as_json:
        session.json(entries)
    elif not session.facts.out_tty:
        session.data(schedule_tsv(entries))
    elif entries:
        session.show(schedule_table(entries, session.now, session.look()))
    else:
        session.say('no schedules; one is made by @job(cron="0 3 * * *") or by [[schedule]] in taskrun.toml')
    for what, hint in [] if as_json else hindrances(entries, backend.live):
        session.say(f"{cell(what)}\n  {cell(hint)}")
    if backend.live:
        return Code.DONE
    wrong = [str(session.fault)] if session.fault else unfit
    for problem in wrong:
        session.say(f"error: {lines(problem)}")
    return Code.USAGE if wrong else Code.DONE
