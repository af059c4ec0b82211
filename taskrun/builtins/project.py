"""All jobs that a project has: those of its files, and those that come with taskrun.

Called by the workers, and by commands that load the jobs themselves (`run --local`, schemas without a daemon).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from difflib import get_close_matches
from pathlib import Path
from types import MappingProxyType

from msgspec.structs import replace

from taskrun.builtins.commands import CommandJob, SourceLine, command_pipe, input_of_event
from taskrun.declarations.files import Files, files
from taskrun.declarations.job import Job
from taskrun.declarations.job_ref import JobRef
from taskrun.declarations.loading import Problem
from taskrun.declarations.pipe import Pipe, Source
from taskrun.declarations.registry import Discovery, Registry, discover
from taskrun.model.command_config import CommandFile, CommandTable
from taskrun.model.config_sources import lines_of
from taskrun.model.errors import DefinitionError
from taskrun.model.names import RESERVED

FOLDER = "jobs"
NOTHING_DECLARED = CommandFile()


def load_project(
    entries: Sequence[str],
    root: Path,
    declared: CommandFile = NOTHING_DECLARED,
    last_good: Mapping[str, str] = MappingProxyType({}),
    builtin: Sequence[Job] = (),
) -> Discovery:
    """Loads the jobs and pipes of a project.

    Parameters:
        entries: the setting `jobs`.
        root: the project's folder.
        declared: the jobs and pipes of `taskrun.toml`.
        last_good: sources that are used for files that cannot be loaded any more, by path.
        builtin: jobs that come with taskrun; who only describes a project needs none.
    """
    if declared.commands and list(entries) == [FOLDER] and not (root / FOLDER).exists():
        entries = []  # the default: nobody misses that folder
    found = discover(entries, root, builtin, last_good)
    return replace(found, problems=[*found.problems, *_add(found.registry, declared, root)])


def _add(registry: Registry, declared: CommandFile, root: Path) -> Iterator[Problem]:
    """Adds what `taskrun.toml` declares; yields what cannot be, which leaves the rest alone."""
    if not declared.commands and not declared.pipes:
        return
    places = _Places(declared.path)
    for pipe in declared.pipes:
        place = places.of("pipes", pipe.name)
        try:
            registry.add_pipe(command_pipe(pipe, place))
        except DefinitionError as error:
            yield Problem(*place, f"[pipes.{pipe.name}] {error}")
    jobs = registry.jobs.keys() | {table.name for table in declared.commands} | RESERVED
    for table in declared.commands:
        place = places.of("jobs", table.name)
        triggers, wrong = _triggers(table, registry, jobs)
        yield from (Problem(*place, f"{table.place} trigger: {text}") for text in wrong)
        try:
            registry.add_job(CommandJob(table, root, Path(declared.cwd), place, triggers))
        except DefinitionError as error:
            yield Problem(*place, f"{table.place} {error}")


class _Places:
    """Where the tables of a file begin."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._lines: dict[tuple[str | int, ...], int] = {}
        with suppress(OSError, UnicodeDecodeError):  # it has gone since it was read
            self._lines = lines_of(Path(path).read_text("utf-8-sig"))

    def of(self, section: str, name: str) -> SourceLine:
        """Returns the file, and the line of a table."""
        return self._path, self._lines.get((section, name), 0)


def _triggers(table: CommandTable, registry: Registry, jobs: set[str]) -> tuple[list[Source], list[str]]:
    """Returns the triggers that the names of a table mean, and what is wrong with the other names."""
    found, wrong = [], []
    for name in table.trigger:
        pipe = registry.pipes.get(name)
        if pipe is not None and name in jobs:
            wrong.append(f'"{name}" is a pipe and a job; give one of them another name')
        elif pipe is not None:
            found.append(_picking(pipe, table))
        elif name == table.name:
            wrong.append("the job would start itself again and again")
        elif name in jobs:
            found.append(_picking(JobRef(name), table))
        else:
            close = get_close_matches(name, [*registry.pipes, *jobs], 1)
            wrong.append(f'there is no pipe or job "{name}"' + (f"; did you mean {close[0]}?" if close else ""))
    if table.files:
        found.append(_picking(files(table.files), table))
    return found, wrong


def _picking(ref: Pipe | JobRef | Files, table: CommandTable) -> Source:
    return replace(ref.into(input_of_event(table, ref.topic)), picks=True)
