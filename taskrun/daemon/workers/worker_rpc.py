"""The pipe between core and executor: `messages.Peer` over a stream socket, with the same code at both ends.

In the daemon it is fed by an asyncio transport (`PipeProtocol`), in the worker by `worker_main.Control`. What is sent in one turn
of the loop goes out in one write. Frames are msgpack instead of JSON, since the records already contain JSON text. The daemon
reads no further ahead than the journal can follow, so a job that floods is slowed down instead of filling the memory.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable
from contextlib import suppress
from functools import partial
from typing import Any

import msgspec

from taskrun.daemon.frames import PIPE_CAP, FrameInvalid, FrameReader, frame
from taskrun.daemon.protocol import remote_error
from taskrun.engine import messages as m
from taskrun.model.codec import encode_error
from taskrun.model.errors import DaemonError, JournalError
from taskrun.model.records import ErrorRecord, LogLine, Run, Step
from taskrun.rules.policies import Prepared, Routed

CHUNK = 65_536  # bytes that are read at once
AHEAD = 2_000_000  # bytes after which the daemon checks that the journal follows; it reads twice as many ahead
ANSWERED_WITHIN = 8.0  # seconds; the worker gives up requests that hang before that, and a client waits 10


class WorkerGone(DaemonError):
    """The other end of a pipe is gone, so that a request has no answer."""


class Ask(msgspec.Struct, frozen=True, array_like=True, tag="ask"):
    """A message that wants an answer."""

    id: int
    message: m.Asked


class Tell(msgspec.Struct, frozen=True, array_like=True, tag="tell"):
    """A message that wants no answer."""

    message: m.Told


class Answer(msgspec.Struct, frozen=True, array_like=True, tag="answer"):
    """The answer to an `Ask`."""

    id: int
    value: msgspec.Raw


class Refusal(msgspec.Struct, frozen=True, array_like=True, tag="refusal"):
    """The error that an `Ask` is answered with."""

    id: int
    error: ErrorRecord


Envelope = Ask | Tell | Answer | Refusal

ENCODE = msgspec.msgpack.Encoder().encode
DECODE = msgspec.msgpack.Decoder(Envelope).decode
NOTHING = msgspec.Raw(ENCODE(None))
RESULTS: dict[type[m.Asked], Any] = {  # types of answers, where there is a value
    m.Describe: m.Description,
    m.Prepare: Prepared,
    m.PrepareEvent: str,
    m.Route: Routed,
    m.Wait: Step,
    m.StartChild: Step,
    m.Send: Step,
    m.CancelRuns: int,
    m.Look: Run,
    m.Show: str,
    m.ReadLog: list[LogLine],
    m.Order: m.Ordered,
}
LIMITED = (m.Prepare, m.PrepareEvent, m.Route)  # requests with a time limit
DECODERS = {kind: msgspec.msgpack.Decoder(result) for kind, result in RESULTS.items()}


class PipePeer:
    """The peer at the other end of a pipe. Belongs to one event loop.

    Parameters:
        answerer: answers the requests of the other end, and takes its other messages.
        write: takes the bytes of one turn of the loop.
    """

    def __init__(self, answerer: m.Answerer, write: Callable[[bytes], None]) -> None:
        self.gone = False
        self._answerer = answerer
        self._write = write
        self._loop = asyncio.get_running_loop()
        self._outgoing: list[bytes] = []
        self._asked: dict[int, tuple[type[m.Asked], asyncio.Future[Any]]] = {}
        self._last = 0
        self._answering: set[asyncio.Future[Any]] = set()

    def ask(self, message: m.Asked) -> asyncio.Future[Any]:
        """Sends a message; the future gets its answer.

        Raises (through the future):
            WorkerGone: the other end is gone, or ends before it answers.
            DaemonError: it does not answer in time: it is suspended, or user code blocks all of it.
            Exception: what the other end raised.
        """
        future: asyncio.Future[Any] = self._loop.create_future()
        if self.gone:
            future.set_exception(WorkerGone("the other end of the pipe is gone"))
            return future
        self._last = ask_id = self._last + 1
        self._send(Ask(ask_id, message))
        self._asked[ask_id] = (type(message), future)
        if isinstance(message, LIMITED):
            limit = self._loop.call_later(ANSWERED_WITHIN, _give_up, future)
            future.add_done_callback(lambda _: limit.cancel())
        return future

    def tell(self, message: m.Told) -> None:
        """Sends a message that wants no answer; it is dropped when the other end is gone."""
        if not self.gone:
            self._send(Tell(message))

    def receive(self, envelopes: Iterable[Envelope]) -> None:
        """Takes received messages, in order."""
        for envelope in envelopes:
            if isinstance(envelope, Answer | Refusal):
                self._settle(envelope)
            elif isinstance(envelope, Ask):
                self._begin(envelope)
            else:
                self._hear(envelope.message)

    def lose(self) -> None:
        """Fails everything that waits for an answer: the other end is gone."""
        self.gone = True
        self._outgoing.clear()
        asked, self._asked = self._asked, {}
        for _, future in asked.values():
            if not future.done():
                future.set_exception(WorkerGone("the other end of the pipe ended before it answered"))

    def _hear(self, message: m.Told) -> None:
        try:
            self._answerer.hear(self, message)
        except Exception as error:  # a bug concerning one run must not cost the others their pipe
            self._loop.call_exception_handler({"message": f"hearing {message!r:.200}", "exception": error})

    def _begin(self, ask: Ask) -> None:
        """Has a message answered: at once, so that what the other end said before and says after it keeps its order."""
        try:
            answering = asyncio.ensure_future(self._answerer.answer(self, ask.message))
        except Exception as error:
            self._send(Refusal(ask.id, encode_error(error)))
            return
        self._answering.add(answering)
        answering.add_done_callback(partial(self._reply, ask.id))

    def _reply(self, ask_id: int, answered: asyncio.Future[Any]) -> None:
        self._answering.discard(answered)
        if self.gone or answered.cancelled():
            return
        try:
            self._send(Answer(ask_id, _encoded(answered.result())))
        except Exception as error:
            self._send(Refusal(ask_id, encode_error(error)))

    def _settle(self, envelope: Answer | Refusal) -> None:
        kind, future = self._asked.pop(envelope.id)
        if future.done():  # nobody waits for it any more
            return
        if isinstance(envelope, Refusal):
            future.set_exception(remote_error(envelope.error))
        else:
            decoder = DECODERS.get(kind)
            future.set_result(None if decoder is None else decoder.decode(envelope.value))

    def _send(self, envelope: Envelope) -> None:
        try:
            data = frame(ENCODE(envelope), PIPE_CAP)
        except FrameInvalid as error:
            raise DaemonError(str(error)) from error
        if not self._outgoing:
            self._loop.call_soon(self._flush)
        self._outgoing.append(data)

    def _flush(self) -> None:
        if self._outgoing:
            data = b"".join(self._outgoing)
            self._outgoing.clear()
            self._write(data)


def _give_up(answer: asyncio.Future[Any]) -> None:
    """Stops waiting for an answer; one that comes later is dropped."""
    if not answer.done():
        answer.set_exception(DaemonError(f"the worker gave no answer within {ANSWERED_WITHIN:g} seconds"))


async def answer(answerer: m.Answerer, peer: m.Peer, ask: Ask) -> Answer | Refusal:
    """Returns the answer to an `Ask`, or the error as a `Refusal`."""
    try:
        return Answer(ask.id, _encoded(await answerer.answer(peer, ask.message)))
    except Exception as error:
        return Refusal(ask.id, encode_error(error))


def _encoded(value: Any) -> msgspec.Raw:
    return NOTHING if value is None else msgspec.Raw(ENCODE(value))


class PipeProtocol(asyncio.BufferedProtocol):
    """The daemon's end: a `PipePeer` on an asyncio transport.

    Parameters:
        caught_up: waits until the journal has followed; until then not much more is read.
    """

    def __init__(self, answerer: m.Answerer, caught_up: Callable[[], Awaitable[None]] | None = None) -> None:
        self._answerer = answerer
        self._caught_up = caught_up
        self._frames = FrameReader(PIPE_CAP)
        self._buffer = memoryview(bytearray(CHUNK))
        self._received = 0  # bytes since the last check
        self._catching_up: asyncio.Task[None] | None = None
        self.ended: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.peer: PipePeer

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Creates the peer."""
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        self.peer = PipePeer(self._answerer, transport.write)

    def get_buffer(self, sizehint: int) -> memoryview:
        """Returns where to put what comes: without it asyncio would have memory mapped for each read."""
        return self._buffer

    def buffer_updated(self, nbytes: int) -> None:
        """Passes on the messages that are complete; invalid data ends the pipe."""
        try:
            self.peer.receive([DECODE(payload) for payload in self._frames.feed(self._buffer[:nbytes])])
        except ValueError as error:  # of frames and of msgspec
            asyncio.get_running_loop().call_exception_handler({"message": "on a worker's pipe", "exception": error})
            self._transport.abort()
        self._received += nbytes
        if self._received > AHEAD and self._caught_up is not None:
            self._hold_back(self._caught_up)

    def connection_lost(self, exc: Exception | None) -> None:
        """Fails what waits for an answer."""
        self.peer.lose()
        if not self.ended.done():
            self.ended.set_result(None)

    def send(self, data: bytes) -> None:
        """Sends bytes before the first message."""
        self._transport.write(data)

    def close(self) -> None:
        """Closes the pipe, which ends the worker."""
        self._transport.close()

    def abort(self) -> None:
        """Closes the pipe at once, without sending what is left."""
        self._transport.abort()

    def _hold_back(self, caught_up: Callable[[], Awaitable[None]]) -> None:
        """Has the journal catch up; stops reading when it has not even caught up with the bytes before."""
        if self._catching_up is not None:
            self._transport.pause_reading()
            return
        self._received = 0
        self._catching_up = asyncio.get_running_loop().create_task(self._catch_up(caught_up))

    async def _catch_up(self, caught_up: Callable[[], Awaitable[None]]) -> None:
        with suppress(JournalError):
            await caught_up()
        self._catching_up = None
        self._transport.resume_reading()
