"""`taskrun schedule add`: a `[[schedule]]` that is appended to `taskrun.toml`."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any, get_args

import typer

from taskrun.cli.backend.all_schedules import merged
from taskrun.cli.backend.toml_file import append_table, locked
from taskrun.cli.commands import typed_input
from taskrun.cli.commands.start import help_of
from taskrun.cli.common_options import COMMON, text_option
from taskrun.cli.exit_codes import Code, Stop
from taskrun.cli.inputs import input_command
from taskrun.cli.inputs.field_options import Given
from taskrun.cli.inputs.input_command import InputCommand
from taskrun.cli.lazy_imports import JOB_FILES, import_late
from taskrun.cli.option_names import OwnOptions
from taskrun.cli.screens.schedule import schedule_table, schedule_tsv
from taskrun.cli.session import Backend, Session
from taskrun.model.catch_up import CatchUp
from taskrun.model.config import schedule_tables
from taskrun.processes.threads import in_thread

app = typer.Typer(rich_markup_mode=None, add_completion=False)
SCHEDULE = "schedule"  # the name of its tables


@app.command(cls=InputCommand, add_help_option=False)
def add(
    ctx: typer.Context,
    job: str = typer.Argument("", metavar="JOB"),
    cron: str = typer.Argument("", metavar="CRON", help='As in "0 3 * * *", or @hourly.'),
    timezone: str = text_option("--timezone", "ZONE", "Instead of the machine's, as in Europe/Berlin."),
    catch_up: str = text_option(
        "--catch-up", "|".join(get_args(CatchUp)), "Which of the slots that were missed run after all."
    ),
    input: str = COMMON.input,
    json: bool = COMMON.json,
    help: bool = COMMON.help,
) -> Any:
    """Append a schedule to taskrun.toml, after checking it; what is there stays as it is.

    The job's input gives its options: taskrun schedule add JOB --help lists them.

    Example: taskrun schedule add hello "0 3 * * *" --name Ada
    """
    if not job or help:
        return help_of(ctx, job)
    if not cron:
        raise typer.BadParameter('say when, as in "0 3 * * *"', ctx=ctx, param_hint="CRON")
    written = {"job": job, "cron": cron, "timezone": timezone, "catch_up": catch_up}
    table = {name: value for name, value in written.items() if value}
    return partial(append, table, input_command.given(ctx), input, input_command.own_options(ctx.command), json)


async def append(
    table: dict[str, Any], given: Sequence[Given], text: str, own: OwnOptions, as_json: bool, session: Session
) -> int:
    """Checks a schedule, writes it and says when it fires first."""
    config = session.config
    backend = await session.reader()
    base = await typed_input.read_input(session, text)
    target = await typed_input.find_target(session, backend, table["job"], own=own)
    if made := await typed_input.built(session, target, given, base, "schedule add"):
        table["input"] = made
    async with locked(config):
        if backend.live:
            await _with_daemon(backend, config.path, table, session)
        else:  # nobody else can check the input
            check = import_late(JOB_FILES).check_inputs
            await in_thread(lambda: append_table(config.path, SCHEDULE, table, session.facts.env, check))
        (entry,) = merged([], [schedule_tables(config.path)[-1]], None, session.now)
    if as_json:
        session.json(entry)
    elif not session.facts.out_tty:
        session.data(schedule_tsv([entry]))
    else:
        session.show(schedule_table([entry], session.now, session.look()))
    if not as_json:
        session.say(f"  added to {config.path}" + ("" if backend.live else "; it needs a daemon: taskrun daemon start"))
    return Code.DONE


async def _with_daemon(backend: Backend, path: Path, table: dict[str, Any], session: Session) -> None:
    """Appends a schedule and has the daemon check its input; what does not fit is taken back.

    Raises:
        Stop: it does not fit.
    """
    known = (await backend.call("config"))["problem"]
    appended = append_table(path, SCHEDULE, table, session.facts.env, lambda _: None)
    problem = (await backend.call("config"))["problem"]
    if problem and problem != known:
        left = (
            "" if appended.undo() else f"{path} was changed meanwhile, so the schedule still stands there: take it out"
        )
        raise Stop(Code.USAGE, problem, hint=left, kind="ConfigError")
