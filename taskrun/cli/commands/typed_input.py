"""The input that was typed: read, applied to the schema of the job or pipe, and refused with all its problems."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any

import msgspec

from taskrun.cli.backend.described_jobs import described_in, loads_late
from taskrun.cli.exit_codes import Code, Stop
from taskrun.cli.inputs.field_options import ABSENT, Built, Given, build
from taskrun.cli.inputs.input_schema import InputSchema
from taskrun.cli.inputs.text_forms import MOST_INPUT, read_file
from taskrun.cli.option_names import STARTING, OwnOptions
from taskrun.cli.screens.jobs import problem_line, usage_line, with_relative_file
from taskrun.cli.session import Backend, Session
from taskrun.model.codec import encode, parse_json
from taskrun.model.errors import InputInvalid
from taskrun.processes.threads import in_thread


class Target(msgspec.Struct, frozen=True):
    """The job or pipe that was named."""

    name: str
    schema: InputSchema
    described: dict[str, Any]
    old: Sequence[dict[str, Any]] = ()  # what is wrong with files of which older code is used


async def find_target(
    session: Session, backend: Backend, name: str, kind: str = "job", own: OwnOptions = STARTING
) -> Target:
    """Returns the job or pipe of a name.

    Parameters:
        own: the options of the command itself.

    Raises:
        Stop: there is none; suggests similar names.
    """
    answer = await backend.call("jobs")
    described = described_in(answer, name, kind, loads_late(session, backend))
    old = [problem for problem in answer.get("problems") or () if problem.get("kept") or problem.get("holding")]
    return Target(name, InputSchema(described.get("input_schema"), own), described, old)


def warn_of_old_code(session: Session, target: Target) -> None:
    """Says which files could not be loaded since they were changed, so that older code is used."""
    for problem in target.old:
        session.say(f"warning: {problem_line(with_relative_file(problem, session.project.root))}")


async def read_input(session: Session, text: str) -> Any:
    """Returns the value of `--input JSON|@file|-`, `ABSENT` when it was not given.

    Raises:
        Stop: the file cannot be read, or it is not JSON.
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
        most = MOST_INPUT + 2 * session.project.max_payload  # it may contain more whitespace than it needs
        return await in_thread(read_file, session.facts.cwd / text[1:], most)
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
        Stop: it is invalid; names all its problems.
    """
    made = await make(session, target, given, base)
    if made.problems:
        raise _invalid(target, made.problems, command)
    return made.value


async def make(
    session: Session, target: Target, given: Sequence[Given], base: Any = ABSENT, complete: bool = True
) -> Built:
    """Returns the input that was typed, or what is wrong with it. Files are read on a thread."""
    work = partial(build, target.schema, given, base, folder=session.facts.cwd, complete=complete)
    return await in_thread(work) if any((text or "").startswith("@") for _, text in given) else work()


@contextmanager
def named_as_typed(target: Target, command: str) -> Iterator[None]:
    """Reports what a job finds wrong with its input by the options that were typed."""
    try:
        yield
    except InputInvalid as error:
        problems = [f"{_typed(target.schema, path)}: {text}" if path else text for path, text in error.problems]
        raise _invalid(target, problems, command) from None


def _typed(schema: InputSchema, path: str) -> str:
    field, bracket, index = path.partition("[")
    return f"--{schema.name_of(tuple(field.split('.')))}{bracket}{index}"


def _invalid(target: Target, problems: Sequence[str], command: str) -> Stop:
    hint = f"usage: {usage_line(command, target.name, target.schema)}"
    return Stop(Code.USAGE, *problems, hint=hint, kind="InputInvalid")
