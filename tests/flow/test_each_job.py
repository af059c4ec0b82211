"""The job `each`: one child for each input, at most so many at once, whatever crashes."""

from __future__ import annotations

import asyncio
from typing import Any

import msgspec
import pytest

from taskrun import Fatal, RunCancelled, RunFailed, job, sleep
from taskrun.builtins.each import PART, Counts, each
from taskrun.daemon.clients.each_inputs import EachInput, check_inputs, with_inputs
from taskrun.engine.api.run import Run
from taskrun.engine.core.admit import Trigger, new_id
from taskrun.model.errors import InputInvalid
from taskrun.stores.base import Store
from taskrun.testing import TestQueue

did: list[int] = []
bad: set[int] = set()
running = 0
most = 0


@pytest.fixture(autouse=True)
def _nothing_done() -> None:
    global running, most
    did.clear()
    bad.clear()
    running = most = 0


@job(retry=0)
async def work(number: int, lasts: float = 0) -> int:
    global running, most
    did.append(number)
    running += 1
    most = max(most, running)
    try:
        await sleep(lasts)
    finally:
        running -= 1
    if number in bad:
        raise ValueError(f"{number} is bad")
    return number


async def started(queue: TestQueue, inputs: list[dict[str, Any]], **options: Any) -> Run:
    """Starts a run of `each` as the daemon does."""
    want = EachInput([msgspec.Raw(msgspec.json.encode(given)) for given in inputs], **options)
    await check_inputs(queue.core, "work", want)
    name, text, steps = with_inputs("work", want, queue.clock.now())
    prepared = await queue.core.prepare(name, text)
    run = await queue.core.trigger(Trigger(prepared=prepared, id=new_id(), steps=steps))
    return queue.handle(run)


def numbers(count: int, **fields: Any) -> list[dict[str, Any]]:
    return [{"number": number, **fields} for number in range(count)]


@pytest.mark.parametrize("replay", [False, True])
@pytest.mark.parametrize("count", [1, 7, 2 * PART + 3])
async def test_each_input_has_one_child(storage: Store, replay: bool, count: int) -> None:
    async with TestQueue(jobs=[each, work], storage=storage, replay=replay and count < PART) as queue:
        run = await started(queue, numbers(count))
        assert await run.result() == {"total": count, "succeeded": count, "failed": 0, "cancelled": 0, "missing": 0}
        assert sorted(set(did)) == list(range(count))
        children = [one async for one in queue.runs(job="work", limit=10_000)]
        assert sorted(one.input["number"] for one in children) == list(range(count))
        info = await run.info()
        assert info.progress is not None
        assert (info.progress.done, info.progress.total, info.progress.note) == (count, count, f"{count}/{count}")


async def test_at_most_so_many_run_at_once(storage: Store) -> None:
    async with TestQueue(jobs=[each, work], storage=storage) as queue:
        run = await started(queue, numbers(10, lasts=60), max=3)
        await queue.advance("1s")
        assert (len(did), running) == (3, 3)
        await queue.advance("60s")
        assert (len(did), running) == (6, 3)
        await queue.advance("1h")
        assert await run.status() == "succeeded"
        assert most == 3


async def test_it_fails_when_a_child_has_and_its_output_says_how_many(storage: Store) -> None:
    bad.update({2, 4})
    async with TestQueue(jobs=[each, work], storage=storage) as queue:
        run = await started(queue, numbers(6))
        with pytest.raises(RunFailed) as caught:
            await run.result()
        assert (caught.value.error_type, caught.value.message) == ("taskrun.Fatal", "2 of 6 runs failed")
        assert (await run.info()).output == {"total": 6, "succeeded": 4, "failed": 2, "cancelled": 0, "missing": 0}


async def test_a_cancelled_child_counts_apart(storage: Store) -> None:
    async with TestQueue(jobs=[each, work], storage=storage) as queue:
        run = await started(queue, numbers(3, lasts=60))
        await queue.advance(1)
        child = await anext(aiter(queue.runs(job="work")))
        await child.cancel()
        await queue.advance("2m")
        assert await run.status() == "failed"
        assert (await run.info()).output == {"total": 3, "succeeded": 2, "failed": 0, "cancelled": 1, "missing": 0}


async def test_after_so_many_failures_no_further_child_starts_and_a_retry_does_the_rest(storage: Store) -> None:
    bad.update({1, 2})
    async with TestQueue(jobs=[each, work], storage=storage) as queue:
        run = await started(queue, numbers(6), max=1, fail_after=2)
        with pytest.raises(RunFailed, match="2 of 6 runs failed, 3 not started"):
            await run.result()
        assert did == [0, 1, 2]
        assert (await run.info()).output == {"total": 6, "succeeded": 1, "failed": 2, "cancelled": 0, "missing": 3}
        bad.clear()
        again = await run.retry()
        assert await again.result() == {"total": 6, "succeeded": 6, "failed": 0, "cancelled": 0, "missing": 0}
        assert sorted(did) == [0, 1, 1, 2, 2, 3, 4, 5]


async def test_cancelling_it_ends_its_children_and_a_retry_keeps_those_that_were_done(storage: Store) -> None:
    async with TestQueue(jobs=[each, work], storage=storage) as queue:
        run = await started(queue, [{"number": 0}, *({"number": n, "lasts": 60} for n in range(1, 4))], max=2)
        await queue.advance(1)
        assert await run.cancel()
        with pytest.raises(RunCancelled):
            await run.result()
        states = {one.input["number"]: await one.status() async for one in queue.runs(job="work")}
        assert states == {0: "succeeded", 1: "cancelled", 2: "cancelled"}
        again = await run.retry()
        await queue.advance("5m")
        assert (await again.result())["succeeded"] == 4
        assert did.count(0) == 1


async def test_a_restart_in_the_middle_repeats_no_child(storage: Store) -> None:
    bad.add(1)
    async with TestQueue(jobs=[each, work], storage=storage) as queue:
        run = await started(queue, numbers(20, lasts=10), max=4)
        await queue.advance("25s")
    for _ in range(3):
        async with TestQueue(jobs=[each, work], storage=storage, start=queue.clock.now()) as queue:
            await queue.advance("5s")
    async with TestQueue(jobs=[each, work], storage=storage, start=queue.clock.now()) as queue:
        await queue.advance("10m")
        assert (await (await queue.get(run.id)).info()).output == {
            "total": 20,
            "succeeded": 19,
            "failed": 1,
            "cancelled": 0,
            "missing": 0,
        }
        assert len([one async for one in queue.runs(job="work", limit=100)]) == 20


async def test_a_parked_one_can_be_taken_down() -> None:
    async with TestQueue(jobs=[each, work], resident=0) as queue:
        run = await started(queue, numbers(3, lasts=60))
        await queue.advance(1)
        assert run.id not in queue.executor.contexts
        await queue.advance("2m")
        assert await run.status() == "succeeded"


async def test_wrong_inputs_are_all_named_and_nothing_is_recorded() -> None:
    async with TestQueue(jobs=[each, work]) as queue:
        with pytest.raises(InputInvalid) as caught:
            await started(queue, [{"number": 1}, {"number": "x"}, {}])
        assert [path for path, _ in caught.value.problems] == ["[1].number", "[2].number"]
        assert [one async for one in queue.runs()] == []


async def test_it_tells_when_it_has_no_inputs() -> None:
    async with TestQueue(jobs=[each, work]) as queue:
        with pytest.raises(RunFailed, match="start JOB --each records them"):
            await queue.jobs.each.run(job="work", total=3)


@pytest.mark.parametrize(
    ("ends", "told"),
    [
        ([("succeeded", 60.0)] * 17, "17/40 · 2m 18s left"),
        ([("succeeded", 60.0)] * 15 + [("failed", 60.0)] * 2, "17/40 · 2 failed · 2m 18s left"),
        ([("succeeded", 0.0)] * 17, "17/40"),
        ([("cancelled", 1.0)] * 40, "40/40 · 40 cancelled"),
    ],
)
def test_what_stands_beside_the_bar(ends: list[tuple[str, float]], told: str) -> None:
    counts = Counts(40, 10)
    for end, seconds in ends:
        counts.add(end, seconds)
    assert counts.told() == told


@pytest.mark.parametrize("cancelled", [False, True])
async def test_once_it_has_ended_nothing_says_how_long_it_will_take(
    monkeypatch: pytest.MonkeyPatch, cancelled: bool
) -> None:
    monkeypatch.setitem(Counts.add.__globals__, "ANSWERED", -1)
    bad.update({0, 1})
    async with TestQueue(jobs=[each, work]) as queue:
        run = await started(queue, [*numbers(2), *numbers(4, lasts=60)], max=2, fail_after=None if cancelled else 2)
        await queue.advance(1)
        if cancelled:
            going = (await run.info()).progress
            assert going is not None
            assert going.note == "2/6 · 2 failed · 1s left"
            await run.cancel()
            await queue.settle()
        progress = (await run.info()).progress
        assert progress is not None
        assert progress.note == "2/6 · 2 failed"


async def test_asyncio_wait_does_nothing_but_wait_unless_it_has_a_timeout() -> None:
    @job
    async def waiting(timeout: float | None = None) -> int:
        done, _ = await asyncio.wait([asyncio.ensure_future(sleep(60))], timeout=timeout)
        return len(done)

    async with TestQueue(jobs=[waiting], resident=0) as queue:
        bare, timed = await queue.jobs.waiting.start(), await queue.jobs.waiting.start(timeout=1000)
        await queue.advance(1)
        assert [run.id in queue.executor.contexts for run in (bare, timed)] == [False, True]
        await queue.advance(60)
        assert await bare.result() == 1


async def test_a_fatal_error_may_leave_an_output(storage: Store) -> None:
    @job
    async def partly() -> None:
        raise Fatal("only half", output={"done": 5})

    async with TestQueue(jobs=[partly], storage=storage) as queue:
        run = await queue.jobs.partly.start()
        with pytest.raises(RunFailed, match="only half"):
            await run.result()
        info = await run.info()
        assert (info.status, info.output, info.attempt) == ("failed", {"done": 5}, 1)
