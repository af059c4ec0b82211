"""A client is taken for hostile: whatever it sends or does not read, the others are answered."""

from __future__ import annotations

import asyncio
import contextlib
import json
import random
from collections.abc import AsyncGenerator, AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from taskrun.daemon import frames as frames_module
from taskrun.daemon.clients import connection as module
from taskrun.daemon.clients import receive_budget
from taskrun.daemon.clients.command_connection import Answering
from taskrun.daemon.clients.connection import Connection, Connections
from taskrun.daemon.clients.receive_budget import ReceiveBudget
from taskrun.daemon.frames import CLIENT_CAP
from taskrun.daemon.unix_socket import bind
from taskrun.model.errors import DaemonError, RunNotFound

from .conftest import HEAD

HELLO = {"protocol": [1, 1], "version": "test"}
MOST = 8


class FakeRouter:
    """Echoes, fails, streams without end."""

    def __init__(self) -> None:
        self.open_streams = 0

    def find(self, op: str) -> Answering:
        found: dict[str, Answering] = {"echo": self._echo, "flood": self._flood, "fail": self._fail, "bug": self._bug}
        if op not in found:
            raise DaemonError(f'unknown request "{op}"')
        return found[op]

    async def _echo(self, payload: bytes) -> Any:
        return json.loads(payload).get("say")

    async def _fail(self, payload: bytes) -> Any:
        raise RunNotFound("no run x")

    async def _bug(self, payload: bytes) -> Any:
        raise KeyError("x")

    async def _flood(self, payload: bytes) -> AsyncGenerator[Any, None]:
        self.open_streams += 1
        try:
            while True:
                yield "x" * 10_000
        finally:
            self.open_streams -= 1


class Server:
    """The accept loop, as the daemon has it."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.router = FakeRouter()
        self.connections = Connections(self.router, MOST)
        self.guests = self.connections.open

    async def call(self, **request: Any) -> Any:
        """Makes one request as a good client does."""
        async with self.client() as client:
            return await client.call(**request)

    @contextlib.asynccontextmanager
    async def client(self, hello: Any = HELLO) -> AsyncIterator[Raw]:
        reader, writer = await asyncio.open_unix_connection(self.path, limit=2**20)
        client = Raw(reader, writer)
        try:
            if hello is not None:
                client.send(hello)
                client.hello = await client.receive()
            yield client
        finally:
            writer.close()
            with contextlib.suppress(OSError):
                await writer.wait_closed()


class Raw:
    """A client that may send anything."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer
        self.hello: Any = None

    def send(self, message: Any) -> None:
        data = json.dumps(message).encode()
        self.writer.write(HEAD.pack(len(data)) + data)

    async def frame(self) -> bytes:
        (size,) = HEAD.unpack(await self.reader.readexactly(HEAD.size))
        return await self.reader.readexactly(size)

    async def receive(self) -> Any:
        return json.loads(await self.frame())

    async def call(self, **request: Any) -> Any:
        self.send({"id": 1, **request})
        return await self.receive()

    async def cut(self) -> bytes:
        """Returns what still comes before the server ends the connection."""
        try:
            async with asyncio.timeout(20):
                return await self.reader.read()
        except ConnectionError:
            return b""


@pytest.fixture
async def server(runtime: Path) -> AsyncIterator[Server]:
    server = Server(runtime / "s")
    listening = await asyncio.get_running_loop().create_unix_server(
        lambda: Connection(server.connections), sock=bind(server.path)
    )
    yield server
    listening.close()
    for guest in tuple(server.guests):
        guest.dismiss(DaemonError("over"))
    await quiet(lambda: not server.guests)


async def quiet(holds: Any) -> None:
    async with asyncio.timeout(20):
        while not holds():
            await asyncio.sleep(0.001)


async def test_a_request_is_answered_and_unknown_fields_are_ignored(server: Server) -> None:
    async with server.client({**HELLO, "fashion": "new"}) as client:
        assert client.hello["protocol"] == [1, 1]
        assert await client.call(op="echo", say={"a": [1]}, colour="red") == {"id": 1, "ok": True, "value": {"a": [1]}}


async def test_errors_are_typed_and_end_nothing(server: Server, caplog: pytest.LogCaptureFixture) -> None:
    async with server.client() as client:
        answers = [await client.call(op=op) for op in ("nonsense", "fail", "bug", "echo")]
    types = [answer.get("error", {}).get("type") for answer in answers]
    assert types == ["taskrun.DaemonError", "taskrun.RunNotFound", "KeyError", None]
    assert "while answering bug" in caplog.text


async def test_many_requests_at_once_are_all_answered(server: Server) -> None:
    async with server.client() as client:
        for number in range(1000):
            client.send({"id": number, "op": "echo", "say": number})
        answers = [await client.receive() for _ in range(1000)]
        assert {answer["id"]: answer["value"] for answer in answers} == {number: number for number in range(1000)}


@pytest.mark.parametrize(
    "garbage",
    [
        b"GET / HTTP/1.1\r\n\r\n",
        HEAD.pack(2**32 - 1),
        HEAD.pack(CLIENT_CAP + 1),
        HEAD.pack(4) + b"null",
        HEAD.pack(2) + b"{}",
        HEAD.pack(3) + b"\xff\xfe\x00",
        HEAD.pack(200_000) + b"[" * 200_000,
        random.Random(7).randbytes(5000),
    ],
    ids=["http", "2^32-1", "over the cap", "null", "empty", "no UTF-8", "deep", "random"],
)
@pytest.mark.parametrize("greeted", [False, True])
async def test_garbage_is_refused_with_an_error_and_hurts_nobody(server: Server, garbage: bytes, greeted: bool) -> None:
    async with server.client(HELLO if greeted else None) as client:
        client.writer.write(garbage)
        last = await client.cut()
        assert b"taskrun." in last or not last
    assert (await server.call(op="echo", say=1))["value"] == 1


@pytest.mark.parametrize(
    ("protocol", "says"), [([2, 3], "taskrun daemon restart"), ([0, 0], "this command (taskrun test) is older")]
)
async def test_versions_that_do_not_fit_say_which_to_upgrade(server: Server, protocol: list[int], says: str) -> None:
    async with server.client({"protocol": protocol, "version": "test"}) as client:
        assert says in client.hello["error"]["message"]
        await client.cut()


async def test_who_says_no_hello_or_half_a_frame_is_cut(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "HELLO_WITHIN", 0.05)
    monkeypatch.setattr(module, "FRAME_WITHIN", 0.05)
    async with server.client(None) as silent, server.client() as slow, server.client() as idle:
        slow.writer.write(HEAD.pack(100) + b"half")
        dripping = asyncio.ensure_future(drip(slow))
        assert await silent.cut() == b""
        assert await slow.cut() == b""
        dripping.cancel()
        assert (await idle.call(op="echo", say=1))["value"] == 1


async def drip(client: Raw) -> None:
    """One byte after the other does not make the time longer."""
    for _ in range(1000):
        client.writer.write(b".")
        await asyncio.sleep(0.005)


async def test_who_never_reads_is_bounded_and_cut_while_others_are_answered(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "READ_WITHIN", 0.3)
    async with server.client() as deaf:
        transport = deaf.writer.transport
        assert isinstance(transport, asyncio.ReadTransport)
        transport.pause_reading()
        deaf.send({"id": 1, "op": "flood"})
        await quiet(lambda: server.router.open_streams)
        (guest,) = server.guests
        assert (await server.call(op="echo", say=1))["value"] == 1
        await quiet(lambda: not guest._writable.is_set())
        assert guest._transport.get_write_buffer_size() < 2 * module.HIGH_WATER
        await quiet(lambda: guest not in server.guests)
        await quiet(lambda: not server.router.open_streams)


async def test_a_stream_ends_with_its_client(server: Server) -> None:
    async with server.client() as client:
        client.send({"id": 1, "op": "flood"})
        assert len((await client.receive())["item"]) == 10_000
    await quiet(lambda: not server.router.open_streams)


async def test_one_connection_too_many_is_told_so(server: Server) -> None:
    async with contextlib.AsyncExitStack() as stack:
        for _ in range(MOST):
            await stack.enter_async_context(server.client())
        async with server.client() as late:
            assert "busy" in late.hello["error"]["message"]
            await late.cut()
    await quiet(lambda: not server.guests)
    assert (await server.call(op="echo", say=1))["value"] == 1


async def test_a_thousand_that_come_and_go_leave_nothing(server: Server) -> None:
    for _ in range(1000):
        _, writer = await asyncio.open_unix_connection(server.path)
        writer.close()
    await quiet(lambda: not server.guests)
    assert (await server.call(op="echo", say=1))["value"] == 1


async def test_an_answer_larger_than_a_frame_comes_in_pieces(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(frames_module, "CLIENT_CAP", 1000)
    monkeypatch.setattr(frames_module, "PIECE", 400)
    async with server.client() as client:
        client.send({"id": 1, "op": "echo", "say": "x" * 1100})
        pieces = [await client.frame() for _ in range(3)]
    assert [piece[:1] for piece in pieces] == [b"+", b"+", b"="]
    assert json.loads(b"".join(piece[1:] for piece in pieces)) == {"id": 1, "ok": True, "value": "x" * 1100}


async def test_a_request_in_pieces_is_one_up_to_its_limit(server: Server) -> None:
    server.connections.largest = 3000
    for size in (2900, 3100):
        message = json.dumps({"id": 1, "op": "echo", "say": "x" * (size - 40)}).encode()
        async with server.client() as client:
            for at in range(0, len(message), 500):
                piece = message[at : at + 500]
                client.writer.write(HEAD.pack(len(piece) + 1) + (b"=" if at + 500 >= len(message) else b"+") + piece)
            answer = await client.receive()
            assert ("error" in answer) == (size == 3100), answer


async def test_who_has_not_said_hello_may_send_only_little(server: Server) -> None:
    async with server.client(None) as client:
        client.writer.write(HEAD.pack(module.FIRST_CAP + 1))
        assert b"over the limit" in await client.cut()


async def test_what_is_begun_and_not_ended_is_bounded_over_all_clients(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(receive_budget, "SMALL", 1000)
    server.connections.receive_budget = ReceiveBudget(100_000)
    async with contextlib.AsyncExitStack() as stack:
        slow = [await stack.enter_async_context(server.client()) for _ in range(4)]
        for client in slow:
            client.writer.write(HEAD.pack(50_000) + b"x" * 30_000)
            await quiet(lambda: len(server.connections.receive_budget._held) == min(slow.index(client) + 1, 3))  # noqa: B023
        assert b"too many large requests" in await slow[0].cut()
        assert (await server.call(op="echo", say="x" * 45_000))["value"] == "x" * 45_000
        await quiet(lambda: len(server.guests) == 3)
    await quiet(lambda: not server.guests)
    assert server.connections.receive_budget._total == 0


async def test_who_wants_nothing_gives_way_to_who_does(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    async with contextlib.AsyncExitStack() as stack:
        first, *others = [await stack.enter_async_context(server.client()) for _ in range(MOST)]
        for other in others:
            other.send({"id": 1, "op": "flood"})
        await quiet(lambda: server.router.open_streams == MOST - 1)
        monkeypatch.setattr(module, "IDLE", -1.0)
        assert (await server.call(op="echo", say=1))["value"] == 1
        assert b"needed for another client" in await first.cut()
        assert server.router.open_streams == MOST - 1
