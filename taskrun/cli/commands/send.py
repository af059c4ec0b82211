"""`taskrun send`: sends an event into a pipe."""

from __future__ import annotations

from functools import partial
from typing import Any

import typer

from taskrun.cli.commands import typed_input
from taskrun.cli.commands.start import show_help
from taskrun.cli.common_options import COMMON
from taskrun.cli.exit_codes import Code
from taskrun.cli.inputs import input_command
from taskrun.cli.inputs.field_options import Given
from taskrun.cli.inputs.input_command import InputCommand
from taskrun.cli.sanitize import cell
from taskrun.cli.screens.phrases import named, short
from taskrun.cli.session import Session

MOST_LINES = 5  # of runs that are named

app = typer.Typer(rich_markup_mode=None, add_completion=False)


@app.command(cls=InputCommand, add_help_option=False)
def send(
    ctx: typer.Context,
    pipe: str = typer.Argument("", metavar="PIPE"),
    input: str = COMMON.input,
    json: bool = COMMON.json,
    quiet: bool = COMMON.quiet,
    help: bool = COMMON.help,
) -> Any:
    """Send an event into a pipe; returns once it is durable.

    Says which runs it started or woke, or that nobody waits for it.
    The pipe's input gives its options: taskrun send PIPE --help lists them.

    Example: taskrun send uploads --path song.mp3
    """
    if pipe and help:
        return partial(show_help, "pipe", pipe, ctx)
    if not pipe and not help:
        raise typer.BadParameter("name a pipe; taskrun jobs lists them", ctx=ctx, param_hint="PIPE")
    if not pipe:
        typer.echo(ctx.get_help())
        return None
    return partial(perform, pipe, input_command.given(ctx), input, json, quiet)


async def perform(pipe: str, given: tuple[Given, ...], text: str, as_json: bool, quiet: bool, session: Session) -> int:
    """Sends the event; prints its id, and what it started or woke."""
    backend = await session.daemon()
    base = await typed_input.read_input(session, text)
    target = await typed_input.find_target(session, backend, pipe, "pipe")
    typed_input.warn_of_old_code(session, target)
    data = typed_input.as_text(session, pipe, await typed_input.built(session, target, given, base, "send"))
    with typed_input.named_as_typed(target, "send"):
        event = await backend.call("send", pipe=pipe, data=data)
    if as_json:
        session.json(event)
    elif session.facts.out_tty and not quiet:
        session.say("\n  ".join([f"sent to {cell(pipe)}: {event['id']}", *outcome(event)]))
    else:
        session.data(f"{event['id']}\n")
        if not (quiet or event["started"] or event["woke"]):
            session.say("\n  ".join(outcome(event)))
    return Code.DONE


def outcome(event: dict[str, Any]) -> list[str]:
    """Returns what became of an event as lines, and what to type next."""
    runs = [*event["started"], *event["woke"]]
    found = [
        *(f"started {_named(run)}" for run in event["started"]),
        *(f"woke {_named(run)}" for run in event["woke"]),
        *(f"{cell(job)} refused it: {cell(text)}" for job, text in event["refused"].items()),
        *(f"{cell(job)} is started later: no worker has answered yet" for job in event["later"]),
    ]
    if not found:
        skipped = ", ".join(map(cell, event["skipped"]))
        return [f"nobody waits for this: {skipped} skipped it" if skipped else "nobody waits for this"]
    more = [f"and {len(found) - MOST_LINES} more"] if len(found) > MOST_LINES else []
    hint = f"see it: taskrun show {short(runs[0]['id'])}" if len(runs) == 1 else "see them: taskrun list"
    return [*found[:MOST_LINES], *more, *([hint] if runs or event["later"] else [])]


def _named(run: dict[str, Any]) -> str:
    discarded = " (discarded)" if run["status"] == "discarded" else ""
    return f"{short(run['id'])} {named(run)}{discarded}"
