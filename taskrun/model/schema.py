"""What an input, an event or an output must look like: made from a signature, a type or a validator.

Called by the declarations, which make one for each job and pipe, and by the executor, which checks with it. All values
go through JSON, so that a handler gets the same live, from the command line and on replay.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any, Never, NoReturn, Self

from taskrun.model import typed
from taskrun.model.codec import encode
from taskrun.model.errors import DefinitionError, InputInvalid, NotEncodable, OutputInvalid
from taskrun.model.problems import Misfit, said_by
from taskrun.model.round_trip import difference, has_instances, lost
from taskrun.model.shapes import OutputShape, Parameter, ParametersShape, Shape, TypedShape, shape_of
from taskrun.model.signature import Arguments, Signature, call_with, hint_of, is_model, spread, whole


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
        return cls(name, shape_of(kind, name), whole())

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
        signature = Signature(fn, name)
        if input is None:
            return cls(name, *_from_parameters(signature))
        return cls(name, shape_of(input, name), call_with(signature, input))

    @classmethod
    def for_output(cls, kind: Any, name: str | None = None) -> Self:
        """Returns the schema of a handler's output, from its return annotation, or from a type or validator."""
        name = name or str(getattr(kind, "__name__", "output"))
        if inspect.isroutine(kind):
            kind = hint_of(kind, "return", name)
        kind = Any if kind is Never or kind is NoReturn else kind
        return cls(name, shape_of(kind, name, OutputShape), whole(), "output")

    def check(self, data: object) -> Any:
        """Returns the validated value of plain data, a mapping or a model: defaults filled in, a model where it is one.

        Raises:
            InputInvalid: names every bad field.
            NotEncodable: it holds something that JSON cannot.
        """
        given = not self._shape.exact and has_instances(data)  # which have their computed fields, as a record does
        return self._valid(self._shape.reread if given else self._shape.read, encode(data, self._what))

    def record(self, data: object, limit: int | None = None) -> tuple[Any, str]:
        """Returns the validated value of data as it reads back from what is recorded of it, and that JSON text.

        Parameters:
            limit: bytes that the text may have.

        Raises:
            PayloadTooLarge: it has more.
            InputInvalid: names every bad field, or the first that does not read back as it was.
            NotEncodable: it holds something that JSON cannot.
        """
        value = self.check(data)
        text = self.dump(value, limit)
        return (value, text) if self._shape.exact else (self._read_back(data, value, text), text)

    def dump(self, value: object, limit: int | None = None) -> str:
        """Returns a validated value as JSON text, at most `limit` bytes of it."""
        return encode(self._shape.plain(value), self._what, limit)

    def load(self, text: str) -> Any:
        """Returns the validated value that `dump` wrote.

        Raises:
            InputInvalid: the code has changed meanwhile, so that it does not fit any more; names every bad field.
        """
        return self._valid(self._shape.reread, text)

    def arguments(self, value: Any) -> Arguments:
        """Returns the positional and keyword arguments of the handler for a validated value.

        Raises:
            InputInvalid: the fields of the value are not the parameters.
        """
        try:
            return self._call(value)
        except Misfit as misfit:
            raise InputInvalid(self.name, misfit.problems) from None

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
        except BaseException as error:  # a validator's own code may raise anything, `SystemExit` too
            raise InputInvalid(self.name, said_by(error)) from error

    def _read_back(self, data: object, value: Any, text: str) -> Any:
        try:
            again = self.load(text)
            found = difference(value, again)
            if found is None and self.dump(again) != text:
                found = ""
        except (InputInvalid, NotEncodable) as error:
            problems = error.problems if isinstance(error, InputInvalid) else [("", str(error))]
            raise InputInvalid(self.name, [(path, f"{_NOT_READ_BACK}: {said}") for path, said in problems]) from error
        found = lost(data, value) if found is None else found
        if found is not None:
            raise InputInvalid(self.name, [(found, _NOT_READ_BACK)])
        return again


_NOT_READ_BACK = "does not read back from what would be recorded of it"


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


# ---- from a signature


def _from_parameters(signature: Signature) -> tuple[Shape, Callable[[Any], Arguments]]:
    made = [_parameter(signature, one) for one in signature.named]
    single = signature.single
    if single is not None and is_model(made[0].kind, signature.name):
        return TypedShape(made[0].kind, made[0].default), whole(single)
    extra = hint_of(signature.fn, signature.rest.name, signature.name) if signature.rest else Any
    return ParametersShape(made, signature.rest is not None, extra), spread


def _parameter(signature: Signature, parameter: inspect.Parameter) -> Parameter:
    kind = signature.hint(parameter)
    if parameter.default is parameter.empty:
        return Parameter(parameter.name, kind, required=True)
    try:
        default = encode(parameter.default, parameter.name)
        typed.read(default, kind)
    except NotEncodable:  # such as an object for tests to replace
        return Parameter(parameter.name, kind, required=False)
    except Misfit as misfit:
        place = f"{signature.name}: the default of parameter {parameter.name}"
        raise DefinitionError(f"{place} does not fit: {misfit}") from None
    return Parameter(parameter.name, kind, required=False, default=default)
