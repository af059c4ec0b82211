"""What an input, an event or an output must look like: made from a signature, a type or a validator.

Called by the declarations, which make one for each job and pipe, and by the executor, which checks with it. All values
go through JSON, so that a handler gets the same live, from the command line and on replay.
"""

from __future__ import annotations

import inspect
import typing
from collections.abc import Callable, Collection, Iterable, Mapping
from difflib import get_close_matches
from typing import Any, Never, NoReturn, Optional, Protocol, Self

import msgspec

from taskrun.model import typed
from taskrun.model.codec import decode, encode
from taskrun.model.errors import DefinitionError, InputInvalid, NotEncodable, OutputInvalid
from taskrun.model.json_schema import described
from taskrun.model.typed import Misfit, Problems

Arguments = tuple[list[Any], dict[str, Any]]

_RAW = msgspec.json.Decoder(dict[str, msgspec.Raw])


class Schema:
    """What a value must look like, and how a handler is called with it.

    Made by `of`, `from_signature` and `for_output`.
    """

    def __init__(self, name: str, shape: Shape, call: Callable[[Any], Arguments], what: str = "input") -> None:
        self.name = name
        self._shape = shape
        self._call = call
        self._what = f"{what} of {name}"

    @classmethod
    def of(cls, kind: Any, name: str) -> Self:
        """Returns the schema of a type, a validator, or of anything (None).

        Parameters:
            kind: a type, a pydantic `TypeAdapter`, or an object with `validate(value) -> value`.
            name: of the job or pipe, for messages.
        """
        return cls(name, _shape(kind, name), _whole())

    @classmethod
    def from_signature(cls, fn: Callable[..., Any], name: str | None = None, input: Any = None) -> Self:
        """Returns the schema of a handler's input.

        Parameters:
            fn: the handler. Its parameters are the fields; a single one annotated with a model is the input itself.
            name: of the job, for messages; the function's name unless given.
            input: a type or validator that replaces the signature; its fields are spread over several parameters.

        Raises:
            DefinitionError: `*args`, positional-only parameters, an annotation that leads nowhere, or an `input` whose
                fields are not the parameters.
        """
        name = name or fn.__name__
        signature = _Signature(fn, name)
        if input is None:
            return cls(name, *_from_parameters(signature))
        return cls(name, _shape(input, name), _call_with(signature, input))

    @classmethod
    def for_output(cls, kind: Any, name: str | None = None) -> Self:
        """Returns the schema of a handler's output, from its return annotation, or from a type or validator."""
        name = name or str(getattr(kind, "__name__", "output"))
        if inspect.isroutine(kind):
            kind = _hint(kind, "return", name)
        return cls(name, _shape(Any if kind is Never or kind is NoReturn else kind, name), _whole(), "output")

    def check(self, data: object) -> Any:
        """Returns the validated value of plain data, a mapping or a model: defaults filled in, a model where it is one.

        Raises:
            InputInvalid: names every bad field.
            NotEncodable: it holds something that JSON cannot.
        """
        return self._valid(self._shape.read, encode(data, self._what))

    def dump(self, value: object, limit: int | None = None) -> str:
        """Returns a validated value as JSON text, at most `limit` bytes of it."""
        return encode(value, self._what, limit)

    def load(self, text: str) -> Any:
        """Returns the validated value that `dump` wrote."""
        return self._valid(self._shape.reread, text)

    def arguments(self, value: Any) -> Arguments:
        """Returns the positional and keyword arguments of the handler for a validated value."""
        return self._call(value)

    def json_schema(self) -> dict[str, Any]:
        """Returns it as a JSON schema; whatever has none is `{}`. Never raises."""
        try:
            return self._shape.describe()
        except Exception:  # a validator's own code
            return {}

    def _valid(self, read: Callable[[str], Any], text: str) -> Any:
        try:
            return read(text)
        except Misfit as misfit:
            raise InputInvalid(self.name, misfit.problems) from None


def check_output(schema: Schema, value: object) -> Any:
    """Returns the validated output of a handler.

    Raises:
        OutputInvalid: names every bad field.
        NotEncodable: it holds something that JSON cannot.
    """
    try:
        return schema.check(value)
    except InputInvalid as error:
        raise OutputInvalid(f"invalid output of {schema.name}: {Misfit(error.problems)}") from None


# ---- the three shapes


class Shape(Protocol):
    """How JSON text becomes a validated value."""

    def read(self, text: str) -> Any:
        """Returns the validated value; raises `Misfit`."""
        ...

    def reread(self, text: str) -> Any:
        """Returns a value that was validated before it was written."""
        ...

    def describe(self) -> dict[str, Any]:
        """Returns the JSON schema."""
        ...


class _Typed:
    """A value of a type. Of a model, unknown fields are refused; `default` is JSON text for an empty input."""

    def __init__(self, kind: Any, default: str | None = None) -> None:
        self._kind = kind
        self._default = default
        self._keys = typed.closed_keys(kind)

    def read(self, text: str) -> Any:
        if text == "{}" and self._default is not None:
            text = self._default
        problems = [] if self._keys is None else _unknown(_keys(text), self._keys)
        value = _read(text, self._kind, "", problems)
        if problems:
            raise Misfit(problems)
        return value

    reread = read

    def describe(self) -> dict[str, Any]:
        schema = described(self._kind)
        return schema if self._keys is None else {**schema, "additionalProperties": False}


class _Validated:
    """Whatever a validator lets through."""

    def __init__(self, validator: Any) -> None:
        self._validator = validator
        self._validate = getattr(validator, "validate_json", None) or (lambda text: validator.validate(decode(text)))

    def read(self, text: str) -> Any:
        try:
            return self._validate(text)
        except Exception as error:
            raise Misfit(typed.said_by(error)) from error

    def reread(self, text: str) -> Any:
        """Validates again for the model instance only: a validator that changes its own output must not do so twice."""
        try:
            value = self._validate(text)
            return value if encode(value, "value") == text else decode(text)
        except Exception:
            return decode(text)

    def describe(self) -> dict[str, Any]:
        return dict(self._validator.json_schema())


class _Parameter(msgspec.Struct, frozen=True):
    """A field made of a parameter. Without `default` (JSON text) an optional one is left to the function itself."""

    name: str
    kind: Any
    required: bool
    default: str | None = None


class _Parameters:
    """An object with a field for each parameter; `extra` is the type of all others, if there may be others."""

    def __init__(self, parameters: Collection[_Parameter], open: bool, extra: Any) -> None:
        self._parameters = {one.name: one for one in parameters}
        self._open = open
        self._extra = extra

    def read(self, text: str) -> Any:
        given = self._given(text)
        problems: Problems = [] if self._open else _unknown(given, self._parameters)
        values = {}
        for name, one in self._parameters.items():
            if name in given:
                values[name] = _read(given[name], one.kind, name, problems)
            elif one.default is not None:
                values[name] = typed.read(one.default, one.kind)
            elif one.required:
                problems.append((name, "is required"))
        for name in given:
            if self._open and name not in self._parameters:
                values[name] = _read(given[name], self._extra, name, problems)
        if problems:
            raise Misfit(problems)
        return values

    reread = read

    def describe(self) -> dict[str, Any]:
        kinds = {name: one.kind for name, one in self._parameters.items()}
        defaults = {name: decode(one.default) for name, one in self._parameters.items() if one.default is not None}
        required = [name for name, one in self._parameters.items() if one.required]
        schema = described(kinds, defaults)
        return {**schema, "required": required, "additionalProperties": self._open}

    def _given(self, text: str) -> dict[str, msgspec.Raw]:
        try:
            return _RAW.decode(text)
        except msgspec.ValidationError:
            raise Misfit([("", f"expected an object with {', '.join(self._parameters) or 'no fields'}")]) from None


def _read(text: str | msgspec.Raw, kind: Any, path: str, problems: Problems) -> Any:
    try:
        return typed.read(text, kind)
    except Misfit as misfit:
        problems.extend((typed.at(path, inner), said) for inner, said in misfit.problems)


def _keys(text: str) -> Iterable[str]:
    try:
        return _RAW.decode(text)
    except msgspec.ValidationError:  # not an object, which reading it will say
        return ()


def _unknown(given: Iterable[str], known: Collection[str]) -> Problems:
    return [(name, "unknown field" + _meant(name, known)) for name in given if name not in known]


def _meant(name: str, known: Collection[str]) -> str:
    close = get_close_matches(name, known, 1)
    return f", did you mean {close[0]}?" if close else f", known are {', '.join(known)}" if known else ""


# ---- from what the user gives


def _shape(kind: Any, name: str) -> Shape:
    if kind is None or kind is inspect.Parameter.empty:
        return _Typed(Any)
    try:
        if typed.fields(kind) is None and _validates(kind):
            return _Validated(kind)
        if typed.usable(kind):
            return _Typed(kind)
    except NameError as error:
        raise DefinitionError(f"{name}: a field of {typed.named(kind)} leads nowhere: {error}") from None
    raise DefinitionError(f"{name}: {kind!r} is neither a type nor an object with validate(value)")


def _validates(kind: Any) -> bool:
    return callable(getattr(kind, "validate_json", None)) or callable(getattr(kind, "validate", None))


class _Signature:
    """The parameters of a handler."""

    def __init__(self, fn: Callable[..., Any], name: str) -> None:
        self.fn, self.name = fn, name
        try:
            parameters = list(inspect.signature(fn).parameters.values())
        except (NameError, ValueError, TypeError) as error:
            raise DefinitionError(f"{name}: its signature cannot be read: {error}") from None
        self.named = [one for one in parameters if one.kind is not one.VAR_KEYWORD]
        self.rest = next((one for one in parameters if one.kind is one.VAR_KEYWORD), None)
        for one in self.named:
            if one.kind in (one.VAR_POSITIONAL, one.POSITIONAL_ONLY):
                sort = "*args" if one.kind is one.VAR_POSITIONAL else "positional-only parameters"
                raise DefinitionError(f"{name}: {sort} cannot be fields of an input ({one.name})")

    def hint(self, parameter: inspect.Parameter) -> Any:
        """Returns the type of a parameter; a default of None allows None."""
        hint = _hint(self.fn, parameter.name, self.name)
        loose = parameter.default is None and hint is not Any
        return Optional[hint] if loose else hint  # noqa: UP045 (a hint need not know `|`)

    @property
    def single(self) -> inspect.Parameter | None:
        """The only parameter, if there is just one."""
        return self.named[0] if len(self.named) == 1 and self.rest is None else None


def _hint(fn: Callable[..., Any], parameter: str, name: str) -> Any:
    """Resolves one annotation alone, so that the message can name it."""

    def alone() -> None: ...

    plain = inspect.unwrap(fn)
    try:
        alone.__annotations__ = {key: kind for key, kind in plain.__annotations__.items() if key == parameter}
        hints = typing.get_type_hints(alone, getattr(plain, "__globals__", {}), include_extras=True)
        return hints.get(parameter, Any)
    except Exception as error:  # an annotation is any expression
        place = "the return value" if parameter == "return" else f"parameter {parameter}"
        raise DefinitionError(f"{name}: the type of {place} cannot be resolved at module level: {error}") from None


def _from_parameters(signature: _Signature) -> tuple[Shape, Callable[[Any], Arguments]]:
    made = [_parameter(signature, one) for one in signature.named]
    single = signature.single
    if single is not None and _is_model(made[0].kind, signature.name):
        return _Typed(made[0].kind, made[0].default), _whole(single)
    extra = _hint(signature.fn, signature.rest.name, signature.name) if signature.rest else Any
    return _Parameters(made, signature.rest is not None, extra), _spread(())


def _is_model(kind: Any, name: str) -> bool:
    try:
        return typed.fields(kind) is not None
    except NameError as error:
        raise DefinitionError(f"{name}: a field of {typed.named(kind)} leads nowhere: {error}") from None


def _parameter(signature: _Signature, parameter: inspect.Parameter) -> _Parameter:
    kind = signature.hint(parameter)
    if parameter.default is parameter.empty:
        return _Parameter(parameter.name, kind, required=True)
    try:
        default = encode(parameter.default, parameter.name)
        typed.read(default, kind)
    except NotEncodable:  # such as an object for tests to replace
        return _Parameter(parameter.name, kind, required=False)
    except Misfit as misfit:
        place = f"{signature.name}: the default of parameter {parameter.name}"
        raise DefinitionError(f"{place} does not fit: {misfit}") from None
    return _Parameter(parameter.name, kind, required=False, default=default)


# ---- how a handler is called


def _whole(parameter: inspect.Parameter | None = None) -> Callable[[Any], Arguments]:
    if parameter is not None and parameter.kind is parameter.KEYWORD_ONLY:
        return lambda value: ([], {parameter.name: value})
    return lambda value: ([value], {})


def _spread(names: Iterable[str]) -> Callable[[Any], Arguments]:
    def spread(value: Any) -> Arguments:
        if isinstance(value, Mapping):
            return [], dict(value)
        return [], {name: getattr(value, name) for name in names if hasattr(value, name)}

    return spread


def _call_with(signature: _Signature, input: Any) -> Callable[[Any], Arguments]:
    """Spreads a model over the parameters, unless the single one is the model itself."""
    fields = None if _validates(input) and not isinstance(input, type) else typed.fields(input)
    names = None if fields is None else {one.name for one in fields}
    single = signature.single
    if not signature.named and signature.rest is None:
        return lambda value: ([], {})
    if single is not None and (names is None or single.name not in names or _takes_model(signature, single)):
        return _whole(single)
    if names is not None:
        _match(signature, names)
    return _spread(names or [one.name for one in signature.named])


def _takes_model(signature: _Signature, parameter: inspect.Parameter) -> bool:
    return _is_model(signature.hint(parameter), signature.name)


def _match(signature: _Signature, names: set[str]) -> None:
    own = {one.name for one in signature.named}
    needed = {one.name for one in signature.named if one.default is one.empty}
    if lacking := sorted(needed - names):
        raise DefinitionError(f"{signature.name}: the input has no field for the parameter {', '.join(lacking)}")
    if signature.rest is None and (surplus := sorted(names - own)):
        raise DefinitionError(f"{signature.name}: the handler has no parameter for the field {', '.join(surplus)}")
