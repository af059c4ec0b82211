"""A handler that cuts a step off sees no end of it, though the journal may have that already; a replay must see none either."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest

from taskrun import MemoryStorage, job, pipe, run, sleep
from taskrun.engine.core import waits
from taskrun.engine.executor.attempt_state import AttemptState
from taskrun.engine.executor.replay import NOTHING
from taskrun.model.records import PipeEvent, Run, Status, Step, StepKind, StepStatus
from taskrun.stores.base import Store
from taskrun.testing import TestQueue

mail = pipe("mail")


async def fine() -> str:
    return "end"


async def broken() -> str:
    raise ValueError("broken")


CALLS: dict[str, Callable[[], Any]] = {
    "a step that succeeds": lambda: run("x", fine),
    "a step that fails": lambda: run("x", broken, retry=0),
    "a sent event": lambda: mail.send({"n": 1}),
}


@pytest.mark.parametrize("call", CALLS.values(), ids=CALLS)
async def test_a_step_that_was_cut_off_while_its_end_was_written_is_cut_off_on_replay(
    storage: Store, call: Callable[[], Any]
) -> None:
    turns = 2  # of the event loop before the cut: the end is on its way into the journal
    done: list[str] = []

    async def other() -> str:
        done.append("other")
        return "other"

    @job(retry=0)
    async def handler() -> str:
        step = asyncio.ensure_future(call())
        for _ in range(turns):
            await asyncio.sleep(0)
        step.cancel()
        try:
            took = str(await step)
        except asyncio.CancelledError:
            took = await run("other", other)
        await sleep("1h")
        return took

    async with TestQueue(jobs=[handler], pipes=[mail], storage=storage) as queue:
        started = await queue.jobs.handler.start()
        await queue.settle()
        first = (await started.steps())[0]
        assert (first.status, first.output, first.error) == ("cancelled", None, None)
    turns = 200  # a replay gets as far as the answer, were there one
    async with TestQueue(jobs=[handler], pipes=[mail], storage=storage) as queue:
        again = await queue.get(started.id)
        await queue.advance("2h")
        assert await again.result() == "other"
    assert done == ["other"]


def wait_of(status: StepStatus, **fields: Any) -> Step:
    return Step(run="r", key="mail", name="mail", kind=StepKind.WAIT, topic="pipe:mail", status=status, **fields)


@pytest.mark.parametrize(("cancel", "left"), [(None, StepStatus.CANCELLED), ("user", StepStatus.SUCCEEDED)])
async def test_an_event_that_was_not_seen_is_free_again_but_for_a_run_that_is_cancelled(
    cancel: str | None, left: StepStatus
) -> None:
    async with TestQueue(storage=MemoryStorage()) as queue:

        def act(t: Any) -> tuple[Step | None, list[PipeEvent]]:
            t.add(Run(id="r", job="j", created_at=0.0, status=Status.RUNNING, engine=t.engine, cancel=cancel))
            sent = t.tx.add_event(PipeEvent(id="e", topic="pipe:mail", at=0.5, data="1"))
            t.save_step(wait_of(StepStatus.SUCCEEDED, output="1", cursor=sent.seq, order=1, ended_at=1.0))
            waits.note(t, wait_of(StepStatus.CANCELLED, ended_at=2.0))
            return t.tx.step("r", "mail"), t.tx.events("pipe:mail", 0.0, 0, 9, wait_of(StepStatus.RUNNING))

        step, free = await queue.core.journal.do(act)
        assert step is not None
        assert step.status is left
        assert [event.id for event in free] == ([] if cancel else ["e"])


# ---- recorded values


async def test_values_are_not_taken_for_durable_because_earlier_ones_are() -> None:
    """Another branch has drawn some while those were on their way."""
    answers = [asyncio.get_running_loop().create_future() for _ in range(2)]
    asked = iter(answers)
    host: Any = SimpleNamespace(ask=lambda message: next(asked), tell=lambda message: None)
    state = AttemptState(Run(id="r", job="j", created_at=0.0), host, NOTHING, None, lambda _: None)  # type: ignore[arg-type]
    flushed = []
    for name in ("first", "second"):
        state._values[name] = Step(run="r", key=name, name=name, kind=StepKind.VALUE)
        flushed.append(asyncio.ensure_future(state.flush_values()))
        await asyncio.sleep(0)
    answers[0].set_result(None)
    await flushed[0]
    assert state.has_values
    answers[1].set_result(None)
    await flushed[1]
    assert not state.has_values
