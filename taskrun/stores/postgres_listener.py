"""Hears of what other connections write: a thread of its own on a connection of its own, which listens to few channels.

A lost connection loses notifications; so the token differs now and then anyway, and whoever holds it looks.

Of a ready run that nobody has, all listeners of its job hear at once, and one is enough. So each waits for a random moment, and
asks whether there still is one before it wakes its engine. Who has asked waits longer the next time, and who took a
run neither waits nor asks: so the one that took the last run takes the next one, and when it cannot, another one soon does.
"""

from __future__ import annotations

import asyncio
import logging
import math
import os
import random
import select
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from typing import Any, Final

import psycopg
from psycopg import sql

from taskrun.model.clock import Alarm, SystemClock
from taskrun.stores.postgres_names import all_channel, engine_channel, job_channel, ready_channel
from taskrun.stores.postgres_session import SQL, connect

logger = logging.getLogger("taskrun.stores.postgres")
NET: Final = 5.0  # seconds after which the token differs though nothing was heard
AGAIN: Final = 1.0  # seconds until a lost connection is made anew
# Seconds that the wait for a ready run takes at most: of who took the last one, of who once did not, in the end; its growth.
AT_ONCE, SOON, LATE, SLOWER = 0.0, 0.0005, 0.1, 1.3


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
        self._followers: dict[Callable[[], None], set[str]] = {}  # the channels of each who is to be called
        self._ready_of: dict[Callable[[], None], Callable[[], None]] = {}  # what follows ready runs for a follower
        self._jobs: dict[str, str] = {}  # by the channels of their ready runs
        self._ready: set[str] = set()  # such channels that were heard
        self._ask_at = math.inf  # the moment to ask whether there still is one
        self._patience = AT_ONCE
        self._phase = random.random()  # so that not all processes of a machine look at one moment
        self._lock = threading.Lock()

    def start(self) -> None:
        """Begins to listen."""
        self._stopping.clear()
        self._wake_r, self._wake_w = os.pipe()
        os.set_blocking(self._wake_r, False)
        os.set_blocking(self._wake_w, False)
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
        wake_r, wake_w, self._wake_r, self._wake_w = self._wake_r, self._wake_w, -1, -1  # their numbers are given again
        os.close(wake_r)
        os.close(wake_w)

    def token(self) -> object:
        """Returns what differs once something was heard, and now and then."""
        return self._heard, int(time.monotonic() / NET + self._phase)

    def now(self) -> float:
        """Returns this machine's time, for as long as the server was not asked."""
        return time.time()

    def follow(self, engine: str, jobs: Sequence[str], call: Callable[[], None], ready: Callable[[], None]) -> None:
        """Listens for an engine and its jobs too."""
        channels = {ready_channel(self._schema, job): job for job in jobs}
        with self._lock:
            self._followers[call] = {
                engine_channel(self._schema, engine),
                *(job_channel(self._schema, job) for job in jobs),
            }
            self._followers[ready], self._ready_of[call] = {*channels}, ready
            self._jobs |= channels
        self._wake()

    def unfollow(self, call: Callable[[], None]) -> None:
        """Calls `call` no more, nor what follows ready runs for it."""
        with self._lock:
            self._followers.pop(call, None)
            self._followers.pop(self._ready_of.pop(call, call), None)
        self._wake()

    def took(self) -> None:
        """Says that an engine of this process took ready runs."""
        self._patience = AT_ONCE

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
        early: deque[psycopg.Notify] = deque()
        connection.add_notify_handler(early.append)
        while not self._stopping.is_set():
            listening = self._subscribe(connection, listening)
            for channel, by in _notifications(connection, early, self._wake_r, self._ask_at - time.monotonic()):
                if by == self._writer:
                    continue
                if channel in self._jobs:
                    self._ready.add(channel)
                    self._ask_at = min(self._ask_at, time.monotonic() + random.uniform(0.0, self._patience))
                else:
                    self._tell(channel)
            if time.monotonic() >= self._ask_at:
                self._ask(connection)

    def _ask(self, connection: psycopg.Connection[tuple[Any, ...]]) -> None:
        """Tells of ready runs that are still there; who took the last one is told at once, since it looks for itself."""
        jobs, self._ready, self._ask_at = [self._jobs[channel] for channel in self._ready], set(), math.inf
        if self._patience > AT_ONCE:
            jobs = [job for (job,) in connection.execute(SQL["jobs_with_ready"], (jobs,))]
        self._patience = min(max(self._patience * SLOWER, SOON), LATE)
        for job in jobs:
            for call in self._concerned(ready_channel(self._schema, job)):
                call()

    def _subscribe(self, connection: psycopg.Connection[tuple[Any, ...]], listening: set[str]) -> set[str]:
        with self._lock:
            wanted = {all_channel(self._schema)}.union(*self._followers.values())
        for channel in wanted - listening:
            connection.execute(sql.SQL("LISTEN {}").format(sql.Identifier(channel)), prepare=False)
        for channel in listening - wanted:
            connection.execute(sql.SQL("UNLISTEN {}").format(sql.Identifier(channel)), prepare=False)
        if wanted - listening:
            self._tell(None)
        return wanted

    def _tell(self, channel: str | None) -> None:
        self._heard += 1
        for call in self._concerned(channel):
            call()

    def _concerned(self, channel: str | None) -> list[Callable[[], None]]:
        with self._lock:
            if channel is None or channel == all_channel(self._schema):
                return [*self._ready_of]  # who looks at everything looks for ready runs too
            return [call for call, channels in self._followers.items() if channel in channels]


def _notifications(
    connection: psycopg.Connection[tuple[Any, ...]], early: deque[psycopg.Notify], wake: int, seconds: float
) -> Iterator[tuple[str, str]]:
    """Waits for notifications, to be woken, or for some seconds; yields the channel of each, and who wrote.

    Parameters:
        early: those that came with the answer to a query.
    """
    poll = select.poll()
    for handle in (connection.fileno(), wake):
        poll.register(handle, select.POLLIN)
    poll.poll(0 if early else max(0.0, min(seconds, NET)) * 1000)
    with suppress(BlockingIOError):
        os.read(wake, 1024)
    connection.pgconn.consume_input()
    while early:
        notify = early.popleft()
        yield notify.channel, notify.payload
    while (heard := connection.pgconn.notifies()) is not None:
        yield heard.relname.decode(), heard.extra.decode()
