"""The handle of a run, and how a queue finds runs."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime
from typing import Any

import pytest

from taskrun import RunCancelled, RunNotFound, current, job, log, progress, run, sleep
from taskrun.stores.base import Store
from taskrun.testing import TestQueue


@job(retry=1, backoff="1m")
async def worker(name: str, fail: int = 0) -> str:
    progress(1, 2, "half")
    log.info("begins %s", name)
    await run("think", asyncio.sleep, 0)
    await sleep("1s")
    if fail:
        raise ValueError(name)
    return name


async def test_info_has_everything_that_a_screen_shows(storage: Store) -> None:
    @job
    async def parent() -> str:
        return str(await worker.run(name="a"))

    async with TestQueue(jobs=[parent, worker], storage=storage) as queue:
        handle = await queue.jobs.parent.start()
        await queue.advance("1m")
        info = await handle.info()
        assert (info.id, info.job, info.status, info.output) == (handle.id, "parent", "succeeded", "a")
        assert info.created_at and info.started_at and info.ended_at
        [child] = info.children
        assert (child.job, child.parent, child["output"]) == ("worker", handle.id, "a")
        its = await (await queue.get(child.id)).info()
        assert its.progress == {"done": 1, "total": 2, "note": "half"}
        assert [(step.key, step.kind, step.status) for step in its.steps] == [
            ("think", "run", "succeeded"),
            ("sleep", "sleep", "succeeded"),
        ]


async def test_the_error_of_a_failed_run_is_in_its_info() -> None:
    async with TestQueue(jobs=[worker]) as queue:
        handle = await queue.jobs.worker.start(name="a", fail=1)
        await queue.advance("1h")
        info = await handle.info()
        assert (info.status, info.attempt) == ("failed", 2)
        assert (info.error.type, info.error.message) == ("ValueError", "a")
        assert "raise ValueError(name)" in info.error.traceback


async def test_events_are_told_past_and_then_live_to_the_end() -> None:
    async with TestQueue(jobs=[worker]) as queue:
        handle = await queue.jobs.worker.start(name="a", fail=1)
        await queue.advance("30s")
        told: list[str] = []

        async def listen() -> None:
            async for event in handle.events():
                told.append(event.kind)

        listening = asyncio.create_task(listen())
        await queue.settle()
        assert told == ["trigger", "start", "error"]
        await queue.advance("1h")
        await asyncio.wait_for(listening, 5)
        assert told == ["trigger", "start", "error", "error", "failure", "settled"]
        assert [event.kind async for event in handle.events()] == told


async def test_each_failed_attempt_is_told_once_although_not_all_of_their_errors_are_kept() -> None:
    @job(retry=44, backoff=1)
    async def fails() -> None:
        raise ValueError(f"no {current().attempt}")

    async with TestQueue(jobs=[fails]) as queue:
        handle = await queue.jobs.fails.start()
        live: list[tuple[int, str]] = []

        async def listen() -> None:
            async for event in handle.events():
                if event.kind == "error":
                    live.append((event.attempt, str(event.error)))

        listening = asyncio.create_task(listen())
        await queue.advance("1h")
        await asyncio.wait_for(listening, 5)
        assert live == [(attempt, f"no {attempt}") for attempt in range(1, 46)]
        past = [event for event in [event async for event in handle.events()] if event.kind == "error"]
        assert [event.attempt for event in past] == [*range(1, 46)]
        assert [event.attempt for event in past if event.error is None] == [*range(11, 25)]
        assert [(one.attempt, one.left_out) for one in (await handle.info()).failures[9:11]] == [(10, 0), (25, 14)]


async def test_the_log_is_told_past_and_then_live_to_the_end() -> None:
    async with TestQueue(jobs=[worker]) as queue:
        handle = await queue.jobs.worker.start(name="a")
        lines: list[str] = []

        async def follow() -> None:
            async for line in handle.log():
                lines.append(line.text)

        following = asyncio.create_task(follow())
        await queue.advance("1m")
        await asyncio.wait_for(following, 5)
        assert lines == ["INFO begins a"]


async def test_a_result_that_takes_too_long_is_a_timeout_error_and_the_run_goes_on() -> None:
    @job
    async def handler() -> str:
        await sleep("1h")
        return "late"

    async with TestQueue(jobs=[handler]) as queue:
        handle = await queue.jobs.handler.start()
        with pytest.raises(TimeoutError):
            await handle.result(timeout=0.01)
        await queue.advance("1h")
        assert await handle.result() == "late"


async def test_get_of_an_unknown_id_is_run_not_found(storage: Store) -> None:
    async with TestQueue(jobs=[worker], storage=storage) as queue:
        with pytest.raises(RunNotFound):
            await queue.get("nothing")


async def found(runs: Any) -> list[str]:
    return [handle.id async for handle in runs]


async def test_runs_are_found_newest_first_and_by_filters(storage: Store) -> None:
    @job
    async def other() -> None: ...

    async with TestQueue(jobs=[worker, other], storage=storage, start=datetime(2026, 1, 1, tzinfo=UTC)) as queue:
        first = await queue.jobs.worker.start(name="first")
        await queue.advance("1h")
        second = await queue.jobs.other.start()
        await queue.advance("1h")
        third = await queue.jobs.worker.start(name="third")
        await queue.settle()
        assert await found(queue.runs()) == [third.id, second.id, first.id]
        assert await found(queue.runs(job="worker")) == [third.id, first.id]
        assert await found(queue.runs(status="succeeded")) == [second.id, first.id]
        assert await found(queue.runs(status=["waiting", "failed"])) == [third.id]
        assert await found(queue.runs(since="90m")) == [third.id, second.id]
        assert await found(queue.runs(since=datetime(2026, 1, 1, 1, 30, tzinfo=UTC))) == [third.id]
        assert await found(queue.runs(limit=1)) == [third.id]
        with pytest.raises(ValueError, match="sleeping"):
            await found(queue.runs(status="sleeping"))


async def test_runs_are_read_by_the_page(storage: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("taskrun.engine.api.queue.PAGE", 2)
    async with TestQueue(jobs=[worker], storage=storage) as queue:
        started = [(await queue.jobs.worker.start(name=f"{n}")).id for n in range(4)]
        newest = started[::-1]
        assert await found(queue.runs()) == newest
        for limit in range(6):
            assert await found(queue.runs(limit=limit)) == newest[:limit]


async def test_a_found_run_reads_its_output_as_its_job_says(storage: Store) -> None:
    @job
    async def when() -> datetime:
        return datetime(2026, 1, 1, tzinfo=UTC)

    async with TestQueue(jobs=[when], storage=storage) as queue:
        handle = await queue.jobs.when.start()
        await handle.result()
    async with TestQueue(jobs=[when], storage=storage) as queue:
        assert await (await queue.get(handle.id)).result() == datetime(2026, 1, 1, tzinfo=UTC)


async def test_handles_of_one_run_are_equal() -> None:
    async with TestQueue(jobs=[worker]) as queue:
        handle = await queue.jobs.worker.start(name="a")
        assert await queue.get(handle.id) == handle
        assert len({handle, await queue.get(handle.id)}) == 1


async def test_ready_is_awaited_by_others_and_passes_with_the_start() -> None:
    queue = TestQueue(jobs=[worker])
    waiting = asyncio.ensure_future(queue.ready)
    await asyncio.sleep(0)
    assert not waiting.done()
    await queue.start()
    await asyncio.wait_for(waiting, 5)
    await queue.close()


async def test_an_ended_run_has_its_result_however_little_patience_there_is(storage: Store) -> None:
    async with TestQueue(jobs=[worker], storage=storage) as queue:
        handle = await queue.jobs.worker.start(name="a")
        with pytest.raises(TimeoutError):
            await handle.result(timeout=0)
        await queue.advance("1m")
        assert await handle.result(timeout=0) == "a"


async def test_text_with_half_a_surrogate_pair_is_taken_as_far_as_it_goes(storage: Store) -> None:
    async with TestQueue(jobs=[worker], storage=storage) as queue:
        handle = await queue.jobs.worker.start(name="a")
        assert await handle.cancel("no \udce9") is True
        with pytest.raises(RunCancelled, match=r"no \\udce9"):
            await handle.result()
        with pytest.raises(RunNotFound):
            await queue.get("\udce9")


async def test_a_field_may_be_called_self(storage: Store) -> None:
    @job
    async def takes(**fields: int) -> dict[str, int]:
        return fields

    @job
    async def asks() -> dict[str, int]:
        return dict(await takes.run(self=1))

    async with TestQueue(jobs=[takes, asks], storage=storage) as queue:
        assert await queue.jobs.takes.run(self=1) == await queue.jobs.asks.run() == {"self": 1}
