"""The socket of a daemon: made, made anew, and never another's removed; clients are taken as long as there are descriptors."""

from __future__ import annotations

import asyncio
import errno
import logging
import os
import socket
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from taskrun.daemon.clients import listener as module
from taskrun.daemon.clients.listener import Listener, reopened
from taskrun.daemon.unix_socket import bind


class Greeter(asyncio.Protocol):
    """Says hello and hangs up."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        transport.write(b"hello")
        transport.close()


async def greeted(path: Path) -> bool:
    reader, writer = await asyncio.open_unix_connection(path)
    try:
        return await reader.read() == b"hello"
    finally:
        writer.close()


@pytest.fixture
async def listener(tmp_path: Path, runtime: Path) -> AsyncIterator[Listener]:
    made = Listener(tmp_path / "daemon.lock", Greeter)
    made.open()
    yield made
    made.close()


async def test_a_removed_socket_is_made_anew(listener: Listener) -> None:
    assert await greeted(listener.path)
    assert not reopened(listener)
    listener.path.unlink()
    assert reopened(listener)
    assert await greeted(listener.path)


async def test_the_socket_of_another_is_neither_taken_nor_removed(listener: Listener) -> None:
    path = listener.path
    path.unlink()
    with bind(path):
        inode = path.stat().st_ino
        assert reopened(listener)
        assert listener.path != path
        assert await greeted(listener.path)
        listener.close()
        assert path.stat().st_ino == inode


async def test_one_that_nobody_listens_at_is_replaced(listener: Listener) -> None:
    path = listener.path
    path.unlink()
    bind(path).close()
    assert reopened(listener)
    assert listener.path == path
    assert await greeted(path)


async def test_a_folder_that_cannot_be_made_is_tried_again(listener: Listener) -> None:
    folder = listener.path.parent
    listener.path.unlink()
    folder.rmdir()
    folder.write_text("in the way")
    assert not reopened(listener)
    folder.unlink()
    assert reopened(listener)
    assert await greeted(listener.path)


class Exhausted:
    """A listening socket whose process has no descriptors left for a while."""

    def __init__(self, real: socket.socket) -> None:
        self._real = real
        self.refusing = True
        self.tries = 0

    def accept(self) -> Any:
        if self.refusing:
            self.tries += 1
            raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))
        return self._real.accept()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._real, name)


async def test_without_descriptors_it_rests_says_so_once_and_recovers(
    listener: Listener, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(module, "PAUSE", 0.02)
    exhausted = Exhausted(listener._socket)  # type: ignore[arg-type]
    listener._socket = exhausted  # type: ignore[assignment]
    waiting = [asyncio.ensure_future(greeted(listener.path)) for _ in range(20)]
    async with asyncio.timeout(20):
        while exhausted.tries < 5:
            await asyncio.sleep(0.001)
    exhausted.refusing = False
    assert all(await asyncio.gather(*waiting))
    said = [record for record in caplog.records if record.levelno == logging.ERROR]
    assert len(said) == 1
    assert os.strerror(errno.EMFILE) in said[0].getMessage()
