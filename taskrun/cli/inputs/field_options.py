"""What was typed after `start JOB`: which tokens are the command's own options, and what input the others make.

Two pure steps. `partition` needs no schema, so that parsing needs no daemon: options that the command does not know are fields.
`build` applies the fields to the schema and collects *every* problem.
"""

from __future__ import annotations

from collections.abc import Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import Any, NamedTuple

from taskrun.cli.inputs.conversion import convert, located, union_of
from taskrun.cli.inputs.input_schema import Field, InputSchema, Schema, is_open, kind
from taskrun.cli.inputs.usage import metavar
from taskrun.cli.option_names import ESCAPE, FieldPath, OwnOptions, option_name
from taskrun.cli.sanitize import cell

ABSENT: Any = object()  # the value of `--input` when it was not typed, since it may be null


class Given(NamedTuple):
    """A field as it was typed: `--path song.mp3`. `text` is None where nothing followed."""

    name: str
    text: str | None


class Built(NamedTuple):
    """The input that was typed, or all that is wrong with it."""

    value: Any
    problems: list[str]


def partition(args: Sequence[str], own: OwnOptions) -> tuple[list[str], list[Given]]:
    """Separates the command's own tokens (arguments included) from the fields of an input.

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


def _is_own(token: str, own: OwnOptions) -> bool:
    if token.partition("=")[0] in own.flags | own.valued:
        return token in own.flags or token in own.valued or token.partition("=")[0] in own.valued
    cluster = len(token) > 2 and token[0] == "-" and token[1] != "-"
    return cluster and all(f"-{letter}" in own.flags for letter in token[1:])


# ---- fields to input


def build(
    schema: InputSchema, given: Sequence[Given], base: Any = ABSENT, *, folder: Path, complete: bool = True
) -> Built:
    """Returns the input that `given` makes on top of `base`, and everything that is wrong with it.

    Parameters:
        base: the value of `--input`; options win over it.
        folder: the caller's, to which paths and `@FILE` are relative.
        complete: whether missing required fields are a problem.
    """
    problems: list[str] = []
    value: Any = {} if base is ABSENT else _copied(base)
    if given and not isinstance(value, dict):
        return Built(value, ["--input is not a JSON object, so no option can be added to it"])
    for name, texts in _grouped(schema, given):
        problems += _apply(schema, value, name, texts, folder)
    if complete:
        problems += _missing(schema, value, given)
    return Built(value if problems else located(value, schema.root, schema.resolve, folder), problems)


def _missing(schema: InputSchema, value: Any, given: Sequence[Given]) -> list[str]:
    """Returns a problem for each required field that was not typed, not even wrongly."""
    if not isinstance(value, dict) and schema.fields:
        return ["--input is not a JSON object"]
    tried = {_key(schema, name) for name, _ in given}
    return [f"--{name} is required" for name in schema.missing(value) if name not in tried]


def _copied(value: Any) -> Any:
    return {key: _copied(inner) for key, inner in value.items()} if isinstance(value, dict) else value


def _grouped(schema: InputSchema, given: Sequence[Given]) -> list[tuple[str, list[str | None]]]:
    """Returns the fields in the order in which they were first typed, each with all its texts."""
    groups: dict[str, list[str | None]] = {}
    for name, text in given:
        groups.setdefault(_key(schema, name), []).append(text)
    return list(groups.items())


def _key(schema: InputSchema, typed: str) -> str:
    """Returns the same name for all spellings of a field."""
    if (field := schema.find(typed)) is not None:
        return field.name
    return typed if schema.find_negated(typed) is not None else typed.removeprefix(ESCAPE)


def _apply(schema: InputSchema, value: dict[str, Any], name: str, texts: list[str | None], folder: Path) -> list[str]:
    if schema.find(name) is None and (negated := schema.find_negated(name)) is not None:
        _put(value, negated.path, False)
        return [f"--{name} takes no value, but {_quoted(text)} follows" for text in texts if text is not None]
    field = find_field(schema, name)
    if field is None:
        return [_unknown(schema, name)]
    if (of_items := _repeated(field, len(texts))) is not None:
        return _apply_many(schema, value, field, of_items, texts, folder)
    return _apply_one(value, field, texts[-1], folder)


def _repeated(field: Field, times: int) -> Schema | None:
    """Returns the array that a field is, or may be if it was typed more than once."""
    if field.many:
        return field.schema
    if times < 2 or kind(field.schema) != "union":
        return None
    return next((branch for branch in union_of(field.schema) if kind(branch) == "array"), None)


def _apply_one(value: dict[str, Any], field: Field, text: str | None, folder: Path) -> list[str]:
    try:
        _put(value, field.path, _converted(field, text, field.schema, folder))
    except ValueError as problem:
        return [str(problem)]
    return []


def _apply_many(
    schema: InputSchema, value: dict[str, Any], field: Field, array: Schema, texts: list[str | None], folder: Path
) -> list[str]:
    items: list[Any] = []
    problems: list[str] = []
    for index, text in enumerate(texts):
        try:
            items.append(_converted(field, text, schema.item(array, index), folder))
        except ValueError as problem:
            problems.append(str(problem))
    _put(value, field.path, items)
    return problems


def _converted(field: Field, text: str | None, schema: Schema, folder: Path) -> Any:
    if text is None and (field.flag or schema.get("free")):
        return True
    if text is None:
        raise ValueError(f"--{field.name} needs a value: {metavar(schema)}")
    try:
        return convert(text, schema, folder)
    except ValueError as problem:
        raise ValueError(f"--{field.name} {_quoted(text)} {problem}") from None


def find_field(schema: InputSchema, name: str) -> Field | None:
    """Returns a field, also one that is not listed."""
    return schema.find(name) or _free(schema, name)


def _free(schema: InputSchema, name: str) -> Field | None:
    """Returns a field that is not listed: in an open object, in a mapping, or deeper than options are listed."""
    path = tuple(name.split("."))
    for cut in range(len(path) - 1, 0, -1):
        if (owner := schema.find(".".join(path[:cut]))) is not None:
            return _below(schema, owner.path, owner.schema, path[cut:], name)
    return _below(schema, (), schema.root, path, name)


def _below(schema: InputSchema, start: FieldPath, above: Schema, rest: FieldPath, name: str) -> Field | None:
    """Descends from an object by the names that were typed."""
    for typed in rest:
        listed = above.get("properties") or {}
        key = next((spelled for spelled in (typed, typed.replace("-", "_")) if spelled in listed), typed)
        if not key or (key not in listed and not is_open(above)):
            return None
        inner = listed.get(key, above.get("additionalProperties"))
        above = schema.resolve(inner) if isinstance(inner, dict) else {}
        start = (*start, key)
    return Field(start, above or {"free": True}, False, name)


def _put(value: dict[str, Any], path: tuple[str, ...], item: Any) -> None:
    for name in path[:-1]:
        inner = value.get(name)
        value[name] = value = inner if isinstance(inner, dict) else {}
    value[path[-1]] = item


def _unknown(schema: InputSchema, name: str) -> str:
    close = get_close_matches(option_name([name]), schema.fields, 2, 0.6)
    hint = "\n  did you mean  " + "  ".join(f"--{match}" for match in close) if close else ""
    return f"there is no option --{cell(name)}{hint}"


def _quoted(text: str) -> str:
    return f'"{cell(text)}"'
