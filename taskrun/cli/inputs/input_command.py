"""Commands that leave the options which they do not know to the input of a job or pipe."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import typer
from typer.core import TyperCommand

from taskrun.cli.exit_codes import Code, Stop
from taskrun.cli.inputs.field_options import Given, partition
from taskrun.cli.inputs.input_schema import InputSchema
from taskrun.cli.option_names import RUN, YIELDING, OwnOptions

GIVEN = "taskrun.given"


class InputCommand(TyperCommand):
    """A command that leaves the options it does not know to a job's input."""

    def parse_args(self, ctx: Any, args: list[str]) -> Any:
        """Sets the fields of the input aside and parses the rest."""
        mine, given = partition(args, own_options(self))
        ctx.meta[GIVEN] = given
        return super().parse_args(ctx, mine)


def own_options(command: Any) -> OwnOptions:
    """Returns the options of a command itself."""
    options = [one for one in command.params if one.param_type_name == "option"]
    flags = {name for one in options if one.is_flag for name in (*one.opts, *one.secondary_opts)}
    valued = {name for one in options if not one.is_flag for name in one.opts}
    yielding = {f"--{name}" for name in YIELDING if isinstance(command, InputCommand)}
    return OwnOptions(frozenset(flags | {"--help"}), frozenset(valued | {"--config"}) - yielding)


def own_listing(command: Any, schema: InputSchema) -> list[tuple[str, str]]:
    """Returns the options of a command itself, each with its help, spelled so that none means a field of the input."""
    shown = [one for one in command.params if one.param_type_name == "option" and not one.hidden]
    return [(f"{_spelled(one, schema)} {'' if one.is_flag else one.metavar}".rstrip(), one.help or "") for one in shown]


def _spelled(option: Any, schema: InputSchema) -> str:
    plain = str(option.opts[0]).removeprefix("--")
    if plain not in YIELDING:
        return ", ".join(option.opts)
    return f"--{plain}" if schema.find(plain) is None else f"--{RUN}{plain}"


def claimed(schema: InputSchema, given: Sequence[Given]) -> tuple[list[Given], dict[str, list[str]]]:
    """Separates the fields that were typed from the command's own options that give way to fields, by their names.

    Raises:
        Stop: one of those has no value.
    """
    fields: list[Given] = []
    own: dict[str, list[str]] = {}
    for name, text in given:
        if name not in YIELDING or schema.find(name) is not None:
            fields.append(Given(name, text))
        elif text:
            own.setdefault(name, []).append(text)
        else:
            raise Stop(Code.USAGE, f"--{name} needs a value")
    return fields, own


def given(ctx: typer.Context) -> tuple[Given, ...]:
    """Returns the fields that were typed."""
    return tuple(ctx.meta.get(GIVEN, ()))
