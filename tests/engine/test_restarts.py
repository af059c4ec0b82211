"""Close and the next start; coroutines that are evicted while they sleep; what replays do not repeat."""

from __future__ import annotations

import asyncio

import pytest

from taskrun import JournalUnavailable, job, run, sleep
from taskrun.stores.base import Store
from taskrun.testing import TestQueue


async def test_a_run_that_is_unfinished_at_close_goes_on_at_the_next_start(storage: Store) -> None:
    calls: list[str] = []

    @job
    async def handler() -> str:
        await run("one", calls.append, "one")
        await sleep("1m")
        await run("two", calls.append, "two")
        return "done"

    async with TestQueue(jobs=[handler], storage=storage) as queue:
        handle = await queue.jobs.handler.start()
        await queue.settle()
    async with TestQueue(jobs=[handler], storage=storage) as queue:
        await queue.advance("1m")
        assert await (await queue.get(handle.id)).result() == "done"
        assert calls == ["one", "two"]


async def test_a_step_cut_off_by_close_runs_again_and_uses_up_no_attempt(storage: Store) -> None:
    calls: list[int] = []
    go = asyncio.Event()

    async def work() -> str:
        calls.append(1)
        await go.wait()
        return "done"

    @job(retry=0)
    async def handler() -> str:
        return await run("work", work, retry=0)

    async with TestQueue(jobs=[handler], storage=storage) as queue:
        handle = await queue.jobs.handler.start()
        await queue.settle()
    go.set()
    async with TestQueue(jobs=[handler], storage=storage) as queue:
        handle = await queue.get(handle.id)
        assert await handle.result() == "done"
        info = await handle.info()
        assert (len(calls), info.attempt, info.steps[0].attempt) == (2, 1, 1)


async def test_at_close_finally_blocks_run_but_steps_in_them_do_not(storage: Store) -> None:
    seen: list[str] = []

    @job
    async def handler() -> str:
        try:
            await sleep("1h")
        finally:
            seen.append("finally")
            await run("step", seen.append, "step")
        return "done"

    async with TestQueue(jobs=[handler], storage=storage) as queue:
        handle = await queue.jobs.handler.start()
        await queue.settle()
        seen.clear()  # a long sleep may have been evicted before
    async with TestQueue(jobs=[handler], storage=storage) as queue:
        assert "step" not in seen
        await queue.advance("1h")
        assert await (await queue.get(handle.id)).result() == "done"
        assert seen[-2:] == ["finally", "step"]
        assert seen.count("step") == 1


async def test_a_resident_handler_is_unwound_at_close(storage: Store) -> None:
    seen: list[str] = []

    @job
    async def handler() -> None:
        try:
            await sleep("30s")
        except Exception:
            seen.append("eaten")
        finally:
            seen.append("finally")
            await run("step", seen.append, "step")

    async with TestQueue(jobs=[handler], storage=storage) as queue:
        handle = await queue.jobs.handler.start()
        await queue.settle()
        assert seen == []
    assert seen == ["finally"]
    async with TestQueue(jobs=[handler], storage=storage) as queue:
        assert await (await queue.get(handle.id)).status() == "waiting"


async def test_runs_get_the_grace_period_of_close_to_end_by_themselves(storage: Store) -> None:
    @job
    async def handler() -> str:
        async def work() -> str:
            await asyncio.sleep(0.05)
            return "done"

        return await run("work", work)

    queue = TestQueue(jobs=[handler], storage=storage)
    await queue.start()
    handle = await queue.jobs.handler.start()
    await queue.settle()
    await queue.close(grace=60)  # of virtual time, which stands still
    async with TestQueue(jobs=[handler], storage=storage) as queue:
        assert await (await queue.get(handle.id)).status() == "succeeded"


async def test_who_waits_for_a_result_learns_of_the_close() -> None:
    @job
    async def handler() -> None:
        await sleep("1h")

    queue = TestQueue(jobs=[handler])
    await queue.start()
    waiting = asyncio.create_task(queue.jobs.handler.run())
    await queue.settle()
    await queue.close()
    with pytest.raises(JournalUnavailable, match="closed"):
        await waiting


async def test_close_may_be_called_twice_and_before_the_start() -> None:
    queue = TestQueue()
    await queue.close()
    await queue.start()
    await queue.close()
    await queue.close()


async def test_a_queue_can_be_started_again(storage: Store) -> None:
    @job
    async def handler() -> str:
        await sleep("1h")
        return "done"

    queue = TestQueue(jobs=[handler], storage=storage)
    await queue.start()
    handle = await queue.jobs.handler.start()
    await queue.settle()
    await queue.close()
    await queue.start()
    await queue.advance("1h")
    assert await (await queue.get(handle.id)).result() == "done"
    await queue.close()


async def test_an_evicted_handler_is_replayed_without_a_double_print(storage: Store) -> None:
    begun: list[int] = []

    @job
    async def handler() -> None:
        begun.append(1)
        print("before")
        await sleep("1d")
        print("between")
        await sleep("1d")
        print("after")

    async with TestQueue(jobs=[handler], storage=storage, resident=0) as queue:
        handle = await queue.jobs.handler.start()
        await queue.advance("1h")
        assert not queue.executor.contexts, "beyond those that may be resident no coroutine is kept"
        await queue.advance("2d")
        await handle.result()
        assert len(begun) == 3
        assert [line.text async for line in handle.log()] == ["before", "between", "after"]


async def test_the_length_of_a_sleep_alone_evicts_nothing() -> None:
    begun: list[int] = []

    @job
    async def handler() -> None:
        begun.append(1)
        await sleep("30d")

    async with TestQueue(jobs=[handler]) as queue:
        handle = await queue.jobs.handler.start()
        await queue.advance("30d")
        await handle.result()
        assert len(begun) == 1


async def test_many_sleeps_pass_in_one_advance() -> None:
    @job
    async def handler() -> int:
        count = 0
        for _ in range(200):
            await sleep("30s")
            count += 1
        return count

    async with TestQueue(jobs=[handler]) as queue:
        handle = await queue.jobs.handler.start()
        await queue.advance(200 * 30)
        assert await handle.result() == 200


async def test_a_queued_run_whose_job_is_gone_is_left_alone(storage: Store) -> None:
    @job
    async def gone() -> str:
        await sleep("1s")
        return "back"

    @job
    async def other() -> str:
        return "fine"

    async with TestQueue(jobs=[gone], storage=storage) as queue:
        handle = await queue.jobs.gone.start()
        await queue.settle()
    async with TestQueue(jobs=[other], storage=storage) as queue:
        assert await queue.jobs.other.run() == "fine"
        await queue.advance("1d")
        assert await (await queue.get(handle.id)).status() in ("waiting", "queued")
    async with TestQueue(jobs=[gone], storage=storage) as queue:
        await queue.advance("1d")
        assert await (await queue.get(handle.id)).result() == "back"


async def test_a_queue_that_does_not_run_says_so() -> None:
    @job
    async def handler() -> None: ...

    queue = TestQueue(jobs=[handler])
    with pytest.raises(JournalUnavailable, match="not running"):
        await queue.jobs.handler.run()
    async with queue:
        await queue.jobs.handler.run()
    with pytest.raises(JournalUnavailable, match="not running"):
        await queue.get("anything")
