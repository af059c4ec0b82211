"""How the fields of an input are spelled as options, and which options a command keeps for itself.

A field whose name is an option of the command itself is typed as `--input.NAME`; so it appears in usage lines, help and errors.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence

import msgspec

ESCAPE = "input."
FieldPath = tuple[str, ...]

RUN = "run."
# Options of `start` and `run` that give way to a field of that name; `--run.NAME` always means the command's own.
YIELDING = ("after", "after-any", "each", "fail-after", "max", "tag")


class OwnOptions(msgspec.Struct, frozen=True):
    """The options of a command itself: those without a value, and those with one."""

    flags: frozenset[str]
    valued: frozenset[str]

    def takes(self, name: str) -> bool:
        """Whether `--name` is an option of the command itself, so that it cannot mean a field."""
        return f"--{name}" in self.flags or f"--{name}" in self.valued


# All options of `start`, `run` and `send`, so that a field's option is spelled the same for the three of them.
STARTING = OwnOptions(
    frozenset({"-f", "--follow", "--local", "--json", "-q", "--quiet", "--help"}),
    frozenset({"--input", "--in", "--at", "--key", "--config", *(f"--{RUN}{name}" for name in YIELDING)}),
)


def dashed(path: Sequence[str]) -> str:
    """Returns the plain option of a field: `max_size` of `image` is `image.max-size`."""
    return ".".join(path).replace("_", "-")


def option_name(path: Sequence[str], own: OwnOptions = STARTING) -> str:
    """Returns the option of a field, without its leading dashes."""
    return escaped(dashed(path), own)


def escaped(name: str, own: OwnOptions) -> str:
    """Returns an option's name, with the prefix that distinguishes it from the command's own where it needs one."""
    return f"{ESCAPE}{name}" if own.takes(name) or name.startswith(ESCAPE) else name


def option_names(paths: Iterable[FieldPath], own: OwnOptions) -> dict[str, FieldPath]:
    """Returns a name for each field; fields that differ only in `_` and `-` keep their own spelling."""
    known = list(paths)
    shared = Counter(dashed(path) for path in known)
    named: dict[str, FieldPath] = {}
    for path in known:
        plain, exact = dashed(path), ".".join(path)
        named.setdefault(escaped(exact if shared[plain] > 1 or plain.startswith("-") else plain, own), path)
    return named


def spellings(named: dict[str, FieldPath]) -> dict[str, FieldPath]:
    """Returns every spelling of the fields of `named`: with `_` or `-`, with or without the prefix.

    `--input.NAME` always means the field NAME, rather than a field NAME within a field `input`.
    """
    found = dict(named)
    for lead in (ESCAPE, ""):
        for spell in (".".join, dashed):
            for path in named.values():
                found.setdefault(lead + spell(path), path)
    return found
