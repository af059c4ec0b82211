"""The state of one attempt in its executor: what it waits for, whether a step may begin, and whether all that it does is wait.

The core decides whether it has its slot: once it has asked to park, nothing begins until it is answered. The step context
builds on this.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from enum import Enum, auto
from typing import Any

from taskrun.engine import messages as m
from taskrun.engine.executor.replay import Replay
from taskrun.engine.executor.run_log import RunLog
from taskrun.engine.executor.step_ids import Branch
from taskrun.engine.executor.stillness import only_waits
from taskrun.model.errors import JournalError, NonDeterminismError, Unwind
from taskrun.model.records import Run, Step, StepKind


class Permission(Enum):
    """Whether the attempt has its slot, as the core decides."""

    EXECUTING = auto()
    PARKING = auto()  # it has asked to park: nothing begins until it is answered
    PARKED = auto()


EXECUTING, PARKING, PARKED = Permission
LATE = 60.0  # seconds that what cuts a step off may come later on a replay than it came first


class AttemptState:
    """One attempt: the state that its steps share.

    Parameters:
        on_held: called with it when it is paused and nothing is in flight.
    """

    def __init__(self, run: Run, host: m.Peer, replay: Replay, run_log: RunLog, on_held: Callable[[Any], None]) -> None:
        self.run = run
        self.replay = replay
        self.run_log = run_log
        self.unwinding = False
        self.over = False
        self.pausing = False
        self.leaving = False  # it is taken down as soon as it only follows commands that survive
        self.following = 0  # such commands, as steps in flight
        self.given_up = False  # it has used up its grace
        self.cancel_reason: str | None = None
        self.task: asyncio.Task[Any] | None = None
        self.root: Branch | None = None
        self.waits: dict[str, asyncio.Future[Step]] = {}
        self._permission = EXECUTING
        self.activating = False  # the core was asked for a slot
        self._heard = 0  # messages about waits that are over
        self._not_begun: dict[asyncio.Future[None], None] = {}  # steps that may not begin yet
        self._backoffs = 0
        self._busy = 0  # bodies, questions to the core and steps that were cut off, in flight
        self._cancel_told = False
        self._cancel_presses = False  # half of the grace is over
        self._looking = False
        self._values: dict[str, Step] = {}
        self._recording: Awaitable[Any] | None = None  # of values
        self._host = host
        self._on_held = on_held

    @property
    def has_values(self) -> bool:
        """Whether values were drawn that may not be durable yet."""
        return bool(self._values) or self._recording is not None

    async def flush_values(self) -> None:
        """Waits until the values made so far are durable: no step body and no end may overtake them.

        They are on their way once this has begun, even if the waiting task is cancelled.
        """
        if self._values:
            values, self._values = self._values, {}
            self._recording = self._host.ask(m.RecordValues([*values.values()]))
        recording = self._recording
        if recording is not None:
            await self._answer(asyncio.shield(recording))
            if self._recording is recording:  # else another branch has drawn values meanwhile
                self._recording = None

    # ---- what the core says

    def deliver(self, steps: list[Step]) -> None:
        """These waits are over, or have an event for their predicate."""
        self._heard += 1
        for step in steps:
            over = self.waits.get(step.key)
            if over is not None and not over.done():
                over.set_result(step)
            elif not is_offer(step):  # the handler has not come to it yet; an event is found when it does
                self.replay.update(step)
        self.look_soon()

    def resume(self, steps: list[Step]) -> None:
        """The attempt has its slot."""
        self._permission, self.activating = EXECUTING, False
        self._recheck()
        self.deliver(steps)

    def parked(self) -> None:
        """The attempt no longer has a slot."""
        self._permission = PARKED
        if self._not_begun:
            self._activate()
        self.look_soon()

    def _activate(self) -> None:
        if not self.activating:
            self.activating = True
            self._host.tell(m.Activate(run=self.run.id))

    def cancel(self, reason: str) -> None:
        """Notes that the attempt is to be cancelled; the handler is told at its current wait, or where a replay stands still."""
        self.cancel_reason = reason
        self.look_soon()

    def press_cancel(self) -> None:
        """Tells the handler that it is cancelled even if it has not come as far as it was: half of its grace is over.

        A replay may stand at something else than a step, which only the cancel had ended before.
        """
        self._cancel_presses = True
        self.look_soon()

    def pause(self, pausing: bool) -> None:
        """Holds before the next step, or goes on."""
        self.pausing = pausing
        if not pausing:
            self._recheck()
        self.look_soon()

    def leave(self) -> None:
        """Takes the handler down as soon as it only follows commands that survive: they go on, and are adopted."""
        self.leaving = True
        self.look_soon()

    @property
    def goes_on_elsewhere(self) -> bool:
        """Whether what is cut off now goes on elsewhere, since the handler is only taken down."""
        return self.unwinding and not self.given_up

    def unwind(self) -> None:
        """Takes the handler down: `Unwind` at every wait; a body in flight is cancelled."""
        self.unwinding = True
        futures: list[asyncio.Future[Any]] = [*self.waits.values(), *self._not_begun]
        for future in futures:
            if not future.done():
                future.set_exception(Unwind())
                future.exception()  # whoever waited may be gone: then nothing is logged

    # ---- whether a step may begin

    async def _ready(self) -> None:
        """Waits until a step may begin: not cancelled, not held back, with the slot, and with all values durable.

        What follows without an await begins with the slot: it is given up only when nothing is in flight.
        """
        caught_up = False
        while True:
            self._check()
            if self.pausing or self._cancel_due:
                await self._until_changed()
            elif self._permission is not EXECUTING:
                if self._permission is PARKED:
                    self._activate()
                await self._until_changed()
            elif self.replay.under_way and not (caught_up or self.alone):
                await self.replay.catch_up()
                caught_up = True
            elif self.has_values:
                await self.flush_values()
            else:
                return

    @property
    def alone(self) -> bool:
        """Whether the caller is the handler's own task and there is no other, so that nobody else acts on what it is given."""
        return asyncio.current_task() is self.task and self.root is not None and self.root.alone

    async def _until_changed(self) -> None:
        changed: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._not_begun[changed] = None
        self.look_soon()
        try:
            await changed
        finally:
            del self._not_begun[changed]

    def _recheck(self) -> None:
        for changed in self._not_begun:
            if not changed.done():
                changed.set_result(None)

    @property
    def _cancel_due(self) -> bool:
        return self.cancel_reason is not None and not self._cancel_told

    def _tell_cancel(self) -> None:
        if not self._cancel_told and self.task is not None and not self.task.done():
            self._cancel_told = True
            self.task.cancel()

    async def _cut_off_again(self, step: Step) -> None:
        """Waits in place of a step that was cut off until it is cut off again, within the time that this took before.

        Raises:
            NonDeterminismError: it is not, so the code has changed.
        """
        lasted = (step.ended_at or 0.0) - (self.run.started_at or 0.0)
        self._busy += 1
        try:
            async with asyncio.timeout(max(lasted, 0.0) + LATE):
                while True:
                    await self._until_changed()
        except TimeoutError:
            said = f'step "{step.key}" was cut off before, and nothing cuts it off now'
            raise NonDeterminismError(f"{said}: rename the step, or retry the run from before it") from None
        finally:
            self._busy -= 1
            self.look_soon()

    def _check(self) -> None:
        if self.unwinding or self.over:
            raise Unwind

    # ---- asking the core

    async def _busily(self, message: m.Asked) -> Any:
        self._busy += 1
        try:
            return await self._ask(message)
        finally:
            self._busy -= 1
            self.look_soon()

    async def settle_log(self) -> None:
        """Returns when all lines so far are in the journal."""
        await self._ask(m.RecordValues([]))

    def _ask(self, message: m.Asked) -> Awaitable[Any]:
        self.run_log.flush()  # if a record is kept, so must be the log lines before it
        return self._answer(self._host.ask(message))

    async def _answer(self, answer: Awaitable[Any]) -> Any:
        """Waits for an answer of the core; if the journal is gone the handler is taken down, which is no error of a step."""
        try:
            return await answer
        except JournalError:
            self.unwinding = True
            raise Unwind from None

    # ---- whether all that it does is wait

    def look_soon(self) -> None:
        """Checks, once the handler has had its turn, whether all it does is wait."""
        if not self._looking and (self.waits or self._not_begun or self._cancel_due or self.leaving):
            self._looking = True
            asyncio.get_running_loop().call_soon(self._look)

    def _look(self) -> None:
        self._looking = False
        if self.over or self.unwinding:
            return
        if self.replay.moving:
            self.replay.when_still(self.look_soon)
        elif self._cancel_due:  # it is told where the handler has come as far as it was
            has_come = self._busy or self.replay.exhausted or self._stands_still() or self._cancel_presses
            if self.root is not None and has_come:
                self.replay.when_still(self._tell_cancel)
        elif self.leaving and self.following and self._busy == self.following and self.cancel_reason is None:
            self._on_held(self)
        elif self._busy or self.cancel_reason is not None or not self._stands_still():
            return  # it goes on by itself, or is ending
        elif self.pausing:
            self._on_held(self)
        elif self.waits and not self._not_begun and self._permission is EXECUTING:
            self._permission = PARKING  # from now on the core decides when a step may begin
            given_up = [key for key in self.replay.take_turns() if key not in self.waits]
            backoff = self._backoffs == len(self.waits)
            self._host.tell(m.Park(run=self.run.id, heard=self._heard, given_up=given_up, backoff=backoff))

    def _stands_still(self) -> bool:
        """Whether no step call is about to go on; if one is, this is checked again later.

        What it waited for may have ended after this check was scheduled, and then nothing else schedules another.
        """
        if not (self.waits or self._not_begun):
            return False
        if any(future.done() for futures in (self._not_begun, self.waits.values()) for future in futures):
            self.look_soon()
            return False
        return True

    def only_waits(self) -> bool:
        """Whether each task of the handler certainly does nothing but wait for steps, so that it can be taken down."""
        tasks = [*([] if self.task is None else [self.task]), *([] if self.root is None else self.root.tasks())]
        return only_waits(tasks, set(self.waits.values()))


def is_offer(step: Step) -> bool:
    """Whether a step is an event for the predicate of a wait to judge."""
    return step.kind is StepKind.WAIT and not step.finished and step.output is not None
