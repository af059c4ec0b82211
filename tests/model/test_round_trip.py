"""What a handler gets is what was recorded: an input comes back from its own JSON as it was, or is refused with its field."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import InitVar, dataclass, field
from datetime import datetime
from decimal import Decimal
from enum import Enum
from pathlib import Path
from typing import Annotated, Any, Generic, Literal, NewType, TypedDict, TypeVar

import attrs
import msgspec
import pydantic
import pytest
from pydantic import AliasChoices, AliasPath, BaseModel, ConfigDict, Field, HttpUrl, SecretBytes, SecretStr

from taskrun.model.codec import decode, encode, parse_json
from taskrun.model.errors import InputInvalid, OutputInvalid
from taskrun.model.round_trip import is_exact
from taskrun.model.schema import Schema

T = TypeVar("T")
LONG = "12345678901234567890.12"
BIG = 123456789012345678901234567890


class Named(BaseModel):
    name: str = Field(validation_alias="userName", default="nobody")


class Nested(BaseModel):
    items: list[Named] = []
    by_key: dict[str, Named] = {}
    one: Named | None = None
    pair: tuple[Named, int] | None = None


class Written(BaseModel):
    name: str = Field(serialization_alias="writtenName")


class Choices(BaseModel):
    name: str = Field(validation_alias=AliasChoices("first", AliasPath("names", 0)), default="nobody")


class Paths(BaseModel):
    first: str = Field(validation_alias=AliasPath("names", 0))
    last: str = Field(validation_alias=AliasPath("names", 1))
    deep: int = Field(validation_alias=AliasPath("x", "y"), default=0)


class Generated(BaseModel):
    model_config = ConfigDict(alias_generator=str.upper, populate_by_name=True)
    name: str


class Secrets(BaseModel):
    token: SecretStr
    raw: SecretBytes = SecretBytes(b"raw")
    more: list[SecretStr] = []


class Root(pydantic.RootModel[list[Named]]):
    pass


class Lower(BaseModel):
    name: str

    @pydantic.field_validator("name")
    @classmethod
    def lower(cls, name: str) -> str:
        return name.lower()


class Computed(BaseModel):
    name: str
    _made: float = pydantic.PrivateAttr(default_factory=time.perf_counter)

    @pydantic.computed_field  # type: ignore[prop-decorator]
    @property
    def length(self) -> int:
        return len(self.name)


class Numbers(BaseModel):
    price: Decimal
    ratio: float = 0
    anything: Any = None
    prices: list[Decimal] = []
    big: int = 0


@pydantic.dataclasses.dataclass
class Dated:
    name: str = Field(validation_alias="userName", default="nobody")
    length: int = field(init=False, default=0)

    def __post_init__(self) -> None:
        self.length = len(self.name)


@dataclass
class Sum:
    a: int
    total: int = field(init=False)
    at: float = field(init=False, default_factory=lambda: 1.0)

    def __post_init__(self) -> None:
        self.total = self.a + 1


@dataclass
class Holder:
    token: SecretStr
    url: HttpUrl | None = None
    path: str | Path = "here"
    prices: list[Decimal] = field(default_factory=list)


@attrs.define
class Aliased:
    width: int = attrs.field(alias="w", default=1)


class Camel(msgspec.Struct, rename="camel"):
    user_name: str = ""


async def secret(token: SecretStr, url: HttpUrl) -> None: ...
async def numbers(
    price: Decimal, big: int, either: Decimal | int, by_key: dict[int, Numbers], of: list[Numbers]
) -> None: ...


COMES_BACK: list[tuple[Any, Any, str]] = [
    (Named, {"userName": "bob"}, '{"userName":"bob"}'),
    (Named, Named.model_validate({"userName": "bob"}), '{"userName":"bob"}'),
    (Nested, {"items": [{"userName": "a"}]}, '{"items":[{"userName":"a"}],"by_key":{},"one":null,"pair":null}'),
    (
        Nested,
        {"by_key": {"k": {"userName": "b"}}, "one": {"userName": "c"}, "pair": [{"userName": "d"}, 1]},
        '{"items":[],"by_key":{"k":{"userName":"b"}},"one":{"userName":"c"},"pair":[{"userName":"d"},1]}',
    ),
    (Written, {"name": "bob"}, '{"name":"bob"}'),
    (Choices, {"names": ["bob"]}, '{"first":"bob"}'),
    (Paths, {"names": ["a", "b"], "x": {"y": 4}}, '{"names":["a","b"],"x":{"y":4}}'),
    (Generated, {"name": "bob"}, '{"NAME":"bob"}'),
    (Root, [{"userName": "bob"}], '[{"userName":"bob"}]'),
    (pydantic.TypeAdapter(list[Named]), [{"userName": "bob"}], '[{"userName":"bob"}]'),
    (Secrets, {"token": "s3cret", "more": ["a", "b"]}, '{"token":"s3cret","raw":"raw","more":["a","b"]}'),
    (Secrets, Secrets(token=SecretStr("s3cret")), '{"token":"s3cret","raw":"raw","more":[]}'),
    (secret, {"token": "s3cret", "url": "http://a.b/"}, '{"token":"s3cret","url":"http://a.b/"}'),
    (Lower, {"name": "BOB"}, '{"name":"bob"}'),
    (Computed, {"name": "bob"}, '{"name":"bob"}'),
    (Dated, {"userName": "bob"}, '{"userName":"bob"}'),
    (Sum, {"a": 1}, '{"a":1,"total":2,"at":1.0}'),
    (Sum, Sum(1), '{"a":1,"total":2,"at":1.0}'),
    (Holder, {"token": "s", "url": "http://a.b/"}, '{"token":"s","url":"http://a.b/","path":"here","prices":[]}'),
    (Aliased, {"width": 4}, '{"width":4}'),
    (Camel, {"userName": "bob"}, '{"userName":"bob"}'),
    (Numbers, {"price": 1}, '{"price":"1","ratio":0.0,"anything":null,"prices":[],"big":0}'),
]


def schema_of(source: Any) -> Schema:
    if callable(source) and not isinstance(source, type):
        return Schema.from_signature(source)
    return Schema.of(source, "job")


@pytest.mark.parametrize(
    ("source", "data", "text"), COMES_BACK, ids=lambda part: getattr(part, "__name__", str(part))[:40]
)
def test_what_is_recorded_is_what_is_given(source: Any, data: Any, text: str) -> None:
    schema = schema_of(source)
    value, recorded = schema.record(data)
    assert recorded == text
    assert schema.dump(value) == text
    assert schema.dump(schema.load(text)) == text
    if type(value) is type(data) and not isinstance(data, (dict, list)):
        assert value == data


def test_what_was_masked_is_there() -> None:
    value, text = Schema.of(Secrets, "job").record({"token": "s3cret", "raw": "bytes", "more": ["a"]})
    assert (value.token.get_secret_value(), value.raw.get_secret_value()) == ("s3cret", b"bytes")
    assert [one.get_secret_value() for one in value.more] == ["a"]
    assert "*" not in text


NUMBERS = (
    f'{{"price":{LONG},"big":{BIG},"either":{LONG},"by_key":{{"3":{{"price":{LONG},"ratio":{LONG}}}}},'
    f'"of":[{{"price":1.10,"prices":[{LONG},{LONG}],"big":{BIG},"anything":1.12345678901234567890}}]}}'
)


@pytest.mark.parametrize("given", [parse_json(NUMBERS, "it"), msgspec.Raw(NUMBERS.encode())], ids=["parsed", "as text"])
def test_numbers_of_json_keep_their_digits_wherever_they_stand(given: Any) -> None:
    value, text = Schema.from_signature(numbers).record(given)
    loaded = Schema.from_signature(numbers).load(text)
    for one in (value, loaded):
        assert (one["price"], one["big"], one["either"]) == (Decimal(LONG), BIG, Decimal(LONG))
        assert one["by_key"] == {3: Numbers(price=Decimal(LONG), ratio=float(LONG))}
        [of] = one["of"]
        assert (of.prices, of.big, of.anything) == ([Decimal(LONG)] * 2, BIG, 1.1234567890123457)


def test_trailing_zeros_are_digits_too() -> None:
    async def price(of: Decimal) -> None: ...

    value, text = Schema.from_signature(price).record(parse_json('{"of": 1.10}', "it"))
    assert (str(value["of"]), text) == ("1.10", '{"of":"1.10"}')


def test_a_type_that_has_to_be_taken_apart_keeps_digits_too() -> None:
    value, _ = Schema.of(Holder, "job").record(parse_json(f'{{"token": "s", "path": "a", "prices": [{LONG}]}}', "it"))
    assert value.prices == [Decimal(LONG)]


@pytest.mark.parametrize(
    ("value", "kind"),
    [
        (Decimal(LONG), Decimal),
        (BIG, int),
        ([Decimal(LONG), None], list[Decimal | None]),
        ({"a": {"b": Decimal(LONG)}}, dict[str, dict[str, Decimal]]),
        (Numbers(price=Decimal(LONG), big=BIG), Numbers),
        (Named.model_validate({"userName": "bob"}), Named),
        (Holder(token=SecretStr("s"), prices=[Decimal(LONG)]), Holder),
    ],
)
def test_results_keep_their_digits_aliases_and_secrets(value: Any, kind: Any) -> None:
    assert decode(encode(value, "it"), kind) == value


def test_an_untyped_big_int_stays_an_int() -> None:
    assert decode(encode({"n": BIG}, "it")) == {"n": BIG}


# ---- what does not come back


class Louder(BaseModel):
    name: str

    @pydantic.field_validator("name")
    @classmethod
    def louder(cls, name: str) -> str:
        return name + "!"


class Masked(BaseModel):
    token: str

    @pydantic.field_serializer("token")
    def mask(self, token: str) -> str:
        return "***"


class Left(BaseModel):
    name: str = Field(default="nobody", exclude=True)


@dataclass
class Seeded:
    a: int
    seed: InitVar[int] = 3

    def __post_init__(self, seed: int) -> None:
        self.a *= seed


@dataclass
class Needy:
    a: int
    seed: InitVar[int]

    def __post_init__(self, seed: int) -> None: ...


@dataclass
class Growing:
    names: list[str]

    def __post_init__(self) -> None:
        self.names = [*self.names, "more"]


@dataclass
class Outer:
    inner: Seeded


class Counting:
    def validate(self, value: Any) -> Any:
        return {**value, "n": value["n"] + 1}


class Consuming:
    """Takes text and gives a number, which it does not take."""

    def validate(self, value: Any) -> Any:
        if not isinstance(value["n"], str):
            raise ValueError("n must be text")
        return {"n": int(value["n"])}


REFUSED: list[tuple[Any, Any, set[str]]] = [
    (Named, {"name": "bob"}, {"name"}),
    (Camel, {"user_name": "bob"}, {"user_name"}),
    (Louder, {"name": "bob"}, {"name"}),
    (Masked, {"token": "s3cret"}, {"token"}),
    (Left, {"name": "bob"}, {"name"}),
    (Seeded, {"a": 1}, {"a"}),
    (Seeded, {"a": 1, "seed": 5}, {"seed"}),
    (Seeded, Seeded(1, 5), {"a"}),
    (Needy, {"a": 1}, {"seed"}),
    (Needy, Needy(1, 5), {"seed"}),
    (Outer, {"inner": {"a": 1, "seed": 5}}, {"inner.seed"}),
    (Outer, {"inner": {"a": 1}}, {"inner.a"}),
    (Sum, {"a": 1, "total": 7}, {"total"}),
    (Dated, {"userName": "bob", "length": 7}, {"length"}),
    (Growing, {"names": ["a"]}, {"names"}),
    (Counting(), {"n": 1}, {"n"}),
    (Consuming(), {"n": "1"}, {""}),
]


@pytest.mark.parametrize(
    ("source", "data", "named"), REFUSED, ids=lambda part: getattr(part, "__name__", str(part))[:40]
)
def test_what_would_come_back_as_another_is_refused_with_its_field(source: Any, data: Any, named: set[str]) -> None:
    with pytest.raises(InputInvalid) as refused:
        Schema.of(source, "job").record(data)
    assert {path for path, _ in refused.value.problems} == named


def test_a_parameter_that_does_not_come_back_is_named() -> None:
    async def work(a: int, b: list[Louder]) -> None: ...

    with pytest.raises(InputInvalid, match=r"b\[0\]\.name: does not read back"):
        Schema.from_signature(work).record({"a": 1, "b": [{"name": "bob"}]})


# ---- which types need not be tried


class Colour(Enum):
    RED = 1


class Track(TypedDict):
    title: str


@dataclass
class Plain:
    a: int
    tracks: list[Track] = field(default_factory=list)


@pytest.mark.parametrize(
    ("kind", "exact"),
    [
        (dict[str, list[int | None]], True),
        (Sequence[Mapping[str, frozenset[float]]], True),
        (tuple[Decimal, ...] | datetime | None, True),
        (Literal["a"] | Colour, True),
        (Plain, True),
        (Camel, True),
        (Any, True),
        (Named, False),
        (list[Named], False),
        (Sum, False),
        (Seeded, False),
        (Path, False),
        (SecretStr, False),
    ],
)
def test_plain_types_are_known_to_come_back(kind: Any, exact: bool) -> None:
    assert is_exact(kind) is exact


# ---- an input that fits the code no more


@dataclass
class Closed:
    a: int = 1
    inner: Plain | None = None


async def before(x: int) -> None: ...
async def with_another(x: int, y: int) -> None: ...
async def without() -> None: ...
async def of_another_type(x: list[int]) -> None: ...
async def of_a_model(x: Closed) -> None: ...


@pytest.mark.parametrize(
    ("now", "named"), [(with_another, {"y"}), (without, {"x"}), (of_another_type, {"x"}), (of_a_model, {"x"})]
)
def test_a_recorded_input_that_fits_no_more_is_an_input_invalid_that_names_fields(
    now: Callable[..., Any], named: set[str]
) -> None:
    _, text = Schema.from_signature(before).record({"x": 1})
    with pytest.raises(InputInvalid) as misfit:
        Schema.from_signature(now).load(text)
    assert {path for path, _ in misfit.value.problems} == named


class Exiting:
    def validate(self, value: Any) -> Any:
        raise SystemExit(3)


@dataclass
class Broken:
    a: int

    def __post_init__(self) -> None:
        raise KeyboardInterrupt


class Mute(Exception):
    def __str__(self) -> str:
        raise RuntimeError


class Silent:
    def validate(self, value: Any) -> Any:
        raise Mute


@pytest.mark.parametrize("source", [Exiting(), Broken, Silent()])
def test_whatever_the_code_of_a_schema_raises_is_an_input_invalid(source: Any) -> None:
    schema = Schema.of(source, "job")
    for read in (schema.check, schema.record, lambda data: schema.load(encode(data, "it"))):
        with pytest.raises(InputInvalid):
            read({"a": 1})


# ---- keys that a type does not name


class Album(TypedDict):
    title: str
    tracks: list[Track]


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ('{"title": "a", "id": 2}', Track),
        ('[{"title": "a", "id": null}]', list[Track]),
        ('{"k": {"title": "a", "id": 2}}', dict[str, Track]),
        ('{"title": "a", "tracks": [{"title": "b", "id": [1]}], "year": 2000}', Album),
        ('{"title": "a", "id": 2}', Track | None),
        ('[{"title": "a", "id": 2}, 1]', tuple[Track, int]),
    ],
)
def test_a_result_that_is_a_typed_dict_keeps_further_keys(text: str, kind: Any) -> None:
    value = decode(text, kind)
    assert decode(encode(value, "it")) == decode(text)


def test_a_result_keeps_further_keys_of_a_typed_dict_within_a_model_too() -> None:
    value = decode('{"a": 1, "tracks": [{"title": "b", "id": 2}]}', Plain)
    assert value == Plain(1, [{"title": "b", "id": 2}])  # type: ignore[typeddict-unknown-key]


@pytest.mark.parametrize(
    ("text", "kind", "path"),
    [
        ('{"a": 1, "zz": 2}', Plain, "zz"),
        ('[{"a": 1, "zz": 2}]', list[Plain], r"\[0\]\.zz"),
        ('{"userName": "bob", "zz": 2}', Named, "zz"),
    ],
)
def test_a_result_whose_model_would_drop_a_key_is_refused(text: str, kind: Any, path: str) -> None:
    with pytest.raises(OutputInvalid, match=f"{path}: unknown field"):
        decode(text, kind)


async def deep(
    one: Closed, many: list[Plain], by_key: dict[str, Plain], either: Plain | Track | None = None
) -> None: ...


def test_unknown_fields_of_nested_models_are_errors_as_at_the_top() -> None:
    plain = {"a": 1}
    given = {
        "one": {"a": 1, "inner": {**plain, "zz": 1}, "yy": 1},
        "many": [plain, {**plain, "tracks": [{"title": "t", "zz": 1}]}],
        "by_key": {"k": {**plain, "aa": 1}},
    }
    with pytest.raises(InputInvalid) as refused:
        Schema.from_signature(deep).check(given)
    assert {path for path, _ in refused.value.problems} == {
        "one.inner.zz",
        "one.yy",
        "many[1].tracks[0].zz",
        "by_key.k.aa",
    }


@pytest.mark.parametrize(("either", "kind"), [({"a": 1}, Plain), ({"title": "t"}, dict)])
def test_of_a_union_the_member_is_taken_that_knows_all_keys(either: Any, kind: type) -> None:
    value = Schema.from_signature(deep).check({"one": {}, "many": [], "by_key": {}, "either": either})
    assert type(value["either"]) is kind


@dataclass
class Box(Generic[T]):
    content: T


Wrapped = NewType("Wrapped", Closed)


def test_types_that_only_surround_others_are_looked_into() -> None:
    async def work(one: Wrapped, two: Annotated[Closed, "note"], box: Box[int]) -> None: ...

    schema = Schema.from_signature(work)
    with pytest.raises(InputInvalid) as refused:
        schema.check({"one": {"zz": 1}, "two": {"zz": 1}, "box": {"content": "a"}})
    assert {path for path, _ in refused.value.problems} == {"one.zz", "two.zz", "box.content"}


def test_a_constraint_holds_wherever_it_stands() -> None:
    async def work(sums: list[Sum], n: list[Annotated[int, msgspec.Meta(gt=3)] | Path]) -> None: ...

    schema = Schema.from_signature(work)
    assert schema.check({"sums": [{"a": 1}], "n": [4, "a"]}) == {"sums": [Sum(1)], "n": [4, Path("a")]}
    with pytest.raises(InputInvalid, match=r"n\[0\]"):
        schema.check({"sums": [{"a": 1}], "n": [3]})


class Ignoring(BaseModel):
    model_config = ConfigDict(extra="ignore")
    a: int = 1


def test_a_model_that_takes_other_keys_may_have_them_where_it_stands() -> None:
    async def work(of: list[Ignoring]) -> None: ...

    assert Schema.from_signature(work).check({"of": [{"a": 2, "b": 3}]}) == {"of": [Ignoring(a=2)]}


# ---- calling the handler


class Even:
    def validate(self, value: Any) -> Any:
        if value["n"] % 2:
            raise ValueError("n must be even")
        return value


class AsModel:
    def validate(self, value: Any) -> Any:
        return dataclasses.replace(Closed(), a=value["a"])


class Open:
    def validate(self, value: Any) -> Any:
        return value


class Two:
    def validate(self, value: Any) -> Any:
        return {"a": 1, "b": 2}


async def one_int(n: int) -> None: ...
async def one_untyped(n) -> None: ...  # type: ignore[no-untyped-def]
async def one_mapping(n: dict[str, Any]) -> None: ...
async def one_other(data) -> None: ...  # type: ignore[no-untyped-def]
async def one_default(n: int = 4) -> None: ...
async def one_a(a: int) -> None: ...
async def one_model(a: Closed) -> None: ...


@pytest.mark.parametrize(
    ("fn", "validator", "data", "called"),
    [
        (one_int, Even(), {"n": 2}, ([], {"n": 2})),
        (one_untyped, Even(), {"n": 2}, ([], {"n": 2})),
        (one_mapping, Even(), {"n": 2}, ([], {"n": 2})),
        (one_mapping, Even(), {"n": 2, "m": 3}, ([{"n": 2, "m": 3}], {})),
        (one_other, Even(), {"n": 2}, ([{"n": 2}], {})),
        (one_a, AsModel(), {"a": 5}, ([], {"a": 5, "inner": None})),
        (one_default, Open(), {}, ([], {})),
        (one_default, Open(), {"n": 5}, ([], {"n": 5})),
        (one_a, Sum, {"a": 5}, ([], {"a": 5})),
        (one_model, AsModel(), {"a": 5}, ([Closed(5)], {})),
    ],
)
def test_a_validator_gets_the_object_and_the_single_parameter_its_field(
    fn: Callable[..., Any], validator: Any, data: Any, called: Any
) -> None:
    schema = Schema.from_signature(fn, "job", validator)
    if called == ([], {"a": 5, "inner": None}):  # the handler has no parameter for the other field
        with pytest.raises(InputInvalid, match="inner: unknown field"):
            schema.arguments(schema.check(data))
    else:
        assert schema.arguments(schema.check(data)) == called


def test_fields_that_are_not_the_parameters_are_an_input_invalid() -> None:
    async def work(a: int, c: int) -> None: ...

    schema = Schema.from_signature(work, "job", Two())
    with pytest.raises(InputInvalid) as misfit:
        schema.arguments(schema.check({}))
    assert {path for path, _ in misfit.value.problems} == {"b", "c"}
