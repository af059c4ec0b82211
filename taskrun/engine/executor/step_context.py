"""The step context of one attempt: what `run`, `sleep`, `job.run` and the others reach from inside a handler.

Implements the `Caller` of the declarations. Identity is taken when a step is called; the coroutine that a call returns
answers from the journal, or executes and records. `attempt_state` says whether a step may begin. Made by the executor, one per
attempt.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine, Mapping
from datetime import UTC, datetime
from functools import cached_property, partial
from typing import Any

import msgspec
from msgspec.structs import replace

from taskrun.declarations.calls import Current, Match, StepCall
from taskrun.declarations.job import Job
from taskrun.declarations.pipe import Pipe
from taskrun.engine import messages as m
from taskrun.engine.executor.attempt_state import AttemptState, is_offer
from taskrun.engine.executor.replay import Replay, digest_of_child, digest_of_step, digest_of_wait
from taskrun.engine.executor.run_context import inside
from taskrun.engine.executor.run_log import RunLog
from taskrun.engine.executor.run_requests import RunRequests
from taskrun.engine.executor.step_bodies import Bodies
from taskrun.engine.executor.step_ids import identify
from taskrun.model.clock import Clock
from taskrun.model.codec import check_size, decode, encode, encode_error, error_from, error_text, rebuild
from taskrun.model.errors import JobNotFound, Unwind
from taskrun.model.records import PLACE, ErrorRecord, Failure, Run, Step, StepKind, StepStatus
from taskrun.model.secrets import whole_input
from taskrun.model.tags import tags_of
from taskrun.processes.command_file import START
from taskrun.rules.policies import Concurrency, next_try
from taskrun.rules.transitions import with_failure

Read = Callable[[str], Any]  # from JSON text to the value that a handler gets
MakeHandle = Callable[[RunRequests, Run, Read], Any]


class Context(AttemptState):
    """One attempt's way to the journal.

    Parameters:
        make_handle: makes the handle of a child that was started.
    """

    def __init__(
        self,
        run: Run,
        job: Job,
        host: m.Peer,
        clock: Clock,
        bodies: Bodies,
        replay: Replay,
        run_log: RunLog,
        on_held: Callable[[Any], None],
        max_payload: int,
        make_handle: MakeHandle,
        jobs: Mapping[str, Job],
    ) -> None:
        super().__init__(run, host, replay, run_log, on_held)
        self.job = job
        # errors of steps that have used up their retries
        self.used_up: tuple[tuple[BaseException, ErrorRecord], ...] = ()
        self.stepping: dict[asyncio.Task[Any], str] = {}  # tasks of the handler that are inside a step, and its key
        self._clock = clock
        self._bodies = bodies
        self._max_payload = max_payload
        self._make_handle = make_handle
        self._jobs = jobs

    @cached_property
    def current(self) -> Current:
        """The run, as its own code sees it; the input is a copy, not the object that the handler has."""
        run = self.run
        return Current(
            run_id=run.id,
            job=run.job,
            input=self.job.input.load(whole_input(run)),
            attempt=run.attempt,
            parent=run.parent,
            slot=None if run.slot is None else datetime.fromtimestamp(run.slot, UTC),
            tags=tags_of(run),
        )

    # ---- the calls of a handler

    @property
    def inside_step(self) -> bool:
        """Whether the caller is inside the body of a step."""
        return inside.get() is not None

    def step(self, call: StepCall) -> Coroutine[Any, Any, Any]:
        """A run, thread or shell step."""
        key, digest = identify(call.name), digest_of_step(call)
        return self._owned(key, self._step(key, call, digest, self._find(key, call.kind, digest)))

    def sleep(self, until: float | None, seconds: float | None) -> Coroutine[Any, Any, None]:
        """A durable timer."""
        key = identify("sleep")
        digest = f"{seconds} s" if until is None else f"until {until}"
        recorded = self._find(key, StepKind.SLEEP, digest)
        wake_at = until if until is not None else self._clock.now() + (seconds or 0.0)
        step = self._new(key, "sleep", StepKind.SLEEP, wake_at=wake_at, call=digest)
        return self._owned(key, self._wait(step, recorded, decode))

    def find_job(self, name: str) -> Job:
        """Returns a job by its name."""
        if name not in self._jobs:
            raise JobNotFound(f'no job "{name}"')
        return self._jobs[name]

    def child(self, job: Job, input: object, wait: bool) -> Coroutine[Any, Any, Any]:
        """A child run: its output with `wait`, else its handle."""
        key, digest = identify(job.name), digest_of_child(job.name, input, wait)
        recorded = self._find(key, StepKind.CHILD, digest)
        return self._owned(key, self._child(key, digest, recorded, job, input, wait))

    def wait(self, source: Job | Pipe, match: Match, timeout: float | None) -> Coroutine[Any, Any, Any]:
        """Waits for an event of a pipe, or for the success of a run of a job."""
        key, digest = identify(source.name), digest_of_wait(source.topic, match)
        recorded = self._find(key, StepKind.WAIT, digest)
        wake_at = None if timeout is None else self._clock.now() + timeout
        pattern = None if callable(match) else encode(match or {}, f"match of {key}")
        step = self._new(
            key, source.name, StepKind.WAIT, wake_at=wake_at, topic=source.topic, match=pattern, call=digest
        )
        if callable(match):
            return self._owned(key, self._wait_judged(recorded or step, source, match))
        return self._owned(key, self._wait(step, recorded, source.read, self.run.created_at))

    def join(self, run_id: str) -> Coroutine[Any, Any, None]:
        """Waits, as a step, for the end of a run that was started."""
        key, topic = identify("result"), f"run:{run_id}"
        recorded = self._find(key, StepKind.WAIT, topic)
        step = self._new(key, "result", StepKind.WAIT, topic=topic, match="{}", child=run_id, call=topic)
        return self._owned(key, self._joined(step, recorded))

    def send(self, pipe: Pipe, data: object) -> Coroutine[Any, Any, str]:
        """Sends an event, as a step."""
        key, digest = identify(pipe.name), digest_of_child(pipe.topic, data)
        recorded = self._find(key, StepKind.SEND, digest)
        step = self._new(key, pipe.name, StepKind.SEND, topic=pipe.topic, call=digest)
        return self._owned(key, self._send(step, recorded, pipe, data))

    async def cancel_runs(self, job: Job, input: object) -> int:
        """Cancels the unfinished runs of a job with exactly this input; returns how many."""
        count: int = await self._busily(m.CancelRuns(job=job.name, input=whole_input(job.prepare(input))))
        return count

    def value(self, name: str, make: Callable[[], Any], kind: Any) -> Any:
        """A recorded value; durable before anything that could depend on it. `now` is the engine's clock."""
        if name == "now":
            make = partial(datetime.fromtimestamp, self._clock.now(), UTC)
        key = identify(name)
        recorded = self._find(key, StepKind.VALUE, None)
        if recorded is not None and recorded.output is not None:
            return decode(recorded.output, kind)
        output = encode(make(), f"value {key}")
        now = self._clock.now()
        step = self._new(key, name, StepKind.VALUE, status=StepStatus.SUCCEEDED, output=output, ended_at=now)
        self._values[key] = step
        return decode(output, kind)

    def _find(self, key: str, kind: StepKind, digest: str | None) -> Step | None:
        step, other = self.replay.find(key, kind, digest)
        if other:
            self._host.tell(m.Forget(run=self.run.id, key=key))
        return step

    def progress(self, done: float, total: float | None, note: str) -> None:
        """The progress that live tables draw as a bar."""
        self.run_log.progress(done, total, note)

    def log(self, level: int, text: str) -> None:
        """A line for the run's log."""
        self.run_log.write("log", f"{logging.getLevelName(level)} {text}\n")

    # ---- steps with a body

    async def _step(self, key: str, call: StepCall, digest: str, recorded: Step | None) -> Any:
        if recorded is not None and recorded.finished:
            return await self._given(recorded, partial(decode, kind=call.output_type))
        attempt, failures = 1, None
        if recorded is not None:
            attempt, failures = recorded.attempt, recorded.failures
            if recorded.wake_at is not None and recorded.topic is None:
                await self._wait_backoff(recorded, None)
        while True:
            await self._may_begin(recorded)
            step = self._new(key, call.name, call.kind, attempt=attempt, failures=failures, call=digest)
            if self._bodies.survives(call):
                step = _surviving(step, recorded)
            if call.concurrency is not None:
                step = await self._with_place(step, call.concurrency)
            done, error = await self._perform(step, call)
            if error is None:
                return decode(done.output or "null", call.output_type)
            delay, error = self._next_try(call, attempt, error)
            record = encode_error(error)
            if delay is None:
                await self._record(replace(done, status=StepStatus.FAILED, error=error_text(record)))
                self._bodies.forget(call, step, self.run)
                raise self._mark(record, key) from error
            failure = Failure(attempt=attempt, at=self._clock.now(), error=record, started_at=step.started_at)
            attempt, failures = attempt + 1, with_failure(failures, failure)
            wake_at = self._clock.now() + delay
            fresh = {"topic": None, "match": None, "cursor": None}
            again = replace(step, attempt=attempt, failures=failures, wake_at=wake_at, **fresh)
            await self._wait_backoff(again, m.Wait(again))
            self._bodies.forget(call, step, self.run)

    async def _with_place(self, step: Step, terms: Concurrency) -> Step:
        """Waits for a step's place and for the slot; asks again if the place was only offered meanwhile."""
        wanted = replace(step, topic=f"{PLACE}{terms.id}", match=msgspec.json.encode(terms).decode())
        while True:
            step = await self._until_over(wanted, m.Wait(wanted))
            await self._ready()
            if step.has_place:
                return step

    async def _perform(self, step: Step, call: StepCall) -> tuple[Step, BaseException | None]:
        """Executes a body once; its success is durable when this returns."""
        self._busy += 1
        token = inside.set(step.key)
        try:
            self._bodies.begun(self._host, step)
            try:
                value = await self._bodies.execute(call, step, self)
            finally:
                self._bodies.ended(step)
            output = encode(value, f'result of step "{step.key}"', self._max_payload)
            done = replace(step, status=StepStatus.SUCCEEDED, output=output, ended_at=self._clock.now())
            self._check()
            await self._ask(m.Record(done))
            self._bodies.forget(call, step, self.run)
            return done, None  # a cancel meanwhile changes nothing: the core keeps what is finished
        except (Unwind, GeneratorExit):
            raise
        except BaseException as error:
            if isinstance(error, asyncio.CancelledError) and _is_cancelled():
                raise self._cut_off(step) from None
            self._check()
            return replace(step, ended_at=self._clock.now()), error
        finally:
            inside.reset(token)
            self._busy -= 1
            self.look_soon()

    def _next_try(self, call: StepCall, attempt: int, error: BaseException) -> tuple[float | None, BaseException]:
        policy = self.job.options.backoff if call.backoff is None else call.backoff
        return next_try(policy, attempt, call.retry, error, self.current.input)

    async def _wait_backoff(self, step: Step, message: m.Wait | None) -> None:
        self._backoffs += 1
        try:
            await self._until_over(step, message)
        finally:
            self._backoffs -= 1

    # ---- waits

    async def _wait(self, step: Step, recorded: Step | None, read: Read, since: float = 0.0) -> Any:
        if recorded is not None and recorded.finished:
            return await self._given(recorded, read)
        await self._may_begin(recorded)
        done = await self._until_over(recorded or step, m.Wait(step, since) if recorded is None else None)
        return self._outcome(done, read)

    async def _wait_judged(self, step: Step, source: Job | Pipe, predicate: Callable[[Any], Any]) -> Any:
        """Waits for an event that a predicate accepts; the predicate is called here, in the executor."""
        if step.finished:
            return await self._given(step, source.read)
        judged = source.input.load if isinstance(source, Job) else source.read
        while True:
            await self._may_begin(step)
            found = await self._until_over(step, m.Wait(step, self.run.created_at))
            if found.finished:  # by its timeout
                return self._outcome(found, source.read)
            try:
                fits = found.match is not None and predicate(judged(found.match))
            except Exception as error:
                record = encode_error(error)
                failed = replace(found, status=StepStatus.FAILED, output=None, match=None, error=error_text(record))
                await self._record(replace(failed, ended_at=self._clock.now(), wake_at=None))
                raise self._mark(record, step.key) from error
            if fits:
                taken = replace(found, status=StepStatus.SUCCEEDED, ended_at=self._clock.now(), wake_at=None)
                await self._record(taken)
                return self._outcome(taken, source.read)
            step = replace(step, cursor=found.cursor)

    async def _child(self, key: str, digest: str, recorded: Step | None, job: Job, input: object, wait: bool) -> Any:
        read = job.read if wait else partial(self._handle, job, input)
        if recorded is not None and recorded.finished:
            return await self._given(recorded, read)
        await self._may_begin(recorded)
        if recorded is not None:
            return self._outcome(await self._until_over(recorded, None), read)
        step = self._new(key, job.name, StepKind.CHILD, call=digest)
        prepared = job.prepare(input, self._max_payload)
        message = m.StartChild(step=step, prepared=prepared, wait=wait)
        return self._outcome(await self._until_over(step, message), read)

    def _handle(self, job: Job, input: object, text: str) -> Any:
        """Returns a child's handle, given its id."""
        record = Run(id=decode(text), job=job.name, created_at=0.0, input=job.prepare(input).input)
        return self._make_handle(RunRequests(self._host, self), record, job.read)

    async def _joined(self, step: Step, recorded: Step | None) -> None:
        if recorded is not None and recorded.finished:
            await self._turn(recorded)
            return
        await self._may_begin(recorded)
        await self._until_over(recorded or step, m.Wait(step) if recorded is None else None)

    async def _send(self, step: Step, recorded: Step | None, pipe: Pipe, data: object) -> Any:
        if recorded is not None and recorded.finished:
            return await self._given(recorded, decode)
        await self._ready()
        text = pipe.prepare(data)
        check_size(text.encode(), f"event for {pipe.name}", self._max_payload)
        return self._outcome(await self._told(m.Send(step=step, data=text), step), decode)

    async def _until_over(self, step: Step, message: m.Wait | m.StartChild | None) -> Step:
        """Registers a wait by a message, unless it already is, and waits until it is over.

        Its end may be told before that message is answered.
        """
        if message is None and (known := self.replay.latest(step.key)) is not None and not known.is_wait:
            return known
        over: asyncio.Future[Step] = asyncio.get_running_loop().create_future()
        self.waits[step.key] = over
        try:
            if message is not None:
                answer: Step = await self._busily(message)
                if not answer.is_wait or is_offer(answer):
                    return answer
            self.look_soon()
            return await over
        except asyncio.CancelledError:
            raise self._cut_off(step) from None
        finally:
            self.waits.pop(step.key, None)

    # ---- inside

    async def _may_begin(self, recorded: Step | None) -> None:
        """Waits until a step may begin, or may go on; one that has begun before and is cut off meanwhile is noted so."""
        try:
            await self._ready()
        except asyncio.CancelledError:
            if recorded is None:
                raise
            raise self._cut_off(recorded) from None

    async def _owned(self, key: str, call: Coroutine[Any, Any, Any]) -> Any:
        """Runs a step call as a task that the attempt owns until it ends."""
        task = asyncio.current_task()
        if task is None or task is self.task or task in self.stepping:
            return await call
        self.stepping[task] = key
        try:
            return await call
        except Unwind:
            task.add_done_callback(see)  # who awaits it may have left before it
            raise
        finally:
            del self.stepping[task]

    async def _given(self, step: Step, read: Read) -> Any:
        """Answers from the journal, in the recorded order."""
        await self._turn(step)
        if self._cancel_due:
            self.look_soon()
        return self._outcome(step, read)

    async def _turn(self, step: Step) -> None:
        self._check()
        if step.status is StepStatus.CANCELLED:
            await self._cut_off_again(step)
        try:
            await self.replay.turn(step, self.alone)
        except asyncio.CancelledError:
            raise self._cut_off(step) from None
        self._check()

    def _outcome(self, step: Step, read: Read) -> Any:
        if step.error is not None:
            raise self._mark(error_from(step.error), step.key)
        return None if step.output is None else read(step.output)

    def _cut_off(self, step: Step) -> BaseException:
        """Notes that a step was cancelled, whatever its end was: the handler has not seen it. Returns what to raise."""
        if self.unwinding or self.over:
            return Unwind()
        unseen = {"output": None, "error": None, "wake_at": None}
        self._host.tell(m.Noted(replace(step, status=StepStatus.CANCELLED, ended_at=self._clock.now(), **unseen)))
        return asyncio.CancelledError()

    def _mark(self, record: ErrorRecord, key: str) -> BaseException:
        """Returns a step's error as the handler gets it."""
        error = rebuild(record, key)
        self.used_up += ((error, record),)
        return error

    def _new(self, key: str, name: str, kind: StepKind, **fields: Any) -> Step:
        return Step(run=self.run.id, key=key, name=name, kind=kind, started_at=self._clock.now(), **fields)

    async def _record(self, step: Step) -> None:
        await self._told(m.Record(step), step)

    async def _told(self, message: m.Asked, step: Step) -> Any:
        """Asks the core for, or to keep, the end of a step; whoever is cut off before it answers has not seen that end."""
        try:
            return await self._busily(message)
        except asyncio.CancelledError:
            raise self._cut_off(step) from None


def _is_cancelled() -> bool:
    """Whether somebody has cancelled the current task; else a `CancelledError` is a step's own, of a task that it awaited."""
    task = asyncio.current_task()
    return task is None or task.cancelling() > 0


def see(task: asyncio.Task[Any]) -> None:
    """Marks a task's error as seen, or asyncio would log it in whatever run the garbage collector happens to work."""
    if not task.cancelled():
        task.exception()


def _surviving(step: Step, recorded: Step | None) -> Step:
    """Returns the step of a command that survives: as it was recorded, where this try of it has begun already."""
    if recorded is not None and recorded.survives and recorded.attempt == step.attempt:
        return replace(step, cursor=max(recorded.cursor or 0, START), started_at=recorded.started_at)
    return replace(step, cursor=0)
