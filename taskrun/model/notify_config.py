"""The tables `[[notify]]` of `taskrun.toml`: who is told of what, and how."""

from __future__ import annotations

from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import msgspec

from taskrun.model.config_keys import Key, TablePlace, nonempty, texts
from taskrun.model.errors import ConfigError
from taskrun.model.shell_syntax import check_fields
from taskrun.model.templates import parse_template

EVENTS = ("failed", "recovered", "missed", "late", "slow", "succeeded", "cancelled", "paused", "asked")
TEST = "test"  # the event of `taskrun notify test`, which is tried once
USUAL = ["failed", "recovered", "missed", "late", "slow"]
FIELDS = ("title", "text", "run", "job", "event")  # that a command may have
HIDDEN = "***"


class Way(msgspec.Struct, frozen=True, omit_defaults=True):
    """One way of telling somebody: exactly one of the first three is set; `secret` signs what a webhook gets."""

    desktop: bool = False
    command: str | None = None
    webhook: str | None = None
    secret: str | None = None

    @property
    def label(self) -> str:
        """How it is called where everybody sees it."""
        if self.webhook is not None:
            return f"webhook {without_path(self.webhook)}"
        return "desktop" if self.command is None else "command"

    def target(self) -> dict[str, Any]:
        """Returns what is set of it, as JSON."""
        return {name: value for name, value in msgspec.structs.asdict(self).items() if value}


class NotifyTable(msgspec.Struct, frozen=True):
    """A `[[notify]]`; without `jobs` it is for all of them."""

    on: tuple[str, ...]
    jobs: tuple[str, ...]
    ways: tuple[Way, ...]

    def wants(self, event: str, *names: str | None) -> bool:
        """Whether it is for an event of a job that has these names."""
        return event in self.on and (
            not self.jobs or any(fnmatchcase(name, wanted) for name in names if name for wanted in self.jobs)
        )


def read_notify(document: dict[str, Any], path: Path) -> list[NotifyTable]:
    """Reads the tables of a document.

    Raises:
        ConfigError: one is wrong; names file, table and key.
    """
    found = document.get("notify", [])
    if not isinstance(found, list) or not all(isinstance(one, dict) for one in found):
        raise ConfigError(f"{path}: notify must be a list of tables, each written [[notify]]")
    several = len(found) > 1
    return [
        _table(one, TablePlace(path, f"[[notify]] {n}" if several else "[[notify]]")) for n, one in enumerate(found, 1)
    ]


def without_path(address: str) -> str:
    """Returns the address of a webhook without what gives access to it: its path, and a password."""
    try:
        parts = urlsplit(address)
        port = f":{parts.port}" if parts.port else ""
    except ValueError:
        return HIDDEN
    host = f"[{parts.hostname}]" if ":" in (parts.hostname or "") else parts.hostname or ""
    return f"{parts.scheme}://{host}{port}/{HIDDEN}"


# ---- readers of values


def _events(value: Any) -> list[str]:
    if texts(value) and all(event in EVENTS for event in value):
        return list(value)
    raise ValueError


def _bool(value: Any) -> bool:
    if isinstance(value, bool):
        return value
    raise ValueError


def _address(value: Any) -> str:
    parts = urlsplit(nonempty(value))
    if parts.scheme not in ("http", "https") or not parts.hostname or not value.isascii() or " " in value:
        raise ValueError
    _ = parts.port  # raises ValueError where it is none
    return str(value)


def _secret(value: Any) -> str:
    if nonempty(value).strip() == "env:":
        raise ValueError
    return str(value)


NOTIFY = {
    "on": Key(f"a list of {', '.join(EVENTS)}", _events, USUAL),
    "jobs": Key('a list of names of jobs, with * where anything may stand, such as ["backup", "sync*"]', texts, []),
    "desktop": Key("true or false", _bool, False),
    "command": Key("a command for the shell", nonempty),
    "webhook": Key("an address such as https://example.com/hook", _address),
    "secret": Key('text, or the name of a variable such as "env:HOOK_SECRET"', _secret),
}


def _table(table: dict[str, Any], place: TablePlace) -> NotifyTable:
    read = place.read(table, NOTIFY)
    if read["command"] is not None:
        _check_command(read["command"], place.at("command"))
    if read["secret"] is not None and read["webhook"] is None:
        raise place.error("secret does nothing without webhook")
    ways = [
        *([Way(desktop=True)] if read["desktop"] else []),
        *([] if read["command"] is None else [Way(command=read["command"])]),
        *([] if read["webhook"] is None else [Way(webhook=read["webhook"], secret=read["secret"])]),
    ]
    if not ways:
        raise place.error("needs desktop, command or webhook")
    return NotifyTable(tuple(read["on"]), tuple(read["jobs"]), tuple(ways))


def _check_command(command: str, place: TablePlace) -> None:
    try:
        check_fields(parse_template(command, FIELDS))
    except ValueError as error:
        raise place.error(str(error)) from None
