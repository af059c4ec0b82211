"""One client of the daemon: splits its bytes into requests, has them answered, and never lets it hold up anything else.

Whatever a client sends is treated as hostile: sizes are checked first, every wait has a time limit, answers that are not read
are bounded, and a client that breaks these rules is disconnected.
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
from taskrun.daemon.clients.command_connection import ALIVE_EVERY, CommandConnection, CommandServer, Router
from taskrun.daemon.clients.receive_budget import ReceiveBudget
from taskrun.daemon.command_protocol import MAGIC, STOPPED
from taskrun.daemon.frames import CLIENT_CAP, FrameInvalid, MessageReader, frame, message_frames
from taskrun.daemon.protocol import PROTOCOL, Hello, Request, common_version, mismatch
from taskrun.daemon.unix_socket import check_peer
from taskrun.model.codec import encode_error
from taskrun.model.errors import DaemonError, DaemonStopped, TaskrunError

HELLO_WITHIN = 5.0  # seconds
FRAME_WITHIN = 30.0
READ_WITHIN = 60.0  # seconds within which a client must read some of what it asked for
AT_ONCE = 64  # requests of one client that are answered at the same time
FIRST_CAP = 4 * 1024 * 1024  # bytes of the first frame: a hello, or a command line
IDLE = 5.0  # seconds after which a client without requests may be disconnected in favour of another
HIGH_WATER = 1024 * 1024
INCOMPLETE = 64 * 1024 * 1024  # bytes of requests that are being received, over all clients

logger = logging.getLogger(__name__)


class Connections:
    """The open connections, and what they have in common.

    Parameters:
        most: how many there may be.
        largest: bytes of one request.
        command_server: executes command lines for thin clients, if there is one.
        refusal: returns why no client is accepted at the moment, if so.
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
        self.open: set[Connection] = set()
        self.receive_budget = ReceiveBudget(max(INCOMPLETE, 2 * largest))
        self._most = most

    def admit(self, connection: Connection) -> None:
        """Accepts a client. If it is one too many, the one that has been idle longest is disconnected.

        Raises:
            DaemonError: too many clients are busy, or none is accepted.
        """
        if (refusal := self.refusal()) is not None:
            raise refusal
        if len(self.open) >= self._most:
            idle = [one for one in self.open if one.idle > IDLE]
            if not idle:
                raise DaemonError(f"the daemon is busy: it already has {self._most} connections")
            longest = max(idle, key=lambda one: one.idle)
            self.open.discard(longest)
            longest.dismiss(DaemonError("the connection was idle and is needed for another client"))
        self.open.add(connection)


class Connection(asyncio.Protocol):
    """One client."""

    def __init__(self, connections: Connections) -> None:
        self._connections = connections
        self._command: CommandConnection | None = None
        self._loop = asyncio.get_running_loop()
        self._messages = MessageReader(FIRST_CAP)
        self._greeted = False
        self._last = self._loop.time()  # when the last request or answer was
        self._waiting: deque[bytes] = deque()  # requests beyond `AT_ONCE`
        self._answering: dict[asyncio.Task[None], int] = {}  # with the sizes of the requests
        self._writable = asyncio.Event()
        self._writable.set()
        self._deadlines: dict[str, asyncio.TimerHandle] = {}
        self._transport: asyncio.Transport

    @property
    def idle(self) -> float:
        """The seconds since its last request, 0 while one is being received or answered."""
        busy = (
            self._command is not None or not self._greeted or self._answering or self._waiting or self._messages.partial
        )
        return 0.0 if busy else self._loop.time() - self._last

    # ---- called by asyncio

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Accepts the client, if it belongs to this user and there is room."""
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
        """Takes requests; anything else ends the connection."""
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
        """The client does not read: takes no more requests of it, and disconnects it if that lasts."""
        self._writable.clear()
        self._pause()
        self._expect("read", READ_WITHIN)

    def resume_writing(self) -> None:
        """The client reads again."""
        self._writable.set()
        self._settle("read")
        self._resume()

    def connection_lost(self, exc: Exception | None) -> None:
        """Ends everything that is being done for this client; a trigger that is on its way to the journal still gets there."""
        self._connections.open.discard(self)
        self._connections.receive_budget.hold(self, 0)
        self._writable.set()
        for what in list(self._deadlines):
            self._settle(what)
        for task in self._answering:
            task.cancel()
        if self._command is not None:
            self._command.abandon()

    def dismiss(self, error: Exception) -> None:
        """Sends the reason and disconnects."""
        if self._command is None:
            self._write(Hello(PROTOCOL, __version__, error=encode_error(error)))
        elif isinstance(error, DaemonStopped):
            self._send(frame(STOPPED, CLIENT_CAP))
        self._transport.close()
        self._expect("read", HELLO_WITHIN)

    def disconnect_slow(self) -> None:
        """Disconnects a client that has been sending a large request for long, in favour of others."""
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
        if common_version(PROTOCOL, theirs.protocol) is None:
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
            self._resume()

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
        alive = self._loop.create_task(self._send_alive(request))
        try:
            async with aclosing(items):
                async for item in items:
                    self._write({"id": request, "item": item})
                    await self._writable.wait()
        finally:
            alive.cancel()
        self._write({"id": request, "end": True})

    async def _send_alive(self, request: int) -> None:
        """Sends signs of life while a stream has no items."""
        while True:
            await asyncio.sleep(ALIVE_EVERY)
            if self._writable.is_set():
                self._write({"id": request})

    # ---- reading and writing

    def _resume(self) -> None:
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
        """Limits the time in which a frame that has begun must be complete; further bytes of it do not extend that."""
        self._connections.receive_budget.hold(self, self._messages.partial)
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
        """Disconnects the client unless it does `what` within `seconds`."""
        self._settle(what)
        self._deadlines[what] = self._loop.call_later(seconds, self._transport.abort)

    def _settle(self, what: str) -> None:
        """Cancels that: it has done so."""
        if (deadline := self._deadlines.pop(what, None)) is not None:
            deadline.cancel()
