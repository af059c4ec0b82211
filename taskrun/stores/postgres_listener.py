"""Hears of what other connections write: a thread of its own on a connection of its own, which listens to few channels.

A lost connection loses notifications; so the token differs now and then anyway, and whoever holds it looks.
"""

from __future__ import annotations

import asyncio
import logging
import os
import select
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from typing import Any, Final

import psycopg
from psycopg import sql

from taskrun.model.clock import Alarm, SystemClock
from taskrun.stores.postgres_names import all_channel, engine_channel, job_channel
from taskrun.stores.postgres_session import connect

logger = logging.getLogger("taskrun.stores.postgres")
NET: Final = 5.0  # seconds after which the token differs though nothing was heard
AGAIN: Final = 1.0  # seconds until a lost connection is made anew


class ServerClock:
    """The server's time, and this machine's waiting."""

    def __init__(self, now: Callable[[], float]) -> None:
        self._now = now
        self._machine = SystemClock()

    def now(self) -> float:
        """Returns the server's time in Unix seconds."""
        return self._now()

    async def sleep(self, seconds: float) -> None:
        """Waits at most 30 s, by the monotonic clock."""
        await self._machine.sleep(seconds)

    def alarm(self, seconds: float, call: Callable[[], None]) -> Alarm:
        """Calls `call` after `seconds` of the monotonic clock."""
        return asyncio.get_running_loop().call_later(max(0.0, seconds), call)


class Listener:
    """Listens for the engines of one store.

    Parameters:
        writer: who writes for these engines; what it tells the others it need not hear itself.
    """

    def __init__(self, dsn: str, schema: str, writer: str) -> None:
        self._dsn = dsn
        self._schema = schema
        self._writer = writer
        self._thread: threading.Thread | None = None
        self._stopping = threading.Event()
        self._wake_r, self._wake_w = -1, -1
        self._heard = 0
        self._channels: dict[Callable[[], None], set[str]] = {}  # of each who is to be called
        self._lock = threading.Lock()

    def start(self) -> None:
        """Begins to listen."""
        self._stopping.clear()
        self._wake_r, self._wake_w = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        self._thread = threading.Thread(target=self._run, name="taskrun-listener", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Ends it."""
        if self._thread is None:
            return
        self._stopping.set()
        self._wake()
        self._thread.join()
        self._thread = None
        os.close(self._wake_r)
        os.close(self._wake_w)

    def token(self) -> object:
        """Returns what differs once something was heard, and now and then."""
        return self._heard, int(time.monotonic() / NET)

    def now(self) -> float:
        """Returns this machine's time, for as long as the server was not asked."""
        return time.time()

    def follow(self, engine: str, jobs: Sequence[str], call: Callable[[], None]) -> None:
        """Listens for an engine and its jobs too."""
        wanted = {engine_channel(self._schema, engine), *(job_channel(self._schema, job) for job in jobs)}
        with self._lock:
            self._channels[call] = wanted
        self._wake()

    def unfollow(self, call: Callable[[], None]) -> None:
        """Calls `call` no more."""
        with self._lock:
            self._channels.pop(call, None)
        self._wake()

    def _wake(self) -> None:
        with suppress(OSError):
            os.write(self._wake_w, b"\0")

    def _run(self) -> None:
        while not self._stopping.is_set():
            try:
                with connect(self._dsn, self._schema) as connection:
                    self._listen(connection)
            except psycopg.Error as error:
                logger.debug("the connection that listens was lost: %s", error)
                self._stopping.wait(AGAIN)
                self._tell(None)  # what was written meanwhile was not heard

    def _listen(self, connection: psycopg.Connection[tuple[Any, ...]]) -> None:
        listening: set[str] = set()
        while not self._stopping.is_set():
            listening = self._subscribe(connection, listening)
            for channel, by in _notifications(connection, self._wake_r):
                if by != self._writer:
                    self._tell(channel)

    def _subscribe(self, connection: psycopg.Connection[tuple[Any, ...]], listening: set[str]) -> set[str]:
        with self._lock:
            wanted = {all_channel(self._schema)}.union(*self._channels.values())
        for channel in wanted - listening:
            connection.execute(sql.SQL("LISTEN {}").format(sql.Identifier(channel)), prepare=False)
        for channel in listening - wanted:
            connection.execute(sql.SQL("UNLISTEN {}").format(sql.Identifier(channel)), prepare=False)
        if wanted - listening:
            self._tell(None)
        return wanted

    def _tell(self, channel: str | None) -> None:
        with self._lock:
            everybody = channel is None or channel == all_channel(self._schema)
            concerned = [call for call, channels in self._channels.items() if everybody or channel in channels]
        self._heard += 1
        for call in concerned:
            call()


def _notifications(connection: psycopg.Connection[tuple[Any, ...]], wake: int) -> Iterator[tuple[str, str]]:
    """Waits for notifications, or to be woken; yields the channel of each, and who wrote."""
    poll = select.poll()
    for handle in (connection.fileno(), wake):
        poll.register(handle, select.POLLIN)
    poll.poll(NET * 1000)
    with suppress(BlockingIOError):
        os.read(wake, 1024)
    connection.pgconn.consume_input()
    while (notify := connection.pgconn.notifies()) is not None:
        yield notify.relname.decode(), notify.extra.decode()
