"""A `thread` step behaves as a `run` step does, though its function is in another process."""

from __future__ import annotations

import asyncio
import logging
import logging.config
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from typing import Any, NamedTuple

import pytest

from taskrun import Fatal, Queue, StepFailed, current, job, log, now, progress, run, thread
from taskrun.testing import TestQueue

Step = Callable[..., Coroutine[Any, Any, Any]]
both = pytest.mark.parametrize("step", [run, thread])


@dataclass
class Order:
    item: str


class Odd(Exception):
    """Cannot be rebuilt from its args."""

    def __init__(self, a: int, b: int) -> None:
        super().__init__(f"odd {a} {b}")


class NoWay(Fatal):
    """A user's own kind of the end of retries."""

    def __init__(self, a: int, b: int) -> None:
        super().__init__(f"no way {a} {b}")


def fail(make: Callable[[], BaseException]) -> None:
    raise make()


class Done(NamedTuple):
    """A run that is over."""

    id: str
    info: Any
    lines: list[tuple[str, str, str | None]]


async def executed(step: Step, fn: Callable[..., Any], *args: Any, retry: int = 0) -> Done:
    """Executes a run whose only step this is."""

    @job(retry=0)
    async def handler(order: Order) -> Any:
        return await step("work", fn, *args, retry=retry, backoff=0)

    async with TestQueue(jobs=[handler]) as queue:
        handle = await queue.jobs.handler.start(Order("pear"))
        await queue.settle()
        lines = [(line.stream, line.text, line.step) async for line in handle.log()]
        return Done(handle.id, await handle.info(), lines)


@both
async def test_what_it_prints_and_logs_lands_in_the_runs_log_in_order(step: Step) -> None:
    def talk() -> None:
        log.debug("debug")
        print("one")
        log.info("info %d", 1)
        print("two", file=sys.stderr)
        logging.getLogger("library").warning("warned")
        sys.stdout.buffer.write("bytes é\n".encode())
        try:
            raise KeyError("x")
        except KeyError:
            log.exception("caught")
        print("no end", end="")

    lines = (await executed(step, talk)).lines
    assert {key for *_, key in lines} == {"work"}
    told = [(stream, text) for stream, text, _ in lines]
    assert told[:6] == [
        ("log", "DEBUG debug"),
        ("stdout", "one"),
        ("log", "INFO info 1"),
        ("stderr", "two"),
        ("log", "WARNING warned"),
        ("stdout", "bytes é"),
    ]
    assert told[6] == ("log", "ERROR caught")
    assert ("log", "KeyError: 'x'") in told
    assert told[-1] == ("stdout", "no end")


@both
async def test_a_bad_logging_call_says_what_was_wrong(step: Step) -> None:
    def talk() -> int:
        log.warning("%d", "x")
        return 1

    done = await executed(step, talk)
    assert done.info["output"] == 1
    assert "TypeError" in done.lines[0][1]


@both
async def test_it_knows_its_run_and_is_no_place_for_steps(step: Step) -> None:
    def look() -> list[Any]:
        here = current()
        return [here.run_id, here.job, here.attempt, here.input.item, now() is not None]

    done = await executed(step, look)
    assert done.info["output"] == [done.id, "handler", 1, "pear", True]


@both
async def test_an_async_function_works_too(step: Step) -> None:
    async def double(number: int) -> int:
        await asyncio.sleep(0)
        print("doubling", current().job)
        return 2 * number

    done = await executed(step, double, 4)
    assert done.info["output"] == 8
    assert done.lines == [("stdout", "doubling handler", "work")]


@both
async def test_the_last_progress_is_kept(step: Step) -> None:
    def work() -> None:
        for done in range(1000):
            progress(done + 1, 1000, "\x1b[31mhalf \ud800 of a pair\x1b[0m")

    done = await executed(step, work)
    assert done.info["progress"] == {"done": 1000, "total": 1000, "note": "half \\ud800 of a pair"}


async def test_progress_is_seen_while_it_works() -> None:
    @job
    async def handler() -> None:
        await thread("work", work)

    def work() -> None:
        progress(1, 2)
        time.sleep(600)

    async with Queue(jobs=[handler]) as queue:
        handle = await queue.jobs.handler.start()
        while not (await handle.info())["progress"]:
            await asyncio.sleep(0.01)
        await handle.cancel()
        assert (await handle.info())["progress"]["done"] == 1


@both
@pytest.mark.parametrize(
    ("make", "kind", "message"),
    [
        (lambda: ValueError("no", 3), "ValueError", "no"),
        (lambda: Odd(1, 2), "Odd", "odd 1 2"),
        (lambda: ValueError(threading.Lock()), "ValueError", "lock"),
        (lambda: KeyboardInterrupt("stop"), "KeyboardInterrupt", "stop"),
        (lambda: ExceptionGroup("two", [ValueError("one"), Odd(1, 2)]), "ExceptionGroup", "two"),
    ],
)
async def test_an_error_keeps_its_type_its_place_and_its_traceback(
    step: Step, make: Callable[[], BaseException], kind: str, message: str
) -> None:
    done = await executed(step, fail, make)
    error = done.info["steps"][0]["error"]
    assert error["type"].rpartition(".")[2] == kind
    assert message in error["message"]
    assert "in fail" in error["traceback"]
    assert "pool" not in error["traceback"]


@both
async def test_an_error_that_cannot_be_rebuilt_reaches_the_handler_as_step_failed(step: Step) -> None:
    caught: list[StepFailed] = []

    @job
    async def handler() -> None:
        try:
            await step("work", fail, lambda: Odd(1, 2), retry=0)
        except StepFailed as error:
            caught.append(error)

    async with TestQueue(jobs=[handler]) as queue:
        await queue.jobs.handler.run()
    assert caught[0].error_type.endswith("Odd")
    assert caught[0].message == "odd 1 2"
    assert "in fail" in caught[0].traceback


@both
async def test_fatal_of_any_kind_ends_the_retries(step: Step) -> None:
    done = await executed(step, fail, lambda: NoWay(1, 2), retry=5)
    assert done.info["steps"][0]["attempt"] == 1
    assert "no way 1 2" in done.info["error"]["message"]


@pytest.mark.parametrize("code", [0, None])
async def test_an_exit_without_a_fault_is_a_return(code: int | None) -> None:
    done = await executed(thread, sys.exit, code)
    assert done.info["status"] == "succeeded"
    assert done.info["output"] is None


@pytest.mark.parametrize("code", [1, 4, "no such file"])
async def test_any_other_exit_is_a_failure(code: int | str) -> None:
    done = await executed(thread, sys.exit, code)
    assert done.info["status"] == "failed"
    assert str(code) in done.info["error"]["message"]


async def test_what_its_children_print_is_in_the_log() -> None:
    done = await executed(thread, lambda: subprocess.run("echo out; echo err >&2", shell=True).returncode)
    assert sorted(done.lines) == [("stderr", "err", "work"), ("stdout", "out", "work")]


async def test_what_its_threads_print_is_in_the_log() -> None:
    def work() -> None:
        other = threading.Thread(target=lambda: print("from", current().job))
        other.start()
        other.join()

    done = await executed(thread, work)
    assert done.lines == [("stdout", "from handler", "work")]


async def test_one_that_is_cancelled_has_its_last_words() -> None:
    def work() -> None:
        try:
            print("ready")
            time.sleep(600)
        finally:
            print("tidied")

    @job
    async def handler() -> None:
        await thread("work", work)

    async with TestQueue(jobs=[handler]) as queue:
        handle = await queue.jobs.handler.start()
        while not (await handle.info())["log"]:
            await asyncio.sleep(0.01)
        await handle.cancel()
        await queue.settle()
        assert [line.text async for line in handle.log()] == ["ready", "tidied"]


async def test_logging_that_one_call_configures_is_as_before_in_the_next() -> None:
    def silence() -> None:
        logging.disable(logging.CRITICAL)
        logging.getLogger().setLevel(logging.CRITICAL)
        logging.config.dictConfig({"version": 1})
        sys.stdout.close()

    def talk() -> None:
        log.info("taskrun's")
        logging.getLogger("library").info("a library's")
        print("printed")

    @job
    async def handler() -> None:
        for _ in range(2):
            await thread("talk", talk)
            await thread("silence", silence)

    async with TestQueue(jobs=[handler]) as queue:
        handle = await queue.jobs.handler.start()
        await handle.result()
        texts = [line.text async for line in handle.log()]
        assert texts == ["INFO taskrun's", "INFO a library's", "printed"] * 2
