"""The recorded steps of a run, handed to a handler again in the order in which it was given them first."""

from __future__ import annotations

import asyncio
from collections import deque

from taskrun.words.errors import NonDeterminismError
from taskrun.words.records import Step, StepKind, StepStatus

TURNS = 5  # turns of the event loop in which the handler may still ask for the step that is next in order


class Replay:
    """What the journal knows of a run's steps when an attempt begins."""

    def __init__(self, steps: list[Step]) -> None:
        self._steps = {step.key: step for step in steps}
        self._unseen = set(self._steps)
        finished = [step for step in steps if _is_given(step)]
        self._order = deque(sorted(finished, key=lambda step: step.order or 0))
        self._asked: dict[str, asyncio.Future[None]] = {}
        self._watching = False

    @property
    def active(self) -> bool:
        """Whether the handler is still where an earlier execution has been."""
        return bool(self._unseen)

    @property
    def exhausted(self) -> bool:
        """Whether no finished step is left to hand out."""
        return not self._order

    def find(self, key: str, kind: StepKind) -> Step | None:
        """Returns the recorded step of an identity; a first unrecorded one ends the replay.

        Raises:
            NonDeterminismError: the journal holds another kind of step under it.
        """
        step = self._steps.get(key)
        if step is None:
            self._unseen.clear()
            return None
        self._unseen.discard(key)
        if step.kind is not kind:
            raise NonDeterminismError(
                f'step "{key}" is a {kind} now, but the journal holds a {step.kind} under that name: '
                f"rename the step, or retry the run from before it"
            )
        return step

    def update(self, step: Step) -> None:
        """Takes in an end that came from the core before the handler asked for the step."""
        self._steps[step.key] = step

    async def turn(self, step: Step) -> None:
        """Waits until it is this finished step's turn to be handed out."""
        if self._order and self._order[0].key == step.key:
            self._order.popleft()
            self._wake_next()
        elif any(waiting.key == step.key for waiting in self._order):
            await self._queue(step)

    async def _queue(self, step: Step) -> None:
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._asked[step.key] = future
        self._watch()
        try:
            await future
        finally:
            self._asked.pop(step.key, None)

    def _wake_next(self) -> None:
        if self._order and (future := self._asked.get(self._order[0].key)) is not None and not future.done():
            self._order.popleft()
            future.set_result(None)
            asyncio.get_running_loop().call_soon(self._wake_next)

    def _watch(self) -> None:
        if not self._watching:
            self._watching = True
            asyncio.get_running_loop().call_soon(self._look, TURNS, len(self._order))

    def _look(self, turns: int, left: int) -> None:
        """Hands out the lowest step that is asked for once the one before it turns out not to be."""
        if len(self._order) != left:
            turns, left = TURNS, len(self._order)
        if turns:
            asyncio.get_running_loop().call_soon(self._look, turns - 1, left)
            return
        self._watching = False
        for step in self._order:
            future = self._asked.get(step.key)
            if future is not None and not future.done():
                self._order.remove(step)
                future.set_result(None)
                break
        if len(self._asked) > 1:
            self._watch()


def _is_given(step: Step) -> bool:
    return step.order is not None and step.status in (StepStatus.SUCCEEDED, StepStatus.FAILED)
