"""The options of a job: what may be given, checked when the job is defined, and evaluated for one trigger's input."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from difflib import get_close_matches
from functools import cached_property
from typing import Any, Literal, TypedDict, TypeVar

import msgspec

from taskrun.declarations.files import Files
from taskrun.declarations.job_ref import JobRef
from taskrun.declarations.pipe import Pipe, Source
from taskrun.model.byte_escapes import escaped
from taskrun.model.codec import message_of
from taskrun.model.durations import Frequency, human, seconds, shown
from taskrun.model.errors import DefinitionError, DurationInvalid
from taskrun.model.tags import checked_tags
from taskrun.rules.policies import (
    DEFAULT_BACKOFF,
    Backoff,
    BackoffPolicy,
    Concurrency,
    Cron,
    Debounce,
    Duration,
    Terms,
    Throttle,
    backoff_of,
    concurrency_of,
    debounce_of,
    throttle_of,
)

T = TypeVar("T")
Of = Callable[[Any], T]
Hook = Callable[[Any], Any]

LONGEST_TEXT = 10_000  # characters of a key or an id that a function returns
HOOK_KINDS = ("trigger", "start", "success", "failure", "error", "cancel", "settled")


class Options(TypedDict, total=False):
    """What `@job(…)` takes; the contract is in the documentation of `job`."""

    name: str | None
    input: Any
    output: Any
    retry: int | Of[int]
    backoff: Duration | Sequence[Duration] | BackoffPolicy
    on_exhausted: Literal["fail", "pause"]
    timeout: Duration | Of[Duration | None] | None
    concurrency: int | str | Frequency | Concurrency | Of[Any] | None
    throttle: Duration | Frequency | Throttle | Of[Any] | None
    debounce: Duration | Frequency | Debounce | Of[Any] | None
    priority: int | Of[int]
    tags: Mapping[str, str] | None
    key: Of[str | None] | None
    key_ttl: Duration
    trigger: Any
    cron: str | Cron | Sequence[str | Cron] | None
    on_trigger: Hook | None
    on_start: Hook | None
    on_success: Hook | None
    on_failure: Hook | None
    on_error: Hook | None
    on_cancel: Hook | None
    on_settled: Hook | None


class JobOptions(msgspec.Struct, frozen=True, dict=True):
    """The checked options of a job. What is a function is called with the input of each trigger."""

    retry: int | Of[Any] = 3
    retry_given: bool = False
    backoff: BackoffPolicy = DEFAULT_BACKOFF
    on_exhausted: Literal["fail", "pause"] = "fail"
    timeout: float | Of[Any] | None = None
    concurrency: Concurrency | Of[Any] | None = None
    throttle: Throttle | Of[Any] | None = None
    debounce: Debounce | Of[Any] | None = None
    priority: int | Of[Any] = 0
    key: Of[Any] | None = None
    key_ttl: float = 86_400.0
    tags: Mapping[str, str] = msgspec.field(default_factory=dict)
    triggers: tuple[Source, ...] = ()
    crons: tuple[Cron, ...] = ()
    hooks: Mapping[str, Hook] = msgspec.field(default_factory=dict)

    @cached_property
    def fixed(self) -> Terms | None:
        """The terms of every trigger, None where one of them is a function."""
        terms = {name: getattr(self, name) for name in Terms.__struct_fields__}
        return None if any(callable(term) for term in terms.values()) else Terms(**terms)

    def describe(self) -> dict[str, Any]:
        """Returns those that differ from their defaults as JSON; a function is `fn`."""
        names = [one for one in self.__struct_fields__ if one not in _DESCRIBED_APART]
        given = {name: getattr(self, name) for name in names if getattr(self, name) != getattr(_DEFAULTS, name)}
        return {name: _shown(value) for name, value in given.items()} | {f"on_{kind}": "fn" for kind in self.hooks}


_DESCRIBED_APART = ("retry_given", "triggers", "crons", "hooks")
_DEFAULTS = JobOptions()


def _shown(value: Any) -> Any:
    if isinstance(value, (Concurrency, Throttle, Debounce, Backoff)):
        return {name: getattr(value, name) for name in value.__struct_fields__ if getattr(value, name) is not None}
    if isinstance(value, tuple):
        return [human(each) for each in value]
    return "fn" if callable(value) else value


# ---- when the job is defined


def checked(job: str, given: Mapping[str, Any]) -> JobOptions:
    """Returns the checked options of a job.

    Raises:
        TypeError: there is no such option.
        DefinitionError, DurationInvalid: the value of an option is invalid; names job and option.
    """
    refuse_unknown(given)
    values = {name: _named(job, name, read, given[name], job) for name, read in _READERS.items() if name in given}
    hooks = {kind: given[f"on_{kind}"] for kind in HOOK_KINDS if given.get(f"on_{kind}") is not None}
    for kind, hook in hooks.items():
        if not callable(hook):
            raise DefinitionError(f"job {job}: on_{kind} must be a function, not {shown(hook)}")
    triggers = _named(job, "trigger", _triggers, given.get("trigger"), job)
    crons = _named(job, "cron", _crons, given.get("cron"), job)
    return JobOptions(**values, retry_given="retry" in given, triggers=triggers, crons=crons, hooks=hooks)


def check_hook_kind(kind: str) -> str:
    """Returns a kind of event that hooks and listeners are called for; raises ValueError when there is no such kind."""
    if kind not in HOOK_KINDS:
        raise ValueError(f'no event "{kind}": there are {", ".join(HOOK_KINDS)}')
    return kind


def refuse_unknown(given: Mapping[str, Any]) -> None:
    """Raises TypeError for an unknown option, with a suggestion."""
    known = Options.__annotations__
    for name in given:
        if name not in known:
            close = get_close_matches(name, known, 1)
            raise TypeError(f'@job has no option "{name}"' + (f', did you mean "{close[0]}"?' if close else ""))


def _named(job: str, option: str, read: Callable[[Any, str], T], value: Any, default_id: str) -> T:
    """Reads an option; whatever is wrong with it gets the names of the job and the option."""
    try:
        return read(value, default_id)
    except DefinitionError as error:
        raise DefinitionError(f"job {job}, option {option}: {error}") from None
    except ValueError as error:  # DurationInvalid keeps its type
        raise type(error)(f"job {job}, option {option}: {error}") from None


def _or_function(read: Callable[[Any, str], T]) -> Callable[[Any, str], T | Of[Any]]:
    def either(value: Any, default_id: str) -> T | Of[Any]:
        if not callable(value):
            return read(value, default_id)
        if inspect.iscoroutinefunction(value):
            raise DefinitionError("must be a plain function, not an async one")
        function: Of[Any] = value
        return function

    return either


def _retry(value: Any, default_id: str) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value < 2**63:
        raise DefinitionError(f"must be a whole number of at least 0, not {shown(value)}")
    return int(value)


def _priority(value: Any, default_id: str) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or abs(value) >= 2**63:
        raise DefinitionError(f"must be a whole number, not {shown(value)}")
    return int(value)


def _timeout(value: Any, default_id: str) -> float | None:
    return None if value is None else seconds(value, "timeout")


def _key_ttl(value: Any, default_id: str) -> float:
    return seconds(value, "key_ttl")


def _key(value: Any, default_id: str) -> str | None:
    """Reads what the `key` function returned; None is no key."""
    if value is not None and (not isinstance(value, str) or not value):
        raise DefinitionError(f"must return a string that is not empty, or None, not {shown(value)}")
    return None if value is None else str.__str__(value)


def _key_function(value: Any, default_id: str) -> Of[Any] | None:
    if value is not None and not callable(value):
        raise DefinitionError(f"must be a function of the input, not {shown(value)}")
    return _or_function(_key)(value, default_id) if value is not None else None  # type: ignore[return-value]


def _tags(value: Any, default_id: str) -> dict[str, str]:
    return checked_tags(value)


def _on_exhausted(value: Any, default_id: str) -> str:
    if value not in ("fail", "pause"):
        raise DefinitionError(f'must be "fail" or "pause", not {shown(value)}')
    return str(value)


def _backoff(value: Any, default_id: str) -> BackoffPolicy:
    return DEFAULT_BACKOFF if value is None else backoff_of(value)


_READERS: dict[str, Callable[[Any, str], Any]] = {
    "retry": _or_function(_retry),
    "backoff": _backoff,
    "on_exhausted": _on_exhausted,
    "timeout": _or_function(_timeout),
    "concurrency": _or_function(concurrency_of),
    "throttle": _or_function(throttle_of),
    "debounce": _or_function(debounce_of),
    "priority": _or_function(_priority),
    "key": _key_function,
    "key_ttl": _key_ttl,
    "tags": _tags,
}


def _listed(value: Any) -> list[Any]:
    if value is None:
        return []
    return list(value) if isinstance(value, (list, tuple, set, frozenset)) else [value]


def _triggers(value: Any, default_id: str) -> tuple[Source, ...]:
    return tuple(_source(each) for each in _listed(value))


def _source(value: Any) -> Source:
    if isinstance(value, Source):
        return value
    if isinstance(value, Pipe | JobRef | Files) or hasattr(value, "perform"):  # a job, which this module does not know
        source: Source = value.into()
        return source
    raise DefinitionError(f"takes pipes, jobs, files, or .into(…) of these, not {shown(value)}")


def _crons(value: Any, default_id: str) -> tuple[Cron, ...]:
    return tuple(each if isinstance(each, Cron) else Cron(each) for each in _listed(value))


# ---- for one trigger


def evaluate(job: str, options: JobOptions, value: Any) -> Terms:
    """Returns the options of a job for a validated input.

    Raises:
        DefinitionError: a function raised, or returned an invalid value; names job and option.
    """

    if options.fixed is not None:
        return options.fixed

    def of(name: str, read: Callable[[Any, str], T]) -> T:
        option = getattr(options, name)
        return _evaluated(job, name, read, option, value) if callable(option) else option

    return Terms(
        retry=of("retry", _retry),
        priority=of("priority", _priority),
        timeout=of("timeout", _timeout),
        key=of("key", _key),
        key_ttl=options.key_ttl,
        concurrency=of("concurrency", concurrency_of),
        throttle=of("throttle", throttle_of),
        debounce=of("debounce", debounce_of),
        tags=dict(options.tags),
    )


def _evaluated(job: str, name: str, read: Callable[[Any, str], T], function: Of[Any], value: Any) -> T:
    """Calls the function of an option; catches everything, since nobody else catches `SystemExit` here."""
    try:
        returned = function(value)
    except BaseException as error:
        raised = f"{type(error).__name__}: {message_of(error)}"
        raise DefinitionError(f"job {job}, option {name}: its function raised {raised}") from error
    try:
        return _named(job, name, lambda given, default_id: _kept(read(given, default_id)), returned, job)
    except (DefinitionError, DurationInvalid):
        raise
    except BaseException as error:  # such as the repr of an int of 5,000 digits
        told = f"{type(returned).__name__} that cannot be used: {message_of(error)}"
        raise DefinitionError(f"job {job}, option {name}: its function returned a value of type {told}") from error


def _kept(option: T) -> T:
    """Refuses text that the journal cannot hold, or that is too long for its index."""
    text = option if isinstance(option, str) else getattr(option, "id", None)
    if not isinstance(text, str):
        return option
    if len(text) > LONGEST_TEXT:
        raise DefinitionError(f"has {len(text)} characters; at most {LONGEST_TEXT} are allowed")
    if isinstance(option, str):  # a key, which may be the name of a file
        option = text = escaped(option)  # type: ignore[assignment]
    try:
        text.encode()
    except UnicodeEncodeError:
        raise DefinitionError(f"{shown(text)} holds an unpaired surrogate") from None
    return option
