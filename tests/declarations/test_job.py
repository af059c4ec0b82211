"""`@job`: what is refused, what a trigger becomes, and what the object does in and outside of handlers."""

from __future__ import annotations

import asyncio
import inspect
import threading
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from datetime import timedelta
from functools import partial
from typing import Any, TypedDict

import pytest

from taskrun.declarations.job import Event, Job, job
from taskrun.declarations.pipe import pipe
from taskrun.declarations.steps import current, now, run, shell, sleep, step, thread
from taskrun.model.errors import DefinitionError, DurationInvalid, InputInvalid, NotBound, OutputInvalid
from taskrun.rules.policies import Backoff, Concurrency, Cron, Debounce, Prepared, Terms, Throttle
from tests.declarations.fake import handler


@job
async def double(n: int = 1) -> int:
    """Doubles."""
    return await run("double", lambda: n * 2)


@job(name="processFile", retry=5)
def process(path: str, bitrate: int = 128) -> str:
    return f"{path}@{bitrate}"


@dataclass
class Song:
    title: str
    year: int = 2000


# ---- definition


def test_a_job_knows_its_name_place_and_function() -> None:
    assert (double.name, process.name) == ("double", "processFile")
    assert double.file == __file__
    assert 0 < double.line < process.line
    assert process.fn("a", 1) == "a@1"
    assert (double.is_async, process.is_async) == (True, False)
    assert double.__doc__ == "Doubles."


def test_retry_is_known_to_be_given() -> None:
    assert (double.options.retry, double.options.retry_given) == (3, False)
    assert (process.options.retry, process.options.retry_given) == (5, True)


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"name": "1st"}, "cannot be the name"),
        ({"name": "a b"}, "cannot be the name"),
        ({"name": "a" * 101}, "cannot be the name"),
        ({"name": "a\n"}, "cannot be the name"),
        ({"retry": -1}, "option retry"),
        ({"retry": "3"}, "option retry"),
        ({"retry": True}, "option retry"),
        ({"backoff": "soon"}, "option backoff"),
        ({"backoff": []}, "option backoff"),
        ({"on_exhausted": "stop"}, "option on_exhausted"),
        ({"timeout": "5"}, "option timeout"),
        ({"timeout": -1}, "option timeout"),
        ({"concurrency": 0}, "option concurrency"),
        ({"throttle": "fast"}, "option throttle"),
        ({"debounce": 0}, "option debounce"),
        ({"priority": 1.5}, "option priority"),
        ({"key": "fixed"}, "option key"),
        ({"key_ttl": "long"}, "option key_ttl"),
        ({"trigger": ["uploads"]}, "option trigger"),
        ({"cron": "61 * * * *"}, "option cron.*minute"),
        ({"on_success": "mail me"}, "on_success must be a function"),
    ],
)
def test_an_option_that_cannot_be_is_refused_with_its_name(options: dict[str, Any], says: str) -> None:
    def handler() -> None: ...

    with pytest.raises((DefinitionError, DurationInvalid), match=says):
        job(**options)(handler)


def test_an_unknown_option_gets_a_suggestion() -> None:
    with pytest.raises(TypeError, match='no option "retries", did you mean "retry"'):
        job(retries=3)  # type: ignore[call-overload]


async def test_an_async_function_as_an_option_is_refused() -> None:
    async def retry(input: Any) -> int:
        return 1

    with pytest.raises(DefinitionError, match="plain function"):
        job(name="x", retry=retry)(lambda: None)  # type: ignore[arg-type]


async def numbers() -> AsyncIterator[int]:
    yield 1


@pytest.mark.parametrize("fn", [numbers, Song, 5, double, lambda *args: None, lambda: None])
def test_what_is_no_handler_is_refused(fn: Any) -> None:
    with pytest.raises(DefinitionError):
        job(fn)


class Adding:
    async def __call__(self, a: int, b: int = 2) -> int:
        return a + b


async def add(a: int, b: int) -> int:
    return a + b


@pytest.mark.parametrize("fn", [Adding(), Adding().__call__, partial(add, b=2), partial(add, 1)])
def test_what_stands_for_a_function_has_its_annotations(fn: Any) -> None:
    made = job(name="made")(fn)
    with pytest.raises(InputInvalid, match="expected int"):
        made.prepare({"a": "x"} if "a" in inspect.signature(fn).parameters else {"b": "x"})
    with pytest.raises(OutputInvalid, match="expected int"):
        made.check_output("x")


def test_types_may_stand_below_the_handler() -> None:
    @job
    async def early(later: Later) -> None: ...

    assert early.prepare({"x": 1}).input == '{"x":1}'


class Later(TypedDict):
    x: int


def test_a_schedule_without_the_input_that_is_needed_is_refused_at_load() -> None:
    @job(cron="@daily")
    async def backup(path: str) -> None: ...

    with pytest.raises(DefinitionError, match="path"):
        backup.verify()
    job(name="ok", cron=[Cron("@daily", input={"path": "/"})])(backup.fn).verify()


def test_a_type_that_leads_nowhere_is_refused_at_load() -> None:
    async def lost(x: Nowhere) -> None: ...  # type: ignore[name-defined] # noqa: F821

    with pytest.raises(DefinitionError, match="Nowhere"):
        job(lost).verify()


def test_a_description_is_json_and_shows_functions_as_fn() -> None:
    uploads = pipe("uploads")
    made = job(
        name="x",
        trigger=[uploads, double.into(lambda n: {})],
        cron=["@daily", Cron("@hourly", timezone="UTC")],
        retry=lambda input: 1,
        timeout="5m",
        concurrency=2,
        backoff=["1s", "2m"],
        on_settled=print,
    )(lambda: None)
    described = made.describe()
    assert described["triggers"] == ["pipe:uploads", "job:double"]
    assert described["schedules"] == [{"cron": "@daily", "timezone": None}, {"cron": "@hourly", "timezone": "UTC"}]
    assert described["options"] == {
        "retry": "fn",
        "timeout": 300.0,
        "concurrency": {"id": "x", "limit": 2, "mode": "window"},
        "backoff": ["1s", "2m"],
        "on_settled": "fn",
    }
    assert described["input_schema"]["type"] == "object"


# ---- triggers


def test_a_trigger_is_validated_with_defaults_filled_in() -> None:
    assert process.prepare({"path": "a"}) == Prepared(
        job="processFile", input='{"path":"a","bitrate":128}', terms=Terms(retry=5)
    )


def test_bad_input_names_every_field() -> None:
    with pytest.raises(InputInvalid) as error:
        process.prepare({"bitrate": "loud", "volume": 11})
    assert {path for path, _ in error.value.problems} == {"path", "bitrate", "volume"}


def test_options_are_evaluated_for_the_input() -> None:
    made = job(
        name="x",
        retry=lambda i: i["n"],
        priority=lambda i: -i["n"],
        timeout=lambda i: timedelta(minutes=i["n"]),
        concurrency=lambda i: Concurrency(f"c{i['n']}", "3/s"),
        throttle=lambda i: Throttle(duration="1s", mode="queue"),
        debounce=lambda i: None if i["n"] else "1s",
        key=lambda i: f"k{i['n']}",
        key_ttl="1h",
    )(lambda n: None)
    assert made.prepare({"n": 2}).terms == Terms(
        retry=2,
        priority=-2,
        timeout=120,
        concurrency=Concurrency("c2", 3, "rolling", 1),
        throttle=Throttle("x", 1, "queue"),
        key="k2",
        key_ttl=3600,
    )
    assert made.prepare({"n": 0}).terms.debounce == Debounce("x", 1)


def test_an_options_function_gets_a_model_where_the_input_is_one() -> None:
    @job(key=lambda song: song.title)
    async def store(song: Song) -> None: ...

    assert store.prepare({"title": "a"}).terms.key == "a"
    assert store.prepare(Song("b")).input == '{"title":"b","year":2000}'


@pytest.mark.parametrize(
    ("option", "fn"),
    [
        ("retry", lambda i: "many"),
        ("priority", lambda i: None),
        ("timeout", lambda i: "soon"),
        ("concurrency", lambda i: 0),
        ("throttle", lambda i: -1),
        ("debounce", lambda i: []),
        ("key", lambda i: 5),
        ("key", lambda i: ""),
        ("retry", lambda i: i["missing"]),
    ],
)
def test_an_options_function_that_fails_is_named(option: str, fn: Callable[[Any], Any]) -> None:
    made = job(name="x", **{option: fn})(lambda: None)  # type: ignore[call-overload]
    with pytest.raises((DefinitionError, DurationInvalid), match=f"job x, option {option}"):
        made.prepare({})


def _exits(value: Any) -> Any:
    raise SystemExit(0)


def _interrupts(value: Any) -> Any:
    raise KeyboardInterrupt


class _Mute(BaseException):
    def __str__(self) -> str:
        raise RuntimeError


def _mute(value: Any) -> Any:
    raise _Mute


def _floods(value: Any) -> Any:
    raise ValueError("x" * 10_000_000)


@pytest.mark.parametrize("option", ["retry", "timeout", "concurrency", "throttle", "debounce", "priority", "key"])
@pytest.mark.parametrize(
    "fn",
    [
        _exits,
        _interrupts,
        _mute,
        _floods,
        lambda i: 10**5000,
        lambda i: -(10**5000),
        lambda i: "x" * 10_000_000,
        lambda i: "\ud800",
    ],
)
def test_whatever_an_options_function_does_is_a_short_definition_error(option: str, fn: Callable[[Any], Any]) -> None:
    made = job(name="x", **{option: fn})(lambda: None)  # type: ignore[call-overload]
    with pytest.raises((DefinitionError, DurationInvalid), match=f"job x, option {option}") as error:
        made.prepare({})
    assert len(str(error.value)) < 12_000


@pytest.mark.parametrize("make", [Concurrency, Throttle, Debounce])
@pytest.mark.parametrize("name", ["x" * 10_000_000, "\ud800"])
def test_an_id_that_a_function_makes_has_its_limits(make: Any, name: str) -> None:
    policy = make(name, 1)
    made = job(name="x", **{make.__name__.lower(): lambda i: policy})(lambda: None)  # type: ignore[call-overload]
    with pytest.raises(DefinitionError, match=f"job x, option {make.__name__.lower()}"):
        made.prepare({})


@pytest.mark.parametrize("name", ["", " ", "a b", "1a", "-a", "a/b", "a#1", "é", "x" * 101, "a\n", 5, b"a", ["a"]])
def test_a_name_that_is_none_is_refused(name: Any) -> None:
    with pytest.raises(DefinitionError, match="cannot be the name of a job"):
        job(name=name)(lambda: None)
    with pytest.raises(DefinitionError, match="cannot be the name of a pipe"):
        pipe(name)


@pytest.mark.parametrize("name", ["a", "_", "A.b-c_9", "x" * 100])
def test_a_name_that_is_one_is_taken(name: str) -> None:
    assert job(name=name)(lambda: None).name == name
    assert pipe(name).name == name


@pytest.mark.parametrize(
    "make",
    [lambda: run("", print), lambda: thread(" ", print), lambda: shell("true", name=""), lambda: step(name="")(print)],
)
def test_a_step_needs_a_name(make: Callable[[], Any]) -> None:
    with pytest.raises(DefinitionError, match="needs a name for its step"):
        make()


def test_backoff_is_read_once() -> None:
    assert job(name="x", backoff=Backoff("1s", attempts=2))(lambda: None).options.backoff == Backoff(1, attempts=2)


# ---- calls in a handler


async def test_in_a_handler_calls_go_to_the_caller() -> None:
    with handler() as fake:
        assert await double.run(n=2) == "child"
        await double.run({"n": 3})
        await double.start()
        await double.cancel(n=4)
        await double.wait_for({"n": 5}, timeout="1m")
    assert fake.asked == [
        ("child", "double", {"n": 2}, True),
        ("child", "double", {"n": 3}, True),
        ("child", "double", {}, False),
        ("cancel", "double", {"n": 4}),
        ("wait", "job:double", {"n": 5}, 60),
    ]


async def test_the_identity_is_taken_at_the_call_not_at_the_await() -> None:
    with handler() as fake:
        coroutine = double.run(n=2)
        assert len(fake.asked) == 1
        await coroutine


@pytest.mark.parametrize("call", [double.run, double.start, double.cancel, double.wait_for])
def test_outside_a_handler_an_unbound_call_says_what_to_use(call: Callable[[], Any]) -> None:
    with pytest.raises(NotBound, match="handler"):
        call()


def test_a_call_takes_one_value_or_fields() -> None:
    with handler(), pytest.raises(TypeError, match="one mapping or model"):
        _ = double.run({"n": 1}, n=2)
    with handler(), pytest.raises(TypeError, match="one mapping or model"):
        _ = double.run({"n": 1}, {"n": 2})


def test_wait_for_takes_a_mapping_or_a_predicate() -> None:
    with handler(), pytest.raises(TypeError, match="mapping or a predicate"):
        _ = double.wait_for(5)  # type: ignore[arg-type]
    with handler(), pytest.raises(DurationInvalid):
        _ = double.wait_for(timeout="5")


# ---- plain calls


async def test_calling_the_job_executes_the_handler_with_its_steps_in_place() -> None:
    assert await double(21) == 42
    assert await double(n=1) == 2
    assert process("a") == "a@128"


async def test_in_a_plain_call_children_steps_and_current_work() -> None:
    @job
    async def parent(x: int) -> list[Any]:
        handle = await double.start(n=x)
        await sleep(0)
        return [await double.run(n=x), await handle.result(), current().job, now().tzinfo is not None]

    assert await parent(2) == [4, 4, "parent", True]
    with pytest.raises(NotBound):
        current()


async def test_a_plain_child_validates_and_fails_as_itself() -> None:
    @job
    async def child(n: int) -> str:
        return n  # type: ignore[return-value]

    @job
    async def parent(n: Any) -> str:
        result: str = await child.run(n=n)
        return result

    with pytest.raises(InputInvalid):
        await parent("x")
    with pytest.raises(OutputInvalid):
        await parent(1)


async def test_a_wait_in_a_plain_call_says_that_it_needs_a_queue() -> None:
    @job
    async def waits() -> None:
        await double.wait_for()

    with pytest.raises(NotBound, match="TestQueue"):
        await waits()


async def test_inside_another_handler_calling_the_job_is_an_ordinary_call() -> None:
    with handler() as fake:
        assert await double(3) == "double"
    assert [call.name for call in fake.calls] == ["double"]


async def test_a_sync_handler_runs_in_a_thread() -> None:
    @job
    def where() -> int:
        return threading.get_ident()

    assert await where.call({}) != threading.get_ident()
    assert where.call_sync({}) == threading.get_ident()


# ---- outputs


def test_the_output_is_checked_against_the_annotation_or_the_option() -> None:
    with pytest.raises(OutputInvalid):
        double.check_output("x")
    shaped = job(name="x", output=Song)(lambda: None)
    assert shaped.check_output({"title": "a"}) == Song("a")
    assert shaped.read('{"title":"a","year":1}') == Song("a", 1)


# ---- listeners


def event(kind: str) -> Event:
    return Event(kind=kind, run_id="r", job="x")


def test_hooks_come_first_then_listeners_and_once_means_once() -> None:
    heard: list[str] = []
    made = job(name="x", on_success=lambda event: heard.append("hook"))(lambda: None)
    assert not made.listeners

    @made.on("success")
    def listen(event: Event) -> None:
        heard.append("on")

    made.once("success", lambda event: heard.append("once"))
    assert made.listeners
    for _ in range(2):
        for callback in made.hooks("success"):
            callback(event("success"))
    assert heard == ["hook", "on", "once", "hook", "on"]
    made.off("success", listen)
    assert len(made.hooks("success")) == 1
    assert made.hooks("failure") == []


def test_an_unknown_event_is_refused() -> None:
    with pytest.raises(ValueError, match="settled"):
        double.on("finished", print)
    with pytest.raises(TypeError, match="function"):
        double.on("success", "print")  # type: ignore[call-overload]


async def test_a_job_of_two_loops_is_the_same_object() -> None:
    """Nothing of an event loop is kept: what one loop did leaves no trace for the next."""
    assert await asyncio.to_thread(lambda: asyncio.run(double(1))) == await double(1)


def test_a_job_is_a_job() -> None:
    assert isinstance(double, Job)
