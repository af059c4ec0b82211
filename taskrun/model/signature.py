"""A handler's parameters, and how it is called with a validated input. Read by `schema`."""

from __future__ import annotations

import inspect
import typing
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, Optional, get_origin

from taskrun.model.errors import DefinitionError
from taskrun.model.fields import fields
from taskrun.model.further_keys import unknown
from taskrun.model.problems import Misfit, Problems, named
from taskrun.model.shapes import validates

Arguments = tuple[list[Any], dict[str, Any]]


class Signature:
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
        hint = hint_of(self.fn, parameter.name, self.name)
        loose = parameter.default is None and hint is not Any
        return Optional[hint] if loose else hint  # noqa: UP045 (a hint need not know `|`)

    def misfits(self, values: Mapping[str, Any]) -> Problems:
        """Returns what keeps the handler from being called with these values by name."""
        names = [one.name for one in self.named]
        lacking = [one.name for one in self.named if one.default is one.empty and one.name not in values]
        return [*([] if self.rest else unknown(values, names)), *((name, "is required") for name in lacking)]

    @property
    def single(self) -> inspect.Parameter | None:
        """The only parameter, if there is just one."""
        return self.named[0] if len(self.named) == 1 and self.rest is None else None


def hint_of(fn: Callable[..., Any], parameter: str, name: str) -> Any:
    """Resolves one annotation alone, so that the message can name it."""

    def alone() -> None: ...

    plain = _written(fn)
    try:
        alone.__annotations__ = {key: kind for key, kind in plain.__annotations__.items() if key == parameter}
        hints = typing.get_type_hints(alone, getattr(plain, "__globals__", {}), include_extras=True)
        return hints.get(parameter, Any)
    except Exception as error:  # an annotation is any expression
        place = "the return value" if parameter == "return" else f"parameter {parameter}"
        raise DefinitionError(f"{name}: the type of {place} cannot be resolved at module level: {error}") from None


def _written(fn: Callable[..., Any]) -> Callable[..., Any]:
    """Returns the function that bears the annotations: what a decorator, a partial or an object with `__call__` stands for."""
    fn = inspect.unwrap(fn)
    if isinstance(fn, partial):
        return _written(fn.func)
    return fn if inspect.isroutine(fn) else type(fn).__call__


def is_model(kind: Any, name: str) -> bool:
    try:
        return fields(kind) is not None
    except NameError as error:
        raise DefinitionError(f"{name}: a field of {named(kind)} cannot be resolved: {error}") from None


# ---- how it is called


def whole(parameter: inspect.Parameter | None = None) -> Callable[[Any], Arguments]:
    if parameter is not None and parameter.kind is parameter.KEYWORD_ONLY:
        return lambda value: ([], {parameter.name: value})
    return lambda value: ([value], {})


def spread(value: Any) -> Arguments:
    return [], dict(value)


def spread_over(signature: Signature) -> Callable[[Any], Arguments]:
    """Gives each parameter its field of the value that a validator or a model made of the input."""

    def spread(value: Any) -> Arguments:
        values = _field_values(value)
        if problems := signature.misfits(values):
            raise Misfit(problems)
        return [], values

    return spread


def _field_values(value: Any) -> dict[str, Any]:
    if isinstance(value, Mapping):
        return dict(value)
    return {one.name: getattr(value, one.name) for one in fields(type(value)) or ()}


def call_with(signature: Signature, input: Any) -> Callable[[Any], Arguments]:
    """Spreads a model over the parameters, unless the single one is the model itself."""
    known = None if validates(input) and not isinstance(input, type) else fields(input)
    single = signature.single
    if not signature.named and signature.rest is None:
        return lambda value: ([], {})
    names = None if known is None else {one.name for one in known}
    if single is not None and (_takes_model(signature, single) or (names is not None and single.name not in names)):
        return whole(single)
    if single is not None and names is None:
        return _whole_or_field(signature, single)
    if names is not None:
        _match(signature, names)
    return spread_over(signature)


def _whole_or_field(signature: Signature, single: inspect.Parameter) -> Callable[[Any], Arguments]:
    """Gives the single parameter its field of what a validator lets through, or all of it where it has no such field."""
    hint = signature.hint(single)
    kind = get_origin(hint) or hint
    takes_mapping = not isinstance(kind, type) or kind is object or issubclass(kind, Mapping)
    optional = single.default is not single.empty
    all_of_it, its_field = whole(single), spread_over(signature)

    def call(value: Any) -> Arguments:
        values = _field_values(value)
        is_field = single.name in values and (len(values) == 1 or not takes_mapping)
        is_field = is_field or (optional and isinstance(value, Mapping) and not values)
        return its_field(value) if is_field else all_of_it(value)

    return call


def _takes_model(signature: Signature, parameter: inspect.Parameter) -> bool:
    return is_model(signature.hint(parameter), signature.name)


def _match(signature: Signature, names: set[str]) -> None:
    own = {one.name for one in signature.named}
    needed = {one.name for one in signature.named if one.default is one.empty}
    if lacking := sorted(needed - names):
        raise DefinitionError(f"{signature.name}: the input has no field for the parameter {', '.join(lacking)}")
    if signature.rest is None and (surplus := sorted(names - own)):
        raise DefinitionError(f"{signature.name}: the handler has no parameter for the field {', '.join(surplus)}")
