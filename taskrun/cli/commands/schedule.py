"""`taskrun schedule`: the jobs that are started by schedules, and when; with a job, what became of its last slots."""

from __future__ import annotations

from collections.abc import MutableMapping
from functools import cache, partial
from typing import Any

import typer
from typer.main import get_command

from taskrun.cli.backend.all_schedules import all_schedules, obstacles
from taskrun.cli.command_group import CommandGroup
from taskrun.cli.common_options import COMMON
from taskrun.cli.exit_codes import Code
from taskrun.cli.lazy_imports import DESCRIBED_JOBS, SCHEDULE_ADD, import_late
from taskrun.cli.sanitize import cell, lines
from taskrun.cli.screens.schedule import schedule_table, schedule_tsv, slots_table, slots_tsv
from taskrun.cli.session import Session

JOB = "taskrun.schedule.job"  # where the group keeps the job that was typed in place of a command below it
LAST = 20  # slots
ADD = "add"


class ScheduleGroup(CommandGroup):
    """`schedule` and what is below it, which is imported when it is asked for. Any other word is a job."""

    def collect_usage_pieces(self, ctx: Any) -> list[str]:
        """Returns what usage says: a job, or a command."""
        return ["[OPTIONS]", "[JOB | COMMAND]"]

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Takes the job out of the words, which would be a command otherwise."""
        valued = ["-n", "--last"]
        words = (at for at, word in enumerate(args) if word[:1] != "-" and (at == 0 or args[at - 1] not in valued))
        at = next(words, None)
        if at is not None and args[at] != ADD:
            ctx.meta[JOB] = args[at]
            args = [*args[:at], *args[at + 1 :]]
        parsed: list[str] = super().parse_args(ctx, args)
        return parsed

    @property
    def commands(self) -> MutableMapping[str, Any]:
        """The commands below by name."""
        return {ADD: _add()}

    @commands.setter
    def commands(self, _: Any) -> None:
        """Keeps nothing: they are always the same."""


@cache
def _add() -> Any:
    return get_command(import_late(SCHEDULE_ADD).app)


app = typer.Typer(cls=ScheduleGroup, rich_markup_mode=None, add_completion=False)


@app.callback(invoke_without_command=True)
def schedule(
    ctx: typer.Context,
    last: int = typer.Option(None, "-n", "--last", min=1, metavar="NUMBER", help=f"How many slots.  [default: {LAST}]"),
    json: bool = COMMON.json,
) -> Any:
    """List the schedules: when each fires next, when it last did, and how that ended; with JOB its last slots.

    A slot ran, is late, was missed since nothing was there to run it, or was skipped since its job was paused, or a throttle
    held it back.

    Example: taskrun schedule backup -n 5
    """
    if ctx.invoked_subcommand is not None:
        return None
    if job := ctx.meta.get(JOB):
        return partial(slots, job, last or LAST, json)
    if last:
        raise typer.BadParameter("whose slots? taskrun schedule JOB -n 20", ctx=ctx, param_hint="-n")
    return partial(perform, json)


async def slots(job: str, last: int, as_json: bool, session: Session) -> int:
    """Shows the last slots of a job, the newest first."""
    backend = await session.reader(lenient=True)
    found = await backend.call("slots", job=job, limit=last)
    if not found and all(entry["job"] != job for entry in await backend.call("schedule")):
        if session.fault is not None and not backend.live:  # the job may be in what cannot be read
            raise session.fault
        await import_late(DESCRIBED_JOBS).find_described(session, backend, job)
    if as_json:
        session.json([{name: slot[name] for name in ("cron", "slot", "state", "run", "lag")} for slot in found])
    elif not session.facts.out_tty:
        session.data(slots_tsv(found))
    elif found:
        session.show(slots_table(found, session.now, session.look()))
    else:
        session.say(f"{cell(job)} has had no slot yet; see its schedules: taskrun schedule")
    return Code.DONE


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
    for what, hint in [] if as_json else obstacles(entries, backend.live):
        session.say(f"{cell(what)}\n  {cell(hint)}")
    if backend.live:
        return Code.DONE
    wrong = [str(session.fault)] if session.fault else unfit
    for problem in wrong:
        session.say(f"error: {lines(problem)}")
    return Code.USAGE if wrong else Code.DONE
