"""What a job may ask for: limits, retries and schedules, as frozen records that are checked when they are made.

Users make them (`Concurrency("api", 3)`) or write the shorthands that the `…_of` functions read. The declarations
evaluate them into the `Terms` of one trigger, which cross the pipe to the core. `next_delay` decides about another
attempt.
"""

from __future__ import annotations

import inspect
import math
import random
from collections.abc import Callable, Sequence
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Literal, TypeAlias, get_args

import msgspec
from msgspec.structs import force_setattr

from taskrun.model.catch_up import CatchUp
from taskrun.model.codec import message_of
from taskrun.model.durations import Frequency, frequency, period, seconds, shown
from taskrun.model.errors import (
    DefinitionError,
    Fatal,
    NonDeterminismError,
    NotEncodable,
    PayloadTooLarge,
    RetryAfter,
    WorkerCrashed,
    single_errors,
)
from taskrun.rules.cron import CronRule

Duration: TypeAlias = float | timedelta | str
HOPELESS = (Fatal, NonDeterminismError, NotEncodable, PayloadTooLarge)
LONGEST = 3_155_760_000.0  # 100 years: no wait is longer, so that no moment is out of a calendar's reach


class Concurrency(msgspec.Struct, frozen=True):
    """How many runs may run at once, or start within a period.

    Parameters:
        id: what shares the limit; the job's name unless given.
        limit: a number, or for mode `rolling` a frequency such as `"3/s"`, which implies that mode.
        mode: `window`: at most `limit` running at once; `rolling`: at most `limit` starts in any sliding `period`.
    """

    id: str | None = None
    limit: int = 0
    mode: Literal["window", "rolling"] = "window"
    period: float | None = None

    if TYPE_CHECKING:

        def __init__(
            self,
            id: str | None = None,
            limit: int | str | Frequency = 0,
            mode: Literal["window", "rolling"] = "window",
            period: Duration | None = None,
        ) -> None: ...

    def __post_init__(self) -> None:
        _check_id(self.id, "Concurrency")
        _check_choice(self.mode, ("window", "rolling"), "mode of Concurrency")
        if isinstance(self.limit, (str, Frequency)):
            rate = frequency(self.limit, "limit of Concurrency")
            force_setattr(self, "limit", rate.count)
            force_setattr(self, "period", rate.period)
            force_setattr(self, "mode", "rolling")
        check_whole(self.limit, 1, "limit of Concurrency")
        if self.period is not None:
            force_setattr(self, "period", _span(self.period, "period of Concurrency"))
        if (self.mode == "rolling") is not (self.period is not None):
            raise DefinitionError('Concurrency in mode "rolling" takes a frequency as its limit, such as "3/s"')


class Throttle(msgspec.Struct, frozen=True):
    """At most one start per period.

    Parameters:
        id: what shares the limit; the job's name unless given.
        duration: the period; of a frequency its period counts.
        mode: `discard`: a trigger inside the period ends as `discarded`; `queue`: it waits its turn.
    """

    id: str | None = None
    duration: float = 0.0
    mode: Literal["discard", "queue"] = "discard"

    if TYPE_CHECKING:

        def __init__(
            self,
            id: str | None = None,
            duration: Duration | Frequency = 0.0,
            mode: Literal["discard", "queue"] = "discard",
        ) -> None: ...

    def __post_init__(self) -> None:
        _check_id(self.id, "Throttle")
        _check_choice(self.mode, ("discard", "queue"), "mode of Throttle")
        force_setattr(self, "duration", _span(self.duration, "duration of Throttle"))


class Debounce(msgspec.Struct, frozen=True):
    """One run for a burst of triggers.

    Parameters:
        id: what shares the burst; the job's name unless given.
        duration: how long it must have been quiet; of a frequency its period counts.
        mode: `trailing`: the newest trigger runs; `leading`: the first runs at once, the rest behave as trailing.
        timeout: a burst runs at the latest this long after its first trigger.
    """

    id: str | None = None
    duration: float = 0.0
    mode: Literal["trailing", "leading"] = "trailing"
    timeout: float | None = None

    if TYPE_CHECKING:

        def __init__(
            self,
            id: str | None = None,
            duration: Duration | Frequency = 0.0,
            mode: Literal["trailing", "leading"] = "trailing",
            timeout: Duration | None = None,
        ) -> None: ...

    def __post_init__(self) -> None:
        _check_id(self.id, "Debounce")
        _check_choice(self.mode, ("trailing", "leading"), "mode of Debounce")
        force_setattr(self, "duration", _span(self.duration, "duration of Debounce"))
        if self.timeout is not None:
            force_setattr(self, "timeout", _span(self.timeout, "timeout of Debounce"))


class Backoff(msgspec.Struct, frozen=True):
    """Waits between attempts, each longer than the one before.

    Parameters:
        initial: the first wait.
        max: the longest wait.
        factor: each wait is so many times the one before.
        jitter: a fraction by which each wait is longer or shorter at random (0.1: up to 10 %).
        attempts: caps the retries, whatever `retry` says.
    """

    initial: float
    max: float | None = None
    factor: float = 2.0
    jitter: float = 0.0
    attempts: int | None = None

    if TYPE_CHECKING:

        def __init__(
            self,
            initial: Duration,
            max: Duration | None = None,
            factor: float = 2.0,
            jitter: float = 0.0,
            attempts: int | None = None,
        ) -> None: ...

    def __post_init__(self) -> None:
        force_setattr(self, "initial", seconds(self.initial, "initial of Backoff"))
        if self.max is not None:
            force_setattr(self, "max", seconds(self.max, "max of Backoff"))
        _check_number(self.factor, 0, math.inf, "factor of Backoff")
        _check_number(self.jitter, 0, 1, "jitter of Backoff")
        if self.attempts is not None:
            check_whole(self.attempts, 0, "attempts of Backoff")


class Cron(msgspec.Struct, frozen=True):
    """A schedule of a job.

    Parameters:
        expr: five fields, six with seconds first, or `@hourly` and its like.
        timezone: name of its time zone; the machine's own unless given.
        input: the input of each run.
        catch_up: which of the slots missed while nothing ran are made up for: none, the newest one, or all.
        within: seconds or a duration; slots older than this are not made up for.
        late: a run that starts later than this after its slot is late.
        slow: a run that takes longer than this is slow.
    """

    expr: str
    timezone: str | None = None
    input: Any = None
    catch_up: CatchUp = "skip"
    within: Duration | None = None
    late: Duration | None = None
    slow: Duration | None = None

    def __post_init__(self) -> None:
        _check_choice(self.catch_up, get_args(CatchUp), "catch_up of Cron")
        for name in ("within", "late", "slow"):
            if (given := getattr(self, name)) is not None:
                force_setattr(self, name, seconds(given, f"{name} of Cron"))
        if self.timezone is not None:
            force_setattr(self, "timezone", str(self.timezone))  # a ZoneInfo gives its name
        self.rule()

    def rule(self) -> CronRule:
        """Returns the rule that knows its slots."""
        return CronRule(self.expr, self.timezone)


class Terms(msgspec.Struct, frozen=True, gc=False, omit_defaults=True):
    """A job's options as evaluated for one trigger. The limits have their ids."""

    retry: int = 3
    priority: int = 0
    timeout: float | None = None
    key: str | None = None
    key_ttl: float = 86_400.0
    concurrency: Concurrency | None = None
    throttle: Throttle | None = None
    debounce: Debounce | None = None
    tags: dict[str, str] = {}


class Prepared(msgspec.Struct, frozen=True, gc=False, omit_defaults=True):
    """A trigger that passed validation; `input` is JSON text, and so are the fields of it that nobody is shown."""

    job: str
    input: str
    terms: Terms
    secrets: str | None = None


class Routed(msgspec.Struct, frozen=True, omit_defaults=True):
    """What an event starts of a job; and why it is refused, if it is."""

    starts: list[Prepared]
    refused: str | None = None


# ---- shorthands


def concurrency_of(value: object, default_id: str) -> Concurrency | None:
    """Reads an int (window), a frequency (rolling), a `Concurrency`, or None for no limit."""
    if value is None:
        return None
    policy = value if isinstance(value, Concurrency) else Concurrency(default_id, _limit(value))
    return policy if policy.id is not None else msgspec.structs.replace(policy, id=default_id)


def throttle_of(value: object, default_id: str) -> Throttle | None:
    """Reads a duration, a frequency, a `Throttle`, or None for no limit."""
    if value is None:
        return None
    policy = value if isinstance(value, Throttle) else Throttle(default_id, _duration(value))
    return policy if policy.id is not None else msgspec.structs.replace(policy, id=default_id)


def debounce_of(value: object, default_id: str) -> Debounce | None:
    """Reads a duration, a frequency, a `Debounce`, or None for none."""
    if value is None:
        return None
    policy = value if isinstance(value, Debounce) else Debounce(default_id, _duration(value))
    return policy if policy.id is not None else msgspec.structs.replace(policy, id=default_id)


def _limit(value: object) -> Any:
    if isinstance(value, bool) or not isinstance(value, (int, str, Frequency)):
        raise DefinitionError(f'concurrency is a number, a frequency such as "3/s", or a Concurrency, not {value!r}')
    return value


def _duration(value: object) -> Any:
    if isinstance(value, msgspec.Struct) and not isinstance(value, Frequency):
        raise DefinitionError(f"{type(value).__name__} is not allowed here")
    return value  # whatever else is no duration, the policy itself says


# ---- backoff

BackoffCall: TypeAlias = Callable[..., Duration]
BackoffPolicy: TypeAlias = Backoff | tuple[float, ...] | BackoffCall


def backoff_of(value: object) -> BackoffPolicy:
    """Reads a duration, a list of them (the last repeats), a `Backoff`, or `fn(attempt, input)` or `fn(attempt)`."""
    if isinstance(value, Backoff):
        return value
    if isinstance(value, Sequence) and not isinstance(value, str):
        if not value:
            raise DefinitionError("backoff is an empty list; give at least one duration")
        return tuple(seconds(each, "backoff") for each in value)
    if callable(value):
        if inspect.iscoroutinefunction(value):
            raise DefinitionError("backoff takes a plain function, not an async one")
        return value
    return (seconds(value, "backoff"),)  # type: ignore[arg-type]  # it says what is no duration


def next_delay(
    policy: BackoffPolicy,
    attempt: int,
    retries: int,
    error: BaseException,
    input: object,
    rng: random.Random | None = None,
) -> float | None:
    """Returns the seconds until the next attempt, or None for no more.

    Parameters:
        attempt: the attempt that failed, from 1.
        retries: further attempts after the first.
        error: why it failed; `Fatal` and `RetryAfter` are obeyed, within an exception group too. An error that would come
            again, such as a result that cannot be encoded, counts as `Fatal`.
        input: of the run, for a function.
        rng: draws the jitter.

    Raises:
        DefinitionError: the function raised or did not return a duration, or the delay of a `RetryAfter` is not one.
    """
    causes = list(single_errors(error))
    if isinstance(policy, Backoff) and policy.attempts is not None:
        retries = min(retries, policy.attempts)
    if attempt > retries or any(isinstance(single, HOPELESS) or _is_final(single) for single in causes):
        return None
    asked = [_asked(single) for single in causes if isinstance(single, RetryAfter)]
    return min(max(asked) if asked else _delay(policy, attempt, input, rng or _RNG), LONGEST)


def _is_final(error: BaseException) -> bool:
    return isinstance(error, WorkerCrashed) and error.final


def next_try(
    policy: BackoffPolicy, attempt: int, retries: int, error: BaseException, input: object
) -> tuple[float | None, BaseException]:
    """Returns the seconds until the next attempt, or None, and the error; a failure to find the wait replaces the error."""
    try:
        return next_delay(policy, attempt, retries, error, input), error
    except DefinitionError as wrong:
        return None, wrong


_RNG = random.Random()


def _asked(error: RetryAfter) -> float:
    try:
        return seconds(error.delay, "the delay of RetryAfter")
    except Exception as wrong:
        raise DefinitionError(str(wrong)) from error


def _delay(policy: BackoffPolicy, attempt: int, input: object, rng: random.Random) -> float:
    if isinstance(policy, tuple):
        return policy[min(attempt, len(policy)) - 1]
    if isinstance(policy, Backoff):
        return _growing(policy, attempt, rng)
    return _called(policy, attempt, input)


def _growing(policy: Backoff, attempt: int, rng: random.Random) -> float:
    longest = LONGEST if policy.max is None else policy.max
    try:
        delay = policy.initial * float(policy.factor) ** (attempt - 1)
    except OverflowError:
        delay = longest
    delay = min(delay, longest)
    return min(delay * (1 + policy.jitter * rng.uniform(-1, 1)), longest)


def _called(fn: BackoffCall, attempt: int, input: object) -> float:
    try:
        arguments = (attempt, input) if _takes_two(fn) else (attempt,)
        return seconds(fn(*arguments), "what it returned")
    except BaseException as error:  # `SystemExit` in it may end no engine
        name = getattr(fn, "__name__", type(fn).__name__)
        told = f"{type(error).__name__}: {message_of(error)}"
        raise DefinitionError(f"the backoff function {name} failed: {told}") from error


def _takes_two(fn: BackoffCall) -> bool:
    try:
        inspect.signature(fn).bind(1, None)
    except (TypeError, ValueError):
        return False
    return True


# ---- checks


def _span(value: object, what: str) -> float:
    amount = period(value, what)  # type: ignore[arg-type]  # it says what is no duration
    if amount <= 0:
        raise DefinitionError(f"{what} must be more than 0")
    return amount


def _check_id(value: object, what: str) -> None:
    if value is not None and (not isinstance(value, str) or not value):
        raise DefinitionError(f"id of {what} must be a non-empty string, not {shown(value)}")


def _check_choice(value: object, choices: Sequence[str], what: str) -> None:
    if value not in choices:
        raise DefinitionError(f"{what} must be {' or '.join(map(repr, choices))}, not {value!r}")


def check_whole(value: object, least: int, what: str) -> None:
    """Raises DefinitionError unless a setting is a whole number of at least `least` that SQLite can hold."""
    if isinstance(value, bool) or not isinstance(value, int) or not least <= value < 2**63:
        raise DefinitionError(f"{what} must be a whole number of at least {least}, not {shown(value)}")


def _check_number(value: object, least: float, most: float, what: str) -> None:
    if (
        isinstance(value, bool)
        or not isinstance(value, (int, float))
        or not least <= value <= most
        or value == math.inf
    ):
        raise DefinitionError(
            f"{what} must be a number {f'from {least} to {most}' if most < math.inf else f'of at least {least}'}"
        )


DEFAULT_BACKOFF = Backoff(1.0, max=3600.0)
