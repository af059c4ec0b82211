"""The journal: the single writer. Group commit, fencing, and the follow-up after the commit.

Everything that wants to write while a commit is under way goes into the next one. An entry is a synchronous function of a
`Transaction` and has two sides: once it is durable its events go to the followers and `committed` is called; if it will
never be, `failed` is. Exactly one of the two happens, on the event loop, even if nobody awaits the future any more: so
whoever reserves something for an entry gives it back there. Followers are isolated: one that raises is logged, and the rest
are called.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import threading
from collections.abc import Callable, Sequence
from contextvars import Context, copy_context
from enum import Enum, auto
from queue import SimpleQueue
from typing import Any, TypeVar
from weakref import WeakKeyDictionary, WeakSet

from taskrun.engine.core import step_queue
from taskrun.engine.core.outbox import Outgoing
from taskrun.engine.core.transaction import EngineState, Transaction
from taskrun.model.clock import Clock
from taskrun.model.errors import EngineLost, JournalUnavailable
from taskrun.stores.base import Answer, Store, Tx

logger = logging.getLogger("taskrun.engine.journal")
DEFER = 0.05  # seconds that a deferred entry waits for another one's commit
RETRY_WAITS = (0.05, 0.2, 1.0, 3.0)  # seconds between tries while the disk refuses

T = TypeVar("T")
Committed = Callable[[Any], None]
Failed = Callable[[Exception], None]
Settle = Callable[[list[Answer], Exception | None], None]
Batch = tuple[Sequence[Callable[[Tx], Any]], Callable[[Tx], None] | None, Settle]


class Kind(Enum):
    """What an entry is."""

    WRITE = auto()
    READ = auto()  # it writes nothing, and need not wait for the disk
    REGISTER = auto()  # it is committed before all others and alone, past the guard
    CLAIM = auto()  # it is the last of its batch, so that it sees what all others have made ready


class Entry:
    """One function of a batch, which the store calls with its transaction, and its two sides."""

    __slots__ = ("_again", "_outbox", "act", "committed", "failed", "future", "journal", "kind")

    def __init__(
        self,
        journal: Journal,
        kind: Kind,
        act: Callable[[Any], Any],
        future: asyncio.Future[Any] | None,
        committed: Committed | None = None,
        failed: Failed | None = None,
    ) -> None:
        self.journal = journal
        self.kind = kind
        self.act = act
        self.future = future
        self.committed = committed
        self.failed = failed
        self._again = False  # executed before: rolled back, or with an unknown outcome
        self._outbox: Sequence[Outgoing] = ()  # of the last execution

    def __call__(self, tx: Tx) -> Any:
        """Executes it; returns its value."""
        if self.kind is Kind.READ:
            return self.act(tx)
        transaction = Transaction(tx, self.journal.state, self.journal.clock.now(), self._again)
        self._again = True
        value = self.act(transaction)
        while transaction.freed:
            step_queue.hand_on(transaction, transaction.freed.popitem()[0])
        self._outbox = transaction.outbox
        return value

    def settle(self, answer: Answer) -> None:
        """Calls `committed` or `failed`, and resolves its future."""
        value, error = answer
        if error is None:
            self.journal.publish(self._outbox)
        side = self.committed if error is None else self.failed
        if side is not None:
            try:
                side(value if error is None else error)
            except Exception:
                logger.exception("the follow-up of a transaction failed")
        if self.future is not None and not self.future.done():
            if error is None:
                self.future.set_result(value)
            else:
                self.future.set_exception(error)
        if error is not None and self.future is None and not isinstance(error, EngineLost | JournalUnavailable):
            logger.error("a background transaction failed", exc_info=error)


class Journal:
    """Writes to one store for one engine."""

    def __init__(
        self, store: Store, clock: Clock, state: EngineState, guard: Callable[[Tx], None] | None = None
    ) -> None:
        self.store = store
        self.clock = clock
        self.state = state
        self.guard = guard  # raises EngineLost when the engine may no longer write
        self.on_lost: Callable[[], None] | None = None
        self.on_nudge: Callable[[], None] | None = None  # another engine in this process has written
        self.commits = 0
        self.pending = 0  # entries that are not settled yet
        self.fault: Exception | None = None  # why the disk refuses, while it does
        self.patient = True  # whether to wait while the disk refuses; not at start and close, which report it instead
        self._followers: dict[type[Any], list[Callable[[Any], None]]] = {}
        self._tries = 0
        self._written = 0
        self._entries: list[Entry] = []  # in the order in which they came, deferred ones too
        self._timer: asyncio.TimerHandle | None = None  # of deferred entries, or of the next try
        self._busy = False  # a batch is under way, or waits for the disk
        self._closed = False
        self._writer: JournalWriter | None = None
        self._context: Context  # of callbacks: they are not part of the run or task that made an entry

    # ---- life

    def open(self) -> None:
        """Opens the store; all callbacks come on the event loop that runs now."""
        self.store.open()
        self._loop = asyncio.get_running_loop()
        self._context = copy_context()
        if not self.store.instant:
            self._writer = JournalWriter(self.store, self._loop)
        _journals.setdefault(self.store, WeakSet()).add(self)

    async def close(self) -> None:
        """Writes what is pending, unless the disk refuses, and closes the store."""
        self.stop_waiting()
        if not self._closed:
            with contextlib.suppress(EngineLost, JournalUnavailable):
                await self.flush()
        self._closed = True
        self._fail_all(JournalUnavailable("the journal was closed before this could be written"))
        if self._writer is not None:
            await self._loop.run_in_executor(None, self._writer.close)
        self.store.close()

    def stop_waiting(self) -> None:
        """Waits no longer while the disk refuses: from now on, entries that it refuses fail."""
        self.patient = False
        if self.fault is not None:
            self._fail_all(JournalUnavailable(f"the journal is being closed and cannot be written: {self.fault}"))

    # ---- entries

    def follow(self, kind: type[Any], follower: Callable[[Any], None]) -> None:
        """Calls `follower` with each event of a type, after its commit, in the order in which it happened."""
        self._followers.setdefault(kind, []).append(follower)

    def do(
        self,
        act: Callable[[Transaction], T],
        committed: Callable[[T], None] | None = None,
        failed: Failed | None = None,
    ) -> asyncio.Future[T]:
        """Executes `act` in the next commit; the future resolves with its value after the follow-up.

        Raises (through the future):
            JournalUnavailable: the journal is closed.
            EngineLost: another engine has taken over.
        """
        future: asyncio.Future[T] = self._loop.create_future()
        self._add(Entry(self, Kind.WRITE, act, future, committed, failed))
        return future

    def post(
        self,
        act: Callable[[Transaction], T],
        committed: Callable[[T], None] | None = None,
        failed: Failed | None = None,
    ) -> None:
        """Like `do`, for when nobody waits."""
        self._add(Entry(self, Kind.WRITE, act, None, committed, failed))

    def claim(self, act: Callable[[Transaction], T], committed: Committed, failed: Failed) -> None:
        """Like `post`, behind all others of the commit, also those that are put in later."""
        self._add(Entry(self, Kind.CLAIM, act, None, committed, failed))

    def defer(
        self,
        act: Callable[[Transaction], T],
        committed: Callable[[T], None] | None = None,
        failed: Failed | None = None,
    ) -> None:
        """Like `post`, with the next commit that happens anyway, at the latest in 50 ms."""
        if self._closed:
            return
        self._entries.append(Entry(self, Kind.WRITE, act, None, committed, failed))
        self.pending += 1
        if self._timer is None and not self._busy:
            self._timer = self._loop.call_later(DEFER, self._kick, context=self._context)

    def register(self, act: Callable[[Transaction], Any]) -> asyncio.Future[Any]:
        """Like `do`, for the entry that registers this engine: it alone is written without asking the guard."""
        future: asyncio.Future[Any] = self._loop.create_future()
        self._add(Entry(self, Kind.REGISTER, act, future))
        return future

    def read(self, act: Callable[[Tx], T], committed: Callable[[T], None] | None = None) -> asyncio.Future[T]:
        """Reads after everything that was put in before; while the disk refuses, what is durable."""
        future: asyncio.Future[T] = self._loop.create_future()
        self._add(Entry(self, Kind.READ, act, future, committed))
        if self.fault is not None:
            self._read_past_the_fault()
        return future

    @property
    def has_deferred(self) -> bool:
        """Whether entries wait for another one's commit."""
        return bool(self._entries) and not self._busy

    async def flush(self) -> None:
        """Waits until everything put in so far is durable."""
        await self.do(_nothing)

    def publish(self, outbox: Sequence[Outgoing]) -> None:
        """Hands events to their followers."""
        for event in outbox:
            for follower in self._followers.get(type(event), ()):
                try:
                    follower(event)
                except Exception:
                    logger.exception("a follower of %s failed", type(event).__name__)

    # ---- batches

    def _add(self, entry: Entry) -> None:
        self.pending += 1
        if self._closed:
            self._settle_soon([entry], JournalUnavailable("the journal is closed"))
            return
        self._entries.append(entry)
        self._kick()

    def _settle_soon(self, entries: list[Entry], error: Exception) -> None:
        """Fails entries, not within the call that made them."""
        for entry in entries:
            self._loop.call_soon(self._settle_one, entry, (None, error), context=self._context)

    def _settle_one(self, entry: Entry, answer: Answer) -> None:
        self.pending -= 1
        entry.settle(answer)

    def _fail_all(self, error: Exception) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        left, self._entries = self._entries, []
        if self.fault is not None:
            self._busy = False  # the batch that waited for the disk was among them
            self.fault = None
        self._settle_soon(left, error)

    def _kick(self) -> None:
        if not self._busy:
            self._busy = True
            self._loop.call_soon(self._commit, context=self._context)

    def _commit(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        batch, guard = self._next()
        if self._writer is not None:
            self._writer.put(batch, guard, lambda answers, error: self._settle(batch, answers, error))
            return
        try:
            answers = self.store.apply(batch, guard)
        except Exception as error:
            self._settle(batch, [], error)
        else:
            self._settle(batch, answers, None)

    def _next(self) -> tuple[list[Entry], Callable[[Tx], None] | None]:
        """Takes the next batch, with its guard."""
        if registering := [entry for entry in self._entries if entry.kind is Kind.REGISTER]:
            self._entries = [entry for entry in self._entries if entry.kind is not Kind.REGISTER]
            return registering, None
        batch, self._entries = sorted(self._entries, key=lambda entry: entry.kind is Kind.CLAIM), []
        return batch, self.guard

    def _settle(self, batch: list[Entry], answers: list[Answer], error: Exception | None) -> None:
        self._busy = False
        if isinstance(error, JournalUnavailable) and self.patient and not self._closed:
            self._wait_for_the_disk(batch, error)
            return
        self.fault, self._tries = None, 0
        self.commits += 1
        self.pending -= len(batch)
        for entry, answer in zip(batch, answers if error is None else [(None, error)] * len(batch), strict=True):
            entry.settle(answer)
        self.state.delivering.clear()  # all of them have been told, or nothing of it was written
        if isinstance(error, EngineLost) and self.on_lost is not None:
            self.on_lost()
        if self._entries:
            self._kick()
        self._nudge_others()

    def _wait_for_the_disk(self, batch: list[Entry], error: JournalUnavailable) -> None:
        """Keeps the batch and tries again later: runs park at their next record, and nothing is lost or doubled.

        After an unknown outcome the store has reopened, and knows what it has written.
        """
        wait = RETRY_WAITS[min(self._tries, len(RETRY_WAITS) - 1)]
        self._tries += 1
        self.fault = error
        self._entries = batch + self._entries
        self._busy = True
        self._read_past_the_fault()
        self._timer = self._loop.call_later(wait, self._commit, context=self._context)

    def _read_past_the_fault(self) -> None:
        """Answers reads at once, while writes wait for the disk."""
        reads = [entry for entry in self._entries if entry.kind is Kind.READ]
        if not reads:
            return
        with contextlib.suppress(Exception):  # then they wait with the others
            answers = self.store.apply(reads)
            self._entries = [entry for entry in self._entries if entry.kind is not Kind.READ]
            for entry, answer in zip(reads, answers, strict=True):
                self._settle_one(entry, answer)

    # ---- other engines on the same store object

    def _nudge_others(self) -> None:
        """Nudges the other engines, if anything was written since this one looked last."""
        written, self._written = self._written, self.store.written
        if self._written != written and len(journals := _journals[self.store]) > 1:
            for journal in journals - {self}:
                journal.nudge()

    def nudge(self) -> None:
        """Tells this journal, from any thread, that another engine on the same store object has written."""
        if self.on_nudge is not None and not self._closed:
            try:
                self._loop.call_soon_threadsafe(self.on_nudge)
            except RuntimeError:  # its loop is closed: a queue that was abandoned, not closed
                self._closed = True


class JournalWriter:
    """The thread on which a store commits, one batch at a time; it tells the event loop what became of each."""

    def __init__(self, store: Store, loop: asyncio.AbstractEventLoop) -> None:
        self._store = store
        self._loop = loop
        self._batches: SimpleQueue[Batch | None] = SimpleQueue()
        self._thread = threading.Thread(target=self._work, name="taskrun-journal", daemon=True)
        self._thread.start()

    def put(self, fns: Sequence[Callable[[Tx], Any]], guard: Callable[[Tx], None] | None, settle: Settle) -> None:
        """Has a batch applied."""
        self._batches.put((fns, guard, settle))

    def close(self) -> None:
        """Waits for the last batch; blocks."""
        self._batches.put(None)
        self._thread.join()

    def _work(self) -> None:
        while (batch := self._batches.get()) is not None:
            fns, guard, settle = batch
            answers: list[Answer] = []
            error: Exception | None = None
            try:
                answers = self._store.apply(fns, guard)
            except Exception as caught:
                error = caught
            try:
                self._loop.call_soon_threadsafe(settle, answers, error)
            except RuntimeError:  # the loop is closed, so nobody waits
                return


_journals: WeakKeyDictionary[Store, WeakSet[Journal]] = WeakKeyDictionary()


def _nothing(transaction: Transaction) -> None:
    """An entry that only waits for those before it."""
