"""The step context of one attempt: what `run`, `sleep`, `job.run` and the others reach from inside a handler.

Implements the `Caller` of the declarations. Identity is taken when a step is called; the coroutine that a call returns answers
from the journal, or executes and records. Knows when all that the handler does is wait. Made by the executor, one per attempt.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine
from datetime import UTC, datetime
from functools import partial
from typing import Any

from msgspec.structs import replace

from taskrun.declarations.calls import Current, Match, StepCall
from taskrun.declarations.job import Job
from taskrun.declarations.pipe import Pipe
from taskrun.engine import messages as m
from taskrun.engine.api.run import Run as Handle
from taskrun.engine.core import step_queue as permits
from taskrun.engine.executor.inside import inside
from taskrun.engine.executor.replay import Replay
from taskrun.engine.executor.run_desk import Desk
from taskrun.engine.executor.run_log import RunLog
from taskrun.engine.executor.step_bodies import Bodies
from taskrun.engine.executor.step_ids import identify
from taskrun.engine.executor.stillness import only_waits
from taskrun.model.clock import Clock
from taskrun.model.codec import check_size, decode, encode, encode_error, error_from, error_text, rebuild
from taskrun.model.errors import JournalError, Unwind
from taskrun.model.records import ErrorRecord, Failure, Run, Step, StepKind, StepStatus
from taskrun.rules.policies import BackoffPolicy, next_try
from taskrun.rules.transitions import with_failure

Read = Callable[[str], Any]  # from JSON text to the value that a handler gets


class Context:
    """One attempt's way to the journal."""

    def __init__(
        self,
        run: Run,
        current: Current,
        host: m.Peer,
        clock: Clock,
        bodies: Bodies,
        replay: Replay,
        transcript: RunLog,
        backoff: BackoffPolicy,
        max_payload: int,
    ) -> None:
        self.run = run
        self.current = current
        self.replay = replay
        self.transcript = transcript
        self.seen = 0  # waits that this attempt was told are over
        self.parked = False
        self.unwinding = False
        self.over = False
        self.pausing = False
        self.given_up = False  # it has used up its grace
        self.cancel_reason: str | None = None
        self.used_up: list[tuple[BaseException, ErrorRecord]] = []  # errors of steps that have used up their retries
        self.on_idle: Callable[[], None] | None = None  # called when nothing is in flight any more
        self.task: asyncio.Task[Any] | None = None
        self.tasks: set[asyncio.Task[Any]] = set()  # tasks of the handler that are inside a step
        self.waits: dict[str, asyncio.Future[Step]] = {}
        self._early: dict[str, Step] = {}  # waits that were over before the handler waited for them
        self._wakes: dict[str, float] = {}  # when those waits are over by the clock
        self._backoffs = 0
        self._predicates = 0
        self._gates: list[asyncio.Future[None]] = []
        self._busy = 0
        self._cancel_told = False
        self._looking = False
        self._values: list[Step] = []
        self._host = host
        self._clock = clock
        self._bodies = bodies
        self._backoff = backoff
        self._max_payload = max_payload

    # ---- the calls of a handler

    @property
    def inside_step(self) -> bool:
        """Whether the caller is inside the body of a step."""
        return inside.get() is not None

    def step(self, call: StepCall) -> Coroutine[Any, Any, Any]:
        """A run, thread or shell step."""
        key = identify(call.name)
        return self._held(self._step(key, call, self.replay.find(key, call.kind)))

    def sleep(self, until: float | None, seconds: float | None) -> Coroutine[Any, Any, None]:
        """A durable timer."""
        key = identify("sleep")
        recorded = self.replay.find(key, StepKind.SLEEP)
        wake_at = until if until is not None else self._clock.now() + (seconds or 0.0)
        return self._held(self._wait(self._new(key, "sleep", StepKind.SLEEP, wake_at=wake_at), recorded, decode))

    def child(self, job: Job, input: object, wait: bool) -> Coroutine[Any, Any, Any]:
        """A child run: its output with `wait`, else its handle."""
        key = identify(job.name)
        return self._held(self._child(key, self.replay.find(key, StepKind.CHILD), job, input, wait))

    def wait(self, source: Job | Pipe, match: Match, timeout: float | None) -> Coroutine[Any, Any, Any]:
        """Waits for an event of a pipe, or for the success of a run of a job."""
        key = identify(source.name)
        recorded = self.replay.find(key, StepKind.WAIT)
        wake_at = None if timeout is None else self._clock.now() + timeout
        pattern = None if callable(match) else encode(match or {}, f"match of {key}")
        step = self._new(key, source.name, StepKind.WAIT, wake_at=wake_at, topic=source.topic, match=pattern)
        if callable(match):
            return self._held(self._wait_judged(recorded or step, source, match))
        return self._held(self._wait(step, recorded, source.read, self.run.created_at))

    def join(self, run_id: str) -> Coroutine[Any, Any, None]:
        """Waits, as a step, for the end of a run that was started."""
        key = identify("result")
        recorded = self.replay.find(key, StepKind.WAIT)
        step = self._new(key, "result", StepKind.WAIT, topic=f"run:{run_id}", match="{}", child=run_id)
        return self._held(self._joined(step, recorded))

    def send(self, pipe: Pipe, data: object) -> Coroutine[Any, Any, str]:
        """Sends an event, as a step."""
        key = identify(pipe.name)
        recorded = self.replay.find(key, StepKind.SEND)
        return self._held(self._send(self._new(key, pipe.name, StepKind.SEND, topic=pipe.topic), recorded, pipe, data))

    async def cancel_runs(self, job: Job, input: object) -> int:
        """Cancels the unfinished runs of a job with exactly this input; returns how many."""
        count: int = await self._busily(m.CancelRuns(job=job.name, input=job.prepare(input).input))
        return count

    def value(self, name: str, make: Callable[[], Any], kind: Any) -> Any:
        """A recorded value; written before anything that could depend on it. `now` is the engine's clock."""
        if name == "now":
            make = self._time
        key = identify(name)
        recorded = self.replay.find(key, StepKind.VALUE)
        if recorded is not None and recorded.output is not None:
            return decode(recorded.output, kind)
        output = encode(make(), f"value {key}")
        now = self._clock.now()
        step = self._new(key, name, StepKind.VALUE, status=StepStatus.SUCCEEDED, output=output, ended_at=now)
        self._values.append(step)
        return decode(output, kind)

    def _time(self) -> datetime:
        return datetime.fromtimestamp(self._clock.now(), UTC)

    async def flush_values(self) -> None:
        """Waits until the values made so far are durable: no step body and no end may overtake them."""
        values, self._values = self._values, []
        for step in values:
            await self._ask(m.Record(step))

    def progress(self, done: float, total: float | None, note: str) -> None:
        """What live tables draw as a bar."""
        self.transcript.progress(done, total, note)

    def log(self, level: int, text: str) -> None:
        """A line for the run's log."""
        self.transcript.write("log", f"{logging.getLevelName(level)} {text}\n")

    # ---- steps with a body

    async def _step(self, key: str, call: StepCall, recorded: Step | None) -> Any:
        if recorded is not None and recorded.finished:
            return await self._given(recorded, partial(decode, kind=call.output_type))
        attempt, failures = 1, None
        if recorded is not None:
            attempt, failures = recorded.attempt, recorded.failures
            if recorded.wake_at is not None and recorded.topic is None:
                await self._wait_backoff(recorded, registered=True)
        while True:
            await self._ready()
            step = self._new(key, call.name, call.kind, attempt=attempt, failures=failures)
            if call.concurrency is not None:
                step = await self._until_over(permits.wanted(step, call.concurrency), registered=False)
                await self._ready()
            done, error = await self._perform(step, call)
            if error is None:
                return decode(done.output or "null", call.output_type)
            delay, error = self._next_try(call, attempt, error)
            record = encode_error(error)
            if delay is None:
                await self._record(replace(done, status=StepStatus.FAILED, error=error_text(record)))
                raise self._mark(record, key) from error
            failure = Failure(attempt=attempt, at=self._clock.now(), error=record, started_at=step.started_at)
            attempt, failures = attempt + 1, with_failure(failures, failure)
            wake_at = self._clock.now() + delay
            again = replace(step, attempt=attempt, failures=failures, wake_at=wake_at, topic=None, match=None)
            await self._wait_backoff(again, registered=False)

    async def _perform(self, step: Step, call: StepCall) -> tuple[Step, BaseException | None]:
        """Executes a body once; its success is durable when this returns."""
        self._busy += 1
        token = inside.set(step.key)
        try:
            with self._bodies.note(self._host, step):
                value = await self._bodies.execute(call, step.key)
            output = encode(value, f'result of step "{step.key}"', self._max_payload)
            done = replace(step, status=StepStatus.SUCCEEDED, output=output, ended_at=self._clock.now())
            self._check()
            await self._ask(m.Record(done))
            return done, None  # a cancel during the record is noted in vain: the core keeps what is finished
        except (Unwind, GeneratorExit):
            raise
        except asyncio.CancelledError:
            raise self._cut_off(step) from None
        except BaseException as error:
            self._check()
            return replace(step, ended_at=self._clock.now()), error
        finally:
            inside.reset(token)
            self._busy -= 1
            self.look_soon()

    def _next_try(self, call: StepCall, attempt: int, error: BaseException) -> tuple[float | None, BaseException]:
        retries = call.retry if call.retry is not None else 3
        policy = self._backoff if call.backoff is None else call.backoff
        return next_try(policy, attempt, retries, error, self.current.input)

    async def _wait_backoff(self, step: Step, registered: bool) -> None:
        self._backoffs += 1
        try:
            await self._until_over(step, registered)
        finally:
            self._backoffs -= 1

    # ---- waits

    async def _wait(self, step: Step, recorded: Step | None, read: Read, since: float = 0.0) -> Any:
        if recorded is not None and recorded.finished:
            return await self._given(recorded, read)
        await self._ready()
        done = await self._until_over(recorded or step, registered=recorded is not None, since=since)
        return self._outcome(done, read)

    async def _wait_judged(self, step: Step, source: Job | Pipe, predicate: Callable[[Any], Any]) -> Any:
        """Waits for an event that a predicate accepts: each is judged here, where the predicate is."""
        if step.finished:
            return await self._given(step, source.read)
        judged = source.input.load if isinstance(source, Job) else source.read
        self._predicates += 1
        try:
            while True:
                await self._ready()
                found = await self._until_over(step, registered=False, since=self.run.created_at)
                if found.finished:  # by its timeout
                    return self._outcome(found, source.read)
                if found.match is not None and predicate(judged(found.match)):
                    taken = replace(found, status=StepStatus.SUCCEEDED, ended_at=self._clock.now(), wake_at=None)
                    await self._record(taken)
                    return self._outcome(taken, source.read)
                step = replace(step, cursor=found.cursor)
        finally:
            self._predicates -= 1

    async def _child(self, key: str, recorded: Step | None, job: Job, input: object, wait: bool) -> Any:
        read = job.read if wait else partial(self._handle, job, input)
        if recorded is not None and recorded.finished:
            return await self._given(recorded, read)
        await self._ready()
        begun = recorded
        if begun is None:
            step, prepared = self._new(key, job.name, StepKind.CHILD), job.prepare(input)
            check_size(prepared.input.encode(), f"input of {job.name}", self._max_payload)
            try:
                begun = await self._busily(m.StartChild(step=step, prepared=prepared, wait=wait))
            except asyncio.CancelledError:
                raise self._cut_off(step) from None
        done = begun if begun.finished else await self._until_over(begun, registered=True)
        return self._outcome(done, read)

    def _handle(self, job: Job, input: object, text: str) -> Handle:
        """Returns a child's handle, given its id."""
        record = Run(id=decode(text), job=job.name, created_at=0.0, input=job.prepare(input).input)
        return Handle(Desk(self._host, self), record, job.read)

    async def _joined(self, step: Step, recorded: Step | None) -> None:
        if recorded is not None and recorded.finished:
            await self._turn(recorded)
            return
        await self._ready()
        await self._until_over(recorded or step, registered=recorded is not None)

    async def _send(self, step: Step, recorded: Step | None, pipe: Pipe, data: object) -> Any:
        if recorded is not None and recorded.finished:
            return await self._given(recorded, decode)
        await self._ready()
        text = pipe.prepare(data)
        check_size(text.encode(), f"event for {pipe.name}", self._max_payload)
        return self._outcome(await self._busily(m.Send(step=step, data=text)), decode)

    async def _until_over(self, step: Step, registered: bool, since: float = 0.0) -> Step:
        """Registers a wait unless it is, then parks until it is over."""
        early = self._early.pop(step.key, None)
        if registered and early is not None:
            return early
        over: asyncio.Future[Step] = asyncio.get_running_loop().create_future()
        self.waits[step.key] = over
        if step.wake_at is not None:
            self._wakes[step.key] = step.wake_at
        try:
            if not registered:
                answer: Step = await self._busily(m.Wait(step=step, since=since))
                if answer.finished or permits.holds(answer):
                    return answer
            self.look_soon()
            return await over
        except asyncio.CancelledError:
            raise self._cut_off(step) from None
        finally:
            self.waits.pop(step.key, None)
            self._wakes.pop(step.key, None)

    # ---- what the core says

    def resume(self, steps: list[Step]) -> None:
        """These waits are over, and there is a place."""
        self.parked = False
        self.seen += len(steps)
        for step in steps:
            over = self.waits.get(step.key)
            if over is not None and not over.done():
                over.set_result(step)
            else:  # the handler has not come to it yet, or stands just before it
                self.replay.update(step)
                self._early[step.key] = step
        self.look_soon()

    def cancel(self, reason: str) -> None:
        """Raises CancelledError at the handler's current wait, or where a replay stands still."""
        self.cancel_reason = reason
        self.look_soon()

    def pause(self, pausing: bool) -> None:
        """Holds before the next step, or goes on."""
        self.pausing = pausing
        if not pausing:
            self._open_gates()
        self.look_soon()

    def unwind(self) -> None:
        """Takes the handler down: `Unwind` at every wait; a body in flight is cancelled."""
        self.unwinding = True
        futures: list[asyncio.Future[Any]] = [*self.waits.values(), *self._gates]
        for future in futures:
            if not future.done():
                future.set_exception(Unwind())
                future.exception()  # whoever waited may be gone: then nobody misses it

    @property
    def held(self) -> bool:
        """Whether the handler stands before a step that a pause holds back."""
        return bool(self._gates)

    # ---- inside

    async def _held(self, call: Coroutine[Any, Any, Any]) -> Any:
        """Runs a step call as a task that the attempt owns until it ends."""
        task = asyncio.current_task()
        if task is None or task is self.task or task in self.tasks:
            return await call
        self.tasks.add(task)
        try:
            return await call
        finally:
            self.tasks.discard(task)

    async def _given(self, step: Step, read: Read) -> Any:
        """Answers from the journal, in the recorded order."""
        await self._turn(step)
        if self._cancel_due:
            self.look_soon()
        return self._outcome(step, read)

    async def _turn(self, step: Step) -> None:
        self._check()
        if step.status is StepStatus.CANCELLED:
            await self._gate()  # until what cancelled it comes again
        await self.replay.turn(step, asyncio.current_task() is self.task)
        self._check()

    def _outcome(self, step: Step, read: Read) -> Any:
        if step.error is not None:
            raise self._mark(error_from(step.error), step.key)
        return None if step.output is None else read(step.output)

    async def _ready(self) -> None:
        """Waits until a step may begin: not cancelled, not paused, with a place, and with all values durable."""
        self._check()
        while self.pausing or self._cancel_due:
            await self._gate()
        if self.parked:
            await self._busily(m.Activate(run=self.run.id))
            self.parked = False
        if self._values:
            await self.flush_values()

    async def _gate(self) -> None:
        gate: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._gates.append(gate)
        self.look_soon()
        try:
            await gate
        finally:
            self._gates.remove(gate)

    def _open_gates(self) -> None:
        for gate in self._gates:
            if not gate.done():
                gate.set_result(None)

    @property
    def _cancel_due(self) -> bool:
        return self.cancel_reason is not None and not self._cancel_told

    def _tell_cancel(self) -> None:
        if not self._cancel_told and self.task is not None and not self.task.done():
            self._cancel_told = True
            self.task.cancel()

    def _check(self) -> None:
        if self.unwinding or self.over:
            raise Unwind

    def _cut_off(self, step: Step) -> BaseException:
        """Notes that a step was cancelled; returns what to raise."""
        if self.unwinding or self.over:
            return Unwind()
        self._host.tell(m.Noted(replace(step, status=StepStatus.CANCELLED, ended_at=self._clock.now(), wake_at=None)))
        return asyncio.CancelledError()

    def _mark(self, record: ErrorRecord, key: str) -> BaseException:
        """Returns a step's error as the handler gets it."""
        error = rebuild(record, key)
        self.used_up.append((error, record))
        return error

    def _new(self, key: str, name: str, kind: StepKind, **fields: Any) -> Step:
        return Step(run=self.run.id, key=key, name=name, kind=kind, started_at=self._clock.now(), **fields)

    async def _record(self, step: Step) -> None:
        await self._busily(m.Record(step))

    async def _busily(self, message: m.Asked) -> Any:
        self._busy += 1
        try:
            return await self._ask(message)
        finally:
            self._busy -= 1
            self.look_soon()

    async def _ask(self, message: m.Asked) -> Any:
        """Asks the core; a journal that is gone takes the handler down, it is no error of a step."""
        self.transcript.flush()  # a line that came before a record must not be lost where the record is kept
        try:
            return await self._host.ask(message)
        except JournalError:
            self.unwinding = True
            raise Unwind from None

    def look_soon(self) -> None:
        """Looks, once the handler has had its turn, whether all it does is wait."""
        if not self._looking:
            self._looking = True
            asyncio.get_running_loop().call_soon(self._look)

    def _look(self) -> None:
        self._looking = False
        if self.over or self.unwinding:
            return
        waits: list[asyncio.Future[Any]] = [*self.waits.values(), *self._gates]
        stands = bool(waits) and not any(wait.done() for wait in waits)  # else the handler is about to go on
        if self.replay.moving:
            self.replay.when_still(self.look_soon)
        elif self._cancel_due:  # it is told where the handler has come as far as it was
            if stands or self._busy or self.replay.exhausted:
                self.replay.when_still(self._tell_cancel)
        elif stands and not self._busy and self.on_idle is not None and (self.pausing or not self.parked):
            self.on_idle()

    def parked_message(self) -> m.Parked:
        """Parks: says what the core needs to know."""
        self.parked = True
        return m.Parked(
            run=self.run.id,
            backoff=self._backoffs > 0,
            seen=self.seen,
            pinned=self._predicates > 0 or not only_waits(self.task, set(self.waits.values())),
            wake_at=min(self._wakes.values()) if len(self._wakes) == len(self.waits) else None,
        )
