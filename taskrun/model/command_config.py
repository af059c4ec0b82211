"""The tables `[jobs.NAME]` and `[pipes.NAME]`: jobs that are commands, and pipes, without a line of Python.

Read here as they are written; `builtins.commands` makes jobs of them. What a cron expression says is checked by
`rules.schedule_tables`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, get_args

import msgspec

from taskrun.model import durations
from taskrun.model.catch_up import CatchUp
from taskrun.model.config_keys import (
    COUNT,
    DURATION,
    Key,
    TablePlace,
    any_text,
    count,
    mapping,
    natural,
    nonempty,
    one_of,
    section_of,
    texts,
)
from taskrun.model.durations import shown
from taskrun.model.errors import ConfigError, DefinitionError
from taskrun.model.files_config import EVENT, PATTERN, patterns
from taskrun.model.group_config import check_group, read_groups, slots_of
from taskrun.model.input_fields import InputField, read_fields
from taskrun.model.names import check_free, check_name
from taskrun.model.shell_syntax import check_fields
from taskrun.model.tags import checked_tags
from taskrun.model.templates import Template, parse_template

Output = Literal["text", "json", "none"]
Command = str | list[str]


class CommandStep(msgspec.Struct, frozen=True, kw_only=True):
    """One command of a job. What it does not say itself, the job says: `None`, and `env`, to which it adds.

    Parameters:
        named: whether its name says what it is, rather than where it stands.
    """

    name: str
    named: bool = True
    command: Command
    cwd: str | None = None
    env: dict[str, str] = {}
    success_codes: tuple[int, ...] | None = None
    timeout: float | None = None
    retry: int = 0


class CommandTable(msgspec.Struct, frozen=True, kw_only=True):
    """A `[jobs.NAME]`.

    Parameters:
        options: those of `@job` that were written, by their names there, but for `cron trigger key`.
    """

    name: str
    input: list[InputField]
    steps: list[CommandStep]
    description: str = ""
    cwd: str | None = None
    env: dict[str, str] = {}
    env_file: str | None = None
    success_codes: tuple[int, ...] = (0,)
    output: Output = "text"
    trigger: list[str] = []
    files: list[str] = []
    key: str | None = None
    group: str | None = None
    slots: int = 1
    crons: list[str] = []
    timezone: str | None = None
    catch_up: CatchUp = "skip"
    within: float | None = None
    late: float | None = None
    slow: float | None = None
    rerun: bool = True
    options: dict[str, Any] = {}

    @property
    def place(self) -> str:
        """How a message calls it."""
        return f"[jobs.{self.name}]"


class PipeTable(msgspec.Struct, frozen=True, kw_only=True):
    """A `[pipes.NAME]`; without `input` its events may be anything."""

    name: str
    input: list[InputField] | None = None


class CommandFile(msgspec.Struct, frozen=True, kw_only=True):
    """What a `taskrun.toml` declares.

    Parameters:
        cwd: where commands run that do not say.
    """

    path: str = ""
    cwd: str = ""
    commands: list[CommandTable] = []
    pipes: list[PipeTable] = []

    @property
    def timed(self) -> bool:
        """Whether a command has a schedule."""
        return any(table.crons for table in self.commands)


def read_commands(document: dict[str, Any], path: Path) -> list[CommandTable]:
    """Reads the tables `[jobs.NAME]` of a document.

    Raises:
        ConfigError: one is wrong; names file, table and key.
    """
    groups = read_groups(document, path)
    return [_job(name, table, place, groups) for name, table, place in _tables(document, "jobs", path)]


def read_pipes(document: dict[str, Any], path: Path) -> list[PipeTable]:
    """Reads the tables `[pipes.NAME]` of a document.

    Raises:
        ConfigError: one is wrong; names file, table and key.
    """
    return [_pipe(name, table, place) for name, table, place in _tables(document, "pipes", path)]


def _tables(document: dict[str, Any], section: str, path: Path) -> Iterator[tuple[str, dict[str, Any], TablePlace]]:
    for name, table in section_of(document, section, path).items():
        if not isinstance(table, dict):
            raise ConfigError(f"{path}: {section}.{name} must be a table, written [{section}.{name}]")
        place = TablePlace(path, f"[{section}.{name}]")
        try:
            check_name(name, section.removesuffix("s"))
            if section == "jobs":
                check_free(name)
        except DefinitionError as error:
            raise place.error(str(error)) from None
        yield name, table, place


# ---- readers of values


def _command(value: Any) -> Command:
    if isinstance(value, str):
        return nonempty(value)
    if isinstance(value, list) and value:
        return [nonempty(value[0]), *map(any_text, value[1:])]
    raise ValueError


def _variables(value: Any) -> dict[str, str]:
    found = mapping(value)
    for name in found:
        if not name or set(name) & {"=", "\0"}:
            raise ConfigError(f"{shown(name)} cannot be the name of a variable")
        any_text(found[name])
    return found


def _flag(value: Any) -> bool:
    if isinstance(value, bool):
        return value
    raise ValueError


def _codes(value: Any) -> tuple[int, ...]:
    if isinstance(value, list) and value and all(type(code) is int and -255 <= code <= 255 for code in value):
        return tuple(value)
    raise ValueError


def _group(value: Any) -> str:
    try:
        return check_group(nonempty(value))
    except DefinitionError:
        raise ValueError from None


def _steps(value: Any) -> list[Any]:
    if isinstance(value, list) and value:
        return value
    raise ValueError


def _one_or_more(value: Any) -> list[str]:
    return [nonempty(value)] if isinstance(value, str) else texts(value)


def _whole(value: Any) -> int:
    if type(value) is int and abs(value) < 2**63:
        return value
    raise ValueError


def _limit(value: Any) -> Any:
    return durations.frequency(value) and value if isinstance(value, str) else natural(value) or _refuse()


def _period(value: Any) -> Any:
    return value if durations.period(value) > 0 else _refuse()


def _backoff(value: Any) -> Any:
    return [_duration(one) for one in value] or _refuse() if isinstance(value, list) else _duration(value)


def _duration(value: Any) -> Any:
    durations.seconds(value)
    return value


def _refuse() -> Any:
    raise ValueError


_COMMAND = "a text, which goes to the shell, or a list of texts, which is executed as it is"
_CODES = "a list of exit codes, such as [0, 1]"
_NATURAL = "a whole number of 0 or more"
_TABLE = "a table"
STEP = {
    "name": Key("text", nonempty),
    "command": Key(_COMMAND, _command, needed=True),
    "cwd": Key("a folder", nonempty),
    "env": Key("a table of texts", _variables, {}),
    "success_codes": Key(_CODES, _codes),
    "timeout": Key(DURATION, durations.seconds),
    "retry": Key(_NATURAL, natural, 0),
}
OPTIONS = {
    "retry": Key(_NATURAL, natural, 0),
    "backoff": Key(f"{DURATION}, or a list of them", _backoff),
    "timeout": Key(DURATION, _duration),
    "concurrency": Key('a whole number of 1 or more, or a frequency such as "3/s"', _limit),
    "throttle": Key('a duration such as "10s", or a frequency such as "3/s"', _period),
    "debounce": Key('a duration such as "10s", or a frequency such as "3/s"', _period),
    "priority": Key("a whole number", _whole, 0),
    "tags": Key('a table of texts whose names are letters, digits and _ . -, such as { env = "prod" }', checked_tags),
    "on_exhausted": Key('"fail" or "pause"', one_of("fail", "pause"), "fail"),
    "key_ttl": Key(DURATION, _duration, "24h"),
}
JOB = {
    "description": Key("text", any_text, ""),
    "command": Key(_COMMAND, _command),
    "steps": Key("a list of commands", _steps),
    "input": Key(_TABLE, mapping, {}),
    "cwd": Key("a folder", nonempty),
    "env": Key("a table of texts", _variables, {}),
    "env_file": Key("a file", nonempty),
    "rerun": Key("true or false", _flag, True),
    "success_codes": Key(_CODES, _codes, [0]),
    "output": Key('"text", "json" or "none"', one_of(*get_args(Output)), "text"),
    "trigger": Key("a list of names of pipes and jobs", _one_or_more, []),
    "files": Key(PATTERN.expected, patterns),
    "key": Key('a text with fields, such as "{path}"', nonempty),
    "group": Key("a name that can be printed", _group),
    "slots": Key(COUNT, count),
    "cron": Key('a cron expression such as "0 3 * * *", or a list of them', _one_or_more, []),
    "timezone": Key('a time zone such as "Europe/Berlin"', nonempty),
    "catch_up": Key('"skip", "one" or "all"', one_of(*get_args(CatchUp)), "skip"),
    "within": Key(DURATION, durations.seconds),
    "late": Key(DURATION, durations.seconds),
    "slow": Key(DURATION, durations.seconds),
    **OPTIONS,
}
PIPE = {"input": Key(_TABLE, mapping)}
NEEDS = {
    **dict.fromkeys(("timezone", "catch_up", "within", "late", "slow"), "cron"),
    "key_ttl": "key",
    "slots": "group",
}  # keys that do nothing without another


# ---- tables


def _job(name: str, table: dict[str, Any], place: TablePlace, groups: Mapping[str, int]) -> CommandTable:
    read = place.read(table, JOB)
    for key, other in NEEDS.items():
        if key in table and other not in table:
            raise place.error(f"{key} does nothing without {other}")
    if "group" in table and "concurrency" in table:
        raise place.error("has both group and concurrency; it takes one of them")
    fields = read_fields(read["input"], place)
    _check_cron(read["cron"], fields, place)
    _check_files(read["files"], fields, place)
    names = [field.name for field in fields]
    if read["key"] is not None:
        _parsed(read["key"], names, place.at("key"))
    return CommandTable(
        name=name,
        input=fields,
        steps=_commands(read, names, place),
        crons=read["cron"],
        slots=slots_of(read["group"] or "", read["slots"], groups),
        files=read["files"] or [],
        options={option: read[option] for option in OPTIONS if option in table},
        **{key: read[key] for key in _AS_WRITTEN},
    )


_AS_WRITTEN = (
    "description",
    "cwd",
    "env",
    "env_file",
    "rerun",
    "success_codes",
    "output",
    "trigger",
    "key",
    "group",
    "timezone",
    "catch_up",
    "within",
    "late",
    "slow",
)


def _pipe(name: str, table: dict[str, Any], place: TablePlace) -> PipeTable:
    written = place.read(table, PIPE)["input"]
    return PipeTable(name=name, input=None if written is None else read_fields(written, place, types=True))


def _check_cron(crons: Sequence[str], fields: Sequence[InputField], place: TablePlace) -> None:
    required = [field.name for field in fields if field.required]
    if crons and required:
        several = "have no defaults" if len(required) > 1 else "has no default"
        needed = f"{', '.join(required)} {several}, which a schedule needs"
        raise place.error(f"cron: {needed}; or write a [[schedule]] with its input")


def _check_files(files: Sequence[str] | None, fields: Sequence[InputField], place: TablePlace) -> None:
    missing = [field.name for field in fields if field.required and field.name not in EVENT]
    if files and missing:
        raise place.error(
            f"files: a file gives {', '.join(EVENT)}, and {missing[0]} has no default; or write a [[files]] with its input"
        )


def _commands(read: Mapping[str, Any], fields: Sequence[str], place: TablePlace) -> list[CommandStep]:
    command, listed = read["command"], read["steps"]
    if (command is None) is (listed is None):
        what = "needs command or steps" if command is None else "has both command and steps; it takes one of them"
        raise place.error(what)
    if listed is None:
        _check_command(command, fields, place.at("command"))
        return [CommandStep(name="command", command=command)]
    steps = [_step(one, number, fields, place.at(f"steps {number}")) for number, one in enumerate(listed, 1)]
    for number, step in enumerate(steps):
        if step.name in {earlier.name for earlier in steps[:number]}:
            raise place.error(f"steps: two are named {step.name}")
    return steps


def _step(written: Any, number: int, fields: Sequence[str], place: TablePlace) -> CommandStep:
    read = place.read(written if isinstance(written, dict) else {"command": written}, STEP)
    _check_command(read["command"], fields, place.at("command"))
    named = read["name"] is not None
    return CommandStep(**{**read, "name": read["name"] if named else f"step-{number}"}, named=named)


def _check_command(command: Command, fields: Sequence[str], place: TablePlace) -> None:
    if isinstance(command, list):
        for item in command:
            _parsed(item, fields, place)
        return
    template = _parsed(command, fields, place)
    try:
        check_fields(template)
    except ValueError as error:
        raise place.error(str(error)) from None


def _parsed(text: str, fields: Sequence[str], place: TablePlace) -> Template:
    try:
        return parse_template(text, fields)
    except ValueError as error:
        raise place.error(str(error)) from None
