"""The same call or none: what a new attempt, a retry and a replay take of what is recorded."""

from __future__ import annotations

import asyncio
from collections import deque
from dataclasses import dataclass
from datetime import timedelta
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from taskrun import (
    Job,
    Queue,
    RunFailed,
    WaitTimeout,
    job,
    now,
    pipe,
    random,
    run,
    shell,
    sleep,
    uuid,
)
from taskrun.engine.executor.replay import digest_of_step
from taskrun.stores.base import Store
from taskrun.testing import TestQueue


async def test_a_new_attempt_takes_a_sleep_and_a_child_only_for_the_same_call(storage: Store) -> None:
    mails: list[str] = []
    charged = 0

    async def charge() -> None:
        nonlocal charged
        charged += 1
        if charged == 1:
            raise ValueError("card declined")

    @job
    async def mail(text: str) -> str:
        mails.append(text)
        return text

    @job(retry=1, backoff=1)
    async def order() -> tuple[float, str]:
        try:
            await run("charge", charge, retry=0)
        except ValueError:
            await mail.run(text="your card was declined")
            await sleep(1)
            raise
        began = now()
        await sleep("1h")
        return (now() - began).total_seconds(), await mail.run(text="thank you")

    async with TestQueue(jobs=[order, mail], storage=storage) as queue:
        handle = await queue.jobs.order.start()
        await queue.advance("2h")
        assert list(await handle.result()) == [3600.0, "thank you"]
        assert mails == ["your card was declined", "thank you"]


async def test_a_new_attempt_keeps_what_the_same_call_has_given(storage: Store) -> None:
    calls: list[str] = []
    broken = [True]

    async def fetch(url: str) -> str:
        calls.append(url)
        return url.upper()

    @job(retry=1, backoff=1)
    async def work() -> list[str]:
        found = [await run("fetch", fetch, "a"), await run("fetch", fetch, "b")]
        await sleep("1m")
        if broken.pop() if broken else False:
            raise ValueError("once")
        return [*found, await run("fetch", fetch, "c")]

    async with TestQueue(jobs=[work], storage=storage) as queue:
        handle = await queue.jobs.work.start()
        await queue.advance("1h")
        assert await handle.result() == ["A", "B", "C"]
        assert calls == ["a", "b", "c"]


async def test_a_step_whose_argument_came_out_otherwise_is_executed_anew(storage: Store) -> None:
    saved: list[str] = []
    drawn: list[str] = []

    async def check() -> None:
        if not drawn[1:]:
            raise ValueError("the first is refused")

    async def save(text: str) -> str:
        saved.append(text)
        return text

    @job(retry=1, backoff=1)
    async def work() -> str:
        try:
            await run("check", check, retry=0)
        except ValueError:
            pass
        drawn.append(str(uuid()))
        await run("save", save, drawn[-1])
        await run("check", check, retry=0)
        return drawn[-1]

    async with TestQueue(jobs=[work], storage=storage) as queue:
        handle = await queue.jobs.work.start()
        await queue.advance("1h")
        assert await handle.result() == drawn[1]
        assert drawn[0] != drawn[1]  # drawn after a failed step: the failure led to it
        assert saved == drawn


async def test_a_retry_draws_values_anew_that_were_drawn_after_a_failed_step(storage: Store) -> None:
    rates: list[float | None] = [None, 1.5]
    drawn: list[tuple[str, str]] = []

    async def ask() -> float:
        rate = rates.pop(0)
        if rate is None:
            raise ConnectionError("down")
        return rate

    @job(retry=0)
    async def order() -> None:
        before = str(uuid())
        try:
            rate = await run("ask", ask, retry=0)
        except ConnectionError:
            rate = 2.0
        drawn.append((before, str(uuid())))
        if rate == 2.0:
            raise ValueError("too dear")

    async with TestQueue(jobs=[order], storage=storage) as queue:
        failed = await queue.jobs.order.start()
        await queue.settle()
        assert await failed.status() == "failed"
        again = await failed.retry()
        await queue.settle()
        assert await again.status() == "succeeded"
    (first, second), (kept, fresh) = drawn
    assert kept == first and fresh != second


async def test_values_drawn_before_a_failed_step_are_kept(storage: Store) -> None:
    seen: list[Any] = []

    async def flaky() -> None:
        if len(seen) == 1:
            raise ValueError("once")

    @job(retry=1, backoff=1)
    async def work() -> None:
        seen.append((now(), random(), uuid()))
        await run("flaky", flaky, retry=0)

    # the job sets `retry` itself, so an error that has used up its step's retries is retried by it
    async with TestQueue(jobs=[work], storage=storage) as queue:
        await queue.jobs.work.start()
        await queue.advance("1m")
    assert len(seen) == 2
    assert seen[0] == seen[1]


@pytest.mark.parametrize("part", ["sleep", "function", "argument", "child", "topic"])
async def test_another_call_on_replay_of_the_same_attempt_is_said(storage: Store, part: str) -> None:
    door, gate = pipe("door"), pipe("gate")

    def one(n: int) -> int:
        return n

    def two(n: int) -> int:
        return n

    @job
    async def child(n: int) -> int:
        return n

    async def step(new: bool) -> None:
        if part == "sleep":
            await sleep("2h" if new else "1h")
        elif part == "function":
            await run("step", two if new else one, 1)
        elif part == "argument":
            await run("step", one, 2 if new else 1)
        elif part == "child":
            await child.run(n=2 if new else 1)
        else:
            try:
                await (gate if new else door).wait_for(timeout="1s")
            except WaitTimeout:
                pass

    def handler(new: bool) -> Job:
        @job(name="handler", retry=0)
        async def work() -> None:
            await step(new)
            await sleep("1d")

        return work

    queue = TestQueue(jobs=[handler(False), child], pipes=[door, gate], storage=storage)
    async with queue:
        handle = await queue.jobs.handler.start()
        await queue.advance("1m")
        later = queue.now
    async with TestQueue(jobs=[handler(True), child], pipes=[door, gate], storage=storage, start=later) as queue:
        await queue.advance("2d")
        left = await queue.get(handle.id)
        if part == "topic":  # another pipe is another name: a step of its own
            assert await left.status() == "succeeded"
            return
        with pytest.raises(RunFailed) as failure:
            await left.result()
        assert failure.value.error_type == "taskrun.NonDeterminismError"


async def test_after_a_failure_a_step_of_another_kind_is_one_of_its_own(storage: Store) -> None:
    attempts = 0

    @job
    async def thing() -> str:
        return "child"

    @job(retry=1, backoff=1)
    async def work() -> Any:
        nonlocal attempts
        attempts += 1
        if attempts == 1:
            await run("thing", lambda: "step")
            raise ValueError("once")
        return await thing.run()

    async with TestQueue(jobs=[work, thing], storage=storage) as queue:
        handle = await queue.jobs.work.start()
        await queue.advance("1h")
        assert await handle.result() == "child"


async def test_no_branch_is_handed_the_record_of_another_whatever_failed_before() -> None:
    stored: list[str] = []
    flaky = ["A1"]

    async def load(name: str) -> str:
        return name

    async def store(album: str) -> str:
        stored.append(album)
        return f"stored {album}"

    async def part(name: str) -> None:
        await run("load", load, name)
        if name in flaky:
            flaky.remove(name)
            raise ValueError(name)

    async def album(name: str) -> str:
        async with asyncio.TaskGroup() as group:
            for n in (1, 2):
                group.create_task(part(f"{name}{n}"))
        return str(await run("store", store, name))

    @job(backoff=1)
    async def library() -> list[str]:
        results = await asyncio.gather(album("A"), album("B"), return_exceptions=True)
        for result in results:
            if isinstance(result, BaseException):
                raise result
        return [str(result) for result in results]

    async with TestQueue(jobs=[library]) as queue:
        handle = await queue.jobs.library.start()
        await queue.advance("1m")
        assert await handle.result() == ["stored A", "stored B"]
        assert sorted(stored) == ["A", "B"]


async def test_tasks_that_a_step_body_makes_are_no_branches(storage: Store) -> None:
    async def body(n: int) -> int:
        return sum(await asyncio.gather(*(asyncio.sleep(0, m) for m in range(n))))

    async def branch(name: str) -> str:
        return str(await run("say", lambda: name))

    @job
    async def work() -> list[str]:
        await run("body", body, 3)
        await sleep("1h")
        return list(await asyncio.gather(branch("a"), branch("b")))

    async with TestQueue(jobs=[work], storage=storage, replay=True) as queue:
        handle = await queue.jobs.work.start()
        await queue.advance("1h")
        assert await handle.result() == ["a", "b"]
        assert {step.key for step in await handle.steps()} >= {"1/say", "2/say"}


async def test_the_loop_gets_its_task_factory_back() -> None:
    @job
    async def work() -> None: ...

    loop = asyncio.get_running_loop()
    before = loop.get_task_factory()
    async with Queue(jobs=[work]) as one, Queue(jobs=[work]) as two:
        assert loop.get_task_factory() is not before
        await asyncio.gather(one.jobs.work.run(), two.jobs.work.run())
    assert loop.get_task_factory() is before


# ---- events


@pytest.mark.parametrize(("sent", "found"), [({"who": "postman"}, {"who": "postman"}), ({"who": "thief"}, "nobody")])
async def test_a_predicate_judges_the_event_that_came_before_its_wait_was_replayed(
    storage: Store, sent: dict[str, str], found: Any
) -> None:
    door = pipe("door")
    ready = asyncio.Event()
    forever = asyncio.Event()

    async def slow() -> None:
        await forever.wait()

    @job(retry=0)
    async def guard() -> Any:
        await ready.wait()  # loads a model, opens a connection: no step
        waiting = door.wait_for(lambda event: event["who"] == "postman", timeout="1h")
        try:
            return (await asyncio.gather(waiting, run("slow", slow)))[0]
        except WaitTimeout:
            return "nobody"

    ready.set()
    async with TestQueue(jobs=[guard], pipes=[door], storage=storage) as queue:
        handle = await queue.jobs.guard.start()
        await queue.settle()
        later = queue.now
    ready.clear()
    async with TestQueue(jobs=[guard], pipes=[door], storage=storage, start=later) as queue:
        await queue.settle()
        await queue.pipes.door.send(**sent)
        await queue.settle()
        ready.set()
        await queue.settle()
        await queue.pipes.door.send(who="thief")
        forever.set()
        await queue.advance("2h")
        assert await (await queue.get(handle.id)).result() == found


async def test_an_event_that_a_predicate_has_refused_is_there_for_the_next_wait(storage: Store) -> None:
    door = pipe("door")

    @job(retry=0)
    async def work() -> list[Any]:
        found: list[Any] = []
        try:
            async with asyncio.timeout(0.05):
                await door.wait_for(lambda event: event["n"] == 9)
        except TimeoutError:
            found.append("gave up")
        found.append(await door.wait_for(timeout="1h"))
        return found

    async with TestQueue(jobs=[work], pipes=[door], storage=storage) as queue:
        handle = await queue.jobs.work.start()
        await queue.settle()
        await queue.pipes.door.send(n=1)
        await asyncio.sleep(0.1)
        await queue.advance("1m")
        assert await handle.result() == ["gave up", {"n": 1}]


# ---- places of steps


async def test_a_rolling_place_is_counted_when_the_body_begins(storage: Store) -> None:
    starts: list[float] = []

    @job(retry=0)
    async def api() -> None:
        await run("call", lambda: starts.append(queue.clock.now()), concurrency="1/s")

    @job(retry=0, priority=9)
    async def heavy() -> None:
        await run("hog", hog.wait)

    hog = asyncio.Event()
    async with TestQueue(jobs=[api, heavy], storage=storage, concurrency=1) as queue:
        handles = [await queue.jobs.api.start() for _ in range(4)]
        await queue.settle()
        await queue.jobs.heavy.start()  # takes the only slot when the next one waits for its place
        await queue.advance(3)
        hog.set()
        await queue.advance(10)
        assert [await handle.status() for handle in handles] == ["succeeded"] * 4
        gaps = [after - before for before, after in pairwise(starts)]
        assert min(gaps) >= 1


async def test_a_replayed_run_parks_though_a_step_was_cut_off(storage: Store) -> None:
    """So that its child gets the only slot."""
    woken = asyncio.Event()

    async def slow() -> None:
        await asyncio.Event().wait()

    @job(retry=0)
    async def child() -> str:
        await sleep("1h")
        await run("last", lambda: None)
        return "child done"

    @job(retry=0)
    async def parent() -> list[str]:
        async def cut() -> str:
            try:
                async with asyncio.timeout(0.02):
                    await run("slow", slow)
            except TimeoutError:
                woken.set()
            return "cut"

        return list(await asyncio.gather(cut(), child.run()))

    async with TestQueue(jobs=[parent, child], storage=storage, concurrency=1) as queue:
        handle = await queue.jobs.parent.start()
        await woken.wait()
        await queue.settle()
        await handle.pause()
        await queue.settle()
        woken.clear()
        await handle.resume()
        await woken.wait()
        await queue.advance("2h")
        assert await handle.result() == ["cut", "child done"]


# ---- digests


@dataclass
class Rates:
    values: deque[int]


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        (("f", (1, "a"), {}), ("f", (1, "a"), {}), True),
        (("f", (1,), {}), ("f", (2,), {}), False),
        (("f", ({"b": 1, "a": 2},), {}), ("f", ({"a": 2, "b": 1},), {}), True),
        (("f", ({"x", "y", "z"},), {}), ("f", ({"z", "y", "x"},), {}), True),
        (("f", (object(),), {}), ("f", (object(),), {}), True),  # cannot be compared
        (("f", (object(), 1), {}), ("f", (object(), 1), {}), True),
        (("f", (object(), 1), {}), ("f", (object(), 2), {}), False),
        (("f", ({"by": object(), "rate": 1},), {}), ("f", ({"by": object(), "rate": 2},), {}), False),
        (("f", (len,), {}), ("f", (max,), {}), False),
        (("f", (Path("a"),), {}), ("f", (Path("a"),), {}), True),
        (("f", (Path("a"),), {}), ("f", (Path("b"),), {}), False),
        (("f", (Rates(deque([1])),), {}), ("f", (Rates(deque([1])),), {}), True),
        (("f", (Rates(deque([1])),), {}), ("f", (Rates(deque([2])),), {}), False),
        (("f", (timedelta(1),), {}), ("f", (timedelta(2),), {}), False),
    ],
)
def test_calls_are_compared_as_far_as_they_can_be(one: Any, other: Any, same: bool) -> None:
    from taskrun.declarations.calls import StepCall
    from taskrun.model.records import StepKind

    def digest(call: Any) -> str:
        _, args, kwargs = call
        return digest_of_step(StepCall(kind=StepKind.RUN, name="s", fn=digest, args=args, kwargs=kwargs))

    assert (digest(one) == digest(other)) is same


async def test_a_command_is_compared_by_its_words(storage: Store) -> None:
    broken = [True]

    @job(retry=1, backoff=1)
    async def work() -> str:
        text = "one" if broken else "two"
        done = await shell(["echo", text], name="say")
        if broken:
            broken.pop()
            raise ValueError("once")
        return str(done.stdout).strip()

    async with TestQueue(jobs=[work], storage=storage) as queue:
        handle = await queue.jobs.work.start()
        await queue.advance("1m")
        assert await handle.result() == "two"


@pytest.mark.skipif(not hasattr(asyncio, "eager_task_factory"), reason="eager tasks are of Python 3.12")
async def test_eager_tasks_are_branches_by_creation_too(storage: Store) -> None:
    async def branch(name: str) -> str:
        first = await run("say", lambda: name)
        return str(await run("say", lambda: first))

    @job
    async def work() -> list[str]:
        await sleep("1h")
        return list(await asyncio.gather(branch("a"), branch("b")))

    loop = asyncio.get_running_loop()
    loop.set_task_factory(getattr(asyncio, "eager_task_factory"))  # noqa: B009  # unknown to 3.11
    async with TestQueue(jobs=[work], storage=storage, replay=True) as queue:
        handle = await queue.jobs.work.start()
        await queue.advance("1h")
        assert await handle.result() == ["a", "b"]
        keys = [step.key for step in await handle.steps() if step.kind == "run"]
        assert sorted(keys) == ["1/say", "1/say#2", "2/say", "2/say#2"]
    loop.set_task_factory(None)


async def test_a_child_that_is_started_and_one_that_is_run_are_two_calls(storage: Store) -> None:
    attempts = 0

    @job
    async def child(x: int) -> int:
        return x * 100

    @job(retry=1, backoff=1)
    async def work() -> Any:
        nonlocal attempts
        attempts += 1
        if attempts == 1:
            await child.start(x=1)
            raise ValueError("once")
        return await child.run(x=1)

    async with TestQueue(jobs=[work, child], storage=storage) as queue:
        handle = await queue.jobs.work.start()
        await queue.advance("1m")
        assert await handle.result() == 100
