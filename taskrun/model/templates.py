"""Commands of `taskrun.toml` with `{fields}` in them: parsed once, filled for each run. `{{` and `}}` are braces.

What a run gives is data: in a string for the shell each field is quoted, so that no value is ever read as code. That holds only
where the shell reads the field as a word, which `shell_syntax` checks.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Collection, Mapping, Sequence
from difflib import get_close_matches
from typing import Any

import msgspec

_TOKEN = r"\{\{|\}\}|\{([^{}]*)\}|[{}]"
_BRACES = "a brace itself is written {{ or }}"


class Placeholder(msgspec.Struct, frozen=True):
    """Where the value of a field stands."""

    field: str


Template = tuple[str | Placeholder, ...]


def parse_template(text: str, fields: Collection[str]) -> Template:
    """Returns the parts of a text, of which no two neighbours are text.

    Raises:
        ValueError: a lone brace, or no such field; says what to write.
    """
    parts: list[str | Placeholder] = []
    plain, at = "", 0
    for found in re.finditer(_TOKEN, text):
        plain += text[at : found.start()]
        at = found.end()
        if found[0] in ("{{", "}}"):
            plain += found[0][0]
            continue
        parts += [plain] if plain else []
        parts.append(_placeholder(found[0], found[1], fields))
        plain = ""
    plain += text[at:]
    return (*parts, plain) if plain else tuple(parts)


def _placeholder(token: str, name: str | None, fields: Collection[str]) -> Placeholder:
    if name is None:
        raise ValueError(f"has a lone {token}; {_BRACES}")
    if name in fields:
        return Placeholder(name)
    close = get_close_matches(name, fields, 1)
    raise ValueError(f"{token} is no field of input; " + (f"did you mean {{{close[0]}}}?" if close else _BRACES))


# ---- filling


def in_shell(template: Template, values: Mapping[str, Any]) -> str:
    """Returns a string for the shell, each field quoted; a list is several words."""
    return "".join(
        part if isinstance(part, str) else " ".join(map(shlex.quote, words_of(values[part.field]))) for part in template
    )


def as_arguments(templates: Sequence[Template], values: Mapping[str, Any]) -> list[str]:
    """Returns the arguments of a command; an item that is only a field is one argument for each element of a list."""
    arguments: list[str] = []
    for template in templates:
        match template:
            case (Placeholder(field=field),):
                arguments += words_of(values[field])
            case _:
                arguments.append(as_text(template, values))
    return arguments


def as_text(template: Template, values: Mapping[str, Any]) -> str:
    """Returns the text with its fields as they are."""
    return "".join(part if isinstance(part, str) else " ".join(words_of(values[part.field])) for part in template)


def words_of(value: Any) -> list[str]:
    """Returns what stands for a value in a command: one word, of a list one for each element."""
    if isinstance(value, list):
        return [word for item in value for word in words_of(item)]
    return [str(value).lower() if isinstance(value, bool) else str(value)]
