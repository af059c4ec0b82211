"""Places and attempts: which ready run starts, in which executor, and what becomes of its coroutine while it waits.

Part of the core. A claim is one transaction that gives as many places as are free; only one is under way at a time, so that the
count of places needs no lock. Coroutines that wait long, or too many of them, are evicted; the journal wakes them.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from functools import partial
from typing import NamedTuple, TypeVar

from msgspec.structs import replace

from taskrun.engine import messages as m
from taskrun.engine.core import run_lifecycle as ledger
from taskrun.engine.core import run_queue as lanes
from taskrun.engine.core import step_queue as permits
from taskrun.engine.core import waits
from taskrun.engine.core.attempts import Resident
from taskrun.engine.core.queries.why import Known
from taskrun.engine.core.transaction import Book
from taskrun.engine.core.transactions import Ledgers
from taskrun.model.clock import Clock
from taskrun.model.records import Run, Status, Step
from taskrun.stores.base import Tx

T = TypeVar("T")
EVICT_AFTER = 60.0  # seconds: a wait that is longer than this is not worth a coroutine
MAX_PARKED = 1_000  # parked coroutines that are kept at most
UNLIMITED = 1_000_000_000
PROGRESS = 0.25  # seconds that progress may be late in the journal
CLAIM = 256  # runs that one transaction starts at most


class Start(NamedTuple):
    """A run that was given a place, with what it needs to go on.

    `alive`: its coroutine was there, so that `steps` are only the waits that are over; else they are all, for a replay.
    """

    run: Run
    steps: list[Step]
    log_seq: int = 0
    fresh: bool = False
    alive: bool = False


class Dispatch:
    """The attempts that this engine executes."""

    def __init__(self, ledgers: Ledgers, clock: Clock, concurrency: int | None, grace: float) -> None:
        self.peers: dict[m.Peer, m.Description] = {}
        self.residents: dict[str, Resident] = {}
        self.open = False  # whether places are given
        self.blocked: dict[str, str] = {}  # runs that block their executor's event loop, and where
        self._ledgers = ledgers
        self._clock = clock
        self._concurrency = UNLIMITED if concurrency is None else concurrency
        self._grace = grace
        self._places = 0  # how many residents hold one
        self._kept = 0  # places that are kept for triggers on their way into the journal
        self._backlog = True  # whether there may be ready runs that have no place
        self._suspects = 0  # how many of those were executing when a worker died
        self._parked: dict[str, Resident] = {}  # those that may be evicted, the longest parked first
        self._claiming = False
        self._again = False
        self._able: dict[str, list[m.Peer]] = {}  # who has a job
        self._jobs: list[str] = []

    # ---- executors

    def join(self, peer: m.Peer, description: m.Description) -> None:
        """Takes an executor on."""
        self.peers[peer] = description
        self._learn()
        self._ledgers.post(lanes.look)
        self.claim()

    def retire(self, peer: m.Peer) -> None:
        """Gives an executor no more work; what it has goes on."""
        self.peers.pop(peer, None)
        self._learn()

    def leave(self, peer: m.Peer) -> list[str]:
        """Lets an executor go; returns the runs whose coroutines went with it."""
        self.retire(peer)
        gone = [resident.run for resident in self.residents.values() if resident.peer is peer]
        for run_id in gone:
            self._drop(self.residents[run_id])
        return gone

    def peer_for_pipe(self, pipe: str) -> m.Peer | None:
        """Returns an executor that has a pipe."""
        for peer, description in self.peers.items():
            if any(known["name"] == pipe for known in description.pipes):
                return peer
        return None

    def forget(self) -> None:
        """Forgets all attempts, and the claim under way: another engine has their runs."""
        self._claiming = False
        for resident in list(self.residents.values()):
            self._drop(resident)

    def peer_for(self, job: str) -> m.Peer | None:
        """Returns the least busy executor that has a job."""
        able = self._able.get(job, [])
        if len(able) <= 1:
            return able[0] if able else None
        load = dict.fromkeys(able, 0)
        for resident in self.residents.values():
            if resident.placed and resident.peer in load:
                load[resident.peer] += 1
        return min(able, key=load.__getitem__)

    def _learn(self) -> None:
        self._able = {}
        for peer, description in self.peers.items():
            for name in description.names:
                self._able.setdefault(name, []).append(peer)
        self._jobs = self._ledgers.jobs = sorted(self._able)

    # ---- giving places

    def claim(self) -> None:
        """Gives places to ready runs; a call while a claim is under way makes it look once more."""
        if not self.open or not self._jobs:
            return
        self._backlog = True
        if self._claiming:
            self._again = True
            return
        self._claiming, self._again = True, False
        jobs, suspects = self._jobs, self._suspects
        limit = min(self._concurrency - self._places - self._kept, CLAIM)

        def act(book: Book) -> tuple[list[Start], lanes.Claim]:
            claim = lanes.claim(book, jobs, limit, suspects)
            return [self._prepare(book, run) for run in claim.started], claim

        self._ledgers.post(act, self._claimed)

    def keep_place(
        self, act: Callable[..., T], then: Callable[[T], None] | None = None
    ) -> tuple[Callable[[Book], T], Callable[[T], None] | None]:
        """Keeps a place, if one is free, for the run that `act` triggers, so that it need not be claimed.

        Returns what to do in the journal and what to do then; `act` is told by `place` whether it has one.
        """
        if not self.open or self._claiming or self._backlog or self._places + self._kept >= self._concurrency:
            return partial(act, place=False), then
        self._kept += 1
        loop = asyncio.get_running_loop()

        def keeping(book: Book) -> T:
            try:
                return act(book, place=True)
            except BaseException:
                loop.call_soon_threadsafe(self._give_back)
                raise

        def kept(value: T) -> None:
            self._give_back()
            if then is not None:
                then(value)

        return keeping, kept

    def _fill_place(self) -> None:
        """Claims for a place that has become free, unless nobody is known to wait for one."""
        if self._backlog:
            self.claim()

    def _give_back(self) -> None:
        self._kept = max(0, self._kept - 1)

    def _prepare(self, book: Book, run: Run) -> Start:
        """Reads what a replay needs; nothing for a first start, nor for a coroutine that is alive."""
        first = run.id in book.begun
        if (resident := self.residents.get(run.id)) is not None:
            return Start(run, _news(book, run, resident), alive=True)
        if first and run.retried_from is None:
            return Start(run, [], fresh=True)
        return _whole(book.tx, run, first)

    def _claimed(self, result: tuple[list[Start], lanes.Claim]) -> None:
        starts, claim = result
        self._claiming, self._backlog = False, claim.backlog or self._again
        for start in starts:
            self._place(start)
        if claim.more or self._again:
            self.claim()

    def _place(self, start: Start) -> None:
        resident = self.residents.get(start.run.id)
        if (
            resident is None and start.alive
        ):  # its coroutine went while its place was on its way: now it needs all its steps
            self._kept += 1
            self._ledgers.journal.post(lambda tx: _whole(tx, start.run, False), self._replay)
            return
        if resident is None:
            self._execute(start)
            return
        self._set_place(resident, start.run.placed)
        if not resident.evicting:  # else it goes on by replay, once its coroutine is gone
            resident.over += start.steps
            self._continue(resident)

    def _replay(self, start: Start) -> None:
        self._give_back()
        self._execute(start)

    def _execute(self, start: Start) -> None:
        peer = self.peer_for(start.run.job)
        if peer is None or not self.open:
            self._ledgers.post(lambda book: ledger.let_go(book, [start.run], blame=False))
            return
        run = start.run
        resident = Resident(
            run=run.id, peer=peer, suspect=run.crashes > 0, cancelled=run.cancel is not None, progress=run.progress
        )
        self.residents[run.id] = resident
        self._set_place(resident, run.placed)
        resident.waiting.update(step.key for step in start.steps if _is_wait(step))
        for step in start.steps:
            self._ledgers.sequence.beyond(step.order or 0)
        peer.tell(m.Execute(run=run, steps=start.steps, log_seq=start.log_seq, fresh=start.fresh))

    def _set_place(self, resident: Resident, placed: bool) -> None:
        change = placed - resident.placed
        self._places += change
        self._suspects += change * resident.suspect
        resident.placed = placed

    def _continue(self, resident: Resident) -> None:
        """Lets a parked attempt go on, with the waits that are over."""
        resident.parked = False
        self._parked.pop(resident.run, None)
        self._tell_over(resident)
        for activation in resident.activations:
            if not activation.done():
                activation.set_result(None)
        resident.activations.clear()

    def _tell_over(self, resident: Resident) -> None:
        over, resident.over = resident.over, []
        resident.waiting.difference_update(step.key for step in over)
        resident.told += len(over)
        resident.peer.tell(m.Resume(run=resident.run, steps=over))

    # ---- following transactions

    def follow(self, book: Book) -> None:
        """Acts on what a transaction did to runs of this engine."""
        for step in book.over:
            self._over(step)
        for run in book.cancels:
            self._cancel(run)
        for run in book.pauses:
            if (resident := self.residents.get(run.id)) is not None:
                resident.peer.tell(m.Pause(run=run.id) if run.pause is not None else m.Unpause(run=run.id))
        for run in book.granted:
            self._place(Start(run, [], fresh=True))
        if book.claimable:
            self.claim()
        elif book.left:
            self._fill_place()

    def _over(self, step: Step) -> None:
        resident = self.residents.get(step.run)
        if resident is None:
            return
        resident.over.append(step)
        if not resident.parked or resident.cancelled:
            self._tell_over(resident)

    def _cancel(self, run: Run) -> None:
        resident = self.residents.get(run.id)
        if resident is not None and not resident.cancelled:
            resident.cancelled = True
            resident.peer.tell(m.Cancel(run=run.id, reason=run.cancel or "explicit", grace=self._grace))

    def hurry(self, run_id: str, reason: str, grace: float) -> None:
        """Gives an attempt that is being cancelled another grace."""
        resident = self.residents.get(run_id)
        if resident is not None and resident.cancelled:
            resident.peer.tell(m.Cancel(run=run_id, reason=reason, grace=grace))

    def heed(self, runs: list[Run]) -> None:
        """Acts on requests that another engine wrote on runs of this one."""
        for run in runs:
            if run.cancel is not None:
                self._cancel(run)
            resident = self.residents.get(run.id)
            if run.pause is not None and resident is not None:
                resident.peer.tell(m.Pause(run=run.id))

    def known(self, engine: str) -> Known:
        """Returns what only this engine knows of why a run does not run."""
        limit = None if self._concurrency >= UNLIMITED else self._concurrency
        executing = [resident.run for resident in self.residents.values() if resident.placed]
        return Known(self._clock.now(), engine, limit, executing, list(self._jobs), dict(self.blocked))

    def expect(self, step: Step) -> None:
        """Keeps that an attempt waits."""
        resident = self.residents.get(step.run)
        if resident is not None and _is_wait(step):
            resident.waiting.add(step.key)

    def look(self) -> None:
        """Looks whether another engine has ended a wait of an attempt that does something besides; the others wake by claims."""
        busy = [one for one in self.residents.values() if one.waiting and not one.parked]

        def act(book: Book) -> list[Step]:
            runs = [(run, one) for one in busy if (run := book.mine(one.run)) is not None]
            return [step for run, one in runs for step in _news(book, run, one)]

        if busy:
            self._ledgers.post(act, self._tell_news)

    def _tell_news(self, news: list[Step]) -> None:
        for step in news:
            self._over(step)

    # ---- what attempts say

    def parked(self, message: m.Parked) -> None:
        """Takes the place of an attempt that only waits.

        Not if a wait has ended meanwhile: whether the executor was told of it (`told`), or will be (`_news`). For a run that is
        written as waiting must have a wait to wake it, also if everything dies right after the commit.
        """
        resident = self.residents.get(message.run)
        if resident is None or resident.parked:
            return

        def act(book: Book) -> list[Step] | None:
            run = book.mine(message.run)
            if (
                run is None
                or run.status is not Status.RUNNING
                or run.cancel is not None
                or resident.told != message.seen
            ):
                return None
            if not (news := _news(book, run, resident)):
                ledger.park(book, run, message.backoff)
            return news

        def then(news: list[Step] | None) -> None:
            if news is not None:
                self._tell_news(news) if news else self._after_park(message)

        self._ledgers.post(act, then)

    def _after_park(self, message: m.Parked) -> None:
        resident = self.residents.get(message.run)
        if resident is None:
            return
        resident.parked = True
        self._set_place(resident, False)
        if not message.pinned:
            self._parked[resident.run] = resident
        self._fill_place()
        self._evict_long(resident, message.wake_at)

    def _evict_long(self, resident: Resident, wake_at: float | None) -> None:
        if wake_at is not None and wake_at - self._clock.now() > EVICT_AFTER:
            self._evict(resident)
        elif len(self._parked) > MAX_PARKED:
            self._evict(next(iter(self._parked.values())))

    def _evict(self, resident: Resident) -> None:
        if self._parked.pop(resident.run, None) is not None and not resident.cancelled:
            resident.evicting = True
            resident.peer.tell(m.Evict(run=resident.run))

    def wake(self, run_id: str) -> None:
        """Readies a parked run for a place."""

        def act(book: Book) -> None:
            run = book.mine(run_id)
            if run is not None:
                book.wake(run)

        self._ledgers.post(act)

    async def activate(self, run_id: str) -> None:
        """Waits until a parked run that wants to go on by itself has its place again."""
        resident = self.residents.get(run_id)
        if resident is None or not resident.parked:
            return
        activation: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        resident.activations.append(activation)
        self.wake(run_id)
        await activation

    def finished(self, message: m.Finished) -> None:
        """Writes how an attempt ended."""
        resident = self.residents.get(message.run)
        if resident is None:
            return
        progress = resident.progress
        self._ledgers.post(lambda book: ledger.finished(book, message, progress), lambda _: self._after_end(resident))

    def _after_end(self, resident: Resident) -> None:
        self._drop(resident)
        self._fill_place()

    def progressed(self, message: m.Progressed) -> None:
        """Keeps the progress of an attempt; it is written now and then, and with its end."""
        resident = self.residents.get(message.run)
        if resident is None:
            return
        resident.progress = message.progress
        if not resident.progressing:
            resident.progressing = True
            self._clock.alarm(PROGRESS, lambda: self._write_progress(resident))

    def _write_progress(self, resident: Resident) -> None:
        resident.progressing = False

        def act(book: Book) -> None:
            run = book.mine(resident.run)
            if run is not None and run.progress != resident.progress:
                book.save(replace(run, progress=resident.progress))

        if self.residents.get(resident.run) is resident:
            self._ledgers.ride(act)

    def hear_blocked(self, message: m.Blocked) -> None:
        """Keeps which run blocks its executor's event loop, and where."""
        self.blocked.pop(message.run, None)
        if message.where:
            self.blocked[message.run] = message.where

    def listener(self, run: Run) -> m.Peer | None:
        """Returns the executor that is to call the hooks for a run, if its job has any: its own, or any."""
        resident = self.residents.get(run.id)
        peer = resident.peer if resident is not None else self.peer_for(run.job)
        if peer is None or (description := self.peers.get(peer)) is None:
            return None
        return peer if description.hooked is None or run.job in description.hooked else None

    def _drop(self, resident: Resident) -> None:
        self.residents.pop(resident.run, None)
        self._parked.pop(resident.run, None)
        self.blocked.pop(resident.run, None)
        self._set_place(resident, False)
        for activation in resident.activations:
            activation.cancel()


def _is_wait(step: Step) -> bool:
    """Whether a step waits: for the clock, an event, an end, a place."""
    return (step.topic is not None or step.wake_at is not None) and not step.finished and not permits.holds(step)


def _whole(tx: Tx, run: Run, first: bool) -> Start:
    """Returns a run with all that a replay needs."""
    return Start(run, tx.steps(run.id), tx.last_log(run.id), first)


def _news(book: Book, run: Run, resident: Resident) -> list[Step]:
    """Returns the waits of an attempt that are over without its engine's doing."""
    found = [waits.news(book, run, key) for key in tuple(resident.waiting)]
    return [step for step in found if step is not None]
