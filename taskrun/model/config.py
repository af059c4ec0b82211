"""The project's configuration: `taskrun.toml`, found by walking up, with `TASKRUN_…` variables over it.

Called by the command line, the daemon and the worker processes. The tables below are the whole of what may be written.
"""

from __future__ import annotations

import tomllib
from collections.abc import Callable, Mapping
from difflib import get_close_matches
from pathlib import Path
from typing import Any

import msgspec

from taskrun.model import durations
from taskrun.model.errors import ConfigError, DefinitionError, DurationInvalid

FILE = "taskrun.toml"
PREFIX = "TASKRUN_"

Environ = Mapping[str, str]


class ScheduleEntry(msgspec.Struct, frozen=True):
    """One `[[schedule]]`: a job started by the clock, without touching its code."""

    job: str
    cron: str
    timezone: str | None = None
    input: dict[str, Any] = {}


class Config(msgspec.Struct, frozen=True, kw_only=True):
    """A project's configuration, resolved: absolute paths, seconds, bytes."""

    root: Path
    path: Path
    jobs: list[str]
    journal: str
    concurrency: int
    grace: float
    workers: int
    max_payload: int
    keep: float
    max_log: int
    schedules: list[ScheduleEntry]
    env: dict[str, str]


def find(start: Path, explicit: str | None, environ: Environ) -> Path:
    """Returns the path of the configuration.

    Parameters:
        start: the current folder; the search walks up from it.
        explicit: what `--config` says; it goes before `TASKRUN_CONFIG`.
        environ: the environment.

    Raises:
        ConfigError: there is none.
    """
    named = explicit or environ.get(PREFIX + "CONFIG")
    if named:
        return _named(start / _at_home(named))
    start = start.absolute()
    for folder in (start, *start.parents):
        if _is_file(folder / FILE):
            return folder / FILE
    raise ConfigError(f"no {FILE} in {start} or above; `taskrun init` makes one")


def load(path: Path, environ: Environ) -> Config:
    """Reads a configuration, with the variables of the environment over it.

    Raises:
        ConfigError: broken TOML, an unknown key, or a value that does not fit; names file and key.
    """
    document, root = _parse(path), path.absolute().parent.resolve()
    _refuse_unknown(document, {"taskrun", "retention", "schedule", "env"}, "", path)
    settings = _table(document, "taskrun", _SETTINGS, path) | _overrides(environ, "", _SETTINGS)
    retention = _table(document, "retention", _RETENTION, path) | _overrides(environ, "RETENTION__", _RETENTION)
    return Config(
        root=root,
        path=path.absolute(),
        journal=_located(settings.pop("journal"), root),
        schedules=_schedules(document, path),
        env=_table(document, "env", None, path) | _environment(environ),
        **settings,
        **retention,
    )


# ---- what may be written: for each key its default and how it is read


class _Key(msgspec.Struct, frozen=True):
    """`read` raises ValueError when a value is not what `expected` says; a `needed` key has no default."""

    expected: str
    read: Callable[[Any], Any]
    default: Any = None
    needed: bool = False


def _any_text(value: Any) -> str:
    if isinstance(value, str):
        return value
    raise ValueError


def _text(value: Any) -> str:
    if _any_text(value).strip():
        return str(value)
    raise ValueError


def _texts(value: Any) -> list[str]:
    if isinstance(value, list):
        return [_text(item) for item in value]
    raise ValueError


def _count(value: Any) -> int:
    if isinstance(value, int) and not isinstance(value, bool) and value > 0:
        return value
    raise ValueError


def _mapping(value: Any) -> dict[str, Any]:
    if isinstance(value, dict):
        return dict(value)
    raise ValueError


_COUNT = "a whole number of 1 or more"
_DURATION = 'a duration such as "10s" or "30d" (ms, s, m, h, d, w, y)'
_SIZE = 'a size such as "4MB" (B, KB, MB, GB, TB)'

_SETTINGS = {
    "jobs": _Key("a list of modules, packages, folders or globs", _texts, ["jobs"]),
    "journal": _Key("a path or a postgresql:// address", _text, ".taskrun/journal.db"),
    "concurrency": _Key(_COUNT, _count, 100),
    "grace": _Key(_DURATION, durations.seconds, "10s"),
    "workers": _Key(_COUNT, _count, 1),
    "max_payload": _Key(_SIZE, durations.size, "4MB"),
}
_RETENTION = {
    "keep": _Key(_DURATION, durations.seconds, "30d"),
    "max_log": _Key(_SIZE, durations.size, "50MB"),
}
_SCHEDULE = {
    "job": _Key("the name of a job", _text, needed=True),
    "cron": _Key('a cron expression such as "0 3 * * *"', _text, needed=True),
    "timezone": _Key('a time zone such as "Europe/Berlin"', _text),
    "input": _Key("a table", _mapping, {}),
}
_VARIABLE = _Key("text", _any_text)


# ---- the file


def _named(path: Path) -> Path:
    if path.is_dir():
        path = path / FILE
    if not _is_file(path):
        raise ConfigError(f"no configuration at {path}; `taskrun init` makes one")
    return path.absolute()


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except OSError:  # a folder above that may not be looked into
        return False


def _parse(path: Path) -> dict[str, Any]:
    text = ""
    try:
        text = path.read_bytes().decode()
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        said = str(error).replace("at end of document", f"at line {text.count(chr(10)) + 1}, the end")
        raise ConfigError(f"{path}: broken TOML: {said}") from None
    except UnicodeDecodeError:
        raise ConfigError(f"{path}: not UTF-8") from None
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read: {error.strerror}") from None


def _table(document: dict[str, Any], section: str, keys: dict[str, _Key] | None, path: Path) -> dict[str, Any]:
    """Reads a section; `keys` None is the free one, [env]."""
    found = document.get(section, {})
    if not isinstance(found, dict):
        raise ConfigError(f"{path}: {section} must be a table, written [{section}]")
    return _keys(found, keys if keys is not None else dict.fromkeys(found, _VARIABLE), f"[{section}] ", path)


def _schedules(document: dict[str, Any], path: Path) -> list[ScheduleEntry]:
    found = document.get("schedule", [])
    if not isinstance(found, list) or not all(isinstance(one, dict) for one in found):
        raise ConfigError(f"{path}: schedule must be a list of tables, each written [[schedule]]")
    return [ScheduleEntry(**_keys(one, _SCHEDULE, "[[schedule]] ", path)) for one in found]


def _keys(found: dict[str, Any], keys: dict[str, _Key], section: str, path: Path) -> dict[str, Any]:
    _refuse_unknown(found, keys, section, path)
    for name, key in keys.items():
        if key.needed and name not in found:
            raise ConfigError(f"{path}: {section}{name} is missing: {key.expected}")
    return {name: _read(found, name, key, f"{path}: {section}{name}") for name, key in keys.items()}


def _read(found: dict[str, Any], name: str, key: _Key, place: str) -> Any:
    if name not in found:
        return key.default if key.default is None else key.read(key.default)
    try:
        return key.read(found[name])
    except (ValueError, DurationInvalid, DefinitionError):
        raise ConfigError(f"{place} must be {key.expected}, not {_shown(found[name])}") from None


def _refuse_unknown(found: Mapping[str, Any], known: Mapping[str, Any] | set[str], section: str, path: Path) -> None:
    for name in found:
        if name not in known:
            close = get_close_matches(name, known, 1)
            hint = f"did you mean {close[0]}?" if close else f"known are {', '.join(sorted(known))}"
            raise ConfigError(f"{path}: {section}{name} is no key; {hint}")


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:59] + "…"


def _located(journal: str, root: Path) -> str:
    if journal.startswith(("postgresql://", "postgres://")):
        return journal
    return str(root / _at_home(journal))


def _at_home(path: str) -> Path:
    try:
        return Path(path).expanduser()
    except RuntimeError:  # `~nobody`
        return Path(path)


# ---- the environment


def _overrides(environ: Environ, section: str, keys: dict[str, _Key]) -> dict[str, Any]:
    """Reads the variables of a section's keys; a variable of no key is somebody else's."""
    variables = {name: PREFIX + section + name.upper() for name in keys}
    return {
        name: _read({name: _untyped(environ[variable], keys[name])}, name, keys[name], variable)
        for name, variable in variables.items()
        if variable in environ
    }


def _untyped(text: str, key: _Key) -> Any:
    if key.read is _texts:
        return [part.strip() for part in text.split(",") if part.strip()]
    if key.read is _count and text.isascii() and text.isdigit() and len(text) < 10:
        return int(text)
    return text


def _environment(environ: Environ) -> dict[str, str]:
    prefix = PREFIX + "ENV__"
    return {name.removeprefix(prefix): value for name, value in environ.items() if name.startswith(prefix)}
