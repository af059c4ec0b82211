"""`run`, `start` and `cancel` of a job, and how a run can end."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import Any, TypedDict

import pytest

from taskrun import (
    DefinitionError,
    InputInvalid,
    JobNotFound,
    NotBound,
    RunCancelled,
    RunDiscarded,
    RunFailed,
    job,
    run,
    sleep,
)
from taskrun.stores.base import Store
from taskrun.testing import TestQueue


@dataclass
class Song:
    title: str
    seconds: float = 180.0


@dataclass
class Tags:
    title: str


class Plain(TypedDict):
    title: str


@job
async def double(number: int) -> int:
    return number * 2


@job(retry=0)
async def broken() -> None:
    raise LookupError("nothing here")


@job
async def sleeper(name: str = "one") -> str:
    await sleep("1h")
    return name


async def test_run_returns_what_the_handler_returns(storage: Store) -> None:
    async with TestQueue(jobs=[double], storage=storage) as queue:
        assert await queue.jobs.double.run(number=4) == 8


async def test_a_job_is_found_by_attribute_and_by_item() -> None:
    async with TestQueue(jobs=[double]) as queue:
        assert await queue.jobs["double"].run(number=1) == 2
        assert "double" in queue.jobs
        with pytest.raises(JobNotFound, match=r'^no job "dubble" \(there are: double\)$'):
            queue.jobs["dubble"]
        with pytest.raises(JobNotFound, match="dubble"):
            _ = queue.jobs.dubble


async def test_whoever_asks_for_a_name_that_is_not_there_as_of_any_object_or_mapping_gets_the_default() -> None:
    async with TestQueue(jobs=[double]) as queue:
        assert not hasattr(queue.jobs, "dubble")
        assert getattr(queue.pipes, "dubble", 1) == 1
        assert queue.jobs.get("dubble") is None


async def test_whoever_stops_waiting_for_a_run_that_goes_on_is_forgotten() -> None:
    async with TestQueue(jobs=[sleeper]) as queue:
        waiting = asyncio.create_task(queue.jobs.sleeper.run())
        hasty = asyncio.create_task(queue.jobs.sleeper.run())
        await asyncio.sleep(0)
        hasty.cancel()  # before the trigger is in the journal
        await queue.settle()
        waiting.cancel()
        await queue.settle()
        assert queue.core._waiters.ids() == []


async def test_input_may_be_fields_or_one_mapping() -> None:
    async with TestQueue(jobs=[double]) as queue:
        assert await queue.jobs.double.run({"number": 3}) == 6
        with pytest.raises(TypeError):
            await queue.jobs.double.run({"number": 3}, number=4)


async def test_a_model_parameter_is_the_input_object() -> None:
    @job
    async def describe(song: Song) -> str:
        return f"{song.title} {song.seconds:g}"

    async with TestQueue(jobs=[describe]) as queue:
        assert await queue.jobs.describe.run(Song("Yesterday", 125.0)) == "Yesterday 125"
        assert await queue.jobs.describe.run(title="Help!") == "Help! 180"


async def test_an_output_comes_back_as_the_type_that_the_handler_says() -> None:
    @job
    async def tags() -> Tags:
        return Tags("Help!")

    @job
    async def plain() -> Plain:
        return {"title": "Help!"}

    async with TestQueue(jobs=[tags, plain]) as queue:
        assert await queue.jobs.tags.run() == Tags("Help!")
        assert await queue.jobs.plain.run() == {"title": "Help!"}


async def test_bad_input_names_every_bad_field_and_records_nothing() -> None:
    async with TestQueue(jobs=[double]) as queue:
        with pytest.raises(InputInvalid) as caught:
            await queue.jobs.double.run(number="four", extra=1)
        assert {path for path, _ in caught.value.problems} == {"number", "extra"}
        assert [entry async for entry in queue.runs()] == []


async def test_bad_output_fails_the_attempt_with_output_invalid() -> None:
    @job(retry=0)
    async def wrong() -> int:
        return "four"  # type: ignore[return-value]

    async with TestQueue(jobs=[wrong]) as queue:
        with pytest.raises(RunFailed) as caught:
            await queue.jobs.wrong.run()
        assert caught.value.error_type == "taskrun.OutputInvalid"


async def test_a_failed_run_says_what_and_where() -> None:
    async with TestQueue(jobs=[broken]) as queue:
        handle = await queue.jobs.broken.start()
        with pytest.raises(RunFailed, match="nothing here") as caught:
            await handle.result()
        error = caught.value
        assert (error.run_id, error.error_type, error.message) == (handle.id, "LookupError", "nothing here")
        assert 'raise LookupError("nothing here")' in error.traceback
        assert await handle.status() == "failed"


async def test_start_returns_before_the_run_ends(storage: Store) -> None:
    async with TestQueue(jobs=[sleeper], storage=storage) as queue:
        handle = await queue.jobs.sleeper.start(name="two")
        assert (handle.job, handle.input) == ("sleeper", {"name": "two"})
        await queue.settle()
        assert await handle.status() == "waiting"
        await queue.advance("1h")
        assert await handle.result() == "two"


async def test_cancel_of_a_job_ends_the_runs_with_exactly_that_input(storage: Store) -> None:
    async with TestQueue(jobs=[sleeper], storage=storage) as queue:
        same = [await queue.jobs.sleeper.start() for _ in range(2)]
        other = await queue.jobs.sleeper.start(name="other")
        await queue.settle()
        assert await queue.jobs.sleeper.cancel(name="one") == 2
        await queue.settle()
        assert [await handle.status() for handle in [*same, other]] == ["cancelled", "cancelled", "waiting"]
        assert await queue.jobs.sleeper.cancel(name="one") == 0


async def test_a_cancelled_run_says_why() -> None:
    async with TestQueue(jobs=[sleeper]) as queue:
        handle = await queue.jobs.sleeper.start()
        await handle.cancel("not needed")
        with pytest.raises(RunCancelled) as caught:
            await handle.result()
        assert (caught.value.run_id, caught.value.reason) == (handle.id, "not needed")


async def test_a_discarded_run_says_so() -> None:
    @job(throttle="1m")
    async def seldom() -> int:
        return 1

    async with TestQueue(jobs=[seldom]) as queue:
        assert await queue.jobs.seldom.run() == 1
        with pytest.raises(RunDiscarded):
            await queue.jobs.seldom.run()


async def test_children_are_runs_with_a_parent(storage: Store) -> None:
    @job
    async def parent() -> int:
        return sum(await asyncio.gather(double.run(number=1), double.run(number=2)))

    async with TestQueue(jobs=[parent, double], storage=storage) as queue:
        handle = await queue.jobs.parent.start()
        assert await handle.result() == 6
        children = [entry async for entry in queue.runs(job="double")]
        assert [(await child.info()).parent for child in children] == [handle.id, handle.id]


async def test_a_child_is_never_started_twice(storage: Store) -> None:
    @job
    async def parent() -> int:
        started = await double.start(number=21)
        await sleep("1d")
        return int(await started.result())

    async with TestQueue(jobs=[parent, double], storage=storage) as queue:
        handle = await queue.jobs.parent.start()
        await queue.advance("1d")
        assert await handle.result() == 42
        assert len([entry async for entry in queue.runs(job="double")]) == 1


async def test_the_failure_of_a_child_reaches_its_parent() -> None:
    @job
    async def parent() -> str:
        try:
            await broken.run()
        except RunFailed as error:
            return f"{error.error_type}: {error.message}"
        return "fine"

    async with TestQueue(jobs=[parent, broken]) as queue:
        assert await queue.jobs.parent.run() == "LookupError: nothing here"


async def test_a_failed_child_starts_afresh_with_the_next_attempt_of_its_parent() -> None:
    seen: list[str] = []

    @job(retry=0)
    async def flaky() -> int:
        seen.append("try")
        if len(seen) < 2:
            raise OSError("no")
        return 5

    @job(retry=1)
    async def parent() -> int:
        return int(await flaky.run())

    async with TestQueue(jobs=[parent, flaky]) as queue:
        handle = await queue.jobs.parent.start()
        await queue.advance("1m")
        assert await handle.result() == 5
        assert len([entry async for entry in queue.runs(job="flaky")]) == 2


async def test_an_unbound_job_says_that_it_needs_a_queue() -> None:
    for call in (double.run, double.start, double.cancel):
        with pytest.raises(NotBound, match=r"queue\.jobs\.double"):
            call(number=1)


async def test_calling_a_job_object_plainly_executes_its_handler() -> None:
    @job
    async def both(number: int) -> int:
        inner = await double.run(number=number)
        return int(await run("inc", lambda: inner + 1))

    assert await both(3) == 7
    assert await double.fn(3) == 6


def test_two_jobs_of_one_name_are_refused() -> None:
    def twin() -> Any:
        @job(name="twin")
        async def handler() -> None: ...

        return handler

    with pytest.raises(DefinitionError, match="twin"):
        TestQueue(jobs=[twin(), twin()])


def test_a_key_that_differs_from_the_name_is_refused() -> None:
    with pytest.raises(DefinitionError, match="dbl"):
        TestQueue(jobs={"dbl": double})
