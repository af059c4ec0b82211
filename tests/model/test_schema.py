"""What an input must look like: every row is a promise of the page `Input`."""

from __future__ import annotations

import dataclasses
import inspect
import json
from collections.abc import Callable
from datetime import UTC, datetime
from decimal import Decimal
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, NoReturn, NotRequired, TypedDict
from uuid import UUID

import attrs
import msgspec
import pydantic
import pydantic.dataclasses
import pytest

from taskrun.model.errors import DefinitionError, InputInvalid, NotEncodable, OutputInvalid, PayloadTooLarge
from taskrun.model.schema import Schema, check_output

if TYPE_CHECKING:
    from elsewhere import Missing  # type: ignore[import-not-found]


class Tags(TypedDict):
    title: str
    year: NotRequired[int]


@dataclasses.dataclass
class Upload:
    path: str
    at: datetime | None = None
    tags: list[str] = dataclasses.field(default_factory=list)


@dataclasses.dataclass
class Mixed:
    path: str | Path  # a union that msgspec refuses
    size: int = 0


class Point(msgspec.Struct, tag=True, rename="camel"):
    far_left: int
    y: float = 0.5


@attrs.define
class Cover:
    width: int = attrs.field(validator=attrs.validators.gt(3))
    name: str = "front"


class Order(pydantic.BaseModel):
    count: int = pydantic.Field(ge=1)
    at: datetime | None = None
    kind: str = pydantic.Field(default="new", alias="type")


class Loose(pydantic.BaseModel):
    model_config = pydantic.ConfigDict(extra="allow")
    a: int = 1


class Numbers(pydantic.RootModel[dict[str, int]]):
    pass


@pydantic.dataclasses.dataclass
class Checked:
    n: Annotated[int, pydantic.Field(ge=1)]


class Tree(msgspec.Struct):
    name: str
    inner: list[Tree] = []


class Colour(Enum):
    RED = "red"
    BLUE = "blue"


class Positive:
    """The standard-schema idea."""

    def validate(self, value: Any) -> Any:
        if not isinstance(value, dict) or value.get("n", 0) <= 0:
            raise ValueError("n must be positive")
        return {**value, "checked": 1}


class Counting:
    """A validator that changes its own output."""

    def validate(self, value: Any) -> Any:
        return {**value, "checked": value.get("checked", 0) + 1}


async def transcode(path: str, bitrate: int = 128) -> None: ...
async def nothing() -> None: ...
async def untyped(a, b=2) -> None: ...  # type: ignore[no-untyped-def]
async def rest(a: int, **others: float) -> None: ...
async def one_model(upload: Upload) -> None: ...
async def model_by_name(*, cover: Cover) -> None: ...
async def default_model(point: Point = Point(3)) -> None: ...  # noqa: B008
async def nested(first: Upload, second: Tags | None = None) -> None: ...
async def sloppy(name: str = None) -> None: ...  # type: ignore[assignment]  # noqa: RUF013
async def replaceable(path: str, clock: Callable[[], float] = datetime.now().timestamp) -> None: ...  # noqa: B008
async def one_plain(data: dict[str, int]) -> None: ...
async def mixed(path: Path | str, n: int | None = None) -> None: ...


async def rich(
    at: datetime,
    uid: UUID,
    price: Decimal,
    raw: bytes,
    where: Path,
    colour: Colour = Colour.RED,
    mode: Literal["a", "b"] = "a",
    ratio: float = 1,
    tags: set[str] = frozenset({"x"}),  # type: ignore[assignment]
) -> None: ...


RICH = {
    "at": "2026-01-02T03:04:05Z",
    "uid": "00000000-0000-0000-0000-000000000007",
    "price": "1.10",
    "raw": "AP8=",
    "where": "/a/b",
}
RICH_VALUE = {
    "at": datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC),
    "uid": UUID(int=7),
    "price": Decimal("1.10"),
    "raw": b"\x00\xff",
    "where": Path("/a/b"),
}

FITS: list[tuple[Any, Any, Any]] = [
    (transcode, {"path": "a"}, {"path": "a", "bitrate": 128}),
    (transcode, {"bitrate": 3, "path": "a"}, {"path": "a", "bitrate": 3}),
    (nothing, {}, {}),
    (untyped, {"a": {"x": [1, None]}}, {"a": {"x": [1, None]}, "b": 2}),
    (untyped, {"a": Path("x"), "b": Upload("p")}, {"a": "x", "b": {"path": "p", "at": None, "tags": []}}),
    (rest, {"a": 1, "x": 2.5, "y": 3}, {"a": 1, "x": 2.5, "y": 3.0}),
    (one_model, {"path": "a"}, Upload("a")),
    (one_model, Upload("a", tags=["x"]), Upload("a", tags=["x"])),
    (model_by_name, {"width": 5}, Cover(5)),
    (default_model, {}, Point(3)),
    (default_model, {"farLeft": 4}, Point(4)),
    (nested, {"first": {"path": "a"}}, {"first": Upload("a"), "second": None}),
    (nested, {"first": Upload("a"), "second": {"title": "x"}}, {"first": Upload("a"), "second": {"title": "x"}}),
    (sloppy, {}, {"name": None}),
    (sloppy, {"name": "x"}, {"name": "x"}),
    (replaceable, {"path": "a"}, {"path": "a"}),
    (one_plain, {"data": {"a": 1}}, {"data": {"a": 1}}),
    (mixed, {"path": "a"}, {"path": Path("a"), "n": None}),
    (rich, RICH, {**RICH_VALUE, "colour": Colour.RED, "mode": "a", "ratio": 1.0, "tags": {"x"}}),
    (
        rich,
        {**RICH_VALUE, "colour": Colour.BLUE, "ratio": 2},
        {**RICH_VALUE, "colour": Colour.BLUE, "mode": "a", "ratio": 2.0, "tags": {"x"}},
    ),
    (None, [1, {"a": None}], [1, {"a": None}]),
    (int, 3, 3),
    (Tags, {"title": "x"}, {"title": "x"}),
    (Mixed, {"path": "x"}, Mixed("x")),
    (Point, {"farLeft": 1}, Point(1)),
    (Point, Point(1), Point(1)),
    (Order, {"count": 1, "type": "old"}, Order(count=1, type="old")),
    (Order, Order(count=2, at=datetime(2026, 1, 1, tzinfo=UTC)), Order(count=2, at=datetime(2026, 1, 1, tzinfo=UTC))),
    (Loose, {"z": 1}, Loose(z=1)),  # type: ignore[call-arg]
    (Numbers, {"z": 1}, Numbers({"z": 1})),
    (Checked, {"n": 1}, Checked(1)),
    (pydantic.TypeAdapter(Order), {"count": 1}, Order(count=1)),
    (pydantic.TypeAdapter(list[int]), [1], [1]),
    (Tree, {"name": "a", "inner": [{"name": "b"}]}, Tree("a", [Tree("b")])),
    (Positive(), {"n": 1}, {"n": 1, "checked": 1}),
]


def schema_of(source: Any) -> Schema:
    return Schema.from_signature(source) if inspect.isfunction(source) else Schema.of(source, "pipe")


@pytest.mark.parametrize(("source", "data", "value"), FITS, ids=lambda part: getattr(part, "__name__", repr(part)[:40]))
def test_what_fits_is_validated_with_defaults_and_comes_back_from_the_journal(
    source: Any, data: Any, value: Any
) -> None:
    schema = schema_of(source)
    checked = schema.check(data)
    assert checked == value
    assert type(checked) is type(value)
    again = schema.load(schema.dump(checked))
    assert again == value
    assert type(again) is type(value)


def test_a_default_is_never_shared() -> None:
    def handler(tags: list[str] = []) -> None: ...  # noqa: B006

    schema = Schema.from_signature(handler)
    schema.check({})["tags"].append("x")
    assert schema.check({}) == {"tags": []}


BAD: list[tuple[Any, Any, dict[str, str]]] = [
    (transcode, {}, {"path": "is required"}),
    (
        transcode,
        {"pth": 1, "path": 1, "bitrate": "5"},
        {
            "pth": "unknown field, did you mean path?",
            "path": "expected str, got int",
            "bitrate": "expected int, got str",
        },
    ),
    (transcode, {"path": "a", "zzz": 1}, {"zzz": "unknown field, valid fields: path, bitrate"}),
    (transcode, {"path": "a", "bitrate": True}, {"bitrate": "expected int, got bool"}),
    (transcode, {"path": "a", "bitrate": 1.5}, {"bitrate": "expected int, got float"}),
    (transcode, {"path": None}, {"path": "expected str, got null"}),
    (transcode, [1], {"": "expected an object with path, bitrate"}),
    (nothing, {"a": 1}, {"a": "unknown field"}),
    (rest, {"x": "1", "y": 2}, {"a": "is required", "x": "expected float, got str"}),
    (one_model, {"pth": 1, "tags": ["a", 1, 2]}, {
        "pth": "unknown field, did you mean path?", "path": "is required",
        "tags[1]": "expected str, got int", "tags[2]": "expected str, got int",
    }),
    (one_model, "a", {"": "expected object, got str"}),
    (nested, {"first": {"at": "noon"}, "second": {"title": 1, "year": "x"}}, {
        "first.path": "is required", "first.at": "invalid RFC3339 encoded datetime",
        "second.title": "expected str, got int", "second.year": "expected int, got str",
    }),
    (Mixed, {"path": 1, "size": "x"}, {"path": "expected str or Path, got int", "size": "expected int, got str"}),
    (Cover, {"width": 1}, {"": "'width' must be > 3: 1"}),
    (Order, {"count": 0, "at": "noon", "zz": 1}, {
        "zz": "unknown field", "count": "Input should be greater than or equal to 1", "at": "Input should be a valid",
    }),
    (Checked, {"n": 0}, {"n": "Input should be greater than or equal to 1"}),
    (pydantic.TypeAdapter(list[int]), [1, "x", None], {"[1]": "Input should be", "[2]": "Input should be"}),
    (Tree, {"name": "a", "inner": [{"name": 1}, {"inner": 2}]}, {
        "inner[0].name": "expected str", "inner[1].name": "is required", "inner[1].inner": "expected",
    }),
    (Positive(), {"n": -1}, {"": "n must be positive"}),
    (rich, {**RICH, "uid": "x", "raw": "?", "colour": "green", "mode": "c", "where": 1}, {
        "uid": "invalid UUID", "raw": "invalid base64", "colour": "", "mode": "invalid enum value 'c'",
        "where": "expected",
    }),
]  # fmt: skip


@pytest.mark.parametrize(
    ("source", "data", "problems"), BAD, ids=lambda part: getattr(part, "__name__", repr(part)[:40])
)
def test_what_does_not_fit_names_every_bad_field(source: Any, data: Any, problems: dict[str, str]) -> None:
    schema = schema_of(source)
    with pytest.raises(InputInvalid) as caught:
        schema.check(data)
    said = dict(caught.value.problems)
    assert said.keys() == problems.keys()
    for path, text in problems.items():
        assert text.replace("Path", "") in said[path].replace("pathlib.Path", "").replace("pathlib._local.Path", "")
    assert caught.value.job == schema.name


def test_a_flood_of_bad_items_is_cut_off() -> None:
    with pytest.raises(InputInvalid) as caught:
        Schema.of(list[int], "pipe").check(["x"] * 10_000)
    assert len(caught.value.problems) == 50


def test_input_that_json_cannot_hold_is_said_to_be_so() -> None:
    with pytest.raises(NotEncodable, match="input of untyped cannot be kept as JSON: a is of type object"):
        Schema.from_signature(untyped).check({"a": object()})


def test_a_value_over_the_limit_is_refused_when_dumped() -> None:
    schema = Schema.from_signature(transcode)
    with pytest.raises(PayloadTooLarge, match="input of transcode"):
        schema.dump(schema.check({"path": "x" * 100}), limit=50)


def test_an_output_whose_validator_changes_its_own_output_is_read_as_it_was_recorded() -> None:
    schema = Schema.for_output(Counting(), "job")
    text = schema.dump(schema.check({"n": 1}))
    assert schema.load(text) == {"n": 1, "checked": 1}


# ---- calling the handler


async def two(path: str, at: datetime | None) -> None: ...
async def three(path: str, at: datetime | None, tags: list[str], more: int = 3) -> None: ...
async def whole(order) -> None: ...  # type: ignore[no-untyped-def]
async def typed_whole(path: Upload) -> None: ...
async def anything(**fields: Any) -> None: ...
async def left(far_left: int, y: float) -> None: ...
async def title_only(title: str, year: int = 2000) -> None: ...
async def ordered(count: int, at: Any, kind: str) -> None: ...
async def nn(n: int, checked: int) -> None: ...


@pytest.mark.parametrize(
    ("fn", "model", "data", "args", "kwargs"),
    [
        (transcode, None, {"path": "a"}, [], {"path": "a", "bitrate": 128}),
        (nothing, None, {}, [], {}),
        (one_model, None, {"path": "a"}, [Upload("a")], {}),
        (model_by_name, None, {"width": 5}, [], {"cover": Cover(5)}),
        (replaceable, None, {"path": "a"}, [], {"path": "a"}),
        (rest, None, {"a": 1, "b": 2}, [], {"a": 1, "b": 2.0}),
        (three, Upload, {"path": "a"}, [], {"path": "a", "at": None, "tags": []}),
        (whole, Upload, {"path": "a"}, [Upload("a")], {}),
        (typed_whole, Upload, {"path": "a"}, [Upload("a")], {}),
        (anything, Upload, {"path": "a"}, [], {"path": "a", "at": None, "tags": []}),
        (nothing, Upload, {"path": "a"}, [], {}),
        (left, Point, {"farLeft": 1}, [], {"far_left": 1, "y": 0.5}),
        (title_only, Tags, {"title": "x"}, [], {"title": "x"}),
        (ordered, Order, {"count": 1}, [], {"count": 1, "at": None, "kind": "new"}),
        (ordered, pydantic.TypeAdapter(Order), {"count": 1}, [], {"count": 1, "at": None, "kind": "new"}),
        (nn, Positive(), {"n": 1}, [], {"n": 1, "checked": 1}),
        (whole, Positive(), {"n": 1}, [{"n": 1, "checked": 1}], {}),
    ],
)
def test_the_handler_is_called_with(fn: Any, model: Any, data: Any, args: Any, kwargs: Any) -> None:
    schema = Schema.from_signature(fn, "job", model)
    assert schema.arguments(schema.check(data)) == (args, kwargs)
    inspect.signature(fn).bind(*args, **kwargs)


# ---- refused at definition


def star(*args: int) -> None: ...
def positional(a: int, /) -> None: ...
def nowhere(a: int, b: Missing) -> None: ...
def nowhere_inside(a: list[Missing]) -> None: ...
def bad_default(a: int = "x") -> None: ...  # type: ignore[assignment]
def returns_nowhere() -> Missing: ...


@pytest.mark.parametrize(
    ("make", "fault"),
    [
        (lambda: Schema.from_signature(star), r"star: \*args cannot be fields of an input"),
        (lambda: Schema.from_signature(positional), "positional-only parameters"),
        (lambda: Schema.from_signature(nowhere), "type of parameter b cannot be resolved.*Missing"),
        (lambda: Schema.from_signature(nowhere_inside), "type of parameter a cannot be resolved.*Missing"),
        (lambda: Schema.from_signature(bad_default), "default of parameter a does not fit: expected int, got str"),
        (lambda: Schema.for_output(returns_nowhere), "type of the return value cannot be resolved.*Missing"),
        (lambda: Schema.from_signature(two, "job", Upload), "no parameter for the field tags"),
        (lambda: Schema.from_signature(transcode, "job", Cover), "no field for the parameter path"),
        (lambda: Schema.of("Upload", "pipe"), "neither a type nor an object with validate"),
        (lambda: Schema.of(5, "pipe"), "neither a type nor an object with validate"),
    ],
)
def test_what_cannot_work_is_refused_when_it_is_defined(make: Callable[[], Schema], fault: str) -> None:
    with pytest.raises(DefinitionError, match=fault):
        make()


# ---- outputs


async def gives_tags() -> Tags: ...  # type: ignore[empty-body]
async def gives_uploads() -> list[Upload]: ...  # type: ignore[empty-body]
async def gives_none() -> None: ...
async def gives_anything(): ...  # type: ignore[no-untyped-def]
async def gives_up() -> NoReturn: ...  # type: ignore[empty-body]


@pytest.mark.parametrize(
    ("source", "given", "value"),
    [
        (gives_tags, {"title": "x"}, {"title": "x"}),
        (gives_uploads, [Upload("a"), {"path": "b"}], [Upload("a"), Upload("b")]),
        (gives_none, None, None),
        (gives_anything, (1, Path("x")), [1, "x"]),
        (gives_up, 3, 3),
        (Positive(), {"n": 1}, {"n": 1, "checked": 1}),
    ],
)
def test_an_output_that_fits_is_returned_validated(source: Any, given: Any, value: Any) -> None:
    assert check_output(Schema.for_output(source, "job"), given) == value


@pytest.mark.parametrize(
    ("source", "given", "fault"),
    [
        (gives_tags, {"title": 1, "yeer": 2}, "yeer: unknown field, did you mean year.; title: expected str, got int"),
        (gives_tags, None, "expected object, got null|expected Tags, got null"),
        (gives_uploads, [{}, {"path": 1}], r"\[0\].path: is required; \[1\].path: expected str"),
        (gives_none, 3, "expected null, got int"),
        (Positive(), 3, "n must be positive"),
    ],
)
def test_an_output_that_does_not_fit_is_an_output_invalid(source: Any, given: Any, fault: str) -> None:
    with pytest.raises(OutputInvalid, match=f"invalid output of job: {fault}"):
        check_output(Schema.for_output(source, "job"), given)


# ---- as a JSON schema


def test_the_schema_of_a_signature_has_types_defaults_enums_and_what_is_required() -> None:
    schema = Schema.from_signature(rich).json_schema()
    assert schema["type"] == "object"
    assert schema["required"] == ["at", "uid", "price", "raw", "where"]
    assert schema["additionalProperties"] is False
    assert schema["properties"]["ratio"] == {"type": "number", "default": 1}
    assert schema["properties"]["mode"] == {"enum": ["a", "b"], "default": "a"}
    assert schema["properties"]["where"] == {"type": "string", "format": "path"}
    reference = schema["properties"]["colour"]["$ref"].rpartition("/")[2]
    assert set(schema["$defs"][reference]["enum"]) == {"red", "blue"}


def test_an_untyped_parameter_has_an_open_schema() -> None:
    schema = Schema.from_signature(untyped).json_schema()
    assert schema["properties"] == {"a": {}, "b": {"default": 2}}
    assert Schema.from_signature(rest).json_schema()["additionalProperties"] is True


@pytest.mark.parametrize(
    ("source", "names", "required"),
    [
        (Upload, {"path", "at", "tags"}, ["path"]),
        (Tags, {"title", "year"}, ["title"]),
        (Mixed, {"path", "size"}, ["path"]),
        (Cover, {"width", "name"}, ["width"]),
        (Order, {"count", "at", "type"}, ["count"]),
        (pydantic.TypeAdapter(Order), {"count", "at", "type"}, ["count"]),
        (one_model, {"path", "at", "tags"}, ["path"]),
        (Tree, {"name", "inner"}, ["name"]),
    ],
)
def test_the_schema_of_a_model_shows_its_fields_on_top(source: Any, names: set[str], required: list[str]) -> None:
    schema = schema_of(source).json_schema()
    assert set(schema["properties"]) == names
    assert schema["required"] == required
    json.dumps(schema)


async def many(order: Order, tree: Tree, uploads: list[Mixed], points: dict[str, Point]) -> None: ...


@pytest.mark.parametrize("source", [Tree, many, Order, nested, rich])
def test_every_reference_of_a_schema_leads_somewhere(source: Any) -> None:
    schema = schema_of(source).json_schema()
    targets = [part.partition('"')[0] for part in json.dumps(schema).split('"#/$defs/')[1:]]
    assert set(targets) <= set(schema.get("$defs", {}))


@pytest.mark.parametrize("source", [Positive(), None, Callable[[], int], complex])
def test_what_has_no_schema_gives_an_empty_one(source: Any) -> None:
    assert Schema.of(source, "pipe").json_schema() == {}


def test_the_defaults_of_a_dataclass_are_written_down() -> None:
    @dataclasses.dataclass
    class Order:
        item: str
        count: int = 1

    schema = Schema.of(Order, "order")
    assert schema.dump(schema.check({"item": "pear"})) == '{"item":"pear","count":1}'


# ---- what pydantic demands of a parameter


async def demanding(
    count: Annotated[int, pydantic.Field(gt=0)],
    name: Annotated[str, pydantic.AfterValidator(str.upper)] = "x",
    some: list[pydantic.PositiveInt] = [],  # noqa: B006
    perhaps: pydantic.PositiveInt | None = None,
    named: dict[str, pydantic.PositiveInt] = {},  # noqa: B006
) -> None: ...


@dataclasses.dataclass
class Demanding:
    size: pydantic.PositiveInt


async def demands_within(given: Demanding) -> None: ...


async def counts_on(n: Annotated[int, pydantic.AfterValidator(lambda n: n + 1)]) -> None: ...


@pytest.mark.parametrize(
    ("fn", "data", "path"),
    [
        (demanding, {"count": 0}, "count"),
        (demanding, {"count": 1, "some": [1, 0]}, "some[1]"),
        (demanding, {"count": 1, "perhaps": -1}, "perhaps"),
        (demanding, {"count": 1, "named": {"a": 0}}, "named.a"),
        (demands_within, {"size": 0}, "size"),
        (counts_on, {"n": 1}, "n"),
    ],
)
def test_what_pydantic_demands_in_an_annotation_is_checked(fn: Any, data: Any, path: str) -> None:
    with pytest.raises(InputInvalid) as caught:
        Schema.from_signature(fn).record(data)
    assert [problem[0] for problem in caught.value.problems] == [path]


def test_what_pydantic_makes_of_a_parameter_is_what_is_recorded() -> None:
    value, text = Schema.from_signature(demanding).record({"count": 1, "name": "up", "perhaps": 2})
    assert (value["name"], value["perhaps"]) == ("UP", 2)
    assert '"name":"UP"' in text
