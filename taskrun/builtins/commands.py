"""Jobs made of the tables `[jobs.NAME]` of `taskrun.toml`: each command is a `shell` step."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

from msgspec.structs import replace

from taskrun.builtins.command_environment import read_env_file, run_variables
from taskrun.declarations.calls import StepCall
from taskrun.declarations.job import Job
from taskrun.declarations.options import Options
from taskrun.declarations.pipe import Pipe, Source
from taskrun.declarations.plain import reach
from taskrun.declarations.steps import Completed, current
from taskrun.model.codec import encode, parse_json, plain
from taskrun.model.command_config import Command, CommandStep, CommandTable, Output, PipeTable
from taskrun.model.errors import InputInvalid, OutputInvalid
from taskrun.model.fields_shape import FieldsShape
from taskrun.model.group_config import limit_id
from taskrun.model.input_fields import InputField
from taskrun.model.records import StepKind
from taskrun.model.schema import Schema
from taskrun.model.signature import whole
from taskrun.model.templates import as_arguments, as_text, in_shell, parse_template
from taskrun.rules.policies import Concurrency, Cron

SourceLine = tuple[str, int]  # a file and a line of it


class CommandJob(Job):
    """A job whose handler runs the commands of a table.

    Parameters:
        root: the project's folder, to which `cwd` and `env_file` are relative.
        place: the file and the line of the table.
        triggers: pipes and jobs that start it.
    """

    def __init__(
        self, table: CommandTable, root: Path, cwd: Path, place: SourceLine, triggers: Sequence[Source]
    ) -> None:
        super().__init__(_handler(table, root, cwd), _options(table, triggers))
        self.file, self.line = place
        self._table = table

    @cached_property
    def input(self) -> Schema:
        """What a trigger must look like: the fields of the table."""
        return _schema(self._table.input, self.name)

    def describe(self) -> dict[str, Any]:
        """Returns what screens show of it, as JSON."""
        return {**super().describe(), "commands": [_shown(step.command) for step in self._table.steps]}


def command_pipe(table: PipeTable, place: SourceLine) -> Pipe:
    """Returns the pipe of a table."""
    made = Pipe(table.name, None, *place)
    if table.input is not None:
        made.schema = _schema(table.input, table.name)
    return made


def input_of_event(table: CommandTable, topic: str) -> Callable[[Any], dict[str, Any]]:
    """Returns what makes an input of an event or output: the fields that the table declares."""
    names = [field.name for field in table.input]

    def take(value: Any) -> dict[str, Any]:
        found = plain(encode(value, topic))
        if isinstance(found, dict):
            return {name: found[name] for name in names if name in found}
        raise InputInvalid(table.name, [("", "there is no object to take fields from")])

    return take


def _schema(fields: Sequence[InputField], name: str) -> Schema:
    return Schema(name, FieldsShape(fields), whole())


def _options(table: CommandTable, triggers: Sequence[Source]) -> Options:
    options: Options = {
        "name": table.name,
        "retry": 0,
        "trigger": triggers,
        "cron": [_cron(cron, table) for cron in table.crons],
        **table.options,  # type: ignore[typeddict-item]  # their names and values were checked when the table was read
    }
    if table.group is not None:
        options["concurrency"] = Concurrency(limit_id(table.group), table.slots)
    if table.key is not None:
        template = parse_template(table.key, [field.name for field in table.input])
        options["key"] = lambda values: as_text(template, values)
    return options


def _cron(expr: str, table: CommandTable) -> Cron:
    return Cron(expr, table.timezone, catch_up=table.catch_up, within=table.within, late=table.late, slow=table.slow)


# ---- the handler


def _handler(table: CommandTable, root: Path, cwd: Path) -> Callable[[Any], Any]:
    fields = [field.name for field in table.input]
    commands = [(step, _filler(step.command, fields)) for step in table.steps]
    output = _OUTPUTS[table.output]

    async def handler(values: dict[str, Any]) -> Any:
        done: Completed | None = None
        with run_variables(current()) as facts:
            for step, fill in commands:
                folder = root / Path(step.cwd or table.cwd or cwd).expanduser()
                call = _call(step, fill(values), table, folder, {**_variables(step, table, root), **facts})
                same = values if step.named else (step.command, values)  # its position may be another's after an edit
                done = await reach(f'step "{step.name}"').step(replace(call, compared=same))
        return None if done is None else output(done)

    handler.__doc__ = table.description
    return handler


def _filler(command: Command, fields: Sequence[str]) -> Callable[[Mapping[str, Any]], Command]:
    if isinstance(command, str):
        template = parse_template(command, fields)
        return lambda values: in_shell(template, values)
    templates = [parse_template(item, fields) for item in command]
    return lambda values: as_arguments(templates, values)


def _variables(step: CommandStep, table: CommandTable, root: Path) -> dict[str, str]:
    file = {} if table.env_file is None else read_env_file(root / Path(table.env_file).expanduser(), os.environ)
    return {**file, **table.env, **step.env}


def _call(step: CommandStep, command: Command, table: CommandTable, cwd: Path, env: Mapping[str, str]) -> StepCall:
    return StepCall(
        kind=StepKind.SHELL,
        name=step.name,
        command=command,
        cwd=cwd,
        env=env,
        check=step.success_codes or table.success_codes,
        retry=step.retry,
        timeout=step.timeout,
        survive=True,
        rerun=table.rerun,
        output_type=Completed,
    )


def _text(done: Completed) -> str:
    return done.stdout.removesuffix("\n")


_CUT = r"(?m)^… \d+ bytes left out …$"


def _json(done: Completed) -> Any:
    try:
        return parse_json(done.stdout, "the output")
    except InputInvalid as error:
        if re.search(_CUT, done.stdout):
            raise OutputInvalid("the command printed more than 1 MB, of which head and tail are kept") from None
        raise OutputInvalid(f"what the command printed is not JSON: {error.problems[0][1]}") from None


_OUTPUTS: dict[Output, Callable[[Completed], Any]] = {"text": _text, "json": _json, "none": lambda done: None}


def _shown(command: Command) -> str:
    return command if isinstance(command, str) else " ".join(command)
