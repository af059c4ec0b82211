"""What the two halves of an engine say to each other: the closed set of messages, and the `Peer` that carries them.

The *core* owns the journal and the clock; the *executor* owns user code. Each holds a `Peer` of the other: in a `Queue` it is
a direct call, in the daemon a pipe to a worker process. `ask` waits for an answer, `tell` does not; messages told and asked
over one peer arrive in order. Every message is a tagged struct, so that the pipe needs no tables of its own.
"""

from __future__ import annotations

from collections.abc import Awaitable
from contextvars import copy_context
from typing import Any, Literal, Protocol

import msgspec

from taskrun.model.records import ErrorRecord, LogLine, Run, Step
from taskrun.rules.policies import Prepared


class Message(msgspec.Struct, frozen=True, gc=False, tag=True, omit_defaults=True):
    """Base of all messages."""


# ---- core to executor: asked


class Describe(Message, frozen=True):
    """Which jobs and pipes do you have? → `Description`."""


class Prepare(Message, frozen=True):
    """Validate an input (JSON text) and evaluate the job's options for it → `Prepared`; raises InputInvalid, JobNotFound."""

    job: str
    input: str


class PrepareEvent(Message, frozen=True):
    """Validate an event's data (JSON text) → JSON text; raises InputInvalid, PipeNotFound."""

    pipe: str
    data: str


class Route(Message, frozen=True):
    """What does an event of `topic` (`pipe:NAME`, `job:NAME`, `files:PATTERN`) start of `job`? → `Routed`."""

    topic: str
    data: str
    job: str


class Drain(Message, frozen=True):
    """End or unwind all attempts: they get `grace` seconds to end by themselves, then the rest is unwound → None."""

    grace: float


class FinishHooks(Message, frozen=True):
    """Call the hooks that were told of; those that take longer than `grace` seconds are left → None."""

    grace: float


# ---- core to executor: told


class Execute(Message, frozen=True):
    """Begin or replay an attempt of `run`, given its recorded steps. `log_seq` is the last line of its log."""

    run: Run
    steps: list[Step]
    log_seq: int = 0
    fresh: bool = False  # the very first start: `on_trigger` is awaited first


class Over(Message, frozen=True):
    """These waits are over, or have an event for their predicate to judge."""

    run: str
    steps: list[Step]


class Resume(Message, frozen=True):
    """The attempt goes on: it has its slot again, or was not parked after all. These waits are over."""

    run: str
    steps: list[Step]


class Parked(Message, frozen=True):
    """The attempt is parked: it no longer has a slot, and begins nothing until `Resume`."""

    run: str


class Cancel(Message, frozen=True):
    """Cancel the attempt: CancelledError at its current wait, then at most `grace` seconds."""

    run: str
    reason: str
    grace: float


class Evict(Message, frozen=True):
    """Unwind the coroutine of a parked attempt: it answers `Finished` with `Unwound`, or `Stay` where that cannot be.

    `anyway`: unwind it whatever it does.
    """

    run: str
    anyway: bool = False


class Pause(Message, frozen=True):
    """Hold before the next step; when none is in flight answer `Finished` with `Unwound(paused=True)`."""

    run: str


class Unpause(Message, frozen=True):
    """Go on: the pause was taken back before it had happened."""

    run: str


class Leave(Message, frozen=True):
    """The executor is to go: attempts that only follow commands which survive are taken down, now and later."""


class Notify(Message, frozen=True):
    """Call the hooks and listeners of `kind` (`trigger start success failure error cancel settled`) for a run."""

    kind: str
    run: Run
    error: ErrorRecord | None = None


# ---- executor to core: asked


class Record(Message, frozen=True):
    """A step ended, or a try of it failed → None, once that is durable."""

    step: Step


class RecordValues(Message, frozen=True):
    """Values were drawn → None, once they are durable. All of them or none."""

    steps: list[Step]


class Wait(Message, frozen=True):
    """A sleep, a wait for an event, or a long backoff begins → the `Step`, finished already or not, once it is durable.

    `since` is the moment from which events count.
    """

    step: Step
    since: float = 0.0


class StartChild(Message, frozen=True):
    """Trigger a child run for a step of kind child → the `Step`, with `child` set, once it is durable.

    With `wait` the step stays running until the child ends and is then resumed; without, it succeeds at once.
    """

    step: Step
    prepared: Prepared
    wait: bool


class Send(Message, frozen=True):
    """Send an event from a handler; the step and the event are one transaction → the finished `Step`."""

    step: Step
    data: str


class CancelRuns(Message, frozen=True):
    """Cancel every unfinished run of a job with exactly this input (JSON text) → how many."""

    job: str
    input: str


class Look(Message, frozen=True):
    """How is a run now? → `Run`; raises RunNotFound. With `seen`: once it differs, or its log has more than `lines` lines."""

    run: str
    seen: Run | None = None
    lines: int = 0


class Show(Message, frozen=True):
    """Everything about a run → JSON text."""

    run: str


class ReadLog(Message, frozen=True):
    """Log lines of a run after a position → list of `LogLine`."""

    run: str
    after: int


class Order(Message, frozen=True):
    """Cancel, pause, resume or retry a run → `Ordered`."""

    run: str
    verb: Literal["cancel", "pause", "resume", "retry"]
    argument: str | None = None


# ---- executor to core: told


class Noted(Message, frozen=True):
    """A step has begun or was cancelled: its row is written with the next commit."""

    step: Step


class Forget(Message, frozen=True):
    """The record of another call stands under this key, from an earlier attempt: drop it."""

    run: str
    key: str


class Park(Message, frozen=True):
    """All that the run does is wait; it begins nothing until it is answered: `Parked` or `Resume`.

    `heard`: how many messages about waits that are over it has received; if one is still on its way, the attempt goes on.
    `given_up`: keys of steps that waited for their place when the attempt began, and that the handler has not come to.
    `backoff`: each of the waits is a backoff of a step.
    """

    run: str
    heard: int
    given_up: list[str] = []
    backoff: bool = False


class Activate(Message, frozen=True):
    """The code of a parked attempt wants to go on: it is answered with `Resume` once it has a slot again."""

    run: str


class Stay(Message, frozen=True):
    """An attempt that was to be evicted waits for something besides its steps: its coroutine must stay."""

    run: str


class Logged(Message, frozen=True):
    """New lines of a run's log. `steps` are commands that survive: with these lines their output is logged up to the `cursor`."""

    lines: list[LogLine]
    steps: list[Step] = []


class Progressed(Message, frozen=True):
    """The progress of a run, JSON {done,total,note}."""

    run: str
    progress: str


class Blocked(Message, frozen=True):
    """The executor's event loop is blocked by user code: where it stands. Empty `where`: no longer."""

    run: str
    where: str


# ---- how an attempt ended


class Succeeded(msgspec.Struct, frozen=True, gc=False, tag=True):
    """The handler returned; `output` is JSON text."""

    output: str


class Failed(msgspec.Struct, frozen=True, gc=False, tag=True):
    """The attempt failed; the next one starts in `retry_in` seconds, or never."""

    error: ErrorRecord
    retry_in: float | None
    pause: bool = False  # instead of failing for good: `on_exhausted="pause"`
    output: str | None = None  # of a run that has failed for good, if its handler gave one


class Cancelled(msgspec.Struct, frozen=True, gc=False, tag=True):
    """The handler ended after it had been told to cancel."""


class Unwound(msgspec.Struct, frozen=True, gc=False, tag=True):
    """The coroutine was taken down (eviction, pause, close); the run goes on by replay."""

    paused: bool = False


Outcome = Succeeded | Failed | Cancelled | Unwound


class Finished(Message, frozen=True):
    """An attempt is over."""

    run: str
    outcome: Outcome


# ---- answers


class Description(msgspec.Struct, frozen=True):
    """What an executor has. `jobs` are the objects that `taskrun jobs --json` shows."""

    jobs: list[dict[str, Any]]
    pipes: list[dict[str, Any]]
    problems: list[dict[str, Any]]
    crons: list[dict[str, Any]] = []  # the schedules of the jobs: `schedule_due.Entry` has their fields
    files: list[str] = []  # the source files behind them, helpers and broken ones included
    sources: dict[str, str] = {}  # the text of those that could be loaded, by path
    watched: list[dict[str, Any]] = []  # the files that start jobs: `job patterns settle existing poll`
    hooked: list[str] | None = None  # jobs with hooks or listeners: only these need `Notify`; None: any may get some

    @property
    def names(self) -> frozenset[str]:
        """The names of the jobs."""
        return frozenset(job["name"] for job in self.jobs)


class Ordered(msgspec.Struct, frozen=True):
    """The run after an order (for a retry the new one), and whether anything changed."""

    run: Run
    changed: bool


Asked = (
    Describe
    | Prepare
    | PrepareEvent
    | Route
    | Drain
    | FinishHooks
    | Record
    | RecordValues
    | Wait
    | StartChild
    | Send
    | CancelRuns
    | Look
    | Show
    | ReadLog
    | Order
)
Told = (
    Execute
    | Over
    | Resume
    | Parked
    | Cancel
    | Evict
    | Pause
    | Unpause
    | Leave
    | Notify
    | Noted
    | Forget
    | Park
    | Activate
    | Stay
    | Logged
    | Progressed
    | Blocked
    | Finished
)


class Peer(Protocol):
    """The other half."""

    def ask(self, message: Asked) -> Awaitable[Any]:
        """Sends a message, in the order of the calls; its answer is awaited, and raises what the other half raised."""
        ...

    def tell(self, message: Told) -> None:
        """Sends a message without an answer."""
        ...


class Answerer(Protocol):
    """What a half offers to its peers: the receiving end."""

    def answer(self, peer: Peer, message: Asked) -> Awaitable[Any]:
        """Answers a message that was asked."""
        ...

    def hear(self, peer: Peer, message: Told) -> None:
        """Takes a message that was told."""
        ...


class LocalPeer:
    """The other half in the same process: a direct call, in a context of its own rather than the calling handler's."""

    def __init__(self, other: Answerer) -> None:
        self._other = other
        self._context = copy_context()
        self.back: Peer = self  # how the other half reaches this one; set by whoever joins the two

    def ask(self, message: Asked) -> Awaitable[Any]:
        """Sends a message; its answer is awaited."""
        return self._context.copy().run(self._other.answer, self.back, message)

    def tell(self, message: Told) -> None:
        """Sends a message without an answer."""
        self._context.copy().run(self._other.hear, self.back, message)
