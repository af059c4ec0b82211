"""What the schemas say beyond msgspec's: forms of times, paths of this machine, and no fields that are computed."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from datetime import date, datetime, time, timedelta
from pathlib import Path, PurePosixPath
from typing import Annotated, Any, Literal, NewType, NotRequired, TypedDict

import attrs
import msgspec
import pydantic
import pydantic.dataclasses
import pytest

from taskrun.model.json_schema import described

Moment = NewType("Moment", datetime)


@dataclass
class Plain:
    at: datetime
    computed: int = dataclasses.field(init=False, default=3)


@attrs.define
class Attrs:
    at: time
    computed: int = attrs.field(init=False, default=3)


@pydantic.dataclasses.dataclass
class Checked:
    at: datetime
    computed: int = dataclasses.field(init=False, default=3)


class Tree(msgspec.Struct):
    at: time
    inner: list[Tree] = []


class Typed(TypedDict):
    plain: Plain
    at: NotRequired[datetime]


def forms(schema: Any) -> list[str]:
    """Returns the formats that a schema holds, in order."""
    if isinstance(schema, list):
        return [form for one in schema for form in forms(one)]
    if not isinstance(schema, dict):
        return []
    inner = [form for key, one in schema.items() if key != "format" for form in forms(one)]
    return [schema["format"], *inner] if isinstance(schema.get("format"), str) else inner


@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        (datetime, ["date-time"]),
        (time, ["time"]),
        (date, ["date"]),
        (timedelta, ["duration"]),
        (Moment, ["date-time"]),
        (Annotated[datetime, msgspec.Meta(description="when")], ["date-time"]),
        (datetime | None, ["date-time"]),
        (int | datetime | None, ["date-time"]),
        (Literal["now"] | datetime, ["date-time"]),
        (Tree | datetime, ["date-time", "time"]),
        (list[datetime], ["date-time"]),
        (tuple[int, time], ["time"]),
        (tuple[datetime, ...] | None, ["date-time"]),
        (dict[str, datetime] | int, ["date-time"]),
        (Typed, ["date-time", "date-time"]),
        (Tree, ["time", "time"]),
        (Path, ["path"]),
        (list[Path | None], ["path"]),
        (PurePosixPath, []),
        (str, []),
    ],
)
def test_a_schema_names_the_form_of_a_text(kind: Any, expected: list[str]) -> None:
    assert sorted(forms(described(kind))) == sorted(expected)


@pytest.mark.parametrize("model", [Plain, Attrs, Checked])
def test_computed_fields_are_no_part_of_an_input(model: type) -> None:
    assert list(described(model)["properties"]) == ["at"]
    assert list(described({"one": model | None})["$defs"][model.__name__]["properties"]) == ["at"]


@dataclass
class Holder:
    """msgspec has no schema of it, for the default of a path."""

    p: Path = Path("here")
    inner: Holder | None = None


@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        (Holder, ["path"]),
        (list[Holder], ["path"]),
        (dict[str, Holder], ["path"]),
        (tuple[int, Holder], ["path"]),
        (tuple[Holder, ...], ["path"]),
        (set[Path] | Holder, ["path", "path"]),
        (Annotated[time, msgspec.Meta(tz=False)], ["partial-time"]),
    ],
)
def test_a_type_that_is_taken_apart_keeps_the_forms_of_its_parts(kind: Any, expected: list[str]) -> None:
    schema = described({"field": kind})
    assert [form for form in forms(schema) if form != "date-time"] == expected
    assert forms(schema["properties"]["field"]) or "$defs" in schema


def test_a_model_that_holds_itself_has_a_schema() -> None:
    schema = described({"field": dict[str, Holder]})
    (holder,) = schema["$defs"].values()
    assert set(holder["properties"]) == {"p", "inner"}
    reference = schema["properties"]["field"]["additionalProperties"]
    assert holder["properties"]["inner"] == {"anyOf": [reference, {"type": "null"}]}
