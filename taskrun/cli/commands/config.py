"""`taskrun config`: the configuration that is in force, and where each value of it comes from."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import Any

import msgspec
import tomli_w
import typer

from taskrun.cli.backend.described_jobs import did_you_mean
from taskrun.cli.common_options import COMMON
from taskrun.cli.exit_codes import Code, Stop
from taskrun.cli.sanitize import safe_json
from taskrun.cli.session import Session
from taskrun.model.config_sources import Sourced, effective

app = typer.Typer(rich_markup_mode=None, add_completion=False)


@app.command()
def config(
    key: str = typer.Argument("", metavar="[KEY]", help="Only this one, as in grace or retention.keep."),
    json: bool = COMMON.json,
    reveal: bool = typer.Option(False, "--reveal", help="Show secrets and the values of [env] too."),
) -> Any:
    """Print the configuration in force as TOML, each value with the place that it comes from.

    Example: taskrun config retention.keep
    """
    return partial(perform, key, json, reveal)


async def perform(key: str, as_json: bool, reveal: bool, session: Session) -> int:
    """Prints it; a key that there is not is an error that says which one was meant."""
    found = effective(session.config.path, session.facts.env, reveal)
    place = _place(found, key)
    if as_json:
        session.json(msgspec.to_builtins(_at(found, place)))
    else:
        text = "\n".join(_toml(_only(found, place), ()))
        session.data(safe_json(text.strip("\n"), ascii=False) + "\n")  # TOML has the escapes of JSON
    return Code.DONE


def _place(found: dict[str, Any], key: str) -> list[str]:
    """Returns the names that lead to a key; those of `[taskrun]` need not say so.

    Raises:
        Stop: there is none.
    """
    names = key.split(".") if key else []
    for place in (names, ["taskrun", *names]):
        if _at(found, place) is not None:
            return place
    known = [*found["taskrun"], *(f"{section}.{name}" for section in ("retention", "env") for name in found[section])]
    raise Stop(
        Code.NOT_FOUND, f'no key "{key}"', hint=did_you_mean(key, [*known, "schedule"], "see all: taskrun config")
    )


def _at(found: Any, place: list[str]) -> Any:
    for name in place:
        found = found.get(name) if isinstance(found, dict) else None
    return found


def _only(found: dict[str, Any], place: list[str]) -> dict[str, Any]:
    """Returns what is at a place, and the tables that it is in."""
    if not place:
        return found
    return {place[0]: _only(found[place[0]], place[1:]) if len(place) > 1 else found[place[0]]}


def _toml(table: dict[str, Any], above: tuple[str, ...]) -> Iterator[str]:
    """Yields the lines of a table: its values first, since a table that follows would take them in."""
    for name, value in table.items():
        if isinstance(value, Sourced):
            yield f"{tomli_w.dumps({name: value.value}).rstrip()}  # {_comment(value)}"
    for name, value in table.items():
        header = ".".join((*above, _key(name)))
        if isinstance(value, dict):
            if not value or any(isinstance(one, Sourced) for one in value.values()):  # else its tables name it
                yield f"\n[{header}]"
            yield from _toml(value, (*above, _key(name)))
        elif isinstance(value, list):
            for one in value:
                yield f"\n[[{header}]]"
                yield from _toml(one, (*above, _key(name)))


def _comment(value: Sourced) -> str:
    return value.source if value.line is None else f"{value.source}:{value.line}"


def _key(name: str) -> str:
    return tomli_w.dumps({name: 0}).removesuffix(" = 0\n")
