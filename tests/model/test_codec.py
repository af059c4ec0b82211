"""Values through JSON and back."""

from __future__ import annotations

import dataclasses
import math
from collections import OrderedDict, UserDict, deque
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from enum import Enum, IntEnum, StrEnum
from pathlib import Path
from types import MappingProxyType
from typing import Annotated, Any, NamedTuple, TypedDict
from uuid import UUID

import attrs
import msgspec
import pydantic
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from taskrun.model.codec import decode, encode
from taskrun.model.errors import NotEncodable, OutputInvalid, PayloadTooLarge


@dataclasses.dataclass
class Song:
    title: str
    path: Path | None = None
    source: str | Path = "disk"  # a union that msgspec refuses


@dataclasses.dataclass
class Album:
    songs: list[Song]


class Point(msgspec.Struct):
    x: int
    y: float = 0.0


@attrs.define
class Cover:
    width: int
    colours: set[str] = attrs.Factory(set)


class Upload(pydantic.BaseModel):
    size: int
    at: datetime | None = None
    kind: str = pydantic.Field(default="flac", alias="format")


class Reading(pydantic.BaseModel):
    celsius: float


class Pair(NamedTuple):
    a: int
    b: str


class Tags(TypedDict):
    title: str


class Colour(Enum):
    RED = "red"


class Weight(Enum):  # of a sort that msgspec refuses
    HALF = 0.5


class Level(IntEnum):
    LOW = 1


class Word(StrEnum):
    GO = "go"


class Name(str):
    """A str of another class, as numpy's are."""


ROUND_TRIPS: list[tuple[Any, Any]] = [
    (None, Any),
    (None, None),
    ({"a": [1, 2.5, True, None, "é\x00"]}, Any),
    ({1: "a"}, dict[int, str]),
    (datetime(2026, 1, 2, 3, 4, 5, 6, tzinfo=UTC), datetime),
    (datetime(2026, 1, 2), datetime),
    (date(2026, 1, 2), date),
    (timedelta(hours=3), timedelta),
    (b"\x00\xff", bytes),
    ({1, 2}, set[int]),
    (frozenset({"a"}), frozenset[str]),
    ((1, "a"), tuple[int, str]),
    (Decimal("1.10"), Decimal),
    (UUID(int=7), UUID),
    (Path("/a/b"), Path),
    ([Path("a")], list[Path]),
    (Path("a"), Path | str),
    ("a", str | Path),
    (["a"], list[str | Path]),
    (2**64, int),
    (-(2**200), int),
    (Colour.RED, Colour),
    (Weight.HALF, Weight),
    (Level.LOW, Level),
    (Word.GO, Word),
    (Song("x", Path("y"), "z"), Song),
    (Album([Song("x"), Song("y")]), Album),
    (Point(1, 2.5), Point),
    (Cover(3, {"red"}), Cover),
    (Upload(size=3, at=datetime(2026, 1, 1, tzinfo=UTC), format="ogg"), Upload),
    ({"u": [Upload(size=1)]}, dict[str, list[Upload]]),
    (Pair(1, "b"), Pair),
    ({"title": "x"}, Tags),
    (Song("x"), Song | Cover),
    (Cover(1), Song | Cover),
    ([None, 1], list[int | None]),
]


@pytest.mark.parametrize(("value", "kind"), ROUND_TRIPS, ids=repr)
def test_a_value_comes_back_as_itself_where_it_is_annotated(value: Any, kind: Any) -> None:
    back = decode(encode(value, "value"), kind)
    assert back == value
    assert type(back) is type(value)


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, "null"),
        (Name("x"), '"x"'),
        (Path("/a"), '"/a"'),
        (deque([1]), "[1]"),
        (OrderedDict(b=1, a=2), '{"b":1,"a":2}'),
        (UserDict({"a": 1}), '{"a":1}'),
        (MappingProxyType({"a": 1}), '{"a":1}'),
        ({1: None, 2.5: (None,)}, '{"1":null,"2.5":[null]}'),
        ("null", '"null"'),
        ({"annulled": Decimal("NaN")}, '{"annulled":"NaN"}'),
        ({"at": datetime(2026, 1, 1, tzinfo=UTC), "n": None}, '{"at":"2026-01-01T00:00:00Z","n":null}'),
    ],
    ids=repr,
)
def test_a_value_is_written_as(value: Any, text: str) -> None:
    assert encode(value, "value") == text


class Opaque:
    pass


class Grumpy(pydantic.BaseModel):
    n: int = 1

    @pydantic.field_serializer("n")
    def refuse(self, n: int) -> int:
        raise KeyError("no")


LOOP: list[Any] = []
LOOP.append(LOOP)


@pytest.mark.parametrize(
    ("value", "fault"),
    [
        (Opaque(), "it is of type .*Opaque"),
        ({"a": [1, {"b": Opaque()}]}, r"a\[1\].b is of type .*Opaque"),
        (Album([Song("x"), Song(Opaque())]), r"songs\[1\].title is of type"),  # type: ignore[arg-type]
        ({"f": print}, "f is of type builtin"),
        (math.nan, "of type float: JSON has no NaN or infinity"),
        ({"a": [1.0, -math.inf]}, r"a\[1\] is of type float: JSON has no NaN"),
        (Point(1, math.inf), "y is of type float"),
        ({"n": None, "t": (1, None), "s": {math.nan}}, r"s\[0\] is of type float"),
        (Reading(celsius=math.nan), "of type .*: JSON has no NaN"),
        ({"a": "\ud800"}, "a is of type str: text with an unpaired surrogate"),
        ({(1, 2): 3}, "of type dict: a key"),
        ({"a": {None: 3}}, "a is of type dict: a key"),
        (10**5000, "of type int: more than 4300 digits"),
        (LOOP, "a list that holds itself"),
        (Grumpy(), "of type .*Grumpy"),
        ((n for n in range(3)), "of type generator"),
    ],
    ids=lambda value: repr(value)[:30] if not isinstance(value, int) else "int",
)
def test_what_json_cannot_hold_is_an_error_that_names_it(value: Any, fault: str) -> None:
    with pytest.raises(NotEncodable, match=f"^output of step fetch cannot be kept as JSON: .*{fault}"):
        encode(value, "output of step fetch")


def test_a_value_over_the_limit_is_refused_with_both_sizes() -> None:
    assert encode("é" * 1023, "input", 2048) == '"' + "é" * 1023 + '"'
    with pytest.raises(PayloadTooLarge, match=r"^input of a is too large: 2 KB, the limit is 1 KB$"):
        encode("é" * 1023, "input of a", 1024)


@pytest.mark.parametrize(
    ("text", "kind", "fault"),
    [
        ('"5"', int, "does not fit int: expected int, got str"),
        (
            '{"songs":[{"title":1},{}]}',
            Album,
            r"songs\[0\].title: expected str, got int; songs\[1\].title: is required",
        ),
        ('[{"size":"x"},{}]', list[Upload], r"\[0\].size: .*valid integer.*; \[1\].size: Field required"),
        ('{"a":{"x":"q"},"b":{"y":null}}', dict[str, dict[str, int]], "a.x: expected int, got str; b.y: expected int"),
        ("[1]", tuple[int, str], "expected 2 items, got 1|length 2"),
        ('["x", 2]', set[int], r"\[0\]: expected int"),
        ("3", None, "expected null"),
        ("0.7", Weight, "not a valid"),
        ("3", Path, "expected pathlib.*Path, got int"),
        ("3", str | Path, "expected str or pathlib.*Path, got int"),
        ('{"a":1}', Opaque, "expected .*Opaque, got object"),
    ],
    ids=repr,
)
def test_what_does_not_fit_the_annotation_says_where(text: str, kind: Any, fault: str) -> None:
    with pytest.raises(OutputInvalid, match=fault):
        decode(text, kind)


def test_a_type_that_cannot_be_hashed_is_read_too() -> None:
    assert decode("3", Annotated[int, ["a list"]]) == 3


PLAIN = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=5) | st.dictionaries(st.text(), inner, max_size=5),
    max_leaves=20,
)


@settings(max_examples=200)
@given(PLAIN)
def test_plain_data_comes_back_equal(value: Any) -> None:
    assert decode(encode(value, "value")) == value


@settings(max_examples=200)
@given(st.recursive(st.none() | st.floats(), lambda inner: st.lists(inner, max_size=4) | st.tuples(inner, inner)))
def test_a_float_that_is_not_finite_never_becomes_null(value: Any) -> None:
    def finite(part: Any) -> bool:
        return all(map(finite, part)) if isinstance(part, (list, tuple)) else part is None or math.isfinite(part)

    if finite(value):
        encode(value, "value")
        return
    with pytest.raises(NotEncodable):
        encode(value, "value")
