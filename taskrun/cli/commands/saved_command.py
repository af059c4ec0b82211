"""`taskrun exec --save NAME`: a command that is appended to `taskrun.toml` as `[jobs.NAME]`, instead of being run."""

from __future__ import annotations

from typing import Any

from taskrun.cli.backend.toml_file import append_job, locked
from taskrun.cli.commands.typed_command import Exec
from taskrun.cli.exit_codes import Code, Stop
from taskrun.cli.session import Session
from taskrun.model import durations
from taskrun.model.errors import DefinitionError
from taskrun.model.group_config import check_group
from taskrun.model.names import check_free, check_name
from taskrun.model.tags import typed_tags


async def save(options: Exec, session: Session) -> int:
    """Writes the table and says how to start the job."""
    session.fall_back_to_user()
    config = session.config
    table = table_of(options, session)
    try:
        check_free(check_name(options.save, "job"))
    except DefinitionError as error:
        raise Stop(Code.USAGE, str(error)) from None
    backend = await session.reader()
    async with locked(config):
        described = await backend.call("jobs")
        if options.save in {job["name"] for job in described["jobs"]}:
            hint = f"see it: taskrun jobs {options.save}"
            raise Stop(Code.USAGE, f'there is a job "{options.save}" already', hint=hint)
        append_job(config.path, options.save, table, session.facts.env)
    command = session.for_project(f"taskrun start {options.save}")
    if options.start.json:
        session.json({"name": options.save, "file": str(config.path), "command": command})
    elif options.start.quiet or not session.facts.out_tty:
        session.data(f"{options.save}\n")
    if not (options.start.json or options.start.quiet):
        session.say(f"saved as [jobs.{options.save}] in {config.path}\n  start it: {command}")
    return Code.DONE


def table_of(options: Exec, session: Session) -> dict[str, Any]:
    """Returns what is written of the command: only what was typed, and the folder.

    Raises:
        Stop, DurationInvalid, DefinitionError: something was typed that cannot be.
    """
    doubled = [item.replace("{", "{{").replace("}", "}}") for item in options.command]
    table: dict[str, Any] = {
        "command": doubled[0] if len(doubled) == 1 else doubled,
        "cwd": str(session.facts.cwd / options.cwd),
    }
    if options.name:
        table["description"] = options.name
    if options.group:
        table["group"] = check_group(options.group)
    if options.slots is not None:
        table["slots"] = options.slots
    if options.retry:
        table["retry"] = options.retry
    if options.timeout:
        durations.seconds(options.timeout, "--timeout")
        table["timeout"] = options.timeout
    if options.priority:
        table["priority"] = options.priority
    if not options.rerun:
        table["rerun"] = False
    if options.start.tags:
        table["tags"] = typed_tags(options.start.tags)
    if options.env:
        table["env"] = dict(_written(each) for each in options.env)
    return table


def _written(variable: str) -> tuple[str, str]:
    name, equals, value = variable.partition("=")
    if not name or not equals:
        raise Stop(Code.USAGE, "with --save, --env takes NAME=VALUE, which is written to the file")
    return name, value
