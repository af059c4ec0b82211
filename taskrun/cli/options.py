"""What was typed after `start JOB`: which tokens are the command's own, and what input the others make.

Two pure steps. `partition` needs no schema, so that parsing needs no daemon: what the command itself knows is its own,
all else is a field. `build` applies the fields to the schema and collects *every* problem.
"""

from __future__ import annotations

from collections.abc import Sequence
from difflib import get_close_matches
from typing import Any, NamedTuple

from taskrun.cli.schemas import Field, InputSchema, convert, is_open, metavar, option_name
from taskrun.cli.visible import cell, to_json


class Own(NamedTuple):
    """The options of a command itself: those that stand alone, and those that take a value."""

    flags: frozenset[str]
    valued: frozenset[str]


class Given(NamedTuple):
    """A field as it was typed: `--path song.mp3`. `text` is None where nothing followed."""

    name: str
    text: str | None


class Built(NamedTuple):
    """The input that was typed, or all that is wrong with it."""

    value: Any
    problems: list[str]


def partition(args: Sequence[str], own: Own) -> tuple[list[str], list[Given]]:
    """Splits tokens into the command's own (arguments included) and the fields of an input.

    A token that begins with `--`, or is an option of the command, is never the value of a field: write `--field=--x`.
    """
    mine: list[str] = []
    given: list[Given] = []
    at = 0
    while at < len(args):
        token, following = args[at], args[at + 1 : at + 2]
        at += 1
        if token == "--":
            return mine + list(args[at - 1 :]), given
        if _is_own(token, own):
            takes = token in own.valued
            mine += [token, *following] if takes else [token]
            at += takes
        elif not token.startswith("--"):
            mine.append(token)
        elif "=" in token:
            name, _, text = token[2:].partition("=")
            given.append(Given(name, text))
        else:
            takes = bool(following) and not following[0].startswith("--") and not _is_own(following[0], own)
            given.append(Given(token[2:], following[0] if takes else None))
            at += takes
    return mine, given


def _is_own(token: str, own: Own) -> bool:
    if token.partition("=")[0] in own.flags | own.valued:
        return token in own.flags or token in own.valued or token.partition("=")[0] in own.valued
    cluster = len(token) > 2 and token[0] == "-" and token[1] != "-"
    return cluster and all(f"-{letter}" in own.flags for letter in token[1:])


# ---- fields to input


def build(schema: InputSchema, given: Sequence[Given], base: Any = None, complete: bool = True) -> Built:
    """Returns the input that `given` makes on top of `base`, and everything that is wrong with it.

    Parameters:
        base: what `--input` holds; options win over it.
        complete: whether required fields that are missing are a problem.
    """
    if not given and base is not None:
        return Built(base, _missing(schema, base, given) if complete else [])
    value: Any = base if base is not None else {}
    if not isinstance(value, dict):
        return Built(value, ["--input is not a JSON object, so that no option can be added to it"])
    value = _copied(value)
    problems = [problem for one in _grouped(schema, given) for problem in _apply(schema, value, *one)]
    return Built(value, problems + (_missing(schema, value, given) if complete else []))


def _missing(schema: InputSchema, value: Any, given: Sequence[Given]) -> list[str]:
    """The required fields that nobody tried to give; of an input that has none, that."""
    if not isinstance(value, dict) and schema.fields:
        return ["--input is not a JSON object"]
    tried = {_known_name(schema, name) for name, _ in given}
    return [f"--{name} is required" for name in schema.missing(value) if name not in tried]


def _copied(value: Any) -> Any:
    return {key: _copied(inner) for key, inner in value.items()} if isinstance(value, dict) else value


def _grouped(schema: InputSchema, given: Sequence[Given]) -> list[tuple[str, list[str | None]]]:
    """The fields in the order they were first typed, each with all that was given for it."""
    groups: dict[str, list[str | None]] = {}
    for name, text in given:
        known = _known_name(schema, name)
        groups.setdefault(known, []).append(text)
    return list(groups.items())


def _known_name(schema: InputSchema, name: str) -> str:
    """Returns the name of a field with `_` as `-`, and without the `input.` that tells it from an own option."""
    plain = name.removeprefix("input.")
    dashed = plain.replace("_", "-")
    return dashed if dashed in schema.fields or _negated(schema, dashed) else plain


def _negated(schema: InputSchema, name: str) -> Field | None:
    head, _, last = name.rpartition(".")
    if not last.startswith("no-"):
        return None
    field = schema.fields.get(f"{head}.{last[3:]}" if head else last[3:])
    return field if field is not None and field.flag else None


def _apply(schema: InputSchema, value: dict[str, Any], name: str, texts: list[str | None]) -> list[str]:
    field = schema.fields.get(name)
    if field is None and (negated := _negated(schema, name)) is not None:
        _put(value, negated.path, False)
        return [f"--{name} takes no value, but {_quoted(text)} follows" for text in texts if text is not None]
    if field is None:
        field = _free(schema, name)
    if field is None:
        return [_unknown(schema, name)]
    if field.many:
        return _apply_many(schema, value, field, texts)
    return _apply_one(value, field, texts[-1])


def _apply_one(value: dict[str, Any], field: Field, text: str | None) -> list[str]:
    try:
        _put(value, field.path, _converted(field, text, field.schema))
    except ValueError as problem:
        return [str(problem)]
    return []


def _apply_many(schema: InputSchema, value: dict[str, Any], field: Field, texts: list[str | None]) -> list[str]:
    items: list[Any] = []
    problems: list[str] = []
    for index, text in enumerate(texts):
        try:
            items.append(_converted(field, text, schema.item(field.schema, index)))
        except ValueError as problem:
            problems.append(str(problem))
    _put(value, field.path, items)
    return problems


def _converted(field: Field, text: str | None, schema: dict[str, Any]) -> Any:
    if text is None and (field.flag or schema.get("free")):
        return True
    if text is None:
        raise ValueError(f"--{field.name} needs a value: {metavar(schema)}")
    try:
        return convert(text, schema)
    except ValueError as problem:
        raise ValueError(f"--{field.name} {_quoted(text)} {problem}") from None


def _free(schema: InputSchema, name: str) -> Field | None:
    """A field that no schema lists, where the object that it belongs to is open."""
    *parents, _ = path = tuple(name.split("."))
    if not all(path):
        return None
    owner = schema.fields.get(option_name(tuple(parents)))
    above = schema.root if owner is None else owner.schema
    if not is_open(above):
        return None
    typed = above.get("additionalProperties")
    inner = schema.resolve(typed) if isinstance(typed, dict) else {}
    start = () if owner is None else owner.path
    return Field((*start, *path[len(start) :]), inner or {"free": True}, False)


def _put(value: dict[str, Any], path: tuple[str, ...], item: Any) -> None:
    for name in path[:-1]:
        inner = value.get(name)
        value[name] = value = inner if isinstance(inner, dict) else {}
    value[path[-1]] = item


def _unknown(schema: InputSchema, name: str) -> str:
    close = get_close_matches(name.replace("_", "-"), schema.fields, 2, 0.6)
    hint = "\n  did you mean  " + "  ".join(f"--{match}" for match in close) if close else ""
    return f"there is no option --{cell(name)}{hint}"


def _quoted(text: str) -> str:
    return f'"{cell(text)}"'


# ---- help


def usage(schema: InputSchema) -> str:
    """Returns the options of an input as one line: `--path TEXT [--bitrate INTEGER]`."""
    shown = [field for field in schema.fields.values() if not field.nested]
    parts = [_short(field) if field.required else f"[{_short(field)}]" for field in shown]
    return " ".join(parts + (["[--NAME VALUE …]"] if schema.open else []))


def listing(schema: InputSchema, own: Own) -> list[tuple[str, str]]:
    """Returns each option with what there is to say of it."""
    shown = [field for field in schema.fields.values() if not field.nested]
    rows = [(_long(field, own), _remark(field)) for field in shown]
    return [*rows, ("--NAME VALUE", "any other field")] if schema.open else rows


def _short(field: Field) -> str:
    return f"--{field.name} {metavar(field.schema)}".strip() + (" …" if field.many else "")


def _long(field: Field, own: Own) -> str:
    taken = f"--{field.name}" in own.flags | own.valued
    name = f"input.{field.name}" if taken else field.name
    if field.flag:
        head, _, last = name.rpartition(".")
        return f"--{name} / --{head + '.' if head else ''}no-{last}"
    return f"--{name} {metavar(field.schema)}"


def _remark(field: Field) -> str:
    default = [f"default {cell(to_json(field.schema['default']))}"] if "default" in field.schema else []
    parts = [str(field.schema.get("description", "")), *default]
    parts += ["required"] if field.required else []
    parts += ["may be repeated"] if field.many else []
    return "; ".join(part for part in parts if part)
