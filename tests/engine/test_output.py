"""What handlers and steps print and log lands in the run's log, and nowhere twice."""

from __future__ import annotations

import asyncio
import logging
import sys
import threading
from typing import Any

import pytest

from taskrun import job, log, run, shell, sleep, thread
from taskrun.stores.base import Store
from taskrun.testing import TestQueue


async def lines(handle: Any) -> list[tuple[str, str, str | None]]:
    return [(line.stream, line.text, line.step) async for line in handle.log()]


async def test_print_log_and_logging_land_in_the_runs_log(storage: Store) -> None:
    @job
    async def handler() -> None:
        print("printed")
        print("err", file=sys.stderr)
        log.info("logged %d", 1)
        logging.getLogger("somewhere").warning("by a library")

    async with TestQueue(jobs=[handler], storage=storage) as queue:
        handle = await queue.jobs.handler.start()
        await handle.result()
        assert await lines(handle) == [
            ("stdout", "printed", None),
            ("stderr", "err", None),
            ("log", "INFO logged 1", None),
            ("log", "WARNING by a library", None),
        ]
        assert [line.seq async for line in handle.log()] == [1, 2, 3, 4]


async def test_lines_of_a_step_carry_its_key() -> None:
    def sync() -> None:
        print("in a thread")

    async def asynchronous() -> None:
        print("on the loop")

    @job
    async def handler() -> None:
        await run("one", sync)
        await run("two", asynchronous)
        await thread("three", print, "in a process")
        await shell("echo in a shell; echo oops >&2", name="four")

    async with TestQueue(jobs=[handler]) as queue:
        handle = await queue.jobs.handler.start()
        await handle.result()
        found = await lines(handle)
        assert found[:3] == [
            ("stdout", "in a thread", "one"),
            ("stdout", "on the loop", "two"),
            ("stdout", "in a process", "three"),
        ]
        assert sorted(found[3:]) == [("stderr", "oops", "four"), ("stdout", "in a shell", "four")]


async def test_runs_side_by_side_do_not_mix_their_lines() -> None:
    async def chat(name: str) -> None:
        for number in range(5):
            print(name, number)
            await asyncio.sleep(0)

    @job
    async def handler(name: str) -> None:
        await asyncio.gather(chat(name), run("step", chat, name))

    async with TestQueue(jobs=[handler]) as queue:
        handles = [await queue.jobs.handler.start(name=name) for name in ("a", "b")]
        for handle in handles:
            await handle.result()
            name = handle.input["name"]
            assert {text for _, text, _ in await lines(handle)} == {f"{name} {number}" for number in range(5)}


async def test_half_lines_wait_for_the_rest_of_their_line() -> None:
    @job
    async def handler() -> None:
        print("a", end="")
        print("b", end="")
        print("c")
        print("unended", end="")

    async with TestQueue(jobs=[handler]) as queue:
        handle = await queue.jobs.handler.start()
        await handle.result()
        assert [text for _, text, _ in await lines(handle)] == ["abc", "unended"]


async def test_what_a_step_prints_in_every_try_is_kept(storage: Store) -> None:
    tries: list[int] = []

    def flaky() -> None:
        tries.append(1)
        print("try", len(tries))
        if len(tries) < 3:
            raise ValueError("no")

    @job
    async def handler() -> None:
        print("begin")
        await run("flaky", flaky, backoff="10s")
        print("end")

    async with TestQueue(jobs=[handler], storage=storage) as queue:
        handle = await queue.jobs.handler.start()
        await queue.advance("1h")
        await handle.result()
        assert [text for _, text, _ in await lines(handle)] == ["begin", "try 1", "try 2", "try 3", "end"]


async def test_the_log_goes_on_after_a_restart_without_a_gap_or_a_double_line(storage: Store) -> None:
    @job
    async def handler() -> None:
        print("one")
        await run("step", print, "in the step")
        print("two")
        await sleep("30s")
        print("three")

    async with TestQueue(jobs=[handler], storage=storage) as queue:
        handle = await queue.jobs.handler.start()
        await queue.settle()
    async with TestQueue(jobs=[handler], storage=storage) as queue:
        handle = await queue.get(handle.id)
        await queue.advance("30s")
        await handle.result()
        assert [line.text async for line in handle.log()] == ["one", "in the step", "two", "three"]
        assert [line.seq async for line in handle.log()] == [1, 2, 3, 4]


async def test_a_new_attempt_does_not_log_again_what_its_replay_passes() -> None:
    tries: list[int] = []

    @job(backoff="1s")
    async def handler() -> None:
        print("begin")
        await run("step", asyncio.sleep, 0)
        print("middle")
        tries.append(1)
        if len(tries) < 2:
            raise ValueError("no")
        print("end")

    async with TestQueue(jobs=[handler]) as queue:
        handle = await queue.jobs.handler.start()
        await queue.advance("1m")
        await handle.result()
        found = [text for _, text, _ in await lines(handle)]
        assert found.count("begin") == 1
        assert found[-1] == "end"


async def test_threads_that_a_step_makes_itself_do_not_break_anything() -> None:
    def many() -> None:
        threads = [threading.Thread(target=print, args=(f"line {number}",)) for number in range(5)]
        for each in threads:
            each.start()
        for each in threads:
            each.join()

    @job
    async def handler() -> str:
        await run("many", many)
        return "done"

    async with TestQueue(jobs=[handler]) as queue:
        assert await queue.jobs.handler.run() == "done"


async def test_outside_of_runs_print_goes_where_it_always_went(capsys: pytest.CaptureFixture[str]) -> None:
    @job
    async def handler() -> None:
        print("inside")

    async with TestQueue(jobs=[handler]) as queue:
        handle = await queue.jobs.handler.start()
        await handle.result()
        print("outside")
        assert [text for _, text, _ in await lines(handle)] == ["inside"]
    assert "outside" in capsys.readouterr().out


async def test_an_unencodable_line_does_no_harm() -> None:
    @job
    async def handler() -> str:
        print("half \ud800 of a pair", "x" * 200_000)
        return "done"

    async with TestQueue(jobs=[handler]) as queue:
        handle = await queue.jobs.handler.start()
        assert await handle.result() == "done"
        assert sum(len(text) for _, text, _ in await lines(handle)) >= 200_000
