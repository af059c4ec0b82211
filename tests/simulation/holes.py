"""Known faults, each put back in by a patch: the simulation must find every one of them, else it proves nothing."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any
from weakref import WeakKeyDictionary

from msgspec.structs import replace

from taskrun.engine.core import dependents, run_lifecycle, run_queue, step_queue, waits
from taskrun.engine.core.journal import Entry
from taskrun.engine.core.lease import Lease
from taskrun.engine.core.notify_runs import NotifyRuns
from taskrun.engine.core.timers import Timers
from taskrun.engine.core.transaction import EngineState, Transaction
from taskrun.engine.executor.attempt_state import AttemptState
from taskrun.engine.executor.step_ids import TaskFactory
from taskrun.model.records import PLACE, Run
from taskrun.stores.postgres_batch import Batch
from tests.simulation.world import Emphasis

EVEN = Emphasis()


@dataclass(frozen=True)
class Hole:
    """A known fault.

    Parameters:
        put_back: patches it back in.
        emphasis: what makes it show.
        seeds: some that find it, and need not for ever: every change of the engine may hide it from one of them.
    """

    put_back: Callable[[], None]
    emphasis: Emphasis
    seeds: list[int]


HOLES: dict[str, Hole] = {}


def hole(*seeds: int, emphasis: Emphasis = EVEN) -> Callable[[Callable[[], None]], Callable[[], None]]:
    """Keeps a fault by its name."""

    def keep(put_back: Callable[[], None]) -> Callable[[], None]:
        HOLES[put_back.__name__] = Hole(put_back, emphasis, list(seeds))
        return put_back

    return keep


def patch(owner: Any, name: str, value: Any) -> None:
    """Puts something in the place of what must be there."""
    assert hasattr(owner, name), f"{owner} has no {name} any more: this fault must be put back in another way"
    setattr(owner, name, value)


@hole(15, 22)
def rows_are_kept_between_transactions() -> None:
    """What is written is made of what was read long ago, and overwrites what another engine has changed."""
    init = Transaction.__init__
    kept: WeakKeyDictionary[EngineState, dict[str, Run]] = WeakKeyDictionary()

    def begin(self: Transaction, tx: Any, state: EngineState, *args: Any) -> None:
        init(self, tx, state, *args)
        self._runs = kept.setdefault(state, {})

    patch(Transaction, "__init__", begin)


@hole(473, 572)
def a_failed_entry_gives_nothing_back() -> None:
    """An entry that fails leaves reserved what it had reserved."""
    settle = Entry.settle

    def one_sided(self: Entry, answer: Any) -> None:
        if answer[1] is not None:
            self.failed = None
        settle(self, answer)

    patch(Entry, "settle", one_sided)


@hole(20, 38, 61, 136)
def a_body_begins_while_its_run_parks() -> None:
    """A step does not wait for the answer to the wish to park."""

    async def ready(self: Any) -> None:
        self._check()
        while self.pausing or self._cancel_due:
            await self._until_changed()
        if self._values or self._recording is not None:
            await self.flush_values()

    patch(AttemptState, "_ready", ready)


@hole(4, 12, 23, 33)
def an_end_is_not_told_to_those_that_start_after_it() -> None:
    """Nothing but the rescuer finds out that a run can start."""
    patch(dependents, "tell", lambda *args: [])


@hole(157, 332)
def a_wait_registers_and_does_not_look() -> None:
    """An event that came just before its wait is lost."""
    patch(waits, "_unseen", lambda *args: None)


@hole(32, emphasis=Emphasis(engines=3))
def what_another_engine_has_ended_is_not_told() -> None:
    """A wait that another engine ends wakes the run, whose attempt never hears which one it was."""
    patch(waits, "take_news", lambda t, run_id: [])


@hole(32, 159, 165, 284)
def branches_are_numbered_by_first_use() -> None:
    """A branch is numbered when it calls its first step, so that a failure shifts the others."""

    def create(self: TaskFactory, loop: Any, coro: Any, **options: Any) -> Any:
        assert self.prior is not None
        return self.prior(loop, coro, **options)

    patch(TaskFactory, "__call__", create)


@hole(232, 440, 662)
def a_start_is_counted_when_it_is_offered() -> None:
    """A step under a rolling limit is counted before it begins, which may be much later."""

    def hand_on(t: Transaction, place: str) -> None:
        while waiting := t.tx.waiting_steps(f"{PLACE}{place}", step_queue.PAGE):
            for step in waiting:
                if (opens := step_queue._opens(t, step)) is not None:
                    t.save_step(replace(step, wake_at=step_queue._moment(opens)))
                    return
                t.deliver(step_queue._give(t, step))

    patch(step_queue, "hand_on", hand_on)


@hole(3, 92, emphasis=Emphasis(fault="kill", engines=2))
def a_takeover_hands_no_place_on() -> None:
    """The places of a dead engine's runs, and of their steps, are not offered to those that wait for them."""
    let_go = run_lifecycle._let_go

    def nothing(t: Transaction, run: Run, keep_turns: bool = False) -> None: ...

    def silent(t: Transaction, run: Run) -> None:
        leave, release = run_queue.leave, step_queue.release
        run_queue.leave = step_queue.release = nothing
        try:
            let_go(t, run)
        finally:
            run_queue.leave, step_queue.release = leave, release

    patch(run_lifecycle, "_let_go", silent)


@hole(32, 44, 67, 127, emphasis=Emphasis(fault="stop", engines=3))
def an_engine_without_its_lease_writes() -> None:
    """What is written is not made to depend on who holds the run."""

    def mine(self: Transaction, run_id: str) -> Run | None:
        run = self.run(run_id)
        return run if run is not None and not run.ended else None

    patch(Lease, "guard", lambda self, tx: None)
    patch(Transaction, "mine", mine)
    patch(Transaction, "must_hold", lambda self, run_id: None)


@hole(70, 78, 100, 172)
def a_limit_is_not_looked_at_again() -> None:
    """A ready run starts whatever has started since it became ready."""
    patch(run_queue, "_held_back", lambda t, run: False)


@hole(2, 6, 7, 11)
def nobody_tells_of_moments() -> None:
    """The clock's loop does not hear of waits that were begun while it slept."""
    patch(Timers, "follow", lambda self, event: None)


@hole(10, 25, 56, 70)
def a_queue_has_no_next_one() -> None:
    """Who leaves a limit's place offers it to nobody."""
    patch(run_queue, "_hand_on", lambda t, group, most=0: None)


@hole(7, 79, 91, 292, emphasis=Emphasis(fault="kill", tells=True))
def what_is_to_be_told_is_kept_in_memory() -> None:
    """A notice that another engine has written, or that was left over by a crash, is not looked for."""
    patch(NotifyRuns, "_learn", lambda self, found: None)


@hole(0, emphasis=Emphasis(engines=3, postgres=True))
def rows_that_a_connection_knows_are_taken_for_true() -> None:
    """What is known of a run from the transaction before is not checked with the writes."""
    check = Batch._seal_checks

    def unchecked(self: Batch) -> None:
        self._check = {}
        check(self)

    patch(Batch, "_seal_checks", unchecked)
