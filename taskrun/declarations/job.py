"""`@job` → `Job`: a handler with its schema, its options and its listeners. The executor asks it, the registry holds it."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Awaitable, Callable, Coroutine
from functools import cached_property
from typing import Any, TypeVar, Unpack, overload

import msgspec

from taskrun.declarations.calls import Current, Match, caller, is_async
from taskrun.declarations.files import Files
from taskrun.declarations.options import Hook, Options, check_hook_kind, checked, evaluate, refuse_unknown
from taskrun.declarations.pipe import Into, Source, bound, check_into, gather, wait_for
from taskrun.declarations.plain import PlainCaller
from taskrun.model.errors import DefinitionError, InputInvalid
from taskrun.model.names import check_name
from taskrun.model.schema import Schema, check_output
from taskrun.model.secrets import split_secrets
from taskrun.model.signature import hint_of
from taskrun.rules.policies import Duration, Prepared

L = TypeVar("L", bound=Callable[..., Any])


class Event(msgspec.Struct, frozen=True):
    """What listeners and hooks get: something happened to a run."""

    kind: str
    run_id: str
    job: str
    input: Any = None
    output: Any = None
    error: BaseException | None = None
    reason: str | None = None
    attempt: int = 1


class Job:
    """A handler that can be triggered. Made by `job`.

    Called outside any run it executes the handler plainly, its steps in place and nothing recorded: for unit tests.
    """

    def __init__(self, fn: Callable[..., Any], given: Options) -> None:
        _check_handler(fn)
        refuse_unknown(given)
        self.fn = fn
        self.is_async = is_async(fn)
        name = given.get("name")
        self.name = check_name(getattr(fn, "__name__", None) if name is None else name, "job")
        self.file, self.line = _place(fn)
        self.options = checked(self.name, given)
        self._given = given
        self.listeners: list[tuple[str, Hook, bool]] = []
        self.__doc__ = fn.__doc__

    def __repr__(self) -> str:
        return f"<job {self.name}>"

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Executes the handler plainly; inside another handler it is an ordinary call of a function."""
        if caller.get() is not None:
            return self.fn(*args, **kwargs)
        here = PlainCaller(Current(run_id="plain", job=self.name, input=self._bound_input(args, kwargs)))
        return _call_async(here, self.fn, args, kwargs) if self.is_async else _call_sync(here, self.fn, args, kwargs)

    @property
    def topic(self) -> str:
        """The name under which its successes are kept."""
        return f"job:{self.name}"

    # ---- in a handler

    def run(self, /, *args: Any, **fields: Any) -> Coroutine[Any, Any, Any]:
        """Triggers a child run, waits for its end, and returns its output. Durable: never started twice.

        Parameters:
            args: one mapping or model instead of `fields`.
            fields: the fields of the input.

        Raises:
            InputInvalid: naming every bad field.
            RunFailed, RunTimeout, RunCancelled, RunDiscarded: how else it ended.
            NotBound: outside a handler; use `queue.jobs`.
        """
        here = bound(f"{self.name}.run", f"queue.jobs.{self.name}.run")
        return here.child(self, self.gather(args, fields), True)

    def start(self, /, *args: Any, **fields: Any) -> Coroutine[Any, Any, Any]:
        """Triggers a child run; returns its handle as soon as the trigger is durable. Parameters as `run`."""
        here = bound(f"{self.name}.start", f"queue.jobs.{self.name}.start")
        return here.child(self, self.gather(args, fields), False)

    def cancel(self, /, *args: Any, **fields: Any) -> Coroutine[Any, Any, int]:
        """Cancels every unfinished run of this job with exactly this input; returns how many."""
        here = bound(f"{self.name}.cancel", f"queue.jobs.{self.name}.cancel")
        return here.cancel_runs(self, self.gather(args, fields))

    def wait_for(self, match: Match = None, *, timeout: Duration | None = None) -> Coroutine[Any, Any, Any]:
        """Waits, in a handler, until a run of this job succeeds; returns its output.

        Parameters:
            match: a mapping that its input must contain, or a predicate on the input.
            timeout: how long to wait.

        Raises:
            WaitTimeout: no such run succeeded in time.
        """
        return wait_for(self, match, timeout)

    # ---- listening

    def into(self, fn: Into | None = None) -> Source:
        """Returns a trigger: `fn(output)` makes the other job's input, None skips it."""
        return Source("job", self, check_into(fn))

    @overload
    def on(self, event: str, callback: L) -> L: ...
    @overload
    def on(self, event: str, callback: None = None) -> Callable[[L], L]: ...
    def on(self, event: str, callback: Any = None) -> Any:
        """Calls `callback(event)` for `trigger start success failure error cancel settled`; also a decorator."""
        return self._listen(event, callback, False)

    @overload
    def once(self, event: str, callback: L) -> L: ...
    @overload
    def once(self, event: str, callback: None = None) -> Callable[[L], L]: ...
    def once(self, event: str, callback: Any = None) -> Any:
        """Like `on`, for the next event only."""
        return self._listen(event, callback, True)

    def off(self, event: str, callback: Callable[..., Any]) -> None:
        """Stops calling `callback`."""
        self.listeners = [one for one in self.listeners if one[:2] != (check_hook_kind(event), callback)]

    def _listen(self, event: str, callback: Any, once: bool) -> Any:
        kind = check_hook_kind(event)
        if callback is None:
            return lambda fn: self._listen(event, fn, once)
        if not callable(callback):
            raise TypeError(f"a listener is a function, not {callback!r}")
        self.listeners.append((kind, callback, once))
        return callback

    def hooks(self, kind: str) -> list[Hook]:
        """Returns what to call for an event that has happened: the hook, then the listeners; `once` ones go with it."""
        hook = self.options.hooks.get(kind)
        called = [callback for its, callback, _ in self.listeners if its == kind]
        self.listeners = [one for one in self.listeners if one[0] != kind or not one[2]]
        return [*([hook] if hook is not None else []), *called]

    # ---- for the executor

    @cached_property
    def input(self) -> Schema:
        """The schema of its input. Made when first needed, since a handler may name types that are defined below it."""
        return Schema.from_signature(self.fn, self.name, self._given.get("input"))

    @cached_property
    def output(self) -> Schema:
        """What the handler must return."""
        kind = self._given.get("output")
        return Schema.for_output(hint_of(self.fn, "return", self.name) if kind is None else kind, self.name)

    @cached_property
    def _secret_fields(self) -> list[str]:
        """The fields of the input that nobody is shown: a JSON schema calls them `writeOnly`."""
        fields = self.input.json_schema().get("properties") or {}
        return [name for name, field in fields.items() if field.get("writeOnly")]

    def verify(self) -> None:
        """Checks what can be checked only once the whole module is loaded.

        Raises:
            DefinitionError: an annotation cannot be resolved, or a schedule lacks an input that the job needs.
        """
        _ = self.input, self.output
        for cron in self.options.crons:
            try:
                self.input.record({} if cron.input is None else cron.input)
            except InputInvalid as error:
                raise DefinitionError(f'job {self.name}, cron "{cron.expr}": {error}; give Cron(…, input=…)') from None

    def gather(self, args: tuple[Any, ...], fields: dict[str, Any]) -> Any:
        """Returns the one value that a call gives: its only argument, or its fields."""
        return gather(f"{self.name}.run", args, fields)

    def prepare(self, data: object, limit: int | None = None) -> Prepared:
        """Validates an input and evaluates the options for it.

        Parameters:
            limit: bytes that the input may have as JSON.

        Raises:
            PayloadTooLarge: it is over the limit.
            InputInvalid: naming every bad field, also one that would not come back from the journal as it was.
            DefinitionError: an option's function raised, or returned an invalid value.
        """
        value, text = self.input.record(data, limit)
        shown, secrets = split_secrets(text, self._secret_fields) if self._secret_fields else (text, None)
        terms = evaluate(self.name, self.options, value)
        return Prepared(job=self.name, input=shown, terms=terms, secrets=secrets)

    def call(self, value: Any) -> Awaitable[Any]:
        """Calls the handler with a validated input; a sync one in a thread."""
        if not self.is_async:
            return asyncio.to_thread(self.call_sync, value)
        args, kwargs = self.input.arguments(value)
        called: Awaitable[Any] = self.fn(*args, **kwargs)
        return called

    def call_sync(self, value: Any) -> Any:
        """Calls a sync handler with a validated input, in the thread of the caller."""
        args, kwargs = self.input.arguments(value)
        return self.fn(*args, **kwargs)

    async def perform(self, data: object) -> Any:
        """Validates an input and executes the handler in place, plainly."""
        value, _ = self.input.record(data)
        token = caller.set(PlainCaller(Current(run_id="plain", job=self.name, input=value)))
        try:
            return self.check_output(await self.call(value))
        finally:
            caller.reset(token)

    def check_output(self, value: object) -> Any:
        """Returns the validated output.

        Raises:
            OutputInvalid: naming every bad field.
        """
        return check_output(self.output, value)

    def read(self, text: str) -> Any:
        """Returns an output from its JSON text."""
        return self.output.load(text)

    def describe(self) -> dict[str, Any]:
        """Returns what screens show of it, as JSON."""
        return {
            "name": self.name,
            "file": self.file,
            "line": self.line,
            "description": inspect.getdoc(self.fn) or "",
            "input_schema": self.input.json_schema(),
            "options": self.options.describe(),
            "triggers": [source.topic for source in self.options.triggers],
            "files": [source.ref.describe() for source in self.options.triggers if isinstance(source.ref, Files)],
            "schedules": [{"cron": cron.expr, "timezone": cron.timezone} for cron in self.options.crons],
        }

    def _bound_input(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        try:
            return dict(inspect.signature(self.fn).bind(*args, **kwargs).arguments)
        except TypeError:  # the call itself will say so
            return kwargs


@overload
def job(fn: Callable[..., Any], /) -> Job: ...
@overload
def job(**options: Unpack[Options]) -> Callable[[Callable[..., Any]], Job]: ...
def job(fn: Callable[..., Any] | None = None, /, **options: Unpack[Options]) -> Any:
    """Makes a function a job: `@job` or `@job(option=…)`, on an `async def`, or on a `def`, which runs in a thread.

    Parameters:
        name: unique in a queue; the function's name by default.
        input, output: a type or validator; from the signature by default.
        retry: further attempts after the first failed one (3).
        backoff: wait between attempts: a duration, a list of them, `Backoff` or `fn(attempt, input)`.
        on_exhausted: `"fail"` or `"pause"`, when retries are used up.
        timeout: from the first start to the end.
        concurrency: a number, a frequency or `Concurrency`.
        throttle: a duration, a frequency or `Throttle`.
        debounce: a duration, a frequency or `Debounce`.
        priority: higher starts first (0).
        tags: texts by name, which every run of it has; its children inherit them.
        key, key_ttl: `fn(input) -> str`: while a run with this key is unfinished, or succeeded within the ttl (24 h), a
            trigger returns that run.
        trigger: pipes and jobs, or `.into(…)` of either, that start it.
        cron: one or more expressions or `Cron`.
        on_trigger, on_start, on_success, on_failure, on_error, on_cancel, on_settled: called with an `Event`.

    All of `retry timeout concurrency throttle debounce priority` may be a function of the input.

    Raises:
        TypeError: there is no such option.
        DefinitionError: an option or the handler is invalid.
    """
    if fn is None:
        refuse_unknown(options)
        return lambda handler: Job(handler, options)
    return Job(fn, options)


async def _call_async(here: PlainCaller, fn: Callable[..., Any], args: Any, kwargs: Any) -> Any:
    token = caller.set(here)
    try:
        return await fn(*args, **kwargs)
    finally:
        caller.reset(token)


def _call_sync(here: PlainCaller, fn: Callable[..., Any], args: Any, kwargs: Any) -> Any:
    token = caller.set(here)
    try:
        return fn(*args, **kwargs)
    finally:
        caller.reset(token)


def _check_handler(fn: object) -> None:
    if isinstance(fn, Job):
        raise DefinitionError(f"{fn.name} is a job already")
    if isinstance(fn, type) or not callable(fn):
        raise DefinitionError(f"@job goes on a function, not on {fn!r}")
    name = getattr(fn, "__name__", repr(fn))
    if inspect.isgeneratorfunction(fn) or inspect.isasyncgenfunction(fn):
        raise DefinitionError(f"{name} is a generator; a handler returns its output")
    for parameter in inspect.signature(fn).parameters.values():
        if parameter.kind is parameter.VAR_POSITIONAL:
            raise DefinitionError(f"{name}: *{parameter.name} cannot be a field of an input; name the parameters")


def _place(fn: Callable[..., Any]) -> tuple[str, int]:
    code = getattr(inspect.unwrap(fn), "__code__", None)
    return ("", 0) if code is None else (code.co_filename, code.co_firstlineno)
