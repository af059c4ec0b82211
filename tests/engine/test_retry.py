"""`retry` of an ended run: a new run that keeps the finished steps before the one it is to begin at."""

from __future__ import annotations

import pytest

from taskrun import NotFound, RunFailed, RunNotEnded, job, run, sleep, uuid
from taskrun.stores.base import Store
from taskrun.testing import TestQueue

calls: list[str] = []
broken: set[str] = set()


@pytest.fixture(autouse=True)
def _nothing_done() -> None:
    calls.clear()
    broken.clear()


def work(name: str) -> str:
    calls.append(name)
    if name in broken:
        raise ValueError(f"{name} is broken")
    return f"{name}:{len(calls)}"


@job(retry=0)
async def handler() -> list[str]:
    key = str(uuid())
    return [key, *[await run(name, work, name, retry=0) for name in ("one", "two", "three")]]


async def test_a_retry_is_a_new_run_that_keeps_all_finished_steps(storage: Store) -> None:
    broken.add("three")
    async with TestQueue(jobs=[handler], storage=storage) as queue:
        first = await queue.jobs.handler.start()
        with pytest.raises(RunFailed):
            await first.result()
        broken.clear()
        second = await first.retry()
        assert second.id != first.id
        assert (await second.result())[1:] == ["one:1", "two:2", "three:4"]
        assert calls == ["one", "two", "three", "three"]
        assert (await second.info()).retried_from == first.id
        assert await first.status() == "failed"


async def test_a_recorded_value_is_kept_too(storage: Store) -> None:
    async with TestQueue(jobs=[handler], storage=storage) as queue:
        first = await queue.jobs.handler.start()
        output = await first.result()
        assert await (await first.retry()).result() == output


async def test_from_a_step_everything_from_it_on_is_done_again(storage: Store) -> None:
    async with TestQueue(jobs=[handler], storage=storage) as queue:
        first = await queue.jobs.handler.start()
        await first.result()
        second = await first.retry(from_step="two")
        assert (await second.result())[1:] == ["one:1", "two:4", "three:5"]
        assert calls == ["one", "two", "three", "two", "three"]


async def test_recorded_errors_are_dropped(storage: Store) -> None:
    @job
    async def careful() -> str:
        try:
            return await run("one", work, "one", retry=0)
        except ValueError:
            return await run("instead", work, "instead")

    broken.add("one")
    async with TestQueue(jobs=[careful], storage=storage) as queue:
        first = await queue.jobs.careful.start()
        assert await first.result() == "instead:2"
        broken.clear()
        assert await (await first.retry()).result() == "one:3"


async def test_a_step_that_there_is_not_is_refused_with_those_that_there_are() -> None:
    async with TestQueue(jobs=[handler]) as queue:
        first = await queue.jobs.handler.start()
        await first.result()
        with pytest.raises(NotFound, match="one, two, three"):
            await first.retry(from_step="four")
        assert len([entry async for entry in queue.runs()]) == 1


async def test_only_ended_runs_are_retried() -> None:
    @job
    async def sleeper() -> None:
        await sleep("1h")

    async with TestQueue(jobs=[sleeper]) as queue:
        handle = await queue.jobs.sleeper.start()
        await queue.settle()
        with pytest.raises(RunNotEnded):
            await handle.retry()


async def test_a_retry_ignores_the_key() -> None:
    @job(key=lambda input: "the one")
    async def keyed() -> int:
        calls.append("keyed")
        return len(calls)

    async with TestQueue(jobs=[keyed]) as queue:
        first = await queue.jobs.keyed.start()
        assert await first.result() == 1
        second = await first.retry()
        assert second.id != first.id
        assert await second.result() == 2


async def test_a_cancelled_run_can_be_retried(storage: Store) -> None:
    @job
    async def sleeper() -> str:
        await run("one", work, "one")
        await sleep("1h")
        return "done"

    async with TestQueue(jobs=[sleeper], storage=storage) as queue:
        first = await queue.jobs.sleeper.start()
        await queue.settle()
        await first.cancel()
        await queue.settle()
        second = await first.retry()
        await queue.advance("1h")
        assert await second.result() == "done"
        assert calls == ["one"]


async def test_a_step_that_failed_and_was_repeated_in_a_loop_is_found_by_its_key(storage: Store) -> None:
    @job
    async def looped() -> list[str]:
        return [await run("add", work, f"add {number}") for number in range(3)]

    async with TestQueue(jobs=[looped], storage=storage) as queue:
        first = await queue.jobs.looped.start()
        await first.result()
        second = await first.retry(from_step="add#2")
        assert await second.result() == ["add 0:1", "add 1:4", "add 2:5"]
