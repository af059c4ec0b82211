"""A step in a task that nobody awaits: its own run is told, and no other."""

from __future__ import annotations

import asyncio
import gc
import logging
from typing import Any

import pytest

from taskrun import job, run, sleep
from taskrun.testing import TestQueue


async def wait_for_ever() -> None:
    await asyncio.Event().wait()


def leave(*steps: str) -> list[asyncio.Task[Any]]:
    return [asyncio.create_task(run(step, wait_for_ever)) for step in steps]


async def log_of(handle: Any) -> list[str]:
    return [line.text async for line in handle.log()]


@pytest.mark.parametrize(
    ("steps", "says"),
    [
        (["one"], 'WARNING step "one" was left behind'),
        (["one", "two"], 'WARNING steps "one", "two" were left behind'),
        (["a", "b", "c", "d", "e"], 'WARNING steps "a", "b", "c" and 2 more were left behind'),
    ],
)
async def test_a_step_that_is_left_behind_is_named_in_its_own_run(steps: list[str], says: str) -> None:
    @job(retry=0)
    async def forgets() -> str:
        leave(*steps)
        await asyncio.sleep(0.01)
        return "returned"

    async with TestQueue(jobs=[forgets]) as queue:
        handle = await queue.jobs.forgets.start()
        assert await handle.result() == "returned"
        (line,) = await log_of(handle)
        assert line.startswith(says)


async def test_a_handler_that_fails_beside_a_step_says_so_too() -> None:
    @job(retry=0)
    async def fails() -> None:
        leave("one")
        await asyncio.sleep(0.01)
        raise ValueError("no")

    async with TestQueue(jobs=[fails]) as queue:
        handle = await queue.jobs.fails.start()
        await queue.settle()
        assert "left behind" in (await log_of(handle))[0]


async def test_steps_that_are_awaited_are_no_matter() -> None:
    @job(retry=0)
    async def awaits() -> None:
        await asyncio.gather(*(run(f"s{n}", asyncio.sleep, 0) for n in range(5)))
        async with asyncio.TaskGroup() as group:
            group.create_task(run("t", asyncio.sleep, 0))

    async with TestQueue(jobs=[awaits]) as queue:
        handle = await queue.jobs.awaits.start()
        await handle.result()
        assert await log_of(handle) == []


async def test_no_other_run_hears_of_it(caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]) -> None:
    async def several() -> None:
        async with asyncio.TaskGroup() as group:
            for step in ("a", "b"):
                group.create_task(run(step, wait_for_ever))

    async def later() -> None:
        await asyncio.sleep(0.01)
        await sleep("1h")

    @job(retry=0)
    async def forgets() -> None:
        leave("one")
        for each in (several, later):
            asyncio.create_task(each())  # noqa: RUF006 - that is what is tested
        await asyncio.sleep(0)

    @job(retry=0)
    async def innocent() -> None:
        await asyncio.sleep(0.02)
        gc.collect()
        logging.getLogger("asyncio").error("Task exception was never retrieved")

    async with TestQueue(jobs=[forgets, innocent]) as queue:
        for _ in range(3):
            await queue.jobs.forgets.run()
            handle = await queue.jobs.innocent.start()
            await handle.result()
            assert await log_of(handle) == []
    gc.collect()
    assert "Unwind" not in caplog.text
    assert "Unwind" not in capfd.readouterr().err
