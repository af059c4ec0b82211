"""The way to who answers: the daemon through its blocking client, or the journal when no daemon runs.

The client blocks, so each connection is worked by a thread that nobody waits for: Ctrl-C ends a command at once.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import TYPE_CHECKING, Any

from taskrun.cli.blocking_calls import from_thread, in_thread
from taskrun.cli.lazy_imports import CLIENT, OFFLINE, import_late
from taskrun.cli.session import Backend
from taskrun.daemon.lock import holder
from taskrun.daemon.paths import daemon_paths
from taskrun.model.config import Config

if TYPE_CHECKING:
    from taskrun.daemon.client import Client


class ProcessConnector:
    """Connects from this process."""

    async def daemon(self, config: Config, autostart: bool) -> Backend:
        """Returns a connection to the daemon; starts it if it may."""
        connect = import_late(CLIENT).Client.connect  # loaded for nobody who only reads the journal
        return DaemonBackend(await in_thread(lambda: connect(config, autostart=autostart), _close))

    async def reader(self, config: Config) -> Backend:
        """Returns the daemon when it runs, else the journal."""
        if holder(daemon_paths(config, make=False).lock):
            return await self.daemon(config, False)
        journal: Backend = import_late(OFFLINE).JournalBackend(config)  # SQLite is loaded for nobody else
        return journal


class DaemonBackend:
    """The daemon as a `Caller`: one connection, which a stream takes for itself."""

    live = True

    def __init__(self, client: Client) -> None:
        self._client = client

    async def call(self, op: str, **params: Any) -> Any:
        """Returns the answer to one request."""
        return await in_thread(lambda: self._client.call(op, **params))

    async def stream(self, op: str, **params: Any) -> AsyncIterator[Any]:
        """Yields the answers to one request."""
        async for item in from_thread(lambda: self._client.stream(op, **params)):
            yield item

    async def close(self) -> None:
        """Ends the connection."""
        self._client.close()


def _close(client: Client) -> None:
    client.close()
