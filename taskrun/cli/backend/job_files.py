"""Describes the jobs while no daemon runs: the job files are imported into the command's process, which ends soon after.

What they print, by child processes too, goes to standard error: standard output belongs to the command.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import chdir, contextmanager, redirect_stdout
from typing import Any

import msgspec
from msgspec.structs import asdict

from taskrun.cli.lazy_imports import BUILTIN_JOBS, PROJECT, import_late
from taskrun.daemon.paths import daemon_paths
from taskrun.daemon.workers.last_good import read_last_good
from taskrun.declarations.job import Job
from taskrun.declarations.registry import Discovery, Registry, discover
from taskrun.model.config import Config, ScheduleTable, schedule_tables
from taskrun.model.errors import ConfigError, DefinitionError, InputInvalid
from taskrun.model.files_config import topics_of
from taskrun.model.names import RESERVED
from taskrun.rules.schedule_tables import input_problem, problem_of


def describe(config: Config) -> dict[str, Any]:
    """Returns what the `jobs` request returns, without pauses, and with what is wrong with `inputs` of schedules.

    Jobs that come with taskrun are described by `describe_builtin`, since no list shows them.
    """
    found, files = _discovered(config), topics_of(config.files)
    jobs = found.registry.described_jobs()
    described = {
        "jobs": [{**job, "triggers": job["triggers"] + files.get(job["name"], [])} for job in jobs],
        "pipes": [pipe.describe() for pipe in found.registry.pipes.values()],
        "problems": [asdict(problem) for problem in found.problems],
        "inputs": _input_problems(config, found.registry),
    }
    plain: dict[str, Any] = msgspec.to_builtins(described)
    return plain


def describe_builtin(name: str) -> dict[str, Any]:
    """Returns the description of a job that comes with taskrun."""
    (job,) = (job for job in _builtin() if job.name == name)
    plain: dict[str, Any] = msgspec.to_builtins(job.describe())
    return plain


def check_inputs(config: Config, registry: Registry | None = None) -> None:
    """Checks the inputs of the schedules with their jobs, which are loaded unless `registry` is given.

    Raises:
        ConfigError: an input does not fit its job.
    """
    for problem in _input_problems(config, registry or _discovered(config).registry).values():
        raise ConfigError(problem)


def _discovered(config: Config) -> Discovery:
    """Loads the jobs as a worker does: in its folder, with its environment and the last good versions of broken files.

    Those that come with taskrun are left out, unless a table names one.
    """
    named = {table.job for table in config.schedules} | {table.job for table in config.files}
    builtin = _builtin() if named & RESERVED else ()
    os.environ.update(config.env)
    with chdir(config.cwd), _output_to_stderr():
        last_good = read_last_good(daemon_paths(config, make=False).last_good)
        if config.declared.commands or config.declared.pipes:
            found: Discovery = import_late(PROJECT).load_project(
                config.jobs, config.root, config.declared, last_good, builtin
            )
            return found
        return discover(config.jobs, config.root, builtin, last_good)


def _input_problems(config: Config, registry: Registry) -> dict[str, str]:
    """Returns what is wrong with inputs, by the places of their tables."""
    problems: dict[str, str] = {}
    for table in _tables(config):
        if table.entry is None or problem_of(table, config.path) or table.entry.job not in registry.jobs:
            continue
        try:
            registry.jobs[table.entry.job].prepare(table.entry.input)
        except (InputInvalid, DefinitionError) as error:
            problems[table.place] = input_problem(table, config.path, error)
    for files in config.files:
        if (job := registry.jobs.get(files.job)) is not None:
            try:
                job.prepare({**files.input, files.field: str(config.path)})
            except (InputInvalid, DefinitionError) as error:
                problems[files.place] = f"{config.path}: {files.place} {error}"
    return problems


def _tables(config: Config) -> list[ScheduleTable]:
    try:
        return schedule_tables(config.path)
    except ConfigError:  # reported elsewhere
        return []


def _builtin() -> Sequence[Job]:
    jobs: Sequence[Job] = import_late(BUILTIN_JOBS).JOBS
    return jobs


@contextmanager
def _output_to_stderr() -> Iterator[None]:
    kept = os.dup(1)
    os.dup2(2, 1)
    try:
        with redirect_stdout(sys.stderr):
            yield
    finally:
        os.dup2(kept, 1)
        os.close(kept)
