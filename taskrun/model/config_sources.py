"""Where each value of the configuration comes from: the default, a line of `taskrun.toml`, or a variable.

Behind `taskrun config`. What may be written is said in `config`; this looks only at what is there.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import msgspec

from taskrun.model.command_config import JOB, NEEDS
from taskrun.model.config import (
    PREFIX,
    RETENTION,
    SCHEDULE,
    Environ,
    load,
    parse,
    settings_of,
    untyped,
    without_password,
)
from taskrun.model.config_keys import Key
from taskrun.model.files_config import FILES
from taskrun.model.notify_config import HIDDEN, NOTIFY, without_path

DEFAULT = "default"
SECRETS = frozenset({"secret"})  # keys whose values are shown to nobody who does not ask for them

KeyPath = tuple[str | int, ...]  # of a value in the document: names, and numbers of tables in a list


class Sourced(msgspec.Struct, frozen=True):
    """A value as the file would say it, and where it comes from: `default`, a file and a line of it, or a variable."""

    value: Any
    source: str
    line: int | None = None


Tree = dict[str, Any]  # of `Sourced`, of trees, and of lists of trees


def effective(path: Path, environ: Environ, reveal: bool = False) -> Tree:
    """Returns the configuration that is in force, each value with its source.

    Parameters:
        reveal: whether to show secrets, and the values of `[env]`.

    Raises:
        ConfigError: it is wrong.
    """
    load(path, environ)
    document, lines = parse(path), lines_of(path.read_text("utf-8-sig"))
    file = _File(str(path.absolute()), lines)
    found: Tree = {
        "taskrun": _section(document, "taskrun", settings_of(path, environ), "", environ, file),
        "retention": _section(document, "retention", RETENTION, "RETENTION__", environ, file),
        "env": _variables(document.get("env", {}), environ, file),
        "schedule": _listed(document, "schedule", SCHEDULE, file),
        "notify": _listed(document, "notify", NOTIFY, file),
    }
    if "groups" in document:
        found["groups"] = _written(document["groups"], file.at("groups"))
    if "files" in document:
        found["files"] = _listed(document, "files", FILES, file)
    if "jobs" in document:
        found["jobs"] = {name: _command(table, file.at("jobs", name)) for name, table in document["jobs"].items()}
    if "pipes" in document:
        found["pipes"] = {name: _written(table, file.at("pipes", name)) for name, table in document["pipes"].items()}
    if reveal:
        return found
    return {name: (_veiled_jobs if name == "jobs" else _veiled)(tree, name == "env") for name, tree in found.items()}


class _File(msgspec.Struct, frozen=True):
    path: str
    lines: Mapping[KeyPath, int]
    place: KeyPath = ()

    def at(self, *place: str | int) -> _File:
        return msgspec.structs.replace(self, place=(*self.place, *place))

    def value(self, name: str, value: Any) -> Sourced:
        place = (*self.place, name)
        lines = (self.lines[place[:end]] for end in range(len(place), 0, -1) if place[:end] in self.lines)
        return Sourced(value, self.path, next(lines, None))


def _section(document: Tree, section: str, keys: Mapping[str, Key], prefix: str, environ: Environ, file: _File) -> Tree:
    written = document.get(section, {})
    found = {}
    for name, key in keys.items():
        variable = PREFIX + prefix + name.upper()
        if variable in environ:
            found[name] = Sourced(untyped(environ[variable], key), variable)
        elif name in written:
            found[name] = file.at(section).value(name, written[name])
        else:
            found[name] = Sourced(key.default, DEFAULT)
    return found


def _variables(written: Mapping[str, str], environ: Environ, file: _File) -> Tree:
    prefix = PREFIX + "ENV__"
    over = {name.removeprefix(prefix): name for name in environ if name.startswith(prefix) and name != prefix}
    found = {name: file.at("env").value(name, value) for name, value in written.items()}
    return found | {name: Sourced(environ[variable], variable) for name, variable in over.items()}


def _listed(document: Tree, section: str, keys: Mapping[str, Key], file: _File) -> list[Tree]:
    """Returns the tables of a list, with the defaults that are not nothing."""
    return [
        {
            **_written(table, file.at(section, number)),
            **{name: Sourced(key.default, DEFAULT) for name, key in keys.items() if key.default and name not in table},
        }
        for number, table in enumerate(document.get(section, []))
    ]


def _command(table: Tree, file: _File) -> Tree:
    """Returns a `[jobs.NAME]`: a step that is only a command is a table, too, and defaults are those that do something."""
    steps = [one if isinstance(one, dict) else {"command": one} for one in table.get("steps", [])]
    written = _written({name: value for name, value in table.items() if name != "steps"}, file)
    defaults = {
        name: Sourced(key.default, DEFAULT)
        for name, key in JOB.items()
        if name not in table and key.default not in (None, "", [], {}) and NEEDS.get(name, name) in {name, *table}
    }
    listed = {"steps": [_written(step, file.at("steps")) for step in steps]} if steps else {}
    return {**written, **defaults, **listed}


def _written(table: Tree, file: _File) -> Tree:
    return {
        name: _written(value, file.at(name)) if isinstance(value, dict) else file.value(name, value)
        for name, value in table.items()
    }


# ---- secrets


def _veiled(found: Any, secret: bool, key: str = "") -> Any:
    if isinstance(found, dict):
        return {name: _veiled(item, secret or name in SECRETS, name) for name, item in found.items()}
    if isinstance(found, list):
        return [_veiled(item, secret) for item in found]
    if key == "webhook" and not secret:
        return msgspec.structs.replace(found, value=without_path(found.value))
    return msgspec.structs.replace(found, value=HIDDEN if secret else _without_passwords(found.value))


def _without_passwords(value: Any) -> Any:
    if isinstance(value, list):
        return [_without_passwords(item) for item in value]
    return without_password(value) if isinstance(value, str) else value


def _veiled_jobs(found: Tree, secret: bool) -> Tree:
    """A job or a field may be called `env`; the variables of a job and its steps are secret."""
    return {job: {name: _veiled_key(name, item) for name, item in table.items()} for job, table in found.items()}


def _veiled_key(name: str, item: Any) -> Any:
    if name == "steps":
        return [{key: _veiled_key(key, value) for key, value in step.items()} for step in item]
    return _veiled(item, name == "env")


# ---- lines


def lines_of(text: str) -> dict[KeyPath, int]:
    """Returns the line at which each value and each table of a TOML document begins."""
    found: dict[KeyPath, int] = {}
    table: KeyPath = ()
    for line, statement, parsed in _statements(text):
        if statement.startswith("["):
            table = _header(parsed, found)
            found[table] = line
        else:
            found |= {(*table, *place): line for place in _places(parsed)}
    return found


def _statements(text: str) -> Iterator[tuple[int, str, Tree]]:
    """Yields headers and assignments with their first lines; each is TOML by itself once its last line has come."""
    begun, first = "", 0
    for number, line in enumerate(text.split("\n"), 1):
        if not begun and not re.match(_STATEMENT, line):
            continue
        first = first if begun else number
        begun += line.lstrip() + "\n" if not begun else line + "\n"
        try:
            parsed = tomllib.loads(begun)
        except tomllib.TOMLDecodeError:
            continue
        yield first, begun, parsed
        begun = ""


_STATEMENT = r"\s*[^\s#]"


def _header(parsed: Tree, found: Mapping[KeyPath, int]) -> KeyPath:
    """Returns the place of the table that a header begins: of several in a list the next, or the last for one below it."""
    place: KeyPath = ()
    at: Any = parsed
    while at:
        if isinstance(at, list):
            count = sum(len(known) == len(place) + 1 and known[:-1] == place for known in found)
            place, at = (*place, count), at[0]
        else:
            ((name, at),) = at.items()
            place = (*place, name)
            if isinstance(at, dict) and (*place, 0) in found:
                last = max(known[-1] for known in found if len(known) == len(place) + 1 and known[:-1] == place)
                place = (*place, last)
    return place


def _places(parsed: Tree) -> Iterator[KeyPath]:
    for name, value in parsed.items():
        yield (name,)
        if isinstance(value, dict):
            yield from ((name, *place) for place in _places(value))
