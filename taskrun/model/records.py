"""The records that the journal keeps, and the closed sets of their states.

Frozen: a change is a new record made by `msgspec.structs.replace`. Field order is column order in every store. JSON values
are kept as JSON *text* (`str`): `None` means absent, `"null"` is the value null. Times are Unix seconds.
"""

from __future__ import annotations

from enum import StrEnum

import msgspec


class Status(StrEnum):
    """The states of a run."""

    SCHEDULED = "scheduled"  # waits for a moment: delay, debounce, backoff
    QUEUED = "queued"  # may start as soon as there is a slot
    RUNNING = "running"
    WAITING = "waiting"  # all it does is wait: sleep, event, child; holds no slot
    PAUSED = "paused"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"
    DISCARDED = "discarded"


ENDED = frozenset({Status.SUCCEEDED, Status.FAILED, Status.CANCELLED, Status.DISCARDED})
UNFINISHED = frozenset(Status) - ENDED
PLACE, PLACED = "place:", "placed:"  # topics of a step that waits for a place of its `concurrency`, or has one

# A brief record has its large values cut: whoever shows them reads the rest piece by piece. No JSON text begins with this sign.
WHOLE, EXCERPT, CUT = 20_000, 2_100, "…"  # characters up to which a value is whole, and of an excerpt


class Cause(StrEnum):
    """Why a run is in its state, where that decides what becomes of it. `Run.reason` is what people read."""

    DELAY = "delay"  # scheduled: not to start before its moment
    AFTER = "after"  # scheduled: not to start before the end of other runs
    DEBOUNCE = "debounce"  # scheduled: the newest of a burst; cancelled for a newer one
    THROTTLE = "throttle"  # scheduled: the head of a queue that the clock opens
    BACKOFF = "backoff"  # scheduled: all it waits for is the backoff of a step
    RETRY = "retry"  # scheduled: between two attempts
    EXHAUSTED = "exhausted"  # paused: its retries are used up
    JOB = "job"  # paused: its job is
    USER = "explicit"  # paused, or asked to cancel, by somebody
    PARENT = "parent"  # asked to cancel, or cancelled, with the run that waits for it
    TIMEOUT = "timeout"  # asked to cancel because its timeout is over; failed for that
    CRASH_LOOP = "crash loop"  # failed: its execution killed its worker again and again
    DEPENDENCY = "dependency"  # cancelled since a run that it was to start after did not succeed


class StepKind(StrEnum):
    """What a step is."""

    RUN = "run"
    THREAD = "thread"
    SHELL = "shell"
    SLEEP = "sleep"
    WAIT = "wait"
    CHILD = "child"
    SEND = "send"
    VALUE = "value"


class StepStatus(StrEnum):
    """The states of a step."""

    RUNNING = "running"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"


class ErrorRecord(msgspec.Struct, frozen=True, gc=False, omit_defaults=True):
    """An exception as the journal keeps it.

    `args` is the JSON text of the exception's `args` where they can be encoded. `where` is `file:line in function` of the
    innermost frame in user code. `retry` says whether the error allowed another attempt (`Fatal` does not).
    """

    type: str
    message: str
    traceback: str = ""
    args: str | None = None
    where: str = ""


class Failure(msgspec.Struct, frozen=True, gc=False, omit_defaults=True):
    """One failed attempt in the history of a run or of a step.

    `left_out` says how many attempts right before it failed as well and are no longer in the history.
    """

    attempt: int
    at: float
    error: ErrorRecord
    started_at: float | None = None
    left_out: int = 0


class Awaited(msgspec.Struct, frozen=True, gc=False, omit_defaults=True):
    """A run that another one starts after: once it has succeeded, or with `any` once it has ended."""

    run: str
    any: bool = False
    ended: Status | None = None  # how it has, None as long as it has not


class Run(msgspec.Struct, frozen=True, gc=False, kw_only=True, omit_defaults=True):
    """One trigger of a job. The fields down to `input`, and those from `tags` on, never change after the trigger."""

    id: str
    job: str
    created_at: float
    parent: str | None = None
    key: str | None = None  # idempotency key
    source: str = ""  # what triggered it: `cli`, `pipe uploads`, `job other`, `schedule 0 * * * *` …
    slot: float | None = None  # the cron slot
    retried_from: str | None = None
    retry: int = 3  # further attempts after the first failed one
    priority: int = 0
    timeout: float | None = None  # seconds from first start to end
    lane: str | None = None  # concurrency id
    lane_limit: int | None = None
    lane_period: float | None = None  # seconds: None is mode "window", else "rolling"
    throttle: str | None = None  # id of a throttle in mode "queue"
    throttle_period: float | None = None
    debounce: str | None = None  # id of the burst it is the newest trigger of
    input: str = "{}"

    seq: int = 0  # order of triggering, given by the store
    status: Status = Status.QUEUED
    reason: str | None = None
    attempt: int = 1  # the attempt under way, or the next one to start
    engine: str | None = None  # the engine that executes it, or holds its coroutine while it waits
    started_at: float | None = None  # first start
    ended_at: float | None = None
    wake_at: float | None = None  # while scheduled: when the clock itself makes it ready
    deadline: float | None = None  # when its timeout is over
    blocked: str | None = None  # queued, but held back by a limit: the queue that it stands in
    placed: bool = False  # holds a place of its lane, and a slot of its engine
    cancel: str | None = None  # a cancel was asked for, with this reason for people, and its end is under way
    pause: str | None = None  # a pause was asked for, by this
    crashes: int = 0  # deaths of its worker in a row without a newly recorded step
    progress: str | None = None  # JSON {done,total,note}
    failures: str | None = None  # JSON list of Failure
    error: str | None = None  # JSON ErrorRecord
    output: str | None = None
    cause: Cause | None = None  # of its state
    cancel_cause: Cause | None = None  # of `cancel`
    inherited: int | None = None  # steps up to this `order` are of earlier attempts, or of the run that it retries
    after: str | None = None  # JSON list of Awaited: the runs whose end it does not start before
    awaited: bool = False  # another run has it among those

    tags: str | None = None  # JSON object of texts
    name: str | None = None  # shown in place of the job's
    secrets: str | None = None  # JSON object: fields of the input that nobody is shown; `input` has `***` there

    @property
    def ended(self) -> bool:
        """Whether it has its one end."""
        return self.status in ENDED


class Step(msgspec.Struct, frozen=True, gc=False, kw_only=True, omit_defaults=True):
    """A recorded piece of a run. Its identity is (`run`, `key`)."""

    run: str
    key: str  # branch path, name and nth use: `fetch`, `fetch#2`, `2/fetch`
    name: str
    kind: StepKind
    status: StepStatus = StepStatus.RUNNING
    attempt: int = 1
    started_at: float = 0.0
    ended_at: float | None = None
    wake_at: float | None = None  # sleep: when it is over; wait: its timeout; others: end of a backoff
    order: int | None = None  # position among the run's finished steps, in the order the handler was given them
    topic: str | None = None  # wait: `pipe:NAME` or `job:NAME`; send: the pipe
    match: str | None = None  # wait: JSON of the mapping to match; absent with `topic` set: a predicate or any
    # wait: seq of the event that it consumed; command that survives: how far its output is logged
    cursor: int | None = None
    child: str | None = None  # child: run id
    failures: str | None = None  # JSON list of Failure: the tries before this one
    error: str | None = None  # JSON ErrorRecord
    output: str | None = None
    call: str | None = None  # what is called, as a digest; absent where it cannot be compared

    @property
    def finished(self) -> bool:
        """Whether its end is recorded."""
        return self.status is not StepStatus.RUNNING

    @property
    def survives(self) -> bool:
        """Whether it is a command under way that goes on without its worker."""
        return self.kind is StepKind.SHELL and self.cursor is not None and not self.finished

    @property
    def asks_place(self) -> bool:
        """Whether it waits for the place that its `concurrency` allows it."""
        return self.topic is not None and self.topic.startswith(PLACE) and not self.finished

    @property
    def has_place(self) -> bool:
        """Whether it has that place."""
        return self.topic is not None and self.topic.startswith(PLACED) and not self.finished

    @property
    def is_wait(self) -> bool:
        """Whether it waits for what the journal will see: the clock, an event, an end, a place."""
        return (self.wake_at is not None or self.topic is not None) and not self.finished and not self.has_place


class PipeEvent(msgspec.Struct, frozen=True, gc=False, kw_only=True, omit_defaults=True):
    """One event sent into a pipe, or one success of a job (`topic` is `pipe:NAME` or `job:NAME`)."""

    id: str
    topic: str
    at: float
    data: str  # JSON of the event; for a job its output
    input: str | None = None  # for a job: its input
    seq: int = 0


class LogLine(msgspec.Struct, frozen=True, gc=False, kw_only=True, omit_defaults=True):
    """One line of a run's log. `seq` counts within the run, without gaps, from 1."""

    run: str
    seq: int
    at: float
    text: str
    stream: str = "stdout"  # stdout, stderr, log, system
    step: str | None = None


class LogBlock(msgspec.Struct, frozen=True, gc=False):
    """A stretch of a run's log: the first and the last seq in it, how many lines there are, and the bytes of their texts."""

    first: int
    last: int
    lines: int
    size: int


class Engine(msgspec.Struct, frozen=True, gc=False, kw_only=True, omit_defaults=True):
    """An engine that executes runs of a journal. Its id is new at each start; one whose row is gone may write no more."""

    id: str
    name: str
    lease_until: float
    host: str = ""
    pid: int = 0
    leash: str | None = None  # path of its liveness lock, which it and all its children hold; the column is called so


class RunFilter(msgspec.Struct, frozen=True, kw_only=True):
    """Which runs a listing wants, newest first; `before` and `after` are seqs to page on from."""

    id: str | None = None
    job: str | None = None
    statuses: tuple[Status, ...] | None = None
    since: float | None = None
    until: float | None = None  # ended before this moment
    parent: str | None = None
    tags: tuple[tuple[str, str | None], ...] = ()  # all of these; None is any value
    roots: bool = False  # only those that are no children
    not_under: str | None = None  # no children of runs of this job
    before: int | None = None
    after: int | None = None
    id_prefix: str | None = None
    id_suffix: str | None = None
    limit: int | None = None
    oldest_first: bool = False
    brief: bool = False  # with excerpts in place of large inputs, outputs and failures


def excerpt(text: str | None) -> str | None:
    """Returns a value as a brief record has it."""
    return text if text is None or len(text) <= WHOLE else CUT + text[:EXCERPT]


def brief_run(run: Run) -> Run:
    """Returns a run with excerpts in place of its large values."""
    changes = {"output": excerpt(run.output), "failures": excerpt(run.failures)}
    return msgspec.structs.replace(run, input=excerpt(run.input) or "", **changes)


def brief_step(step: Step) -> Step:
    """Returns a step with excerpts in place of its large values."""
    return msgspec.structs.replace(step, output=excerpt(step.output), failures=excerpt(step.failures))
