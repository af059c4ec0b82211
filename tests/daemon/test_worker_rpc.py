"""The pipe: both halves ask and tell over it as if they were in one process."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager
from functools import partial
from typing import Any, get_args

import msgspec
import pytest

from taskrun.daemon.workers.worker_rpc import RESULTS, Ask, PipeProtocol, Tell, WorkerGone
from taskrun.engine import messages as m
from taskrun.model.errors import InputInvalid, JobNotFound
from taskrun.model.records import Step, StepKind

from .conftest import HEAD

STEP = Step(run="r", key="fetch#2", name="fetch", kind=StepKind.RUN, output='{"a": 1}', started_at=1.5)
SILENT = {m.Drain, m.FinishHooks, m.Record, m.RecordValues}  # what is answered with None


class Half:
    """Notes what it hears and is asked; answers as it was told to."""

    def __init__(self) -> None:
        self.noted: list[m.Message] = []
        self.answers: dict[type[Any], Any] = {}
        self.hold = asyncio.Event()
        self.hold.set()

    def answer(self, peer: m.Peer, message: m.Asked) -> Coroutine[Any, Any, Any]:
        self.noted.append(message)
        return self._answer(message)

    async def _answer(self, message: m.Asked) -> Any:
        await self.hold.wait()
        answer = self.answers.get(type(message))
        if isinstance(answer, Exception):
            raise answer
        return answer

    def hear(self, peer: m.Peer, message: m.Told) -> None:
        self.noted.append(message)


class Pair:
    """Two halves and the pipe between them."""

    def __init__(self, near: Half, far: Half, ends: tuple[PipeProtocol, PipeProtocol]) -> None:
        self.near, self.far = near, far
        self.near_end, self.far_end = ends
        self.peer = ends[0].peer  # how the near half reaches the far one


@asynccontextmanager
async def joined() -> AsyncIterator[Pair]:
    near, far = Half(), Half()
    ends = []
    for half, end in zip((near, far), socket.socketpair(), strict=True):
        end.setblocking(False)
        make = partial(PipeProtocol, half)
        ends.append((await asyncio.get_running_loop().create_unix_connection(make, sock=end))[1])
    try:
        yield Pair(near, far, (ends[0], ends[1]))
    finally:
        for protocol in ends:
            protocol.close()
        await asyncio.gather(*(protocol.ended for protocol in ends))


async def test_an_ask_is_answered_with_the_record_itself() -> None:
    async with joined() as pair:
        pair.far.answers[m.Wait] = STEP
        assert await pair.peer.ask(m.Wait(STEP)) == STEP
        assert await pair.peer.ask(m.Record(STEP)) is None
        assert pair.far.noted == [m.Wait(STEP), m.Record(STEP)]


@pytest.mark.parametrize(
    "error", [InputInvalid("hello", [("a.b", "is missing")]), JobNotFound('no job "x"'), ValueError("no")]
)
async def test_an_error_arrives_as_itself(error: Exception) -> None:
    async with joined() as pair:
        pair.far.answers[m.Prepare] = error
        with pytest.raises(type(error)) as caught:
            await pair.peer.ask(m.Prepare("hello", "{}"))
        assert str(caught.value) == str(error)


async def test_both_sides_may_ask_at_the_same_time() -> None:
    async with joined() as pair:
        pair.near.answers[m.Look] = None
        pair.far.answers[m.PrepareEvent] = "{}"
        both = await asyncio.gather(
            pair.peer.ask(m.PrepareEvent("p", "{}")),
            pair.far_end.peer.ask(m.RecordValues([])),
            pair.peer.ask(m.Drain(0)),
        )
        assert list(both) == ["{}", None, None]


async def test_what_is_told_and_asked_arrives_in_order() -> None:
    async with joined() as pair:
        sent: list[m.Message] = []
        asking = []
        for number in range(50):
            told, asked = m.Evict(f"{number}"), m.Record(msgspec.structs.replace(STEP, key=f"{number}"))
            sent += [told, asked]
            pair.peer.tell(told)
            asking.append(asyncio.ensure_future(pair.peer.ask(asked)))
            await asyncio.sleep(0)  # an ask is sent when its task begins
        await asyncio.gather(*asking)
        assert pair.far.noted == sent


async def test_what_comes_in_several_pieces_in_one_turn_is_taken_in_order() -> None:
    async with joined() as pair:
        record, evict, resume = m.Record(STEP), m.Evict("r"), m.Resume("r", [])
        peer = pair.far_end.peer
        asyncio.get_running_loop().call_soon(peer.receive, [Tell(resume)])
        peer.receive([Ask(1, record)])
        peer.receive([Tell(evict)])
        await settled(lambda: len(pair.far.noted) == 3)
        assert pair.far.noted == [record, evict, resume]


async def test_answers_find_their_ask_in_any_order() -> None:
    async with joined() as pair:
        pair.far.hold.clear()
        late = asyncio.ensure_future(pair.peer.ask(m.Record(STEP)))
        await settled(lambda: bool(pair.far.noted))
        pair.far.hold.set()
        pair.far.answers[m.Wait] = STEP
        assert await pair.peer.ask(m.Wait(STEP)) == STEP
        assert await late is None


async def test_an_ask_that_was_cancelled_disturbs_nobody() -> None:
    async with joined() as pair:
        pair.far.hold.clear()
        asking = asyncio.ensure_future(pair.peer.ask(m.Record(STEP)))
        await settled(lambda: bool(pair.far.noted))
        asking.cancel()
        pair.far.hold.set()
        pair.far.answers[m.Wait] = STEP
        assert await pair.peer.ask(m.Wait(STEP)) == STEP


async def test_when_the_other_end_goes_what_waits_fails_and_what_is_told_is_dropped() -> None:
    async with joined() as pair:
        pair.far.hold.clear()
        asking = asyncio.ensure_future(pair.peer.ask(m.Record(STEP)))
        await settled(lambda: bool(pair.far.noted))
        pair.far_end.close()
        with pytest.raises(WorkerGone):
            await asking
        pair.peer.tell(m.Evict("r"))
        with pytest.raises(WorkerGone):
            await pair.peer.ask(m.Record(STEP))
        pair.far.hold.set()


async def test_a_message_that_is_heard_badly_costs_the_others_nothing() -> None:
    async with joined() as pair:
        loop, faults = asyncio.get_running_loop(), list[Any]()
        loop.set_exception_handler(lambda _, context: faults.append(context["exception"]))
        heard: list[m.Told] = []

        def hear(peer: m.Peer, message: m.Told) -> None:
            if message == m.Evict("bad"):
                raise RuntimeError("boo")
            heard.append(message)

        pair.far.hear = hear  # type: ignore[method-assign]
        pair.peer.tell(m.Evict("bad"))
        pair.peer.tell(m.Evict("good"))
        await settled(lambda: bool(heard))
        assert heard == [m.Evict("good")]
        assert [str(fault) for fault in faults] == ["boo"]


async def test_bytes_that_make_no_sense_end_the_pipe() -> None:
    async with joined() as pair:
        loop, faults = asyncio.get_running_loop(), list[Any]()
        loop.set_exception_handler(lambda _, context: faults.append(context["message"]))
        pair.near_end.send(HEAD.pack(3) + b"\xc1\xc1\xc1")
        await pair.near_end.ended
        assert faults == ["on a worker's pipe"]


def test_every_message_that_is_asked_has_its_answer_known() -> None:
    assert set(RESULTS) | SILENT == set(get_args(m.Asked))


async def settled(holds: Any) -> None:
    async with asyncio.timeout(20):
        while not holds():
            await asyncio.sleep(0)
