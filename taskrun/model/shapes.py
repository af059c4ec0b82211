"""How JSON text becomes a validated value: by a type, by a validator, or by the parameters of a handler. Made by `schema`."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Collection, Mapping
from typing import Any, Protocol

import msgspec

from taskrun.model import pydantic_models, typed
from taskrun.model.codec import decode, encode
from taskrun.model.errors import DefinitionError
from taskrun.model.fields import closed_keys, fields
from taskrun.model.further_keys import Further, Text, unknown
from taskrun.model.json_schema import described
from taskrun.model.problems import Misfit, Problems, at, named, said_by
from taskrun.model.round_trip import is_exact

_OBJECT = msgspec.json.Decoder(dict[str, msgspec.Raw])


class Shape(Protocol):
    """How JSON text becomes a validated value."""

    def read(self, text: str) -> Any:
        """Returns the validated value; raises `Misfit`."""
        ...

    exact: bool  # a value always reads back as it was

    def reread(self, text: str) -> Any:
        """Returns a value that was validated before it was written."""
        ...

    def plain(self, value: Any) -> Any:
        """Returns a validated value in the form in which it is written."""
        ...

    def describe(self) -> dict[str, Any]:
        """Returns the JSON schema."""
        ...


class TypedShape:
    """A value of a type. Of a model, unknown fields are refused; `default` is JSON text for an empty input."""

    def __init__(self, kind: Any, default: str | None = None) -> None:
        self._kind = kind
        self._default = default
        self._closed = closed_keys(kind) is not None
        self._read = typed.reader(kind, Further.REFUSE)
        self.reread = typed.reader(kind, Further.RECORDED)
        self.exact = is_exact(kind)
        self.plain = _writer(kind)

    def read(self, text: str) -> Any:
        return self._read(self._default if text == "{}" and self._default is not None else text)

    def describe(self) -> dict[str, Any]:
        schema = described(self._kind)
        return {**schema, "additionalProperties": False} if self._closed else schema


def _as_it_is(value: Any) -> Any:
    return value


def _writer(kind: Any) -> Callable[[Any], Any]:
    """Returns how values of a type are written: msgspec would write a pydantic dataclass past its aliases."""
    return pydantic_models.plain if pydantic_models.is_model(kind) else _as_it_is


class ValidatedShape:
    """Whatever a validator lets through."""

    exact = False
    plain = staticmethod(_as_it_is)

    def __init__(self, validator: Any) -> None:
        self._validator = validator
        if callable(getattr(validator, "validate_json", None)):
            self._validate: Callable[[str], Any] = lambda text: pydantic_models.validated(validator, text)
        else:
            self._validate = lambda text: validator.validate(decode(text))

    def read(self, text: str) -> Any:
        try:
            return self._validate(text)
        except Exception as error:
            raise Misfit(said_by(error)) from error

    reread = read

    def describe(self) -> dict[str, Any]:
        return dict(self._validator.json_schema())


class OutputShape(ValidatedShape):
    """What a validator made of an output is recorded: it is validated again for the model instance only."""

    def reread(self, text: str) -> Any:
        try:
            value = self._validate(text)
            return value if encode(value, "value") == text else decode(text)
        except Exception:
            return decode(text)


class Parameter(msgspec.Struct, frozen=True):
    """A field made of a parameter. Without `default` (JSON text) an optional one is left to the function itself."""

    name: str
    kind: Any
    required: bool
    default: str | None = None


class ParametersShape:
    """An object with a field for each parameter; `extra` is the type of all others, if there may be others."""

    def __init__(self, parameters: Collection[Parameter], open: bool, extra: Any) -> None:
        self._parameters = {one.name: one for one in parameters}
        self._open = open
        self._given = {one.name: typed.reader(one.kind, Further.REFUSE) for one in parameters}
        self._recorded = {one.name: typed.reader(one.kind, Further.RECORDED) for one in parameters}
        self._extra = typed.reader(extra, Further.REFUSE)
        self._writers = {one.name: _writer(one.kind) for one in parameters if _writer(one.kind) is not _as_it_is}
        self.exact = all(is_exact(one.kind) for one in parameters) and is_exact(extra)

    def read(self, text: str) -> Any:
        return self._with(self._given, text)

    def reread(self, text: str) -> Any:
        return self._with(self._recorded, text)

    def plain(self, value: Any) -> Any:
        if not self._writers:
            return value
        return {name: self._writers.get(name, _as_it_is)(item) for name, item in value.items()}

    def _with(self, readers: Mapping[str, Callable[[Text], Any]], text: str) -> Any:
        given = self._parts(text)
        values: dict[str, Any] = {}
        problems: Problems = []
        expected = 0
        for name, one in self._parameters.items():
            if name in given:
                expected += 1
                _read(readers[name], given[name], name, values, problems)
            elif one.default is not None:
                values[name] = readers[name](one.default)
            elif one.required:
                problems.append((name, "is required"))
        if expected < len(given):
            self._further(given, values, problems)
        if problems:
            raise Misfit(problems)
        return values

    def _further(self, given: Mapping[str, msgspec.Raw], values: dict[str, Any], problems: Problems) -> None:
        others = [name for name in given if name not in self._parameters]
        if not self._open:
            problems[:0] = unknown(others, self._parameters)
            return
        for name in others:
            _read(self._extra, given[name], name, values, problems)

    def describe(self) -> dict[str, Any]:
        kinds = {name: one.kind for name, one in self._parameters.items()}
        defaults = {name: decode(one.default) for name, one in self._parameters.items() if one.default is not None}
        required = [name for name, one in self._parameters.items() if one.required]
        schema = described(kinds, defaults)
        return {**schema, "required": required, "additionalProperties": self._open}

    def _parts(self, text: str) -> dict[str, msgspec.Raw]:
        try:
            return _OBJECT.decode(text)
        except msgspec.ValidationError:
            raise Misfit([("", f"expected an object with {', '.join(self._parameters) or 'no fields'}")]) from None


def _read(read: Callable[[Text], Any], text: Text, name: str, values: dict[str, Any], problems: Problems) -> None:
    try:
        values[name] = read(text)
    except Misfit as misfit:
        problems += [(at(name, inner), said) for inner, said in misfit.problems]


def shape_of(kind: Any, name: str, validated: Callable[[Any], Shape] = ValidatedShape) -> Shape:
    if kind is None or kind is inspect.Parameter.empty:
        return TypedShape(Any)
    try:
        if fields(kind) is None and validates(kind):
            return validated(kind)
        if typed.usable(kind):
            return TypedShape(kind)
    except NameError as error:
        raise DefinitionError(f"{name}: a field of {named(kind)} cannot be resolved: {error}") from None
    raise DefinitionError(f"{name}: {kind!r} is neither a type nor an object with validate(value)")


def validates(kind: Any) -> bool:
    return callable(getattr(kind, "validate_json", None)) or callable(getattr(kind, "validate", None))
