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
from taskrun.cli.session import Session

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
    """Sends the event and prints its id."""
    backend = await session.daemon()
    base = await typed_input.read_input(session, text)
    target = await typed_input.find_target(backend, pipe, "pipe")
    data = typed_input.as_text(session, pipe, await typed_input.built(session, target, given, base, "send"))
    with typed_input.named_as_typed(target, "send"):
        event = await backend.call("send", pipe=pipe, data=data)
    if as_json:
        session.json(event)
    elif quiet or not session.facts.out_tty:
        session.data(f"{_id(event)}\n")
    else:
        session.say(f"sent to {cell(pipe)}: {_id(event)}\n  see what it starts: taskrun list")
    return Code.DONE


def _id(event: Any) -> str:
    return cell(str(event["id"] if isinstance(event, dict) else event))
