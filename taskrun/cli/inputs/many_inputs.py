"""The many inputs of `start JOB --each`: files that match a pattern, rows of a table, or JSON objects.

Each source is read to `Row`s, which know where they stand; `build_all` applies them to the schema of the job, with what was typed
for all of them, and collects every problem.
"""

from __future__ import annotations

import csv
import glob
import io
import os
import re
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from taskrun.cli.exit_codes import Code, Stop
from taskrun.cli.inputs.field_options import Given, build, find_field
from taskrun.cli.inputs.input_schema import InputSchema, kind
from taskrun.cli.inputs.text_forms import form_of, read_file
from taskrun.cli.sanitize import cell
from taskrun.model.codec import parse_json
from taskrun.model.errors import InputInvalid

MOST_WRONG = 20  # problems that are told
SEPARATORS = {".csv": ",", ".tsv": "\t"}


class Row(NamedTuple):
    """One input: its fields as text, or as JSON.

    Parameters:
        place: how a message calls it: `rows.csv line 3`, or the file that matched.
    """

    place: str
    texts: Sequence[Given] = ()
    values: dict[str, Any] = {}  # noqa: RUF012


def read_rows(
    sources: Sequence[str], more: Sequence[str], schema: InputSchema, folder: Path, stdin: bytes
) -> list[Row]:
    """Returns the inputs that sources give.

    Parameters:
        sources: `FIELD=PATTERN`, `@rows.csv`, `@items.jsonl` or `-`.
        more: further patterns for the field of the last source.
        stdin: standard input, if `-` is a source.

    Raises:
        Stop: one cannot be read, or there are no inputs at all.
    """
    rows: list[Row] = []
    patterns: dict[str, list[str]] = {}
    field = ""
    for source in sources:
        field, equals, pattern = source.partition("=")
        if source == "-":
            rows += _json_lines(_text(stdin), "standard input")
        elif source.startswith("@"):
            rows += _of_file(source[1:], schema, folder)
        elif equals and field:
            patterns.setdefault(field, []).append(pattern)
        else:
            raise Stop(
                Code.USAGE, f"--each {cell(source)} is none of FIELD=PATTERN, @FILE.csv, @FILE.jsonl and - (JSON lines)"
            )
    if more and field not in patterns:
        raise Stop(Code.USAGE, f"{cell(more[0])} is no option; further patterns follow --each FIELD=PATTERN")
    if more:
        patterns[field] += more
    for field, given in patterns.items():
        _check_field(field, schema, f"--each {cell(field)}=…")
        rows += _matches(field, given, folder)
    if not rows:
        raise Stop(Code.USAGE, f"--each {' '.join(map(cell, sources))}: there are no inputs")
    return rows


def build_all(
    schema: InputSchema, rows: Iterable[Row], given: Sequence[Given], base: Any, folder: Path
) -> tuple[list[tuple[str, Any]], list[str]]:
    """Returns each input with its place, and everything that is wrong with them.

    Parameters:
        given: fields that were typed for all of them; what a row says goes before.
        base: the value of `--input`.
    """
    made: list[tuple[str, Any]] = []
    found: dict[str, list[str]] = {}  # a problem, and where it is: what was typed for all of them is wrong in each
    for row in rows:
        own = {_spelled(schema, one.name) for one in row.texts} | set(row.values)
        rest = [one for one in given if _spelled(schema, one.name) not in own]
        start = base if not row.values else {**(base if isinstance(base, dict) else {}), **row.values}
        built = build(schema, [*rest, *row.texts], start, folder=folder)
        made.append((row.place, built.value))
        for problem in built.problems:
            found.setdefault(problem, []).append(row.place)
        if len(found) > MOST_WRONG:
            break
    told = [f"{places[0]}{_others(len(places) - 1)}: {problem}" for problem, places in found.items()]
    return made, [*told[:MOST_WRONG], *(["there are more"] if len(told) > MOST_WRONG else [])]


def _others(count: int) -> str:
    return "" if count == 0 else f" and {count:,} other{'' if count == 1 else 's'}"


def _spelled(schema: InputSchema, name: str) -> str:
    field = schema.find(name)
    return name if field is None else ".".join(field.path)


def _check_field(name: str, schema: InputSchema, place: str) -> None:
    if find_field(schema, name) is None:
        known = ", ".join(field.name for field in schema.fields.values() if not field.nested)
        raise Stop(Code.USAGE, f"{place}: the job has no field {cell(name)}; it has {known or 'none'}")


# ---- files that match


def _matches(field: str, patterns: Sequence[str], folder: Path) -> Iterator[Row]:
    found = dict.fromkeys(path for pattern in patterns for path in _files(pattern, folder))
    if not found:
        raise Stop(Code.USAGE, f"--each {cell(field)}={' '.join(map(cell, patterns))}: no file in {folder} matches")
    return (Row(cell(os.path.relpath(path, folder)), [Given(field, path)]) for path in found)


def _files(pattern: str, folder: Path) -> list[str]:
    """Returns the files that match, as absolute paths; a name that is there is that file, whatever it looks like."""
    whole = str(folder / _at_home(pattern))
    # `Path.glob` would also give hidden files
    found = [whole] if os.path.lexists(whole) else glob.glob(str(_at_home(pattern)), root_dir=folder, recursive=True)  # noqa: PTH207
    paths = (os.path.normpath(folder / path) for path in found)
    return sorted(path for path in paths if Path(path).is_file())


def _at_home(path: str) -> Path:
    return Path(path).expanduser() if path.startswith("~/") else Path(path)


# ---- tables and JSON


def _of_file(name: str, schema: InputSchema, folder: Path) -> Iterator[Row]:
    try:
        content = read_file(folder / _at_home(name))
    except ValueError as fault:
        raise Stop(Code.USAGE, f"--each @{cell(name)}: {fault}") from None
    text, separator = _text(content), SEPARATORS.get(Path(name).suffix.lower())
    return _json_lines(text, cell(name)) if separator is None else _table(text, separator, cell(name), schema)


def _text(content: bytes) -> str:
    """Returns what was read; bytes that are no UTF-8 stand for themselves, which JSON refuses and the name of a file may have."""
    return content.decode("utf-8", "surrogateescape").removeprefix("\ufeff")


def _table(text: str, separator: str, name: str, schema: InputSchema) -> Iterator[Row]:
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=separator, strict=True)
    header: list[str] = []
    before = 0
    try:
        for cells in reader:
            place, before = f"{name} line {before + 1}", reader.line_num
            if not cells:
                continue
            if not header:
                header = _header(cells, schema, place)
                continue
            if len(cells) > len(header):
                raise Stop(
                    Code.USAGE,
                    f"{place}: {len(cells)} cells, but {len(header)} column{'' if len(header) == 1 else 's'}",
                )
            yield Row(place, [Given(*pair) for pair in zip(header, cells, strict=False) if _is_given(*pair, schema)])
    except csv.Error as fault:
        raise Stop(Code.USAGE, f"{name} line {reader.line_num}: {fault}") from None


def _header(cells: Sequence[str], schema: InputSchema, place: str) -> list[str]:
    header = [one.strip() for one in cells]
    for name in header:
        _check_field(name, schema, place)
        if header.count(name) > 1:
            raise Stop(Code.USAGE, f"{place}: the column {cell(name)} appears twice")
    return header


def _is_given(column: str, text: str, schema: InputSchema) -> bool:
    """Whether a cell says anything: an empty one is the default, but of text the empty text."""
    field = find_field(schema, column)
    return bool(text) or (field is not None and kind(field.schema) == "string" and form_of(field.schema) is None)


_WITHIN = re.compile(r": line 1 column (\d+) \(char \d+\)")  # how a line of JSON calls itself


def _json_lines(text: str, name: str) -> Iterator[Row]:
    for number, line in enumerate(text.split("\n"), 1):
        if not line.strip():
            continue
        place = f"{name} line {number}"
        try:
            values = parse_json(line.encode("utf-8", "surrogateescape"), place)
        except InputInvalid as error:
            found = [_WITHIN.sub(r" at column \1", fault) for _, fault in error.problems]
            raise Stop(Code.USAGE, *(f"{place}: {fault}" for fault in found), kind="InputInvalid") from None
        if not isinstance(values, dict):
            raise Stop(Code.USAGE, f"{place}: not a JSON object", kind="InputInvalid")
        yield Row(place, values=values)
