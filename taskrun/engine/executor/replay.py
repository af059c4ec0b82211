"""Which record answers a call: the same call, in the order in which the handler was given the steps first.

A record keeps what was called: a function or job by its name; arguments, input and the like by a digest. Function bodies and
lines do not count. An argument that JSON cannot hold, such as a client, counts by its type; the others beside it are compared
all the same.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from functools import partial
from hashlib import blake2b
from typing import Any

import msgspec

from taskrun.declarations.calls import StepCall
from taskrun.engine.executor.stillness import is_idle
from taskrun.model.codec import encode, to_plain
from taskrun.model.errors import NonDeterminismError
from taskrun.model.records import Failure, Run, Step, StepKind, StepStatus

# turns of the event loop in which a handler acts on what it was given, and asks for more; some for each task around a step
TURNS = 15


class Replay:
    """What the journal knows of a run's steps when an attempt begins.

    A record of this attempt answers its own call and no other. One of an earlier attempt, or of the run that this one
    retries, that was made by another call does not count: the call is a step of its own.
    """

    def __init__(self, run: Run, steps: list[Step]) -> None:
        self._run = run
        self._steps = {step.key: step for step in steps}
        self._unseen = set(self._steps)
        finished = [step for step in steps if _is_given(step)]
        self._order = deque(step.key for step in sorted(finished, key=lambda step: step.order or 0))
        self._left = set(self._order)
        self._turns = [step.key for step in steps if step.asks_place]
        self._asked: dict[str, asyncio.Future[None]] = {}
        self._new: list[asyncio.Future[None]] = []  # steps that are to begin behind what is handed out
        self.moves = 0  # asked and handed out so far
        self._watching = False
        self._then: Callable[[], None] | None = None

    def is_active(self) -> bool:
        """Whether the handler is still where an earlier execution got to."""
        return bool(self._unseen)

    @property
    def moving(self) -> bool:
        """Whether the handler may still act on what it was given."""
        return self._watching

    @property
    def exhausted(self) -> bool:
        """Whether the handler has come as far as before in this attempt: none of its finished steps is left to hand out."""
        return all(self._inherited(self._steps[key]) for key in self._left)

    def find(self, key: str, kind: StepKind, call: str | None) -> tuple[Step | None, bool]:
        """Returns the recorded step of an identity, and whether one of another call stands in its place.

        A first unrecorded one ends the replay.

        Raises:
            NonDeterminismError: this attempt has recorded another call under it.
        """
        step = self._steps.get(key)
        if step is None:
            self._unseen.clear()
            return None, False
        self._unseen.discard(key)
        if step.kind is kind and (step.call is None or call is None or step.call == call):
            return step, False
        if self._inherited(step):
            del self._steps[key]
            self._left.discard(key)
            return None, True
        raise NonDeterminismError(
            f'step "{key}" {_differs(step, kind, call or "")}: rename the step, or retry the run from before it'
        )

    def _inherited(self, step: Step) -> bool:
        """Whether a step was recorded before this attempt."""
        if step.order is not None:
            return step.order <= (self._run.inherited or 0)
        failures = msgspec.json.decode(self._run.failures or "[]", type=list[Failure])
        return bool(failures) and step.started_at <= failures[-1].at

    def take_turns(self) -> list[str]:
        """Returns, once, the keys of the steps that waited for their place when the attempt began."""
        if not self._turns:
            return []
        turns, self._turns = self._turns, []
        return turns

    def latest(self, key: str) -> Step | None:
        """Returns what is known of a step by now."""
        return self._steps.get(key)

    def update(self, step: Step) -> None:
        """Takes the new state of a recorded step that the handler has not come to yet."""
        if step.key not in self._steps:
            return
        self._steps[step.key] = step
        if _is_given(step) and step.key not in self._left:
            self._order.append(step.key)
            self._left.add(step.key)

    def when_still(self, then: Callable[[], None]) -> None:
        """Calls `then` once the handler has acted on everything that it was given."""
        if self._steps:
            self._then = then
            self._watch()
        else:
            then()

    async def turn(self, step: Step, alone: bool) -> None:
        """Waits until it is this finished step's turn to be handed out.

        Parameters:
            alone: the handler's own task asks and there is no other, so that nobody else can act on what it was given.
        """
        if step.key not in self._left:
            return
        if alone and self._next() == step.key:
            self._left.discard(step.key)
        else:
            await self._queue(step.key)

    @property
    def under_way(self) -> bool:
        """Whether finished steps are left to hand out."""
        return bool(self._left)

    async def catch_up(self) -> None:
        """Waits, before a step begins, until the handler has been given all finished steps that it asks for.

        When it was executed first, they had ended before that step did.
        """
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._new.append(future)
        self.moves += 1
        self._watch()
        await future

    async def _queue(self, key: str) -> None:
        future = self._asked[key] = asyncio.get_running_loop().create_future()
        self.moves += 1
        self._watch()
        try:
            await future
        finally:
            self._asked.pop(key, None)

    def _watch(self) -> None:
        if not self._watching:
            self._watching = True
            asyncio.get_running_loop().call_soon(self._look, TURNS, self.moves)

    def _look(self, turns: int, moves: int) -> None:
        """Hands out one step whenever the handler has stood still for a while, until it is asked for none."""
        if moves == self.moves and turns and not is_idle(asyncio.get_running_loop()):
            turns -= 1
        elif moves != self.moves or self._hand_out():
            turns = TURNS
        else:
            self._watching = False
            then, self._then = self._then, None
            if then is not None:
                then()
            return
        asyncio.get_running_loop().call_soon(self._look, turns, self.moves)

    def _hand_out(self) -> bool:
        """Hands out the next step; if that is not asked for, the first one that is."""
        key = self._next()
        if key not in self._asked:
            key = next((later for later in self._order if later in self._asked), None)
        if key is None:
            return self._let_begin()
        self._left.discard(key)
        self.moves += 1
        future = self._asked.pop(key)
        if not future.done():
            future.set_result(None)
        return True

    def _let_begin(self) -> bool:
        """Lets the steps begin that have waited for what was handed out; returns whether there were any."""
        new, self._new = self._new, []
        self.moves += len(new)
        for future in new:
            if not future.done():
                future.set_result(None)
        return bool(new)

    def _next(self) -> str | None:
        while self._order and self._order[0] not in self._left:
            self._order.popleft()
        return self._order[0] if self._order else None


def _differs(step: Step, kind: StepKind, call: str) -> str:
    """Returns how a call differs from the recorded one, for a message."""
    recorded = step.call or ""
    if step.kind is not kind:
        return f"is a {kind} now, but the journal holds a {step.kind} under that name"
    now, then = (call, recorded) if kind is StepKind.SLEEP else (call.partition(" ")[0], recorded.partition(" ")[0])
    if now == then:
        return f"calls {now} with other arguments now than the journal holds"
    return f"is {now} now, but the journal holds {then} under that name"


def _is_given(step: Step) -> bool:
    """Whether a step's end is handed to the handler in turn; not values, which are there at once, nor cancelled steps."""
    ended = step.finished and step.status is not StepStatus.CANCELLED
    return ended and step.order is not None and step.kind is not StepKind.VALUE


# of attempts without a record: it keeps nothing of them
NOTHING = Replay(Run(id="", job="", created_at=0.0, input="null"), [])


# ---- what a step calls


def _comparable(value: Any) -> Any:
    try:
        return to_plain(value)
    except Exception:  # it cannot be compared, but for the name of a function
        return f"<{getattr(value, '__qualname__', type(value).__qualname__)}>"


_ENCODE = msgspec.json.Encoder(order="deterministic", enc_hook=_comparable).encode


def digest_of_step(call: StepCall) -> str:
    """Returns what a `run`, `thread` or `shell` step calls."""
    if call.kind is StepKind.SHELL:
        words = call.command if isinstance(call.command, str) else list(call.command or ())
        whole = (words, str(call.cwd or ""), dict(call.env or {}), call.stdin)
        return _with_digest("shell", whole if call.compared is None else call.compared)
    fn, args, kwargs = call.fn, call.args, call.kwargs
    while isinstance(fn, partial):
        args, kwargs, fn = fn.args + args, {**fn.keywords, **kwargs}, fn.func
    name = _name(fn)
    return _with_digest(name, (args, kwargs)) if args or kwargs else name


def digest_of_child(job: str, input: object, wait: bool = True) -> str:
    """Returns what a child's step calls, or what a step sends; one that is only started gives its handle, and no output."""
    job = job if wait else f"{job}.start"
    return _with_digest(job, input)


def digest_of_wait(topic: str, match: object) -> str:
    """Returns what a wait for an event is for."""
    if callable(match):
        return f"{topic} {_name(match)}"
    return _with_digest(topic, match) if match else topic


def _name(fn: Callable[..., Any] | None) -> str:
    return str(getattr(fn, "__qualname__", type(fn).__qualname__))


def _with_digest(name: str, value: object) -> str:
    try:
        data = _encoded(value)
    except Exception:  # such as keys of a mapping that JSON cannot hold
        return name
    return f"{name} {blake2b(data, digest_size=6).hexdigest()}"


def _encoded(value: object) -> bytes:
    try:
        return _ENCODE(value)
    except UnicodeEncodeError:  # such as the name of a file that is no UTF-8
        return encode(value, "").encode()
