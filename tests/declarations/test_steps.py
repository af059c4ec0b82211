"""The calls of a handler: what they check, what they ask of the caller, and what they are outside of runs."""

from __future__ import annotations

import asyncio
import functools
import logging
import sys
import threading
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any, TypeVar
from uuid import UUID

import pytest

from taskrun.declarations import steps
from taskrun.declarations.calls import is_async
from taskrun.declarations.plain import Completed
from taskrun.declarations.steps import (
    current,
    log,
    now,
    output_type,
    progress,
    run,
    shell,
    sleep,
    sleep_until,
    step,
    thread,
    uuid,
)
from taskrun.model.errors import CommandFailed, DefinitionError, DurationInvalid, NotBound
from taskrun.model.records import StepKind
from taskrun.rules.policies import Backoff, Concurrency
from tests.declarations.fake import handler

T = TypeVar("T")


async def fetch(url: str, times: int = 1) -> list[str]:
    return [url] * times


def add(a: int, b: int = 0) -> int:
    return a + b


@step
def triple(n: int) -> int:
    return n * 3


untyped_triple: Any = triple  # its type says that it is awaited, which is so in handlers


@step(name="slow", retry=1, timeout="2s")
async def square(n: int) -> int:
    return n * n


# ---- in a handler


async def test_run_asks_for_a_step_with_its_arguments() -> None:
    with handler() as fake:
        result: object = await run(
            "get", fetch, "u", retry=1, backoff=["1s", "5s"], timeout="2s", concurrency=2, times=3
        )
        assert result == "get"
    (call,) = fake.calls
    assert (call.kind, call.name, call.fn, call.args, call.kwargs) == (StepKind.RUN, "get", fetch, ("u",), {"times": 3})
    assert (call.retry, call.backoff, call.timeout) == (1, (1, 5), 2)
    assert call.concurrency == Concurrency("step:get", 2)
    assert call.output_type == list[str]


async def test_the_defaults_of_steps() -> None:
    with handler() as fake:
        await run("a", add, 1)
        await thread("b", add, 1)
        await shell("true")
    assert [(call.retry, call.backoff, call.timeout) for call in fake.calls] == [(3, None, None)] * 2 + [
        (0, None, None)
    ]


async def test_the_identity_is_taken_at_the_call_not_at_the_await() -> None:
    with handler() as fake:
        calls = [run("a", add, 1), shell("true"), sleep(1)]
        assert (len(fake.calls), len(fake.asked)) == (2, 1)
        await asyncio.gather(*calls)


async def test_thread_asks_with_its_limits() -> None:
    with handler() as fake:
        await thread("t", add, 1, 2, memory="512MB", cpu_time="5s", backoff=Backoff(1))
    (call,) = fake.calls
    assert (call.kind, call.args, call.memory, call.cpu_time) == (StepKind.THREAD, (1, 2), 512 * 1024**2, 5)


@pytest.mark.parametrize(
    ("command", "name"),
    [
        ("ffmpeg -i a b", "ffmpeg"),
        ("/usr/bin/ffmpeg -i a", "ffmpeg"),
        ('"$FFMPEG" -i a', "$FFMPEG"),
        (["/bin/echo", "x"], "echo"),
        (["nice", "ffmpeg", "-i", "x"], "ffmpeg"),
        ("nice -n 10 ionice -c3 /usr/bin/ffmpeg -i x", "ffmpeg"),
        ("timeout 5s env A=1 make all", "make"),
        ("time", "time"),
    ],
)
async def test_a_shell_step_is_named_after_its_program(command: str | list[str], name: str) -> None:
    with handler() as fake:
        await shell(command)
    assert (fake.calls[0].name, fake.calls[0].command, fake.calls[0].output_type) == (name, command, Completed)


async def test_sleeps_ask_for_a_timer() -> None:
    moment = datetime(2026, 1, 1, tzinfo=UTC)
    with handler() as fake:
        await sleep("1.5h")
        await sleep(timedelta(seconds=2))
        await sleep_until(moment)
    assert fake.asked == [("sleep", None, 5400), ("sleep", None, 2), ("sleep", moment.timestamp(), None)]


def test_values_are_asked_for_by_name_and_type() -> None:
    with handler() as fake:
        made = [now(), steps.random(), uuid()]
    assert made == ["now", "random", "uuid"]
    assert fake.asked == [("value", "now", datetime), ("value", "random", float), ("value", "uuid", UUID)]


def test_progress_and_current_ask_the_caller() -> None:
    with handler() as fake:
        progress(1, 2, "half")
        progress(3)
        assert current().run_id == "r1"
    assert fake.asked == [("progress", 1, 2, "half"), ("progress", 3, None, "")]


async def test_a_decorated_function_is_a_step_in_a_handler() -> None:
    with handler() as fake:
        await triple(2)
        await square(n=2)
    first, second = fake.calls
    assert (first.name, first.args, first.retry, first.output_type) == ("triple", (2,), 3, int)
    assert (second.name, second.kwargs, second.retry, second.timeout) == ("slow", {"n": 2}, 1, 2)


# ---- what is refused

untyped: Any = steps


@pytest.mark.parametrize(
    ("call", "error", "says"),
    [
        (lambda: untyped.run(add, 1), TypeError, "name of a step must be a string"),
        (lambda: untyped.run("", add), DefinitionError, "needs a name"),
        (lambda: untyped.run("x", 5), TypeError, "needs a function"),
        (lambda: untyped.run("x", fetch("u")), TypeError, r'write run\("x", fetch, …\)'),
        (lambda: untyped.thread("x", fetch("u")), TypeError, r'write thread\("x", fetch, …\)'),
        (lambda: untyped.run("x", add, retry=-1), DefinitionError, 'retry of step "x"'),
        (lambda: untyped.run("x", add, retry="2"), DefinitionError, 'retry of step "x"'),
        (lambda: untyped.run("x", add, timeout="2"), DurationInvalid, 'timeout of step "x"'),
        (lambda: untyped.run("x", add, timeout=-2), DurationInvalid, 'timeout of step "x"'),
        (lambda: untyped.run("x", add, concurrency=0), DefinitionError, "limit"),
        (lambda: untyped.run("x", add, backoff=[]), DefinitionError, "backoff"),
        (lambda: untyped.thread("x", add, memory="a lot"), DefinitionError, 'memory of step "x"'),
        (lambda: untyped.thread("x", add, cpu_time="5"), DurationInvalid, 'cpu_time of step "x"'),
        (lambda: untyped.shell(""), DefinitionError, "needs a command"),
        (lambda: untyped.shell([]), DefinitionError, "needs a command"),
        (lambda: untyped.shell(5), TypeError, "string or a list"),
        (lambda: untyped.shell("true", name=" "), DefinitionError, "needs a name"),
        (lambda: untyped.sleep("5"), DurationInvalid, "sleep"),
        (lambda: untyped.sleep_until(5), TypeError, "datetime"),
        (lambda: untyped.step(5), TypeError, "goes on a function"),
    ],
)
@pytest.mark.parametrize("inside", [True, False])
def test_wrong_arguments_are_refused_at_the_call(
    call: Callable[[], Any], error: type[Exception], says: str, inside: bool
) -> None:
    with pytest.raises(error, match=says):
        if inside:
            with handler():
                call()
        else:
            call()


# ---- outside of runs


async def test_outside_a_run_steps_are_plain_calls() -> None:
    assert await run("a", fetch, "u", times=2) == ["u", "u"]
    assert await run("b", add, 1, b=2) == 3
    assert await run("c", lambda: fetch("u")) == ["u"]
    assert await thread("d", add, 1) == 1
    assert await thread("e", fetch, "u") == ["u"]
    await sleep(0)
    await sleep_until(datetime(2020, 1, 1, tzinfo=UTC))
    progress(1)
    assert now().tzinfo is UTC
    assert 0 <= steps.random() < 1
    assert uuid() != uuid()


async def test_outside_a_run_a_sync_step_does_not_block_the_loop() -> None:
    assert await run("where", threading.get_ident) != threading.get_ident()


async def test_outside_a_run_a_decorated_function_is_itself() -> None:
    assert untyped_triple(2) == 6
    assert await square(2) == 4
    assert triple.__name__ == "triple"


def test_outside_a_run_there_is_no_current() -> None:
    with pytest.raises(NotBound):
        current()


async def test_outside_a_run_shell_runs_the_command() -> None:
    assert await shell("echo out; echo err >&2") == Completed(0, "out\n", "err\n")
    assert (await shell(["cat"], stdin="in")).stdout == "in"
    assert (await shell('echo "$X"', env={"X": "y z"})).stdout == "y z\n"
    assert (await shell([sys.executable, "-c", "print(1)"])).stdout == "1\n"
    assert (await shell("exit 3", check=False)).code == 3
    with pytest.raises(CommandFailed) as failed:
        await shell("echo why >&2; exit 3")
    assert (failed.value.code, failed.value.stderr) == (3, "why\n")


def test_log_is_a_stdlib_logger(caplog: pytest.LogCaptureFixture) -> None:
    log.warning("hello %s", "you")
    assert "hello you" in caplog.text


# ---- inside steps


async def test_a_step_inside_a_step_is_a_plain_call_with_one_warning(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING), handler(inside_step=True) as fake:
        for _ in range(3):
            assert await run("nested", add, 1, 2) == 3
    assert fake.calls == []
    assert [record.getMessage() for record in caplog.records] == [
        'step "nested" is called inside a step: it is a plain call there, not recorded and not retried'
    ]


async def test_a_decorated_function_inside_a_step_is_awaited_on_a_loop_and_called_in_a_thread() -> None:
    with handler(inside_step=True):
        assert await triple(2) == 6
        assert await asyncio.to_thread(lambda: untyped_triple(2)) == 6


def test_values_inside_a_step_are_made_there_without_a_warning(caplog: pytest.LogCaptureFixture) -> None:
    with handler(inside_step=True) as fake:
        assert isinstance(now(), datetime)
        assert current().run_id == "r1"
    assert (fake.asked, caplog.records) == ([], [])


# ---- types


class Callable_:  # noqa: N801
    async def __call__(self, n: int) -> bytes:
        return b""


def generic(value: T) -> T:
    return value


def lost() -> Nowhere:  # type: ignore[name-defined] # noqa: F821
    ...


def nothing() -> None: ...


@pytest.mark.parametrize(
    ("fn", "kind"),
    [
        (fetch, list[str]),
        (add, int),
        (functools.partial(add, 1), int),
        (Callable_(), bytes),
        (Callable_().__call__, bytes),
        (nothing, type(None)),
        (lambda: 1, Any),
        (lost, Any),
        (generic, Any),
        (len, Any),
        (print, Any),
    ],
)
def test_the_type_of_a_result_is_what_the_function_says(fn: Callable[..., Any], kind: Any) -> None:
    assert output_type(fn) == kind


@pytest.mark.parametrize(
    ("fn", "expected"),
    [(fetch, True), (functools.partial(fetch, "u"), True), (Callable_(), True), (add, False), (len, False)],
)
def test_what_runs_on_the_loop_is_what_is_async(fn: Callable[..., Any], expected: bool) -> None:
    assert is_async(fn) is expected
