"""How the fields of an input are spelled as options, and which options a command keeps for itself.

A field whose option the command itself takes is `--input.NAME`, everywhere: in usage lines, help, lists and errors.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import NamedTuple

ESCAPE = "input."
FieldPath = tuple[str, ...]


class Own(NamedTuple):
    """The options of a command itself: those that stand alone, and those that take a value."""

    flags: frozenset[str]
    valued: frozenset[str]

    def takes(self, name: str) -> bool:
        """Whether `--name` is the command's own, so that a field cannot be called by it alone."""
        return f"--{name}" in self.flags or f"--{name}" in self.valued


# What `start`, `run` and `send` take between them: a field's option is spelled the same for all three.
STARTING = Own(
    frozenset({"-f", "--follow", "--local", "--json", "-q", "--quiet", "--help"}),
    frozenset({"--input", "--in", "--at", "--key", "--config"}),
)


def dashed(path: Sequence[str]) -> str:
    """Returns the plain option of a field: `max_size` of `image` is `image.max-size`."""
    return ".".join(path).replace("_", "-")


def option_name(path: Sequence[str], own: Own = STARTING) -> str:
    """Returns the option of a field, without its leading dashes."""
    return escaped(dashed(path), own)


def escaped(name: str, own: Own) -> str:
    """Returns an option's name with the prefix that tells it from the command's own, where it needs that."""
    return f"{ESCAPE}{name}" if own.takes(name) or name.startswith(ESCAPE) else name


def option_names(paths: Iterable[FieldPath], own: Own) -> dict[str, FieldPath]:
    """Returns a name for each field; fields that differ in `_` and `-` alone keep their own spelling."""
    known = list(paths)
    shared = Counter(dashed(path) for path in known)
    named: dict[str, FieldPath] = {}
    for path in known:
        plain, exact = dashed(path), ".".join(path)
        named.setdefault(escaped(exact if shared[plain] > 1 or plain.startswith("-") else plain, own), path)
    return named


def spellings(named: dict[str, FieldPath]) -> dict[str, FieldPath]:
    """Returns all that may be typed for the fields of `named`: with `_` or `-`, with or without the prefix.

    `--input.NAME` always means the field NAME, so it goes before a field NAME of a field `input`.
    """
    found = dict(named)
    for lead in (ESCAPE, ""):
        for spell in (".".join, dashed):
            for path in named.values():
                found.setdefault(lead + spell(path), path)
    return found
