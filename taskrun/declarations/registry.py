"""The jobs and pipes that a queue or a worker has, by name; what starts what, and whether it ever can.

Made by a `Queue` from what it is given, or by `discover` from a project's files.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType, ModuleType
from typing import Any, TypeVar

import msgspec

from taskrun.declarations.files import SCHEMA, Files
from taskrun.declarations.job import Job
from taskrun.declarations.job_ref import JobRef
from taskrun.declarations.loading import Files as JobFiles
from taskrun.declarations.loading import Problem
from taskrun.declarations.pipe import Pipe, Source
from taskrun.model.codec import message_of
from taskrun.model.errors import DefinitionError, InputInvalid
from taskrun.model.names import check_free
from taskrun.rules.policies import Cron, Prepared, Routed

log = logging.getLogger("taskrun.triggers")
N = TypeVar("N", Job, Pipe)
# What a plain call of users' code may raise: everything but Ctrl-C, which is meant for the whole process.
_RAISED = (Exception, SystemExit, GeneratorExit, asyncio.CancelledError)


class Registry:
    """Jobs and pipes by name.

    Parameters:
        jobs: jobs, a dict from names to jobs, or a module that holds them.
        pipes: pipes; those that a job names as its trigger are found by themselves.

    Raises:
        DefinitionError: two have the same name, a key differs from the name, or a job is invalid.
    """

    def __init__(
        self,
        jobs: Iterable[Job] | Mapping[str, Job] | ModuleType = (),
        pipes: Iterable[Pipe] | Mapping[str, Pipe] | ModuleType = (),
    ) -> None:
        self.jobs: dict[str, Job] = {}
        self.pipes: dict[str, Pipe] = {}
        self.triggers: dict[str, list[tuple[Job, Source]]] = {}  # topic → what it starts
        for pipe in _members(pipes, Pipe):
            self.add_pipe(pipe)
        for job in _members(jobs, Job):
            self.add_job(job)
        if isinstance(jobs, ModuleType):
            for pipe in _members(jobs, Pipe):
                self.add_pipe(pipe)

    def add_job(self, job: Job) -> None:
        """Adds a job and the pipes that start it. Raises DefinitionError and adds nothing if it is invalid."""
        _refuse_twin(self.jobs, job, "jobs")
        job.verify()
        for source in job.options.triggers:
            if isinstance(source.ref, Pipe):
                self.add_pipe(source.ref)
        if job.name in self.jobs:
            return
        self.jobs[job.name] = job
        for source in job.options.triggers:
            self.triggers.setdefault(source.topic, []).append((job, source))

    def add_pipe(self, pipe: Pipe) -> None:
        """Adds a pipe."""
        _refuse_twin(self.pipes, pipe, "pipes")
        self.pipes[pipe.name] = pipe

    def topics(self) -> list[str]:
        """Returns the topics (`pipe:NAME`, `job:NAME`) that start a job."""
        return list(self.triggers)

    def crons(self) -> list[tuple[Job, Cron]]:
        """Returns the schedules of all jobs."""
        return [(job, cron) for job in self.jobs.values() for cron in job.options.crons]

    def files(self) -> list[tuple[Job, Files]]:
        """Returns the files that start jobs."""
        triggers = [(job, source.ref) for job in self.jobs.values() for source in job.options.triggers]
        return [(job, ref) for job, ref in triggers if isinstance(ref, Files)]

    def route(self, topic: str, data: str, name: str) -> Routed:
        """Returns what an event (JSON text) starts of a job. A trigger that refuses it leaves its others alone."""
        wanted = [(job, source) for job, source in self.triggers.get(topic, ()) if job.name == name]
        made = [_prepared(job, self._found(source), data) for job, source in wanted]
        refused = [one for one in made if isinstance(one, str)]
        return Routed([one for one in made if isinstance(one, Prepared)], "; ".join(refused) or None)

    def described_jobs(self) -> list[dict[str, Any]]:
        """Returns what screens show of the jobs, as JSON; with the triggers that are `refused`, whatever the event."""
        return [{**job.describe(), "refused": self._refused(job)} for job in self.jobs.values()]

    def _refused(self, job: Job) -> list[dict[str, Any]]:
        found = {source.topic: never_fits(job, self._found(source)) for source in job.options.triggers}
        return [{"trigger": topic, "at": None, "text": text, "over": None} for topic, text in found.items() if text]

    def _found(self, source: Source) -> Source:
        """Returns a trigger whose job, if it is known by its name only, is the job itself where there is one."""
        if not isinstance(source.ref, JobRef):
            return source
        return Source(source.kind, self.jobs.get(source.ref.name, source.ref), source.fn)


class Discovery(msgspec.Struct, frozen=True):
    """What a project's files hold.

    Parameters:
        problems: what is wrong with files and jobs; the others work.
        files: the source files that were loaded, helpers and broken ones included.
        sources: the text of those that could be loaded, by path.
    """

    registry: Registry
    problems: list[Problem]
    files: list[Path]
    sources: dict[str, str]


def discover(
    entries: Iterable[str], root: Path, builtin: Sequence[Job] = (), last_good: Mapping[str, str] = MappingProxyType({})
) -> Discovery:
    """Loads the jobs and pipes of a project.

    Parameters:
        entries: modules, packages, folders, files or globs. Files and folders that start with `_` or `.` are skipped.
        root: the project's folder.
        builtin: jobs that come with taskrun.
        last_good: sources that are used for files that cannot be loaded any more, by path.
    """
    with JobFiles(root, last_good) as files:
        modules = files.load(entries)
        registry, refused = _registered(modules, builtin)
        while any(files.fall_back(problem) for problem in refused):
            registry, refused = _registered(modules, builtin)
    return Discovery(registry, [*files.problems, *refused], files.loaded(), files.sources)


def _registered(modules: Iterable[ModuleType], builtin: Iterable[Job]) -> tuple[Registry, list[Problem]]:
    """Returns what modules declare, without what cannot work, and what is wrong with that."""
    registry, refused = Registry(builtin), []
    for thing in _declared(modules):
        try:
            _add(registry, thing)
        except _RAISED as error:  # a validator's own code
            refused.append(Problem(thing.file, thing.line, message_of(error) or type(error).__name__, thing.file))
    return registry, refused


def _add(registry: Registry, thing: Job | Pipe) -> None:
    if isinstance(thing, Pipe):
        registry.add_pipe(thing)
    else:
        check_free(thing.name)
        registry.add_job(thing)


def _declared(modules: Iterable[ModuleType]) -> list[Job | Pipe]:
    """Returns the pipes and jobs of modules, each once, however often it is imported."""
    things = [thing for module in modules for thing in vars(module).values() if isinstance(thing, (Pipe, Job))]
    return sorted({id(thing): thing for thing in things}.values(), key=lambda thing: isinstance(thing, Job))


def _prepared(job: Job, source: Source, data: str) -> Prepared | str | None:
    """Returns the trigger that an event makes, None where the job skips it, or why it is refused."""
    try:
        value = source.input_for(data)
        return None if value is None else job.prepare(value)
    except InputInvalid as error:
        log.warning("%s does not start %s: %s", source.topic, job.name, error)
        return message_of(error)
    except BaseException as error:  # code of users, which may raise `SystemExit` too
        log.exception("%s does not start %s: its trigger failed", source.topic, job.name)
        return f"its trigger failed: {type(error).__name__}: {message_of(error)}"


def _members(given: Iterable[N] | Mapping[str, N] | ModuleType, kind: type[N]) -> list[N]:
    """Returns the jobs or pipes in what a user gives, each once."""
    if isinstance(given, ModuleType):
        found = {id(one): one for one in vars(given).values() if isinstance(one, kind)}
        return list(found.values())
    things = list(given.values() if isinstance(given, Mapping) else given)
    for thing in things:
        if not isinstance(thing, kind):
            raise DefinitionError(f"{thing!r} is not a {kind.__name__.lower()}; put @job on a function to make it one")
    if isinstance(given, Mapping):
        for key, thing in given.items():
            if key != thing.name:
                raise DefinitionError(f'the key "{key}" differs from the name "{thing.name}"')
    return things


def _refuse_twin(known: Mapping[str, N], new: N, what: str) -> None:
    old = known.get(new.name)
    if old is not None and old is not new:
        raise DefinitionError(f'two {what} are named "{new.name}": {old.file}:{old.line} and {new.file}:{new.line}')


# ---- whether what a trigger gives out can be an input


def never_fits(job: Job, source: Source) -> str:
    """Returns why a trigger can never start a job; empty where it may, or where user code makes the input."""
    if source.fn is not None and not source.picks:
        return ""
    event, wanted = _schema_of(source), job.input.json_schema()
    given, taken = event.get("properties"), wanted.get("properties")
    if not given or taken is None:
        return ""
    lacking = [name for name in wanted.get("required", ()) if name not in given] if _is_closed(event) else []
    surplus = [name for name in event.get("required", ()) if name not in taken] if _is_closed(wanted) else []
    if lacking:
        hint = "give it a default" if source.picks else "give it with .into(…)"
        return f"it gives {', '.join(given)}, but not {', '.join(lacking)}, which {job.name} requires; {hint}"
    if surplus and not source.picks:
        return f"it gives {', '.join(surplus)}, which {job.name} does not take; choose the fields with .into(…)"
    return ""


def _schema_of(source: Source) -> dict[str, Any]:
    """Returns how what a trigger gives out looks, empty where that is not known."""
    match source.ref:
        case Files():
            return SCHEMA
        case Pipe():
            return source.ref.schema.json_schema()
        case Job():
            return source.ref.output.json_schema()
    return {}


def _is_closed(schema: dict[str, Any]) -> bool:
    return schema.get("additionalProperties") is False
