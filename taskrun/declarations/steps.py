"""The calls inside a handler: `run`, `thread`, `shell`, `sleep`, recorded values, progress, the log.

Plain functions that return coroutines, so that a step's identity is taken when it is called. They check their arguments
at once and ask the `Caller` of the attempt they are in; outside of runs they are plain calls.
"""

from __future__ import annotations

import asyncio
import functools
import inspect
import logging
import os
import random as _random
import time
import typing
import uuid as _uuid
import weakref
from collections.abc import Callable, Collection, Coroutine, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import PurePath
from typing import Any, Never, NoReturn, ParamSpec, Protocol, TypeVar, overload

from taskrun.declarations.calls import Current, StepCall, caller
from taskrun.declarations.plain import PLAIN, Completed, reach
from taskrun.model.durations import Frequency, seconds, size
from taskrun.model.errors import DefinitionError
from taskrun.model.records import StepKind
from taskrun.model.stored_text import storable
from taskrun.rules.policies import BackoffPolicy, Concurrency, Duration, backoff_of, concurrency_of

__all__ = [
    "Completed",
    "current",
    "log",
    "now",
    "progress",
    "random",
    "run",
    "shell",
    "sleep",
    "sleep_until",
    "step",
    "thread",
    "uuid",
]

P = ParamSpec("P")
T = TypeVar("T")
Limit = int | str | Frequency | Concurrency
# programs that start another one, by which a step is named
STARTERS = frozenset({"env", "ionice", "nice", "nohup", "setsid", "stdbuf", "sudo", "time", "timeout"})
StepBackoff = Duration | Sequence[Duration] | BackoffPolicy

log = logging.getLogger("taskrun.run")  # the engine puts what is logged in a run into the run's log


# ---- steps with a body


@overload
def run(
    name: str,
    fn: Callable[..., Coroutine[Any, Any, T]],
    /,
    *args: Any,
    retry: int = 3,
    backoff: StepBackoff | None = None,
    timeout: Duration | None = None,
    concurrency: Limit | None = None,
    **kwargs: Any,
) -> Coroutine[Any, Any, T]: ...


@overload
def run(
    name: str,
    fn: Callable[..., T],
    /,
    *args: Any,
    retry: int = 3,
    backoff: StepBackoff | None = None,
    timeout: Duration | None = None,
    concurrency: Limit | None = None,
    **kwargs: Any,
) -> Coroutine[Any, Any, T]: ...


def run(
    name: str,
    fn: Callable[..., Any],
    /,
    *args: Any,
    retry: int = 3,
    backoff: StepBackoff | None = None,
    timeout: Duration | None = None,
    concurrency: Limit | None = None,
    **kwargs: Any,
) -> Coroutine[Any, Any, Any]:
    """Runs a function as a durable step: its result is recorded, and it never runs again for this run.

    Parameters:
        name: of the step.
        fn: an async function, or a plain one, which runs in a thread.
        args: its arguments, as `kwargs`.
        retry: further tries after the first failed one.
        backoff: the waits between them; the job's unless given.
        timeout: of each try.
        concurrency: how many steps of this name may run at once, across all runs.

    Raises:
        StepTimeout: the last try took too long.
        Exception: what the function raised at its last try; `StepFailed` where that cannot be rebuilt.
    """
    _check_function(name, fn, "run")
    call = StepCall(
        kind=StepKind.RUN,
        name=name,
        fn=fn,
        args=args,
        kwargs=kwargs,
        retry=_retries(name, retry),
        backoff=None if backoff is None else backoff_of(backoff),
        timeout=_timeout(name, timeout),
        concurrency=concurrency_of(concurrency, f"step:{name}"),
        output_type=output_type(fn),
    )
    return reach(f'step "{name}"').step(call)


@overload
def thread(
    name: str,
    fn: Callable[..., Coroutine[Any, Any, T]],
    /,
    *args: Any,
    retry: int = 3,
    backoff: StepBackoff | None = None,
    timeout: Duration | None = None,
    memory: int | str | None = None,
    cpu_time: Duration | None = None,
) -> Coroutine[Any, Any, T]: ...


@overload
def thread(
    name: str,
    fn: Callable[..., T],
    /,
    *args: Any,
    retry: int = 3,
    backoff: StepBackoff | None = None,
    timeout: Duration | None = None,
    memory: int | str | None = None,
    cpu_time: Duration | None = None,
) -> Coroutine[Any, Any, T]: ...


def thread(
    name: str,
    fn: Callable[..., Any],
    /,
    *args: Any,
    retry: int = 3,
    backoff: StepBackoff | None = None,
    timeout: Duration | None = None,
    memory: int | str | None = None,
    cpu_time: Duration | None = None,
) -> Coroutine[Any, Any, Any]:
    """Runs a function as a durable step in a worker process, which is killed on cancel and timeout.

    Parameters:
        name: of the step.
        fn: any function, also a lambda or closure.
        args: its arguments.
        retry: further tries after the first failed one.
        backoff: the waits between them; the job's unless given.
        timeout: of each try.
        memory: that the process may use: bytes, or text such as `"512MB"`.
        cpu_time: seconds of CPU that it may use.

    Raises:
        WorkerCrashed: the process died, or went over a limit.
        StepTimeout: the last try took too long.
        Exception: what the function raised at its last try.
    """
    _check_function(name, fn, "thread")
    call = StepCall(
        kind=StepKind.THREAD,
        name=name,
        fn=fn,
        args=args,
        retry=_retries(name, retry),
        backoff=None if backoff is None else backoff_of(backoff),
        timeout=_timeout(name, timeout),
        memory=None if memory is None else size(memory, f'memory of step "{name}"'),
        cpu_time=None if cpu_time is None else seconds(cpu_time, f'cpu_time of step "{name}"'),
        output_type=output_type(fn),
    )
    return reach(f'step "{name}"').step(call)


def shell(
    command: str | Sequence[str | os.PathLike[str]],
    *,
    name: str | None = None,
    cwd: str | os.PathLike[str] | None = None,
    env: Mapping[str, str] | None = None,
    stdin: str | bytes | None = None,
    check: bool | Collection[int] = True,
    retry: int = 0,
    backoff: StepBackoff | None = None,
    timeout: Duration | None = None,
    survive: bool = False,
    rerun: bool = True,
) -> Coroutine[Any, Any, Completed]:
    """Runs a command as a durable step; what it prints goes to the run's log as it comes.

    Parameters:
        command: a string goes to the shell, a list does not.
        name: of the step; the program's name unless given.
        cwd: its working folder.
        env: added to the worker's environment.
        stdin: what it reads; nothing unless given.
        check: whether an exit code other than 0 is an error; or the exit codes that are none.
        retry: further tries after the first failed one.
        backoff: the waits between them; the job's unless given.
        timeout: of each try; then its whole process group is ended.
        survive: the command goes on when the worker or the daemon ends, however that may be; whoever has the run next adopts it.
        rerun: whether it is begun again when it was cut off all the same, as by a reboot; without, it also survives.

    Raises:
        CommandFailed: it ended with a code other than 0, with `check`; or it is not found (127) or cannot be executed (126).
        OSError: its working folder is not there.
        WorkerCrashed: it was cut off, without `rerun`; no retry repeats that.
        StepTimeout: the last try took too long.
    """
    words = _words(command)
    name = _program(words) if name is None else name
    _check_name(name, "shell")
    call = StepCall(
        kind=StepKind.SHELL,
        name=name,
        command=words,
        cwd=cwd,
        env=env,
        stdin=stdin,
        check=check if isinstance(check, bool) else tuple(check),
        survive=survive or not rerun,
        rerun=rerun,
        retry=_retries(name, retry),
        backoff=None if backoff is None else backoff_of(backoff),
        timeout=_timeout(name, timeout),
        output_type=Completed,
    )
    return reach(f'step "{name}"').step(call)


class _Decorator(Protocol):
    """What `@step(…)` returns."""

    @overload
    def __call__(self, fn: Callable[P, Coroutine[Any, Any, T]], /) -> Callable[P, Coroutine[Any, Any, T]]: ...

    @overload
    def __call__(self, fn: Callable[P, T], /) -> Callable[P, Coroutine[Any, Any, T]]: ...


@overload
def step(fn: Callable[P, Coroutine[Any, Any, T]], /) -> Callable[P, Coroutine[Any, Any, T]]: ...


@overload
def step(fn: Callable[P, T], /) -> Callable[P, Coroutine[Any, Any, T]]: ...


@overload
def step(
    *,
    name: str | None = None,
    retry: int = 3,
    backoff: StepBackoff | None = None,
    timeout: Duration | None = None,
    concurrency: Limit | None = None,
) -> _Decorator: ...


def step(
    fn: Callable[..., Any] | None = None,
    /,
    *,
    name: str | None = None,
    retry: int = 3,
    backoff: StepBackoff | None = None,
    timeout: Duration | None = None,
    concurrency: Limit | None = None,
) -> Any:
    """Makes a function a step: in a handler a call is a durable step, to be awaited; elsewhere it is a plain call.

    Parameters:
        name: of the step; the function's name unless given. The others are those of `run`.
    """
    if fn is None:
        return functools.partial(
            step, name=name, retry=retry, backoff=backoff, timeout=timeout, concurrency=concurrency
        )
    if not callable(fn):
        raise TypeError(f"@step goes on a function, not on {fn!r}")
    own_name = getattr(fn, "__name__", "") if name is None else name
    _check_function(own_name, fn, "step")
    call = StepCall(
        kind=StepKind.RUN,
        name=own_name,
        fn=fn,
        retry=_retries(own_name, retry),
        backoff=None if backoff is None else backoff_of(backoff),
        timeout=_timeout(own_name, timeout),
        concurrency=concurrency_of(concurrency, f"step:{own_name}"),
    )
    return _decorated(fn, call)


def _decorated(fn: Callable[..., Any], call: StepCall) -> Callable[..., Any]:
    @functools.wraps(fn)
    def called(*args: Any, **kwargs: Any) -> Any:
        here = caller.get()
        if here is None or (here.inside_step and not _on_a_loop()):
            return fn(*args, **kwargs)
        bound = _with_arguments(call, args, kwargs, output_type(fn))
        return reach(f'step "{call.name}"').step(bound)

    return called


def _with_arguments(call: StepCall, args: tuple[Any, ...], kwargs: dict[str, Any], kind: Any) -> StepCall:
    return StepCall(
        kind=call.kind,
        name=call.name,
        fn=call.fn,
        args=args,
        kwargs=kwargs,
        retry=call.retry,
        backoff=call.backoff,
        timeout=call.timeout,
        concurrency=call.concurrency,
        output_type=kind,
    )


def _on_a_loop() -> bool:
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return False
    return True


# ---- timers


def sleep(duration: Duration) -> Coroutine[Any, Any, None]:
    """Sleeps durably: the wake time is recorded and survives restarts."""
    return reach("sleep").sleep(None, seconds(duration, "sleep"))


def sleep_until(moment: datetime) -> Coroutine[Any, Any, None]:
    """Sleeps durably to a moment; a datetime without a zone is local time."""
    if not isinstance(moment, datetime):
        raise TypeError(f"sleep_until takes a datetime, not {moment!r}")
    return reach("sleep_until").sleep(moment.timestamp(), None)


# ---- recorded values


def now() -> datetime:
    """Returns the time, aware and in UTC: the same on replay."""
    return _value("now", _utc_now, datetime)


def random() -> float:
    """Returns a random number from 0 to 1: the same on replay."""
    return _value("random", _random.random, float)


def uuid() -> _uuid.UUID:
    """Returns a random UUID: the same on replay."""
    return _value("uuid", _uuid.uuid4, _uuid.UUID)


def _value(name: str, make: Callable[[], T], kind: type[T]) -> T:
    """A value made inside a step is part of that step's result, and needs no record or warning."""
    here = caller.get()
    if here is None or here.inside_step:
        return make()
    value: T = here.value(name, make, kind)
    return value


def _utc_now() -> datetime:
    return datetime.fromtimestamp(time.time(), UTC)


# ---- the run


def progress(done: float, total: float | None = None, note: str = "") -> None:
    """Reports the progress of the run: `done` of `total`, or just `done`. Cheap enough to call very often."""
    (caller.get() or PLAIN).progress(done, total, note)


def current() -> Current:
    """Returns the run that the caller is in.

    Raises:
        NotBound: it is in none.
    """
    return (caller.get() or PLAIN).current


# ---- arguments


def _check_name(name: object, call: str) -> None:
    if not isinstance(name, str):
        hint = f'; write {call}("name", fn, …)' if callable(name) else ""
        raise TypeError(f"the name of a step must be a string, not {name!r}{hint}")
    if not name.strip():
        raise DefinitionError(f"{call} needs a name for its step")
    if not name.isprintable() and storable(name) != name:
        raise DefinitionError(f"the name of a step must be text that UTF-8 can hold, not {name!r}")


def _check_function(name: object, fn: object, call: str) -> None:
    _check_name(name, call)
    if inspect.iscoroutine(fn):
        called = getattr(fn, "__name__", "fn")
        fn.close()
        raise TypeError(f'{call}("{name}", {called}(…)) passes a coroutine; write {call}("{name}", {called}, …)')
    if not callable(fn):
        raise TypeError(f'step "{name}" needs a function, not {fn!r}; write {call}("{name}", fn, …)')


def _retries(name: str, retry: object) -> int:
    if isinstance(retry, bool) or not isinstance(retry, int) or retry < 0:
        raise DefinitionError(f'retry of step "{name}" must be a whole number of at least 0, not {retry!r}')
    return retry


def _timeout(name: str, timeout: Duration | None) -> float | None:
    return None if timeout is None else seconds(timeout, f'timeout of step "{name}"')


def _words(command: object) -> str | list[str]:
    if isinstance(command, str):
        words: str | list[str] = command
    elif isinstance(command, Sequence) and not isinstance(command, bytes):
        words = [os.fspath(word) for word in command]
    else:
        raise TypeError(f"shell takes a string or a list of strings, not {command!r}")
    if not words or not (words if isinstance(words, str) else words[0]).strip():
        raise DefinitionError("shell needs a command")
    return words


def _program(words: str | list[str]) -> str:
    """Returns the program that a command is about, behind those that only start it: `nice -n 10 ffmpeg` is `ffmpeg`."""
    parts = words.split() if isinstance(words, str) else words
    named = [PurePath(part.strip("\"'")).name or part for part in parts]
    if named[0] not in STARTERS:
        return named[0]
    rest = (one for one in named[1:] if one not in STARTERS and one[:1].isalpha() and "=" not in one)
    return next(rest, named[0])


# ---- the type of a result

_types: weakref.WeakKeyDictionary[Callable[..., Any], Any] = weakref.WeakKeyDictionary()


def output_type(fn: Callable[..., Any]) -> Any:
    """Returns the type that a function says it returns, `Any` where it says nothing that can be resolved."""
    while isinstance(fn, functools.partial):
        fn = fn.func
    try:
        known = _types.get(fn)  # no function returns the type None: that is `NoneType`
        if known is None:
            known = _types[fn] = _returned(fn)
        return known
    except TypeError:  # not hashable, or no weak references
        return _returned(fn)


def _returned(fn: Callable[..., Any]) -> Any:
    try:
        described = fn if inspect.isroutine(fn) else type(fn).__call__
        hint = typing.get_type_hints(described, include_extras=True).get("return", Any)
    except Exception:  # an annotation is any expression
        return Any
    return Any if isinstance(hint, TypeVar) or hint in (Never, NoReturn, object) else hint
