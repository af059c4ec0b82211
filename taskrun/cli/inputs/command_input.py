"""Commands that take an input: how their options are told apart, read, and applied to the schema of a job or pipe."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import partial
from typing import Any

import typer
from typer.core import TyperCommand

from taskrun.cli.backend.connect import in_thread
from taskrun.cli.exit_codes import Code, Stop
from taskrun.cli.inputs.conversion import MOST_INPUT, read_file
from taskrun.cli.inputs.field_options import ABSENT, Built, Given, build, partition, usage
from taskrun.cli.inputs.input_schema import InputSchema
from taskrun.cli.inputs.option_names import STARTING, Own
from taskrun.cli.inputs.targets import find_described
from taskrun.cli.session import Backend, Session
from taskrun.model import durations
from taskrun.model.codec import encode, parse_json
from taskrun.model.errors import InputInvalid

GIVEN = "taskrun.given"
LONGEST = durations.seconds("1000y")
LAST_YEAR = 9000  # a few zones and spans later there still is a calendar


class InputCommand(TyperCommand):
    """A command that leaves the options it does not know to a job's input."""

    def parse_args(self, ctx: Any, args: list[str]) -> Any:
        """Keeps the fields of the input aside and parses the rest."""
        mine, given = partition(args, own_options(self))
        ctx.meta[GIVEN] = given
        return super().parse_args(ctx, mine)


def own_options(command: Any) -> Own:
    """Returns the options that a command takes itself."""
    options = [one for one in command.params if one.param_type_name == "option"]
    flags = {name for one in options if one.is_flag for name in (*one.opts, *one.secondary_opts)}
    valued = {name for one in options if not one.is_flag for name in one.opts}
    return Own(frozenset(flags | {"--help"}), frozenset(valued | {"--config"}))


def own_listing(command: Any) -> list[tuple[str, str]]:
    """Returns the options that a command takes itself, each with its help."""
    shown = [one for one in command.params if one.param_type_name == "option" and not one.hidden]
    return [(f"{', '.join(one.opts)} {'' if one.is_flag else one.metavar}".rstrip(), one.help or "") for one in shown]


def given(ctx: typer.Context) -> tuple[Given, ...]:
    """Returns the fields that were typed."""
    return tuple(ctx.meta.get(GIVEN, ()))


# ---- finding what the input is for


@dataclass(frozen=True)
class Target:
    """The job or pipe that was named."""

    name: str
    schema: InputSchema
    described: dict[str, Any]


async def find_target(backend: Backend, name: str, kind: str = "job", own: Own = STARTING) -> Target:
    """Returns the job or pipe of a name, or says which one was meant.

    Parameters:
        own: the options of the command itself.

    Raises:
        Stop: there is none.
    """
    described = await find_described(backend, name, kind)
    return Target(name, InputSchema(described.get("input_schema"), own), described)


# ---- reading it


async def read_input(session: Session, text: str) -> Any:
    """Returns what `--input JSON|@file|-` holds, `ABSENT` when it was not given.

    Raises:
        Stop: no such file, or no JSON.
    """
    if not text:
        return ABSENT
    try:
        return parse_json(await _input_text(session, text), "--input")
    except ValueError as fault:
        raise Stop(Code.USAGE, f"--input {text}: {fault}", kind="InputInvalid") from None
    except InputInvalid as error:
        faults = [f"--input is {fault}" for _, fault in error.problems]
        raise Stop(Code.USAGE, *faults, kind="InputInvalid") from None


async def _input_text(session: Session, text: str) -> str | bytes:
    if text == "-":
        return await session.terminal.read()
    if text.startswith("@"):
        most = MOST_INPUT + 2 * session.project.max_payload  # it may be written with more room than it needs
        return await in_thread(lambda: read_file(session.facts.cwd / text[1:], most))
    return text


def as_text(session: Session, name: str, value: Any) -> str:
    """Returns an input or event as the JSON text that is sent.

    Raises:
        PayloadTooLarge: it is over the project's limit.
    """
    return encode(value, f"the input of {name}", session.project.max_payload)


async def built(session: Session, target: Target, given: Sequence[Given], base: Any, command: str) -> Any:
    """Returns the input that was typed.

    Raises:
        Stop: with all that is wrong with it.
    """
    made = await make(session, target, given, base)
    if made.problems:
        raise _invalid(target, made.problems, command)
    return made.value


async def make(
    session: Session, target: Target, given: Sequence[Given], base: Any = ABSENT, complete: bool = True
) -> Built:
    """Returns the input that was typed, or what is wrong with it; whatever reads a file holds up nobody else."""
    work = partial(build, target.schema, given, base, folder=session.facts.cwd, complete=complete)
    return await in_thread(work) if any((text or "").startswith("@") for _, text in given) else work()


@contextmanager
def named_as_typed(target: Target, command: str) -> Iterator[None]:
    """Says what a job finds wrong with its input in terms of what was typed: options."""
    try:
        yield
    except InputInvalid as error:
        problems = [f"{_typed(target.schema, path)}: {text}" if path else text for path, text in error.problems]
        raise _invalid(target, problems, command) from None


def _typed(schema: InputSchema, path: str) -> str:
    field, bracket, index = path.partition("[")
    return f"--{schema.name_of(tuple(field.split('.')))}{bracket}{index}"


def _invalid(target: Target, problems: Sequence[str], command: str) -> Stop:
    hint = f"usage: taskrun {command} {target.name} {usage(target.schema)}".rstrip()
    return Stop(Code.USAGE, *problems, hint=hint, kind="InputInvalid")


def delay(text: str) -> float | None:
    """Returns the seconds of `--in 5m`.

    Raises:
        Stop: the calendar may end before that.
    """
    seconds = durations.seconds(text, "--in") if text else None
    if seconds is not None and seconds > LONGEST:
        raise Stop(Code.USAGE, f'--in "{text}" is too long: at most 1000y')
    return seconds


def at(text: str, now: float | None = None) -> float | None:
    """Returns the moment of `--at`: RFC 3339, a local date and time, or a local time of day that is still to come.

    Raises:
        Stop: it is none of these.
    """
    if not text:
        return None
    local = datetime.fromtimestamp(time.time() if now is None else now).astimezone()
    try:
        return _moment(text, local).timestamp()
    except (ValueError, OverflowError, OSError):
        example = "18:30, 2030-01-31T18:30 or 2030-01-31T18:30:00Z"
        raise Stop(Code.USAGE, f'--at "{text}" is not a time, as in {example}') from None


def _moment(text: str, local: datetime) -> datetime:
    if "-" in text:
        moment = datetime.fromisoformat(text)
        if moment.year > LAST_YEAR:
            raise ValueError
        return moment
    moment = datetime.fromisoformat(f"{local:%Y-%m-%d} {text}").astimezone()
    return moment if moment > local else moment + timedelta(days=1)
