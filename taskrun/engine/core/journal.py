"""The journal: the single writer. Group commit, fencing, and publication after the commit.

Everything that wants to write while a commit is under way goes into the next one. An entry is a synchronous function of the
transaction; `then` is called with its value on the event loop once it is durable, before its future resolves with what `then`
returns, so that what follows a commit happens even if whoever awaited it was cancelled. Used by the core alone.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Callable
from queue import SimpleQueue
from typing import Any, NamedTuple
from weakref import WeakKeyDictionary, WeakSet

from taskrun.model.errors import EngineLost, JournalUnavailable
from taskrun.stores.base import Store, Tx

RIDE = 0.05  # seconds that a rider waits for a commit to go with
PATIENCE = (0.05, 0.2, 1.0, 3.0)  # waits between tries while the disk refuses


class Entry(NamedTuple):
    """One function of a batch, who waits for it, and what follows."""

    fn: Callable[[Tx], Any]
    then: Callable[[Any], Any] | None
    future: asyncio.Future[Any] | None
    reads: bool = False  # it writes nothing, and need not wait for the disk
    registers: bool = False  # it is committed before all others and alone, past the guard


class Journal:
    """Writes to one store for one engine."""

    def __init__(self, store: Store, guard: Callable[[Tx], None] | None = None) -> None:
        self.store = store
        self.guard = guard  # raises EngineLost when the engine may not write any more
        self.on_lost: Callable[[], None] | None = None
        self.on_nudge: Callable[[], None] | None = None  # another engine in this process has written
        self.commits = 0
        self.pending = 0  # entries that are not settled yet
        self.fault: Exception | None = None  # why the disk refuses, while it does
        self.patient = True  # whether to wait for a disk that refuses; who only starts would rather know
        self._tries = 0
        self._written = 0
        self._entries: list[Entry] = []
        self._riders: list[Entry] = []
        self._timer: asyncio.TimerHandle | None = None  # of riders, or of the next try
        self._busy = False
        self._closed = False
        self._writer: _Writer | None = None

    def open(self) -> None:
        """Opens the store; the loop that runs is the one all callbacks come on."""
        self.store.open()
        self._loop = asyncio.get_running_loop()
        if not self.store.instant:
            self._writer = _Writer(self.store, self._loop)
        _neighbours.setdefault(self.store, WeakSet()).add(self)

    def write(self, fn: Callable[[Tx], Any], then: Callable[[Any], Any] | None = None) -> asyncio.Future[Any]:
        """Puts `fn` into the next commit; the future resolves with its value once that is durable.

        Raises (through the future):
            JournalUnavailable: the journal is closed.
            EngineLost: another engine has taken over.
        """
        future: asyncio.Future[Any] = self._loop.create_future()
        self._add(Entry(fn, then, future))
        return future

    def register(self, fn: Callable[[Tx], Any], then: Callable[[Any], Any]) -> asyncio.Future[Any]:
        """Like `write` for what makes this engine one that may write: the guard, which refuses all others, lets it pass."""
        future: asyncio.Future[Any] = self._loop.create_future()
        self._add(Entry(fn, then, future, registers=True))
        return future

    def read(self, fn: Callable[[Tx], Any]) -> asyncio.Future[Any]:
        """Like `write` for what only reads: while the disk refuses, it sees what is durable."""
        future: asyncio.Future[Any] = self._loop.create_future()
        self._add(Entry(fn, None, future, reads=True))
        if self.fault is not None:
            self._read_past_the_fault()
        return future

    def post(self, fn: Callable[[Tx], Any], then: Callable[[Any], Any] | None = None) -> None:
        """Like `write`, for when nobody waits."""
        self._add(Entry(fn, then, None))

    def ride(self, fn: Callable[[Tx], Any], then: Callable[[Any], Any] | None = None) -> None:
        """Puts `fn` into the next commit that happens anyway, at the latest in 50 ms."""
        self._riders.append(Entry(fn, then, None))
        self.pending += 1
        if self._timer is None and not self._busy:
            self._timer = self._loop.call_later(RIDE, self._kick)

    @property
    def riding(self) -> bool:
        """Whether something waits for a commit to go with."""
        return bool(self._riders)

    async def flush(self) -> None:
        """Waits until everything put in so far is durable."""
        await self.write(_nothing)

    async def close(self) -> None:
        """Writes what is pending and closes the store."""
        if not self._closed and self.fault is None:
            with contextlib.suppress(EngineLost):
                await self.flush()
        self._closed = True
        self._give_up()
        if self._writer is not None:
            await self._loop.run_in_executor(None, self._writer.close)
        self.store.close()

    def _give_up(self) -> None:
        """Fails what still waits for the disk."""
        if self._timer is not None:
            self._timer.cancel()
        left, self._riders, self._entries = self._riders + self._entries, [], []
        self.pending -= len(left)
        for entry in left:
            if entry.future is not None and not entry.future.done():
                entry.future.set_exception(JournalUnavailable("the journal was closed while the disk refused"))

    def _add(self, entry: Entry) -> None:
        if self._closed:
            if entry.future is not None:
                entry.future.set_exception(JournalUnavailable("the journal is closed"))
            return
        self._entries.append(entry)
        self.pending += 1
        self._kick()

    def _kick(self) -> None:
        if not self._busy:
            self._busy = True
            self._loop.call_soon(self._commit)

    def _commit(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        batch, guard = self._next()
        if self._writer is not None:
            self._writer.put(batch, guard, self._settle)
            return
        try:
            self._settle(batch, self.store.apply([entry.fn for entry in batch], guard), None)
        except Exception as error:
            self._settle(batch, [], error)

    def _next(self) -> tuple[list[Entry], Callable[[Tx], None] | None]:
        """Takes the next batch, and who guards it."""
        if registering := [entry for entry in self._entries if entry.registers]:
            self._entries = [entry for entry in self._entries if not entry.registers]
            return registering, None
        batch = self._riders + self._entries  # riders are older than what waits for a commit of its own
        self._riders, self._entries = [], []
        return batch, self.guard

    def _settle(self, batch: list[Entry], results: list[tuple[Any, Exception | None]], error: Exception | None) -> None:
        self._busy = False
        if isinstance(error, JournalUnavailable) and self.patient and not self._closed:
            self._wait_for_the_disk(batch, error)
            return
        self.fault, self._tries = None, 0
        self.commits += 1
        self.pending -= len(batch)
        outcomes = results if error is None else [(None, error)] * len(batch)
        for entry, (value, failure) in zip(batch, outcomes, strict=True):
            self._resolve(entry, value, failure)
        if isinstance(error, EngineLost) and self.on_lost is not None:
            self.on_lost()
        if self._entries or self._riders:
            self._kick()
        self._tell_neighbours()

    def _tell_neighbours(self) -> None:
        """Nudges the other engines on the same store object, if anything was written since this one looked last."""
        written, self._written = self._written, self.store.written
        if self._written != written and len(neighbours := _neighbours[self.store]) > 1:
            for journal in neighbours - {self}:
                journal.nudge()

    def _wait_for_the_disk(self, batch: list[Entry], error: JournalUnavailable) -> None:
        """Keeps the batch and tries again later: runs park at their next record, and nothing is lost or doubled.

        After an unknown outcome the store has reopened; entries are written so that a second application changes nothing.
        """
        waits = PATIENCE[min(self._tries, len(PATIENCE) - 1)]
        self._tries += 1
        self.fault = error
        self._entries = batch + self._entries
        self._busy = True
        self._read_past_the_fault()
        self._timer = self._loop.call_later(waits, self._commit)

    def _read_past_the_fault(self) -> None:
        """Answers at once those who only want to look."""
        reading = [entry for entry in self._entries if entry.reads]
        if reading and self._writer is not None:
            self._entries = [entry for entry in self._entries if not entry.reads]
            self._writer.put(reading, None, self._settle_reads)

    def _settle_reads(
        self, batch: list[Entry], results: list[tuple[Any, Exception | None]], error: Exception | None
    ) -> None:
        self.pending -= len(batch)
        outcomes = results if error is None else [(None, error)] * len(batch)
        for entry, (value, failure) in zip(batch, outcomes, strict=True):
            self._resolve(entry, value, failure)

    def _resolve(self, entry: Entry, value: Any, failure: Exception | None) -> None:
        if failure is None and entry.then is not None:
            try:
                value = entry.then(value)
            except Exception as error:  # a bug of ours must not take the rest of the batch with it
                self._loop.call_exception_handler({"message": "after a commit", "exception": error})
                failure = error
        if entry.future is None:
            if failure is not None and not isinstance(failure, EngineLost):
                self._loop.call_exception_handler({"message": "in the journal", "exception": failure})
        elif entry.future.done():
            return
        elif failure is None:
            entry.future.set_result(value)
        else:
            entry.future.set_exception(failure)

    def nudge(self) -> None:
        """Tells this journal, from any thread, that another engine on the same store object has written."""
        if self.on_nudge is not None and not self._closed:
            try:
                self._loop.call_soon_threadsafe(self.on_nudge)
            except RuntimeError:  # its loop is closed: a queue that was abandoned, not closed
                self._closed = True


_neighbours: WeakKeyDictionary[Store, WeakSet[Journal]] = WeakKeyDictionary()


def _nothing(tx: Tx) -> None:
    """An entry that only waits for those before it."""


class _Writer:
    """The thread on which a store commits; one batch at a time."""

    def __init__(self, store: Store, loop: asyncio.AbstractEventLoop) -> None:
        self._store = store
        self._loop = loop
        self._batches: SimpleQueue[tuple[list[Entry], Callable[[Tx], None] | None, Callable[..., None]] | None] = (
            SimpleQueue()
        )
        self._thread = threading.Thread(target=self._work, name="taskrun-journal", daemon=True)
        self._thread.start()

    def put(self, batch: list[Entry], guard: Callable[[Tx], None] | None, settle: Callable[..., None]) -> None:
        self._batches.put((batch, guard, settle))

    def close(self) -> None:
        self._batches.put(None)
        self._thread.join()

    def _work(self) -> None:
        while (work := self._batches.get()) is not None:
            batch, guard, settle = work
            results: list[tuple[Any, Exception | None]] = []
            error: Exception | None = None
            try:
                results = self._store.apply([entry.fn for entry in batch], guard)
            except Exception as caught:
                error = caught
            try:
                self._loop.call_soon_threadsafe(settle, batch, results, error)
            except RuntimeError:  # the loop is closed: nobody waits any more
                return
