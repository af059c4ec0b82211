"""Candidates for the next word of a command line: commands, options, and values that exist at the moment.

The metavar of an option or argument (`RUN`, `JOB`, `STATUS` …) decides which values it takes. If there are no candidates, the
shell offers files.
"""

from __future__ import annotations

import glob
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from taskrun.cli import times
from taskrun.cli.backend.paging import all_runs
from taskrun.cli.command_table import COMMANDS, find
from taskrun.cli.inputs.input_command import InputCommand, own_options
from taskrun.cli.inputs.input_schema import Field, InputSchema, choices, kind
from taskrun.cli.inputs.text_forms import form_of
from taskrun.cli.inputs.usage import listing
from taskrun.cli.option_names import STARTING, OwnOptions
from taskrun.cli.sanitize import cell, cut
from taskrun.cli.screens.phrases import given, named, short_ids
from taskrun.cli.session import Backend, Session
from taskrun.model.names import RESERVED
from taskrun.model.records import ENDED, UNFINISHED, Status

SHELLS = ("bash", "zsh", "fish")
RUNS = 50  # candidates
FILES = 200
ABOUT = 70  # characters of a description
STATUSES: dict[str, list[str]] = {  # of the runs that a command can be used on; any for other commands
    **dict.fromkeys(("cancel", "wait", "pause", "why"), sorted(UNFINISHED)),
    "resume": [Status.PAUSED],
    "retry": sorted(ENDED),
}


class Candidate(NamedTuple):
    """A candidate for the next word, and its description."""

    value: str
    about: str = ""


@dataclass
class Line:
    """A command line as far as it was typed, parsed without being executed.

    Parameters:
        names: the command, with a subcommand where it has some.
        command: the same, as an object.
        words: what was typed after it.
        current: the word that is being typed; may be empty.
    """

    names: list[str]
    command: Any
    words: list[str]
    current: str
    arguments: list[str] = field(default_factory=list)
    pending: str = ""  # the option before the current word, if it takes a value

    @property
    def own(self) -> OwnOptions:
        """The options of the command itself."""
        return own_options(self.command)

    @property
    def open(self) -> bool:
        """Whether it takes the options of a job or a pipe too."""
        return isinstance(self.command, InputCommand)


async def complete(words: Sequence[str], session: Session) -> list[Candidate]:
    """Returns the candidates for the last word."""
    line = parse_words(words)
    found = await _candidates(line, session)
    return [one for one in found if one.value.startswith(line.current)]


def parse_words(words: Sequence[str]) -> Line:
    """Parses a command line whose last word is being typed."""
    *typed, current = words or [""]
    names: list[str] = []
    command: Any = None
    while typed and (inner := _inner(command, typed[0])) is not None:
        names.append(typed.pop(0))
        command = inner
    line = Line(names, command, typed, current)
    if command is not None and not hasattr(command, "commands"):
        _read(line)
    return line


def _inner(command: Any, name: str) -> Any:
    return find(name) if command is None else getattr(command, "commands", {}).get(name)


def _read(line: Line) -> None:
    """Finds the arguments, and the option that takes the current word as its value, among the words."""
    flags, valued = line.own.flags, line.own.valued
    rest = list(line.words)
    while rest:
        word = rest.pop(0)
        if not word.startswith("-") or word == "-":
            line.arguments.append(word)
        elif word in valued or (line.open and word.startswith("--") and "=" not in word and word not in flags):
            line.pending = "" if rest and (word in valued or not rest[0].startswith("--")) else word
            del rest[: not line.pending]


async def _candidates(line: Line, session: Session) -> list[Candidate]:
    if line.command is None and line.words:
        return []
    if line.command is None:
        return [Candidate(name, _summary(find(name))) for name in COMMANDS if not find(name).hidden]
    inner = getattr(line.command, "commands", None)
    if inner is not None and line.current.startswith("-"):
        return _options(line)
    if inner is not None:
        below = [Candidate(name, _summary(command)) for name, command in inner.items()]
        return below + (await _jobs(line, session) if line.names == ["schedule"] else [])
    name, equals, _ = line.current.partition("=")
    if equals and name.startswith("--"):
        return [Candidate(f"{name}={one.value}", one.about) for one in await _values(line, name, session)]
    found = [] if not line.pending else await _values(line, line.pending, session)
    if found or (line.pending and not await _flag(line, session)):
        return found
    if line.current.startswith("-"):
        return _options(line) + await _fields(line, session)
    return await _argument(line, session)


def _summary(command: Any) -> str:
    return cut((command.help or "").partition("\n")[0], ABOUT)


# ---- options


def _options(line: Line) -> list[Candidate]:
    return [
        Candidate(name, cut(str(option.help or ""), ABOUT))
        for option in line.command.params
        if option.param_type_name == "option" and not option.hidden
        for name in (*option.opts, *option.secondary_opts)
        if name.startswith("--")
    ] + [Candidate("--help", "Show the help.")] * (not line.open)


async def _fields(line: Line, session: Session) -> list[Candidate]:
    """Returns the options of a job's or pipe's input, if one was named."""
    schema = await _schema(line, session)
    rows = [] if schema is None else listing(schema)
    return [
        Candidate(name.split(" ")[0], cut(cell(about), ABOUT))
        for shown, about in rows
        if shown.split(" ")[0] != "--NAME"
        for name in shown.split(" / ")
    ]


async def _schema(line: Line, session: Session) -> InputSchema | None:
    if not line.open:
        return None
    sort = "pipes" if line.names == ["send"] else "jobs"
    name = _after(line, "--job") if line.names == ["cancel"] else (line.arguments or [""])[0]
    answer = await (await session.reader()).call("jobs")
    described = [one for one in answer[sort] if one["name"] == name]
    own = line.own if line.names == ["cancel"] else STARTING
    return InputSchema(described[0].get("input_schema"), own) if described else None


def _after(line: Line, option: str) -> str:
    """Returns the value that was typed for an option."""
    for at, word in enumerate(line.words):
        if word == option:
            return (line.words[at + 1 : at + 2] or [""])[0]
        if word.startswith(f"{option}="):
            return word.partition("=")[2]
    return ""


async def _field(line: Line, name: str, session: Session) -> Field | None:
    schema = await _schema(line, session)
    return None if schema is None else schema.find(name.removeprefix("--"))


async def _flag(line: Line, session: Session) -> bool:
    """Whether the option before the current word is a flag of the input, which takes no value."""
    found = await _field(line, line.pending, session)
    return line.pending not in line.own.valued and (found is None or found.flag)


# ---- values


async def _values(line: Line, option: str, session: Session) -> list[Candidate]:
    for param in line.command.params:
        if option in (*param.opts, *param.secondary_opts):
            return await _taken(line, str(param.metavar or ""), session)
    found = await _field(line, option, session)
    if found is None:
        return []
    schema = found.schema.get("items", {}) if found.many else found.schema
    if (form := form_of(schema)) is not None and "@FILE" in form.metavar:
        return await _files(line, session)
    if kind(schema) == "boolean":
        return [Candidate("true"), Candidate("false")] if "=" in line.current else []
    return [Candidate(str(one)) for one in choices(schema)] if kind(schema) == "enum" else []


async def _argument(line: Line, session: Session) -> list[Candidate]:
    params = [param for param in line.command.params if param.param_type_name == "argument"]
    at = len(line.arguments)
    if at >= len(params) and not (params and params[-1].nargs == -1):
        return []
    return await _taken(line, str(params[min(at, len(params) - 1)].metavar or ""), session)


async def _taken(line: Line, metavar: str, session: Session) -> list[Candidate]:
    """Returns the values of every kind that a metavar names."""
    kinds = [part for part in metavar.strip("[].…").replace("]", "|").split("|") if part in VALUES]
    return [one for part in kinds for one in await VALUES[part](line, session)]


async def _runs(line: Line, session: Session) -> list[Candidate]:
    backend = await session.reader()
    found = await all_runs(backend, RUNS, status=STATUSES.get(line.names[0]))
    known = [run for run in found if run["id"] not in line.arguments]
    shown = short_ids([run["id"] for run in known])
    ids = [Candidate(_as_long(run["id"], shown[run["id"]], line.current), _about(run, session.now)) for run in known]
    newest = {run["job"]: run for run in reversed(await all_runs(backend, RUNS))}
    lasts = [Candidate(f"{job}@last", _about(run, session.now)) for job, run in newest.items()] if line.current else []
    return [*ids, *([Candidate("@last", "the newest run that is no child")] if newest else []), *lasts]


def _as_long(run_id: str, shown: str, current: str) -> str:
    """Returns the short id, or as many characters of the id as were typed already."""
    return run_id[: max(len(shown), len(current))]


def _about(run: dict[str, Any], now: float) -> str:
    ago = times.age(max(0.0, now - (times.moment(run["created_at"]) or now)))
    return cut(f"{named(run)} {run['status']} {ago} ago  {given(run)}".rstrip(), ABOUT)


async def _jobs(line: Line, session: Session) -> list[Candidate]:
    return [one for one in await _declared("jobs", session) if one.value not in RESERVED]


async def _pipes(line: Line, session: Session) -> list[Candidate]:
    return await _declared("pipes", session)


async def _declared(sort: str, session: Session) -> list[Candidate]:
    answer = await (await session.reader()).call("jobs")
    return [Candidate(one["name"], cut(cell(one.get("description") or ""), ABOUT)) for one in answer[sort]]


async def _statuses(line: Line, session: Session) -> list[Candidate]:
    head = line.current.rpartition(",")[0]
    return [Candidate(f"{head},{one}" if head else one.value) for one in Status]


async def _steps(line: Line, session: Session) -> list[Candidate]:
    """Returns the steps of the run that was named."""
    if not line.arguments:
        return []
    backend: Backend = await session.reader()
    shown = await backend.call("show", run=await backend.call("find", ref=line.arguments[0]))
    return [Candidate(step["key"], f"{step['kind']} {step['status']}") for step in shown["steps"]]


async def _files(line: Line, session: Session) -> list[Candidate]:
    """Returns files as `@FILE`, which shells do not complete."""
    folder, _, start = line.current.removeprefix("@").rpartition("/")
    if not line.current.startswith("@"):
        return []
    near = sorted((session.facts.cwd / folder).glob(f"{glob.escape(start)}*"))[:FILES]
    head = f"@{folder}/" if folder else "@"
    return [Candidate(f"{head}{path.name}{'/' * path.is_dir()}") for path in near]


async def _groups(line: Line, session: Session) -> list[Candidate]:
    return [Candidate(name, f"{slots} at a time") for name, slots in session.project.groups.items()]


async def _shells(line: Line, session: Session) -> list[Candidate]:
    return [Candidate(shell) for shell in SHELLS]


VALUES: dict[str, Callable[[Line, Session], Awaitable[list[Candidate]]]] = {
    "RUN": _runs,
    "JOB": _jobs,
    "PIPE": _pipes,
    "STATUS": _statuses,
    "STEP": _steps,
    "SHELL": _shells,
    "GROUP": _groups,
    "@FILE": _files,
}
