"""Steps with a body, timers, recorded values and the run that the caller is in."""

from __future__ import annotations

import asyncio
import threading
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from taskrun import current, job, now, progress, random, run, sleep, sleep_until, step, uuid
from taskrun.stores.base import Store
from taskrun.testing import TestQueue


async def test_a_finished_step_never_runs_again(storage: Store) -> None:
    calls: list[int] = []

    async def fetch(number: int) -> int:
        calls.append(number)
        return number + 1

    @job
    async def handler() -> int:
        value = await run("fetch", fetch, 1)
        await sleep("1d")
        return await run("fetch", fetch, value)

    async with TestQueue(jobs=[handler], storage=storage) as queue:
        handle = await queue.jobs.handler.start()
        await queue.advance("1d")
        assert await handle.result() == 3
        assert calls == [1, 2]
        assert [entry.key for entry in await handle.steps()] == ["fetch", "sleep", "fetch#2"]


async def test_a_sync_function_runs_in_a_thread_and_blocks_nobody() -> None:
    def where() -> bool:
        return threading.current_thread() is threading.main_thread()

    @job
    async def handler() -> bool:
        return await run("where", where)

    async with TestQueue(jobs=[handler]) as queue:
        assert await queue.jobs.handler.run() is False


async def test_arguments_reach_the_function() -> None:
    async def join(*words: str, sep: str) -> str:
        return sep.join(words)

    @job
    async def handler() -> str:
        return await run("join", join, "a", "b", sep="-")

    async with TestQueue(jobs=[handler]) as queue:
        assert await queue.jobs.handler.run() == "a-b"


async def test_a_decorated_function_is_a_step_in_a_handler_and_a_plain_call_elsewhere() -> None:
    @step
    async def fetch(number: int) -> int:
        return number * 2

    @step(name="other", retry=0)
    async def named(number: int) -> int:
        return number * 3

    @job
    async def handler() -> list[int]:
        return [await fetch(1), await named(1)]

    assert await fetch(4) == 8
    async with TestQueue(jobs=[handler]) as queue:
        handle = await queue.jobs.handler.start()
        assert await handle.result() == [2, 3]
        assert [entry.key for entry in await handle.steps()] == ["fetch", "other"]


async def test_a_step_inside_a_step_is_a_plain_call_with_a_warning() -> None:
    async def inner() -> int:
        return 1

    async def outer() -> int:
        return await run("inner", inner)

    @job
    async def handler() -> int:
        return await run("outer", outer)

    async with TestQueue(jobs=[handler]) as queue:
        handle = await queue.jobs.handler.start()
        assert await handle.result() == 1
        assert [entry.key for entry in await handle.steps()] == ["outer"]
        assert any("inside a step" in line.text for line in [line async for line in handle.log()])


async def test_sleep_is_kept_by_the_clock_and_by_the_journal(storage: Store) -> None:
    woke: list[datetime] = []

    @job
    async def handler() -> None:
        await sleep("90m")
        woke.append(now())

    async with TestQueue(jobs=[handler], storage=storage, start=datetime(2026, 3, 1, tzinfo=UTC)) as queue:
        handle = await queue.jobs.handler.start()
        await queue.advance("89m")
        assert await handle.status() == "waiting"
        await queue.advance("1m")
        await handle.result()
        assert woke == [datetime(2026, 3, 1, 1, 30, tzinfo=UTC)]


async def test_a_sleep_goes_on_after_a_restart_with_what_is_left(storage: Store) -> None:
    @job
    async def handler() -> str:
        await sleep("2h")
        return "rested"

    async with TestQueue(jobs=[handler], storage=storage) as queue:
        handle = await queue.jobs.handler.start()
        await queue.advance("1h")
        later = queue.now
    async with TestQueue(jobs=[handler], storage=storage, start=later) as queue:
        handle = await queue.get(handle.id)
        await queue.advance("59m")
        assert await handle.status() == "waiting"
        await queue.advance("1m")
        assert await handle.result() == "rested"


async def test_a_sleep_that_is_over_at_the_restart_ends_at_once(storage: Store) -> None:
    @job
    async def handler() -> str:
        await sleep("2h")
        return "rested"

    async with TestQueue(jobs=[handler], storage=storage) as queue:
        handle = await queue.jobs.handler.start()
        await queue.settle()
        later = queue.now + timedelta(days=3)
    async with TestQueue(jobs=[handler], storage=storage, start=later) as queue:
        assert await (await queue.get(handle.id)).result() == "rested"


async def test_sleep_until_a_moment_and_one_that_is_past() -> None:
    @job
    async def handler() -> list[str]:
        await sleep_until(datetime(2025, 1, 1, tzinfo=UTC))
        first = now()
        await sleep_until(datetime(2026, 1, 1, 6, tzinfo=UTC))
        return [moment.isoformat() for moment in (first, now())]

    async with TestQueue(jobs=[handler], start=datetime(2026, 1, 1, tzinfo=UTC)) as queue:
        handle = await queue.jobs.handler.start()
        await queue.advance("6h")
        assert await handle.result() == ["2026-01-01T00:00:00+00:00", "2026-01-01T06:00:00+00:00"]


async def test_a_wrong_duration_names_the_units() -> None:
    for wrong in ("5", -1, float("nan"), "soon"):
        with pytest.raises(ValueError, match="ms"):
            _ = sleep(wrong)


async def test_recorded_values_are_the_same_on_replay(storage: Store) -> None:
    seen: list[Any] = []

    @job
    async def handler() -> None:
        seen.append((now(), random(), uuid(), random()))
        await sleep("1d")

    async with TestQueue(jobs=[handler], storage=storage, replay=True) as queue:
        handle = await queue.jobs.handler.start()
        await queue.advance("1d")
        await handle.result()
    first, second = seen
    assert first == second
    assert first[0].tzinfo is not None
    assert first[1] != first[3]


async def test_a_value_is_durable_before_a_step_that_uses_it_begins(storage: Store) -> None:
    used: list[str] = []
    forever = asyncio.Event()

    async def use(key: str) -> None:
        used.append(key)
        await forever.wait()

    @job
    async def handler() -> None:
        await run("use", use, str(uuid()))

    for _ in range(2):  # the first queue is closed while the step is under way
        async with TestQueue(jobs=[handler], storage=storage) as queue:
            if not used:
                await queue.jobs.handler.start()
            await queue.settle()
    assert len(used) == 2
    assert used[0] == used[1]


async def test_current_is_the_run_that_the_caller_is_in() -> None:
    @job
    async def child(number: int) -> list[Any]:
        here = current()
        return [here.run_id, here.job, here.input, here.attempt, here.parent]

    @job
    async def parent() -> list[list[Any]]:
        async def inside() -> list[Any]:
            return [current().run_id, current().job, current().parent]

        return [await run("inside", inside), await child.run(number=1)]

    async with TestQueue(jobs=[parent, child]) as queue:
        handle = await queue.jobs.parent.start()
        own, its = await handle.result()
        assert own == [handle.id, "parent", None]
        assert its[1:] == ["child", {"number": 1}, 1, handle.id]


async def test_progress_is_cheap_and_the_last_one_counts() -> None:
    @job
    async def handler() -> None:
        for done in range(20_000):
            progress(done + 1, 20_000, "rows")

    async with TestQueue(jobs=[handler]) as queue:
        handle = await queue.jobs.handler.start()
        await handle.result()
        assert (await handle.info()).progress == {"done": 20_000, "total": 20_000, "note": "rows"}


async def test_a_waiting_run_can_show_its_progress() -> None:
    @job
    async def handler() -> None:
        progress(3, 10)
        await sleep("1d")

    async with TestQueue(jobs=[handler]) as queue:
        handle = await queue.jobs.handler.start()
        await queue.advance("1s")
        assert (await handle.info()).progress == {"done": 3, "total": 10, "note": ""}


def test_wrong_calls_are_said_at_once() -> None:
    async def fetch() -> None: ...

    with pytest.raises(TypeError, match="name of a step"):
        run(fetch, fetch)  # type: ignore[call-overload]
    with pytest.raises(TypeError, match="passes a coroutine"):
        run("fetch", fetch())  # type: ignore[call-overload]
    with pytest.raises(TypeError, match="needs a function"):
        run("fetch", 5)  # type: ignore[call-overload]
