"""Hooks and listeners: in order, after the journal has it, at most once; one that raises leaves the run alone."""

from __future__ import annotations

import asyncio
import logging
from contextlib import suppress

import pytest

from taskrun import Event, JournalUnavailable, Queue, job, run, sleep
from taskrun.declarations.options import Options
from taskrun.stores.base import Store
from taskrun.testing import TestQueue


class Diary:
    """Writes down the events that it is called with."""

    def __init__(self) -> None:
        self.events: list[Event] = []

    def __call__(self, event: Event) -> None:
        self.events.append(event)

    @property
    def kinds(self) -> list[str]:
        return [event.kind for event in self.events]

    def hooks(self) -> Options:
        return {
            "on_trigger": self,
            "on_start": self,
            "on_success": self,
            "on_failure": self,
            "on_error": self,
            "on_cancel": self,
            "on_settled": self,
        }


async def test_a_success_is_trigger_start_success_settled(storage: Store) -> None:
    diary = Diary()

    @job(**diary.hooks())
    async def handler(number: int) -> int:
        return number + 1

    async with TestQueue(jobs=[handler], storage=storage) as queue:
        handle = await queue.jobs.handler.start(number=1)
        await queue.settle()
        assert diary.kinds == ["trigger", "start", "success", "settled"]
        assert {(event.run_id, event.job) for event in diary.events} == {(handle.id, "handler")}
        assert diary.events[0].input == {"number": 1}
        assert diary.events[2].output == diary.events[3].output == 2


async def test_a_failure_tells_every_failed_attempt(storage: Store) -> None:
    diary = Diary()

    options: Options = {"retry": 1, "backoff": "1m", **diary.hooks()}

    @job(**options)
    async def handler() -> None:
        raise LookupError("no")

    async with TestQueue(jobs=[handler], storage=storage) as queue:
        await queue.jobs.handler.start()
        await queue.advance("1h")
        assert diary.kinds == ["trigger", "start", "error", "error", "failure", "settled"]
        assert [event.attempt for event in diary.events if event.kind == "error"] == [1, 2]
        assert all(isinstance(event.error, LookupError) for event in diary.events[2:])


async def test_a_cancel_tells_its_reason() -> None:
    diary = Diary()

    @job(**diary.hooks())
    async def handler() -> None:
        await sleep("1h")

    async with TestQueue(jobs=[handler]) as queue:
        handle = await queue.jobs.handler.start()
        await queue.settle()
        await handle.cancel("enough")
        await queue.settle()
        assert diary.kinds == ["trigger", "start", "cancel", "settled"]
        assert [event.reason for event in diary.events[2:]] == ["enough", "enough"]


async def test_a_replay_is_no_second_start(storage: Store) -> None:
    diary = Diary()

    @job(**diary.hooks())
    async def handler() -> None:
        await sleep("1d")

    async with TestQueue(jobs=[handler], storage=storage) as queue:
        await queue.jobs.handler.start()
        await queue.advance("1h")
        later = queue.now
    async with TestQueue(jobs=[handler], storage=storage, start=later) as queue:
        await queue.advance("1d")
    assert diary.kinds == ["trigger", "start", "success", "settled"]


async def test_on_trigger_may_be_awaited_before_the_run_starts() -> None:
    order: list[str] = []

    async def on_trigger(event: Event) -> None:
        for _ in range(20):
            await asyncio.sleep(0)
        order.append("trigger")

    @job(on_trigger=on_trigger)
    async def handler() -> None:
        order.append("handler")

    async with TestQueue(jobs=[handler]) as queue:
        await queue.jobs.handler.run()
    assert order == ["trigger", "handler"]


async def test_no_other_hook_holds_the_run_up() -> None:
    never = asyncio.Event()

    async def on_start(event: Event) -> None:
        await never.wait()

    @job(on_start=on_start)
    async def handler() -> str:
        return "done"

    async with TestQueue(jobs=[handler]) as queue:
        assert await queue.jobs.handler.run() == "done"


@pytest.mark.parametrize("asynchronous", [False, True], ids=["sync", "async"])
async def test_a_hook_that_raises_is_logged_and_leaves_the_run_alone(
    asynchronous: bool, caplog: pytest.LogCaptureFixture
) -> None:
    diary = Diary()

    def bad(event: Event) -> None:
        raise RuntimeError("bad hook")

    async def worse(event: Event) -> None:
        raise RuntimeError("bad hook")

    hook = worse if asynchronous else bad

    @job(on_trigger=hook, on_start=hook, on_success=hook)
    async def handler() -> str:
        return "fine"

    async with TestQueue(jobs=[handler]) as queue:
        queue.on("settled", diary)
        with caplog.at_level(logging.ERROR):
            assert await queue.jobs.handler.run() == "fine"
            await queue.settle()
        assert diary.kinds == ["settled"]
    assert "bad hook" in caplog.text


async def test_listeners_of_a_job_on_once_and_off() -> None:
    always, first, never = Diary(), Diary(), Diary()

    @job
    async def handler() -> None: ...

    handler.on("success", always)
    handler.once("success", first)
    handler.on("success", never)
    handler.off("success", never)
    async with TestQueue(jobs=[handler]) as queue:
        for _ in range(2):
            await queue.jobs.handler.run()
        await queue.settle()
    assert (len(always.events), len(first.events), len(never.events)) == (2, 1, 0)


async def test_on_works_as_a_decorator_of_jobs_and_of_queues() -> None:
    heard: list[str] = []

    @job
    async def handler() -> None: ...

    @handler.on("success")
    def of_the_job(event: Event) -> None:
        heard.append("job")

    async with TestQueue(jobs=[handler]) as queue:

        @queue.on("success")
        async def of_the_queue(event: Event) -> None:
            heard.append("queue")

        @queue.jobs.handler.on("settled")
        def of_the_bound_job(event: Event) -> None:
            heard.append("bound")

        await queue.jobs.handler.run()
        await queue.settle()
    assert heard == ["job", "queue", "bound"]


async def test_a_queue_listens_to_all_its_jobs_until_off() -> None:
    diary = Diary()

    @job
    async def one() -> None: ...

    @job
    async def two() -> None: ...

    async with TestQueue(jobs=[one, two]) as queue:
        queue.on("settled", diary)
        await queue.jobs.one.run()
        await queue.jobs.two.run()
        await queue.settle()
        queue.off("settled", diary)
        await queue.jobs.one.run()
        await queue.settle()
    assert [event.job for event in diary.events] == ["one", "two"]


async def test_an_event_that_there_is_not_is_refused() -> None:
    @job
    async def handler() -> None: ...

    with pytest.raises(ValueError, match="trigger"):
        handler.on("sucess", print)
    async with TestQueue(jobs=[handler]) as queue:
        with pytest.raises(ValueError, match="trigger"):
            queue.on("sucess", print)


async def test_a_discarded_trigger_is_a_cancel_with_its_reason() -> None:
    diary = Diary()

    @job(throttle="1h")
    async def handler() -> None: ...

    async with TestQueue(jobs=[handler]) as queue:
        await queue.jobs.handler.run()
        queue.on("cancel", diary)
        queue.on("settled", diary)
        await queue.jobs.handler.start()
        await queue.settle()
    assert diary.kinds == ["cancel", "settled"]
    assert diary.events[0].reason == "throttle"


async def test_hooks_come_after_the_journal_has_it() -> None:
    seen: list[str] = []

    @job
    async def handler() -> None:
        await run("work", asyncio.sleep, 0)

    async with TestQueue(jobs=[handler]) as queue:

        @queue.on("success")
        async def look(event: Event) -> None:
            seen.append(await (await queue.get(event.run_id)).status())

        await queue.jobs.handler.run()
        await queue.settle()
    assert seen == ["succeeded"]


@pytest.mark.parametrize("raised", [KeyboardInterrupt, SystemExit, asyncio.CancelledError, GeneratorExit])
async def test_whatever_a_hook_raises_the_others_are_called(raised: type[BaseException]) -> None:
    called: list[str] = []

    def breaks(event: Event) -> None:
        raise raised("no")

    @job
    async def work() -> int:
        return 1

    async with TestQueue(jobs=[work]) as queue:
        queue.on("success", breaks)
        queue.on("success", lambda event: called.append(event.kind))
        queue.on("settled", lambda event: called.append(event.kind))
        assert await queue.jobs.work.run() == 1
        await queue.settle()
    assert called == ["success", "settled"]


async def test_a_close_waits_for_the_hooks_of_what_has_ended() -> None:
    """Of a run that has ended right before it, and of one that ends within the grace."""
    told: list[str] = []
    closing = asyncio.Event()

    async def slow(event: Event) -> None:
        await closing.wait()
        told.append(f"{event.kind} {event.input['n']}")

    @job(on_success=slow)
    async def handler(n: int) -> None:
        if n == 2:
            await run("waits", closing.wait)

    queue = Queue(jobs=[handler], grace=60)
    async with queue:
        ending = await queue.jobs.handler.start(n=2)
        await queue.jobs.handler.run(n=1)
        while await ending.status() != "running":
            await asyncio.sleep(0)
        asyncio.get_running_loop().call_soon(closing.set)
    assert sorted(told) == ["success 1", "success 2"]


async def test_a_close_without_grace_calls_hooks_that_await_nothing_and_leaves_the_others() -> None:
    diary = Diary()

    async def never(event: Event) -> None:
        diary(event)
        await asyncio.Event().wait()

    @job(on_success=diary, on_settled=never)
    async def handler() -> None: ...

    async with TestQueue(jobs=[handler]) as queue:
        await queue.jobs.handler.run()
    assert diary.kinds == ["success", "settled"]


async def test_hooks_of_runs_that_end_while_their_executor_is_drained_are_called() -> None:
    """A reload takes the old executor down once it has drained it."""
    diary = Diary()

    @job(**diary.hooks())
    async def handler() -> None:
        await run("waits", draining.wait)

    draining = asyncio.Event()
    async with TestQueue(jobs=[handler]) as queue:
        await queue.jobs.handler.start()
        await queue.settle()
        peer = queue.core.executors.peers[0]
        queue.core.retire(peer)
        drained = asyncio.create_task(queue.core.hooks.drain(peer, 10))
        await asyncio.sleep(0)
        draining.set()
        await drained
        assert diary.kinds == ["trigger", "start", "success", "settled"]


async def test_a_close_does_not_wait_for_the_hook_that_waits_for_it() -> None:
    async def close(event: Event) -> None:
        await queue.close()

    @job(on_success=close)
    async def handler() -> None: ...

    queue = Queue(jobs=[handler], grace=3600)
    await queue.start()
    async with asyncio.timeout(30):
        with suppress(JournalUnavailable):  # of a queue that is closed by the time that it is asked
            await queue.jobs.handler.run()
        await queue.close()
