"""Commands that leave the options which they do not know to the input of a job or pipe."""

from __future__ import annotations

from typing import Any

import typer
from typer.core import TyperCommand

from taskrun.cli.inputs.field_options import Given, partition
from taskrun.cli.option_names import Own

GIVEN = "taskrun.given"


class InputCommand(TyperCommand):
    """A command that leaves the options it does not know to a job's input."""

    def parse_args(self, ctx: Any, args: list[str]) -> Any:
        """Sets the fields of the input aside and parses the rest."""
        mine, given = partition(args, own_options(self))
        ctx.meta[GIVEN] = given
        return super().parse_args(ctx, mine)


def own_options(command: Any) -> Own:
    """Returns the options of a command itself."""
    options = [one for one in command.params if one.param_type_name == "option"]
    flags = {name for one in options if one.is_flag for name in (*one.opts, *one.secondary_opts)}
    valued = {name for one in options if not one.is_flag for name in one.opts}
    return Own(frozenset(flags | {"--help"}), frozenset(valued | {"--config"}))


def own_listing(command: Any) -> list[tuple[str, str]]:
    """Returns the options of a command itself, each with its help."""
    shown = [one for one in command.params if one.param_type_name == "option" and not one.hidden]
    return [(f"{', '.join(one.opts)} {'' if one.is_flag else one.metavar}".rstrip(), one.help or "") for one in shown]


def given(ctx: typer.Context) -> tuple[Given, ...]:
    """Returns the fields that were typed."""
    return tuple(ctx.meta.get(GIVEN, ()))
