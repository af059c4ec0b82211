"""Tags: texts by name that say what a run belongs to. Read from options, from command lines, and from the journal."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

import msgspec

from taskrun.model.durations import shown
from taskrun.model.errors import DefinitionError
from taskrun.model.names import NAME
from taskrun.model.records import Run

LONGEST = 200  # characters of a value


def checked_tags(value: object) -> dict[str, str]:
    """Returns a mapping of names to texts, an empty one for None.

    Raises:
        DefinitionError: it is none, or one of them cannot be a tag.
    """
    if value is None:
        return {}
    if not isinstance(value, Mapping):
        raise DefinitionError(f"tags are a mapping of names to texts, not {shown(value)}")
    return {_name(name): _text(name, text) for name, text in value.items()}


def typed_tags(given: Iterable[str]) -> dict[str, str]:
    """Returns tags that were typed as `NAME=VALUE`; of two with one name, the later.

    Raises:
        DefinitionError: one cannot be a tag.
    """
    tags = {}
    for each in given:
        name, equals, text = each.partition("=")
        if not equals:
            raise DefinitionError(f"a tag is NAME=VALUE, as in env=prod, not {shown(each)}")
        tags[_name(name)] = _text(name, text)
    return tags


def wanted_tags(given: Iterable[str]) -> tuple[tuple[str, str | None], ...]:
    """Returns the tags that runs must have, typed as `NAME=VALUE`, or as `NAME` for any value.

    Raises:
        DefinitionError: one cannot be a tag.
    """
    parts = [each.partition("=") for each in given]
    return tuple((_name(name), _text(name, text) if equals else None) for name, equals, text in parts)


def tags_of(run: Run) -> dict[str, str]:
    """Returns the tags of a run."""
    return msgspec.json.decode(run.tags, type=dict[str, str]) if run.tags else {}


def _name(name: object) -> str:
    if not isinstance(name, str) or not re.fullmatch(NAME, name):
        raise DefinitionError(
            f"the name of a tag is letters, digits and _ . -, as in env, at most 100 of them, not {shown(name)}"
        )
    return str.__str__(name)


def _text(name: str, text: object) -> str:
    if not isinstance(text, str) or not text:
        raise DefinitionError(
            f'tag "{name}" needs a text, as in {name}=prod' + (f", not {shown(text)}" if text else "")
        )
    if len(text) > LONGEST or not text.isprintable():
        raise DefinitionError(f'tag "{name}" takes at most {LONGEST} characters, all of which can be printed')
    return str.__str__(text)
