"""The project's configuration: `taskrun.toml`, found by walking up, with `TASKRUN_…` variables over it.

Called by the command line, the daemon and the worker processes. What may be written is in the tables here and in the modules
of single tables.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from shlex import quote
from typing import Any, Literal, get_args

import msgspec

from taskrun.model import durations, user_project
from taskrun.model.catch_up import CatchUp
from taskrun.model.command_config import CommandFile, read_commands, read_pipes
from taskrun.model.config_keys import (
    COUNT,
    DURATION,
    SIZE,
    Key,
    any_text,
    count,
    mapping,
    natural,
    nonempty,
    one_of,
    read_key,
    read_keys,
    refuse_unknown,
    section_of,
    texts,
)
from taskrun.model.errors import ConfigError, NoProject
from taskrun.model.files_config import FilesTable, read_files
from taskrun.model.group_config import read_groups
from taskrun.model.notify_config import NotifyTable, read_notify

FILE = "taskrun.toml"
PREFIX = "TASKRUN_"

Environ = Mapping[str, str]
Reload = Literal["auto", "manual"]
TABLES = {"taskrun", "retention", "schedule", "files", "jobs", "pipes", "groups", "notify", "env"}


class ScheduleEntry(msgspec.Struct, frozen=True):
    """One `[[schedule]]`: a job started by the clock, without touching its code."""

    job: str
    cron: str
    timezone: str | None = None
    input: dict[str, Any] = {}
    catch_up: CatchUp = "skip"
    within: float | None = None
    late: float | None = None
    slow: float | None = None


class ScheduleTable(msgspec.Struct, frozen=True):
    """A `[[schedule]]` as it is written: its entry, or what is wrong with it.

    Parameters:
        place: how a message calls it: `[[schedule]]`, with its number where there are several.
    """

    place: str
    written: dict[str, Any]
    entry: ScheduleEntry | None
    problem: str = ""


class Config(msgspec.Struct, frozen=True, kw_only=True):
    """A project's configuration, resolved: absolute paths, seconds, bytes.

    Parameters:
        root: the folder of the file, to which paths in it are relative.
        cwd: where workers and commands are executed: the root, or the user's home in the user's own project.
    """

    root: Path
    path: Path
    cwd: Path
    jobs: list[str]
    journal: str
    concurrency: int
    resident: int
    grace: float
    workers: int
    reload: Reload
    max_payload: int
    keep: float
    max_log: int
    schedules: list[ScheduleEntry]
    files: list[FilesTable] = []
    env: dict[str, str]
    declared: CommandFile = CommandFile()
    notify: list[NotifyTable] = []
    groups: dict[str, int] = {}


def option_from_anywhere(config: Config, environ: Environ) -> str:
    """Returns the option by which a command means a project, whatever the folder in which it is typed."""
    own = user_project.is_user_project(str(config.root), environ)
    return "--user" if own else f"--config {quote(str(config.path))}"


def find(start: Path, explicit: str | None, environ: Environ) -> Path:
    """Returns the path of the configuration.

    Parameters:
        start: the current folder; the search walks up from it.
        explicit: what `--config` says; it goes before `TASKRUN_CONFIG`.
        environ: the environment.

    Raises:
        NoProject: there is none.
    """
    named = explicit or environ.get(PREFIX + "CONFIG")
    if named:
        return _named(start / _at_home(named))
    start = start.absolute()
    for folder in (start, *start.parents):
        if _is_file(folder / FILE):
            return folder / FILE
    raise NoProject(f"no {FILE} in {start} or above")


def load(path: Path, environ: Environ) -> Config:
    """Reads a configuration, with the variables of the environment over it.

    Raises:
        ConfigError: broken TOML, an unknown key, or a value that does not fit; names file and key.
    """
    document, root = parse(path), _root(path)
    refuse_unknown(document, TABLES, "", path)
    keys = settings_of(path, environ)
    settings = _table(document, "taskrun", keys, path) | _overrides(environ, "", keys)
    retention = _table(document, "retention", RETENTION, path) | _overrides(environ, "RETENTION__", RETENTION)
    return Config(
        root=root,
        path=path.absolute(),
        cwd=_cwd(root, environ),
        journal=_located(settings.pop("journal"), root),
        schedules=[_entry(table, path) for table in _schedules(document, path)],
        files=read_files(document, path),
        declared=_declared(document, path, environ),
        notify=read_notify(document, path),
        groups=read_groups(document, path),
        env=_variables(document, path) | _environment(environ),
        **settings,
        **retention,
    )


def check_variables(environ: Environ) -> None:
    """Checks the variables that override keys.

    Raises:
        ConfigError: one does not fit; names it.
    """
    _overrides(environ, "", SETTINGS)
    _overrides(environ, "RETENTION__", RETENTION)


def salvage(path: Path, environ: Environ) -> Config:
    """Returns what a wrong configuration still tells, above all where the project's daemon is; all else is the default."""
    document, root = _salvaged(path), _root(path)
    settings = _readable(document, environ, "taskrun", "", settings_of(path, environ))
    retention = _readable(document, environ, "retention", "RETENTION__", RETENTION)
    journal = _located(settings.pop("journal"), root)
    cwd = _cwd(root, environ)
    return Config(
        root=root, path=path.absolute(), cwd=cwd, journal=journal, schedules=[], env={}, **settings, **retention
    )


def schedule_tables(path: Path) -> list[ScheduleTable]:
    """Returns the `[[schedule]]` tables, wrong ones too.

    Raises:
        ConfigError: broken TOML.
    """
    return _schedules(parse(path), path)


# ---- what may be written: for each key its default and how it is read


def _journal(value: Any) -> str:
    """Returns a path, or the address of a server. Another address would become a file of that name."""
    may_be_address = {":", "="} & set(nonempty(value))
    if may_be_address and re.match(_ADDRESS, value) and not is_server(value):
        raise ConfigError(f"is {without_password(value)}: a journal is a SQLite file, or on a server: postgresql://…")
    return str(value)


def is_server(journal: str) -> bool:
    """Tells whether a journal is on a server."""
    return journal.startswith(("postgresql://", "postgres://"))


def without_password(address: str) -> str:
    """Returns an address without its password."""
    return re.sub(r"(://[^:/@]*):[^/]*@|(password\s*=\s*)\S+", lambda found: _blank(found[1], found[2]), address)


def _blank(user: str | None, word: str | None) -> str:
    return f"{word}***" if user is None else f"{user}:***@"


# `postgresql://…` and its like, `postgres:…`, `file:…`, and what libpq takes: `host=… dbname=…`
_ADDRESS = r"(?i)\s*(?:[a-z][a-z0-9+.-]*://|(?:postgres(?:ql)?|sqlite|file)[a-z0-9+]*:|(?:host|hostaddr|port|dbname|user|service)\s*=)"

SETTINGS = {
    "jobs": Key("a list of modules, packages, folders or globs", texts, ["jobs"]),
    "journal": Key("a path, or postgresql://…", _journal, ".taskrun/journal.db"),
    "concurrency": Key(COUNT, count, 100),
    "resident": Key("a whole number", natural, 1000),
    "grace": Key(DURATION, durations.seconds, "10s"),
    "workers": Key("a whole number", natural, 1),
    "reload": Key('"auto" or "manual"', one_of(*get_args(Reload)), "auto"),
    "max_payload": Key(SIZE, durations.size, "4MB"),
}
RETENTION = {
    "keep": Key(DURATION, durations.seconds, "30d"),
    "max_log": Key(SIZE, durations.size, "50MB"),
}
SCHEDULE = {
    "job": Key("the name of a job", nonempty, needed=True),
    "cron": Key('a cron expression such as "0 3 * * *"', nonempty, needed=True),
    "timezone": Key('a time zone such as "Europe/Berlin"', nonempty),
    "input": Key("a table", mapping, {}),
    "catch_up": Key('"skip", "one" or "all"', one_of(*get_args(CatchUp)), "skip"),
    "within": Key(DURATION, durations.seconds),
    "late": Key(DURATION, durations.seconds),
    "slow": Key(DURATION, durations.seconds),
}
_VARIABLE = Key("text", any_text)


def settings_of(path: Path, environ: Environ) -> dict[str, Key]:
    """Returns the keys of `[taskrun]` with the defaults of this project: the user's own has its journal elsewhere."""
    if not user_project.is_user_project(str(path.absolute().parent), environ):
        return SETTINGS
    journal = Path(user_project.state_folder(environ), "journal.db")
    return {**SETTINGS, "journal": msgspec.structs.replace(SETTINGS["journal"], default=str(journal))}


# ---- the file


def _named(path: Path) -> Path:
    if path.is_dir():
        path = path / FILE
    if not _is_file(path):
        raise NoProject(f"no configuration at {path}")
    return path.absolute()


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except OSError:  # a folder above that may not be looked into
        return False


def parse(path: Path) -> dict[str, Any]:
    """Returns the document of a file as it is written.

    Raises:
        ConfigError: broken TOML, or it cannot be read.
    """
    text = ""
    try:
        text = path.read_bytes().decode("utf-8-sig")
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        said = str(error).replace("at end of document", f"at line {text.count(chr(10)) + 1}, the end")
        raise ConfigError(f"{path}: broken TOML: {said}") from None
    except UnicodeDecodeError:
        raise ConfigError(f"{path}: not UTF-8") from None
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read: {error.strerror}") from None


def _table(document: dict[str, Any], section: str, keys: dict[str, Key], path: Path) -> dict[str, Any]:
    return read_keys(section_of(document, section, path), keys, f"[{section}] ", path)


def _variables(document: dict[str, Any], path: Path) -> dict[str, str]:
    found = section_of(document, "env", path)
    for name in found:
        if not name or set(name) & {"=", "\0"}:
            raise ConfigError(f"{path}: [env] {durations.shown(name)} cannot be the name of a variable")
    return read_keys(found, dict.fromkeys(found, _VARIABLE), "[env] ", path)


def _schedules(document: dict[str, Any], path: Path) -> list[ScheduleTable]:
    found = document.get("schedule", [])
    if not isinstance(found, list) or not all(isinstance(one, dict) for one in found):
        raise ConfigError(f"{path}: schedule must be a list of tables, each written [[schedule]]")
    places = [f"[[schedule]] {number}" for number in range(1, len(found) + 1)] if len(found) > 1 else ["[[schedule]]"]
    return [_schedule(one, place, path) for one, place in zip(found, places, strict=False)]


def _schedule(written: dict[str, Any], place: str, path: Path) -> ScheduleTable:
    try:
        return ScheduleTable(place, written, ScheduleEntry(**read_keys(written, SCHEDULE, f"{place} ", path)))
    except ConfigError as error:
        return ScheduleTable(place, written, None, str(error))


def _entry(table: ScheduleTable, path: Path) -> ScheduleEntry:
    if table.entry is None:
        raise ConfigError(table.problem)
    return table.entry


def _root(path: Path) -> Path:
    return path.absolute().parent.resolve()


def _declared(document: dict[str, Any], path: Path, environ: Environ) -> CommandFile:
    return CommandFile(
        path=str(path.absolute()),
        cwd=str(_cwd(_root(path), environ)),
        commands=read_commands(document, path),
        pipes=read_pipes(document, path),
    )


def _cwd(root: Path, environ: Environ) -> Path:
    return Path(user_project.home_folder(environ)) if user_project.is_user_project(str(root), environ) else root


def _located(journal: str, root: Path) -> str:
    return journal if is_server(journal) else str(root / _at_home(journal))


def _at_home(path: str) -> Path:
    try:
        return Path(path).expanduser()
    except RuntimeError:  # `~nobody`
        return Path(path)


# ---- what is left of a file that is wrong


def _salvaged(path: Path) -> dict[str, Any]:
    """Returns the document; of one that is broken, the journal, if a line of its own names it."""
    try:
        return parse(path)
    except ConfigError:
        pass
    try:
        found = re.search(r"""^\s*journal\s*=\s*(["'])(.*?)\1""", path.read_text("utf-8", "replace"), re.MULTILINE)
    except OSError:
        return {}
    return {"taskrun": {"journal": found[2]}} if found else {}


def _readable(
    document: dict[str, Any], environ: Environ, section: str, prefix: str, keys: dict[str, Key]
) -> dict[str, Any]:
    """Reads the keys of a section one by one; one that is wrong has its default."""
    table = document.get(section)
    given = table if isinstance(table, dict) else {}
    found: dict[str, Any] = {}
    for name, key in keys.items():
        found[name] = key.read(key.default)
        with suppress(ConfigError):
            found[name] = read_key(given, name, key, "")
        with suppress(ConfigError):
            found |= _overrides(environ, prefix, {name: key})
    return found


# ---- the environment


def _overrides(environ: Environ, section: str, keys: dict[str, Key]) -> dict[str, Any]:
    """Reads the variables of a section's keys; a variable of no key is somebody else's."""
    variables = {name: PREFIX + section + name.upper() for name in keys}
    return {
        name: read_key({name: untyped(environ[variable], keys[name])}, name, keys[name], variable)
        for name, variable in variables.items()
        if variable in environ
    }


def untyped(text: str, key: Key) -> Any:
    """Returns what a variable says as the file would say it."""
    if key.read is texts:
        return [part.strip() for part in text.split(",") if part.strip()]
    if key.read in (count, natural) and text.isascii() and text.isdigit() and len(text) < 10:
        return int(text)
    return text


def _environment(environ: Environ) -> dict[str, str]:
    prefix = PREFIX + "ENV__"
    return {name[len(prefix) :]: value for name, value in environ.items() if name.startswith(prefix) and name != prefix}
