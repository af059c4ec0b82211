"""One client of the daemon: cuts its bytes into requests, has them answered, and never lets it hold up anything else.

Everything that a client sends is taken for hostile: sizes are checked first, every wait has an end, what is answered but not
read is bounded, and whoever does not keep to it is cut. Made by the server for each connection.
"""

from __future__ import annotations

import asyncio
import logging
import os
from collections import deque
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from typing import Any

import msgspec

from taskrun import __version__
from taskrun.daemon.clients.command_connection import CommandConnection, CommandServer, Router
from taskrun.daemon.clients.receive_budget import ReceiveBudget
from taskrun.daemon.command_protocol import MAGIC, STOPPED
from taskrun.daemon.frames import CLIENT_CAP, FrameInvalid, MessageReader, frame, message_frames
from taskrun.daemon.protocol import PROTOCOL, Hello, Request, mismatch, speak
from taskrun.daemon.unix_socket import check_peer
from taskrun.model.codec import encode_error
from taskrun.model.errors import DaemonError, DaemonStopped, TaskrunError

HELLO_WITHIN = 5.0
FRAME_WITHIN = 30.0
BEAT = 4.0  # seconds between signs of life of a stream; the client's patience is 10
READ_WITHIN = 60.0  # seconds in which a client must read some of what it asked for
AT_ONCE = 64  # requests of one client
FIRST_CAP = (
    4 * 1024 * 1024
)  # bytes of the first frame, of somebody who has not said who it is: a hello, or a command line
IDLE = 5.0  # seconds after which a client that wants nothing gives way to another
HIGH_WATER = 1024 * 1024
UNFINISHED = 64 * 1024 * 1024  # bytes of requests that have begun and not ended, over all clients

logger = logging.getLogger(__name__)


class Connections:
    """What all clients have in common.

    Parameters:
        most: how many there may be.
        largest: bytes of one request.
        counter: executes command lines, if there is one.
        refusal: says why nobody is let in, if that is so.
    """

    def __init__(
        self,
        router: Router,
        most: int,
        largest: int = CLIENT_CAP,
        command_server: CommandServer | None = None,
        refusal: Callable[[], Exception | None] = lambda: None,
    ) -> None:
        self.router = router
        self.largest = largest
        self.command_server = command_server
        self.refusal = refusal
        self.connections: set[Connection] = set()
        self.unfinished = ReceiveBudget(max(UNFINISHED, 2 * largest))
        self._most = most

    def admit(self, connection: Connection) -> None:
        """Lets a client in; one that wants nothing gives way if it is one too many.

        Raises:
            DaemonError: there is no room, or nobody is let in.
        """
        if (refusal := self.refusal()) is not None:
            raise refusal
        if len(self.connections) >= self._most:
            idle = [one for one in self.connections if one.idle > IDLE]
            if not idle:
                raise DaemonError(f"the daemon is busy: it has {self._most} connections already")
            longest = max(idle, key=lambda one: one.idle)
            self.connections.discard(longest)
            longest.dismiss(DaemonError("another client needs the connection, on which nothing was asked"))
        self.connections.add(connection)


class Connection(asyncio.Protocol):
    """One client."""

    def __init__(self, connections: Connections) -> None:
        self._connections = connections
        self._command: CommandConnection | None = None
        self._loop = asyncio.get_running_loop()
        self._messages = MessageReader(FIRST_CAP)
        self._greeted = False
        self._last = self._loop.time()  # when something was asked or answered
        self._waiting: deque[bytes] = deque()  # requests beyond those at once
        self._answering: dict[asyncio.Task[None], int] = {}  # with the size of the request
        self._writable = asyncio.Event()
        self._writable.set()
        self._deadlines: dict[str, asyncio.TimerHandle] = {}
        self._transport: asyncio.Transport

    @property
    def idle(self) -> float:
        """The seconds for which it has wanted nothing."""
        busy = (
            self._command is not None or not self._greeted or self._answering or self._waiting or self._messages.partial
        )
        return 0.0 if busy else self._loop.time() - self._last

    # ---- what asyncio says

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Lets the client in, if it is this user and there is room."""
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        transport.set_write_buffer_limits(high=HIGH_WATER)
        try:
            check_peer(transport.get_extra_info("socket"))
        except (DaemonError, OSError) as error:
            logger.warning("refused a client: %s", error)
            transport.abort()
            return
        try:
            self._connections.admit(self)
        except DaemonError as error:
            self.dismiss(error)
            return
        self._expect("hello", HELLO_WITHIN)

    def data_received(self, data: bytes) -> None:
        """Takes requests; bytes that are none end the connection."""
        if self._transport.is_closing():
            return
        self._last = self._loop.time()
        try:
            begun = False
            for message in self._messages.feed(data):
                self._take(message)
                begun = True
            self._watch_frame(begun)
        except ValueError as error:  # also of msgspec
            self.dismiss(DaemonError(str(error) if isinstance(error, FrameInvalid) else f"not a request: {error}"))

    def pause_writing(self) -> None:
        """The client does not read: it is heard no more, and cut if that lasts."""
        self._writable.clear()
        self._pause()
        self._expect("read", READ_WITHIN)

    def resume_writing(self) -> None:
        """The client reads again."""
        self._writable.set()
        self._settle("read")
        self._go_on()

    def connection_lost(self, exc: Exception | None) -> None:
        """Ends everything that is under way for this client; a trigger on its way to the journal gets there."""
        self._connections.connections.discard(self)
        self._connections.unfinished.hold(self, 0)
        self._writable.set()
        for what in list(self._deadlines):
            self._settle(what)
        for task in self._answering:
            task.cancel()
        if self._command is not None:
            self._command.abandon()

    def dismiss(self, error: Exception) -> None:
        """Says why, as far as the client reads it, and hangs up."""
        if self._command is None:
            self._write(Hello(PROTOCOL, __version__, error=encode_error(error)))
        elif isinstance(error, DaemonStopped):
            self._send(frame(STOPPED, CLIENT_CAP))
        self._transport.close()
        self._expect("read", HELLO_WITHIN)

    def refuse_rest(self) -> None:
        """Hangs up on a client that has been long about a large request, for others."""
        self.dismiss(DaemonError("the daemon is busy: too many large requests are on their way; try again"))

    # ---- requests

    def _take(self, payload: bytes) -> None:
        if self._command is not None:
            self._command.receive(payload)
        elif self._greeted:
            self._waiting.append(payload)
            self._begin()
        elif self._connections.command_server is not None and payload.startswith(MAGIC):
            self._settle("hello")
            self._command = CommandConnection(self._connections.command_server, payload, self._send)
        else:
            self._greet(msgspec.json.decode(payload, type=Hello))

    def _greet(self, theirs: Hello) -> None:
        ours = Hello(PROTOCOL, __version__, os.getpid())
        if speak(PROTOCOL, theirs.protocol) is None:
            self.dismiss(DaemonError(mismatch(ours, theirs)))
            return
        self._greeted = True
        self._messages.frames.cap, self._messages.most = CLIENT_CAP, self._connections.largest
        self._settle("hello")
        self._write(ours)

    def _begin(self) -> None:
        while self._waiting and len(self._answering) < AT_ONCE and sum(self._answering.values()) <= CLIENT_CAP:
            payload = self._waiting.popleft()
            request = msgspec.json.decode(payload, type=Request)
            task = self._loop.create_task(self._answer(request, payload))
            self._answering[task] = len(payload)
            task.add_done_callback(self._answered)
        if self._waiting:
            self._pause()

    def _answered(self, task: asyncio.Task[None]) -> None:
        self._last = self._loop.time()
        self._answering.pop(task, None)
        if not self._transport.is_closing():
            self._go_on()

    async def _answer(self, request: Request, payload: bytes) -> None:
        try:
            answering = self._connections.router.find(request.op)(payload)
            if isinstance(answering, AsyncGenerator):
                await self._stream(request.id, answering)
            else:
                self._write({"id": request.id, "ok": True, "value": await answering})
        except Exception as error:
            if not isinstance(error, TaskrunError):
                logger.exception("while answering %s", request.op)
            self._write({"id": request.id, "ok": False, "error": encode_error(error)})

    async def _stream(self, request: int, items: AsyncGenerator[Any, None]) -> None:
        beating = self._loop.create_task(self._beat(request))
        try:
            async with aclosing(items):
                async for item in items:
                    self._write({"id": request, "item": item})
                    await self._writable.wait()
        finally:
            beating.cancel()
        self._write({"id": request, "end": True})

    async def _beat(self, request: int) -> None:
        """Shows that the daemon lives while a stream has nothing to say."""
        while True:
            await asyncio.sleep(BEAT)
            if self._writable.is_set():
                self._write({"id": request})

    # ---- inside

    def _go_on(self) -> None:
        try:
            self._begin()
        except msgspec.DecodeError as error:
            self.dismiss(DaemonError(f"not a request: {error}"))
            return
        if not self._waiting and self._writable.is_set():
            self._transport.resume_reading()
            self._watch_frame(True)

    def _pause(self) -> None:
        self._transport.pause_reading()
        self._settle("frame")

    def _watch_frame(self, begun: bool) -> None:
        """Gives a frame that has begun a time to end; one byte a second does not make it longer."""
        self._connections.unfinished.hold(self, self._messages.partial)
        if not self._messages.partial:
            self._settle("frame")
        elif begun or "frame" not in self._deadlines:
            self._expect("frame", FRAME_WITHIN)

    def _write(self, message: Any) -> None:
        for part in message_frames(msgspec.json.encode(message)):
            self._send(part)

    def _send(self, data: bytes) -> None:
        if not self._transport.is_closing():
            self._transport.write(data)

    def _expect(self, what: str, seconds: float) -> None:
        """Cuts the client unless it does `what` within `seconds`."""
        self._settle(what)
        self._deadlines[what] = self._loop.call_later(seconds, self._transport.abort)

    def _settle(self, what: str) -> None:
        """It has done so."""
        if (deadline := self._deadlines.pop(what, None)) is not None:
            deadline.cancel()
