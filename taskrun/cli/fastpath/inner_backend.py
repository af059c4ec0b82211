"""Requests of the command lines that the daemon executes itself: answered by its own router, without a socket.

They take the same form as those of any client, JSON parameters and plain answers. They are answered on the daemon's event
loop, while the commands are executed on another one.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable
from contextlib import aclosing
from pathlib import Path
from typing import Any

import msgspec

from taskrun.cli.backend.connect import from_queue
from taskrun.daemon.clients.command_connection import Router
from taskrun.daemon.paths import daemon_paths
from taskrun.model.config import Config

AHEAD = 64  # items of a stream that may wait for the command


class OtherProject(BaseException):
    """The command is about another project's daemon, so its client must execute it. Not an error to explain to anybody."""


class InnerConnector:
    """Connects commands to the daemon that executes them.

    Parameters:
        lock: of this daemon; a command whose configuration belongs to another one is refused.
        loop: the daemon's.
    """

    def __init__(self, router: Router, lock: Path, loop: asyncio.AbstractEventLoop) -> None:
        self._lock = lock
        self._backend = InnerBackend(router, loop)

    async def daemon(self, config: Config, autostart: bool) -> InnerBackend:
        """Returns this daemon; raises OtherProject when another one is meant."""
        if daemon_paths(config).lock != self._lock:
            raise OtherProject
        return self._backend

    async def reader(self, config: Config) -> InnerBackend:
        """Returns this daemon, likewise."""
        return await self.daemon(config, False)


class InnerBackend:
    """The daemon that executes the command, as a `Backend`."""

    live = True

    def __init__(self, router: Router, loop: asyncio.AbstractEventLoop) -> None:
        self._router = router
        self._loop = loop

    async def call(self, op: str, **params: Any) -> Any:
        """Returns the answer to one request."""
        return await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(self._answer(op, params), self._loop))

    async def stream(self, op: str, **params: Any) -> AsyncIterator[Any]:
        """Yields the answers to one request."""
        items = asyncio.Queue[tuple[bool, Any]](AHEAD)
        here = asyncio.get_running_loop()
        pumping = asyncio.run_coroutine_threadsafe(self._pump(op, params, items, here), self._loop)
        try:
            async for item in from_queue(items):
                yield item
        finally:
            pumping.cancel()

    async def close(self) -> None:
        """Does nothing: no connection is open."""

    # ---- on the daemon's loop

    async def _answer(self, op: str, params: dict[str, Any]) -> Any:
        answer = self._request(op, params)
        assert isinstance(answer, Awaitable)
        return await answer

    async def _pump(
        self, op: str, params: dict[str, Any], items: asyncio.Queue[tuple[bool, Any]], there: asyncio.AbstractEventLoop
    ) -> None:
        """Carries items from one loop to the other, no faster than they are taken."""

        async def put(more: bool, item: Any) -> None:
            await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(items.put((more, item)), there))

        try:
            answers = self._request(op, params)
            assert isinstance(answers, AsyncGenerator)
            async with aclosing(answers):
                async for item in answers:
                    await put(True, item)
            await put(False, None)
        except Exception as error:
            await put(False, error)

    def _request(self, op: str, params: dict[str, Any]) -> Awaitable[Any] | AsyncGenerator[Any, None]:
        return self._router.find(op)(msgspec.json.encode({"id": 0, "op": op, **params}))
