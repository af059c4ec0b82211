"""An engine's hold on its runs: registration, heartbeat, fencing, and the takeover of dead engines.

The heartbeat has a thread of its own, so that a blocked event loop is not taken for death. An engine whose row is gone was
taken over: its guard raises `EngineLost` and nothing of the batch is written. A death is *seen* when the dead engine's liveness
lock is free (it and all its processes are gone), else it is assumed when its lease has run out.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import secrets
import socket
import threading
import time
from collections.abc import Awaitable, Callable
from functools import partial
from pathlib import Path

from taskrun import __version__
from taskrun.engine.core.engine_reports import REPORTS, EngineReport
from taskrun.engine.core.journal import Journal
from taskrun.engine.core.transaction import EngineState
from taskrun.model.errors import EngineLost, JournalUnavailable, TaskrunError
from taskrun.model.records import Engine
from taskrun.processes.liveness_lock import LivenessLock
from taskrun.stores.base import Store, Tx

logger = logging.getLogger("taskrun.engine.core.lease")
FOREVER = 1e12
AGAIN = 1.0  # seconds between two tries to renew
JUMP = 2.0  # seconds by which the wall clock may leave the monotonic one before that is taken for a jump
WATCHED = 0.2  # seconds between looks for those who follow runs


class Lease:
    """One engine's registration in a journal.

    Parameters:
        seconds: after this long without a heartbeat others may take over.
        alone: nobody else can be there (the daemon's own journal): whoever is registered is dead.
        heartbeat: False where nobody looks at it: alone, or with virtual time.
    """

    def __init__(
        self, store: Store, state: EngineState, name: str, seconds: float, *, alone: bool, heartbeat: bool
    ) -> None:
        self._state = state
        self.liveness_lock: LivenessLock | None = None
        self._store = store
        self._now = time.time if store.clock is None else store.clock.now
        self._name = name
        self._seconds = seconds
        self._alone = alone
        self._heartbeat = heartbeat
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None
        self._renewed = time.monotonic()
        self._ahead = self._now() - self._renewed  # the wall clock, of the monotonic one
        # who could not renew its lease cannot tell who else could, and gives them time
        self._judges_from = self._renewed
        self.draining = False  # nothing is started any more
        self.load: Callable[[], int] = lambda: 0  # runs that are executed
        self.watched: Callable[[], bool] = lambda: False  # whether somebody follows runs that others may execute
        self._hear: Callable[[], None] = lambda: None  # that another process has written; from any thread
        self._hear_of_ready = self._hear

    def guard(self, tx: Tx) -> None:
        """Raises EngineLost when this engine may not write: it is not registered yet, or no longer."""
        if tx.engine(self._state.id) is None:
            raise EngineLost("another engine has taken over the runs of this one: its lease had run out")

    async def acquire(self, journal: Journal) -> None:
        """Registers a new engine; the old id, if there was one, is fenced for ever."""
        engine = secrets.token_hex(6)
        if self.liveness_lock is None and self._store.place is not None:
            self.liveness_lock = LivenessLock(Path(f"{self._store.place}.{engine}.lock"))
        await journal.register(lambda t: self._put(t.tx, engine))
        self._state.id = engine
        if self._heartbeat and self._thread is None:
            self._renewed = time.monotonic()
            self._ahead = self._now() - self._renewed  # a server's clock is only known from here on
            self._thread = threading.Thread(target=self._beat, name="taskrun-heartbeat", daemon=True)
            self._thread.start()

    def release(self) -> None:
        """Ends the heartbeat: the engine has signed off."""
        self._stop.set()
        self._store.unfollow(self._hear)
        if self.liveness_lock is not None:
            self.liveness_lock.close()

    def dead(self, engine: Engine) -> bool:
        """Whether another engine is dead."""
        if engine.id == self._state.id or self._alone:
            return engine.id != self._state.id
        return _seen_dead(engine) or (engine.lease_until < self._now() and self._judges())

    def _judges(self) -> bool:
        now = time.monotonic()
        self._notice_jump(now)
        return not self._heartbeat or (now >= self._judges_from and not self._is_late(now))

    def _notice_jump(self, now: float) -> None:
        """Gives others time where the wall clock has jumped, as it does in a suspend: their leases only seem to have run out."""
        ahead = self._now() - now
        if abs(ahead - self._ahead) > JUMP:
            self._judges_from = now + self._seconds
        self._ahead = ahead

    def _is_late(self, now: float) -> bool:
        return now - self._renewed > self._seconds * 2 / 3

    def all_dead(self, tx: Tx) -> list[Engine]:
        """Returns the dead engines. Where a death is never seen, the others are not even read: there may be a thousand."""
        seen = self._alone or self._store.place is not None
        return [engine for engine in tx.engines(None if seen else self._now()) if self.dead(engine)]

    def remove_files(self, engine: Engine) -> None:
        """Removes what a dead engine has left beside the journal."""
        if engine.leash is not None and _seen_dead(engine):
            Path(engine.leash).unlink(missing_ok=True)

    async def watch(
        self, nudged: Callable[[], None], ready: Callable[[], None], take_over: Callable[[], Awaitable[None]]
    ) -> None:
        """Looks for what other engines have written, for ready runs that none has, and for dead ones, until cancelled."""
        if not self._heartbeat:
            return
        heard, loop = asyncio.Event(), asyncio.get_running_loop()
        self._hear, self._hear_of_ready = partial(_soon, loop, heard.set), partial(_soon, loop, ready)
        self.listen()
        # Without a journal's place no death is seen, and all there is to look for are leases that have run out.
        seen, check_at, often = self._store.outside(), time.monotonic(), self._store.place is not None
        while True:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(
                    min(self._store.pace, self._seconds / 3, WATCHED if self.watched() else FOREVER)
                ):
                    await heard.wait()
            heard.clear()
            try:
                # A store that is told only of what concerns an engine is not told how its runs fare elsewhere.
                if (token := self._store.outside()) != seen or (not often and self.watched()):
                    seen = token
                    nudged()
                if time.monotonic() >= check_at:
                    check_at = time.monotonic() + min(1.0 if often else self._seconds, self._seconds / 3)
                    await take_over()
            except (EngineLost, JournalUnavailable):  # it begins again, or the disk refuses
                continue
            except Exception:  # the next look may succeed
                logger.exception("looking for changes of other engines failed")

    def listen(self) -> None:
        """Asks to hear what others write of this engine's runs and jobs, as they are now."""
        self._store.follow(self._state.id, self._state.jobs, self._hear, self._hear_of_ready)

    def _row(self, engine: str) -> Engine:
        until = self._now() + self._seconds if self._heartbeat else FOREVER
        return Engine(
            id=engine,
            name=self._name,
            lease_until=until,
            host=socket.gethostname(),
            pid=os.getpid(),
            leash=None if self.liveness_lock is None else str(self.liveness_lock.path),
        )

    def _beat(self) -> None:
        pause = self._seconds / 3
        while not self._stop.wait(pause):
            pause = self._seconds / 3 if self.renew() else min(AGAIN, self._seconds / 3)

    def renew(self) -> bool:
        """Renews the lease, if the store can be written; returns whether it can."""
        engine = self._state.id
        try:
            if engine:
                self._store.apply([lambda tx: self._renew(tx, engine)])
        except Exception as error:  # the next beat may succeed, else the lease runs out
            if not isinstance(error, TaskrunError):
                logger.exception("the lease could not be renewed")
            self._judges_from = time.monotonic() + self._seconds
            return False
        now = time.monotonic()
        self._notice_jump(now)
        if self._is_late(now):  # it was stopped, or the store did not answer
            self._judges_from = now + self._seconds
        self._renewed = now
        return True

    def _renew(self, tx: Tx, engine: str) -> None:
        if tx.engine(engine) is not None:
            self._put(tx, engine)

    def _put(self, tx: Tx, engine: str) -> None:
        tx.put_engine(self._row(engine))
        REPORTS.put(tx, engine, EngineReport(__version__, self.load(), self._now(), self.draining))

    async def drain(self, journal: Journal) -> None:
        """Says that nothing is started any more."""
        self.draining = True
        await journal.do(lambda t: self._renew(t.tx, t.engine))


def _seen_dead(engine: Engine) -> bool:
    """Whether an engine of this host, and all that it started, is certainly gone: its liveness lock is free."""
    lock = engine.leash
    return lock is not None and engine.host == socket.gethostname() and LivenessLock.free(Path(lock))


def _soon(loop: asyncio.AbstractEventLoop, call: Callable[[], None]) -> None:
    with contextlib.suppress(RuntimeError):  # its loop is closed
        loop.call_soon_threadsafe(call)


def report_failure(task: asyncio.Task[None]) -> None:
    """Reports that a task which nobody awaits has failed."""
    if not task.cancelled() and (error := task.exception()) is not None:
        context = {"message": "an engine could not go on after it had lost its lease", "exception": error, "task": task}
        task.get_loop().call_exception_handler(context)
