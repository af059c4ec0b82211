"""The `[[schedule]]` tables of `taskrun.toml` as cron rules: what is wrong with an expression or a time zone.

A configuration is read with `read_config` by whoever acts on it, so that a schedule that is wrong is an error for all of them.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from taskrun.model.codec import encode
from taskrun.model.config import Config, ScheduleTable, load, schedule_tables
from taskrun.model.errors import ConfigError, DefinitionError, InputInvalid, NotEncodable
from taskrun.rules.cron import CronRule


def read_config(path: Path, environ: Mapping[str, str]) -> Config:
    """Reads a configuration, with its schedules checked.

    Raises:
        ConfigError: it is wrong; names file, table and key.
    """
    config = load(path, environ)
    check_schedules(config)
    return config


def check_schedules(config: Config) -> None:
    """Checks the schedules of a file, those of commands too.

    Raises:
        ConfigError: one is wrong; names file, table and key.
    """
    for table in schedule_tables(config.path) if config.schedules else ():
        if problem := problem_of(table, config.path):
            raise ConfigError(problem)
    for command in config.declared.commands:
        for cron in command.crons:
            if problem := _cron_problem(cron, command.timezone):
                raise ConfigError(f"{config.path}: {command.place} {problem}")


def problem_of(table: ScheduleTable, path: Path) -> str:
    """Returns what is wrong with a table, empty when nothing is."""
    if table.entry is None:
        return table.problem
    if problem := _cron_problem(table.entry.cron, table.entry.timezone):
        return f"{path}: {table.place} {problem}"
    try:
        encode(table.entry.input, "input")
    except NotEncodable as error:
        return f"{path}: {table.place} {error}"
    return ""


def _cron_problem(cron: str, timezone: str | None) -> str:
    for field, zone in (("cron", None), ("timezone", timezone)):
        try:
            CronRule(cron, zone)
        except DefinitionError as error:
            return f"{field}: {error}"
    return ""


def input_problem(table: ScheduleTable, path: Path, error: InputInvalid | DefinitionError) -> str:
    """Returns what a job finds wrong with the input of its schedule, field by field."""
    if isinstance(error, DefinitionError):
        return f"{path}: {table.place} input: {error}"
    said = [f"input.{field}: {text}" if field else f"input: {text}" for field, text in error.problems]
    return f"{path}: {table.place} {'; '.join(said)}"
