"""One simulation: what a seed makes of engines, jobs, input and faults, and whether all comes to its end."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass, field
from random import Random
from typing import Any

from taskrun.model.errors import DaemonError, EngineLost, InputInvalid, JournalError, NotFound, RunEnded, RunNotEnded
from taskrun.model.records import Awaited, Run
from tests.simulation import engine as engines
from tests.simulation.disk import Disk, MemoryDisk, SimStore, SqliteDisk
from tests.simulation.engine import DaemonEngine, Engine, Settings
from tests.simulation.handlers import Code
from tests.simulation.plans import Programmer, Scale
from tests.simulation.postgres_disk import PostgresDisk
from tests.simulation.timeline import START, Process, Timeline
from tests.simulation.watch import Safety

NOT_TAKEN = (JournalError, DaemonError, NotFound, InputInvalid, RunEnded, RunNotEnded)  # honest answers to a client
MOST_TURNS = 120_000  # of a seed
TURNS_A_SECOND = 500  # and for each second that it lasts: engines that wait keep up their leases


@dataclass(frozen=True)
class Emphasis:
    """What all seeds have in common: where the journal is, and what those of a known fault come across more often than others.

    A fault that shows in one of 1,000 seeds proves little.
    """

    fault: str | None = None  # happens several times to each seed
    engines: int | None = None  # on one journal, with short leases
    tells: bool = False
    postgres: bool = False  # the journal is on a server


@dataclass
class Outcome:
    """How a seed went."""

    seed: int
    wrong: str | None
    story: list[str]
    trace: int
    turns: int
    runs: int
    bodies: int
    seen: dict[str, int] = field(default_factory=dict)


class World:
    """Everything of one seed."""

    def __init__(self, seed: int, emphasis: Emphasis) -> None:
        self.seed = seed
        self.emphasis = emphasis
        rng = self._rng = Random(seed)
        self.timeline = Timeline(
            Random(seed + 1),
            tick=rng.choice((0.0, 1e-5, 1e-4)),
            bursts=rng.choice(((1,), (1, 1, 3), (1, 4, 16), (50,))),
        )
        self.timeline.on_error = self._on_error
        engines.begin(self.timeline, seed)
        latencies = self.latencies = rng.choice(((0.0,), (0.0, 0.001), (0.0, 0.001, 0.05), (0.0, 0.001, 0.05)))
        self.on_file = rng.random() < 0.1 and not emphasis.postgres
        kind = PostgresDisk if emphasis.postgres else SqliteDisk if self.on_file else MemoryDisk
        self.disk: Disk = kind(self.timeline, Random(seed + 2), latencies)
        self.on_server = emphasis.postgres
        self.safety = Safety(self.timeline, self.disk, self._engine_of)
        self.story: list[str] = []
        self.seen: dict[str, int] = {}
        self.daemon = rng.random() < 0.4
        self.one_process = not self.daemon and rng.random() < 0.3  # several queues on one storage object
        self.instant = not self.daemon and not self.on_file and rng.random() < 0.2 and not emphasis.postgres
        self.long = rng.random() < 0.08 and not emphasis.postgres  # handlers sleep for hours
        self.settings = Settings(
            concurrency=rng.choice((None, None, 1, 2, 3)),
            grace=rng.choice((0.0, 0.2, 1.0)),
            lease=60.0 if self.long else rng.choice((3.0, 15.0)),
            resident=rng.choice((0, 1, 2, 1_000)),
            tells=Random(seed + 4).random() < 0.25,
        )
        self.wire = Random(seed + 3)
        self.wire_latencies = self.latencies = rng.choice(((0.0,), (0.0, 0.001), (0.0, 0.001, 0.03)))
        self.count = 1 if self.daemon else rng.choice((1, 1, 2, 2, 3))
        self.workers = rng.choice((1, 1, 2)) if self.daemon else 0
        if emphasis.engines is not None:
            self.daemon = self.one_process = self.instant = self.long = False
            self.count, self.workers, self.settings.lease = emphasis.engines, 0, 3.0
        self.settings.tells |= emphasis.tells
        self.plans = Programmer(
            Scale(rng, jobs=rng.choice((1, 2, 3, 4)), long=self.long, limits=rng.random() < 0.7)
        ).jobs()
        self.safety.tells = self.settings.tells
        self.all_plans = list(self.plans)  # with those of edits
        self.engines: list[Engine] = []
        self.runs: list[str] = []  # acknowledged triggers
        self.promises: list[tuple[Engine, str, asyncio.Task[Any]]] = []  # who waits for an end
        self.faulty = True
        self._spoken: dict[str, float] = {}
        self._started = 0
        self._shared_store: SimStore | None = None

    # ---- telling

    def tell(self, text: str) -> None:
        """Adds a line to the story."""
        self.timeline.note(text)
        self.story.append(f"{self.timeline.now - START:10.4f}  {text}")

    def count_seen(self, what: str) -> None:
        """Counts a rare thing, so that it is known whether seeds come across it."""
        self.seen[what] = self.seen.get(what, 0) + 1

    def _on_error(self, process: Process, context: dict[str, Any]) -> None:
        error = context.get("exception")
        if isinstance(error, (EngineLost,)) and not self.faulty:
            return
        place = ""
        trace = getattr(error, "__traceback__", None)
        while trace is not None:
            code = trace.tb_frame.f_code
            place, trace = f"{code.co_filename.rpartition('taskrun/')[2]}:{trace.tb_lineno}", trace.tb_next
        self.safety.fail(f"unhandled: {context['message'][:60]}: {type(error).__name__}: {str(error)[:120]} at {place}")

    # ---- processes

    def _engine_of(self, process: Process) -> Engine:
        for engine in self.engines:
            if engine.process is process or any(worker.process is process for worker in getattr(engine, "workers", ())):
                return engine
        raise LookupError(process)

    def _process(self, kind: str) -> Process:
        self._started += 1
        return Process(self.timeline, f"{kind}{self._started}")

    def _store(self) -> SimStore:
        if self.one_process:
            if self._shared_store is None:
                self._shared_store = SimStore(self.disk, instant=self.instant, shared=self.on_server, place=None)
            return self._shared_store
        return SimStore(self.disk, instant=self.instant, shared=self.on_server or not self.daemon, place=self.place)

    @property
    def place(self) -> str | None:
        """Where lock files are: a death is seen by them; on other hosts it is assumed when the lease is over."""
        return None if self.seed % 3 == 0 or self.daemon or self.on_server else "/nowhere/journal"

    def boot(self) -> Engine:
        """Starts an engine; its start may fail as any may."""
        process = self._process("daemon" if self.daemon else "engine")
        engine: Engine
        if self.daemon:
            engine = DaemonEngine(process, self._store(), self.settings, self._hire, self._wire_latency)
        else:
            engine = Engine(process, self._store(), self.settings)
        self.engines.append(engine)
        self.tell(f"{process} starts")

        def started(task: asyncio.Task[None]) -> None:
            if not task.cancelled() and (error := task.exception()) is not None:
                if not isinstance(error, JournalError):
                    self._on_error(process, {"message": "an engine could not start", "exception": error})
                self.tell(f"{process} could not start: {error}")
                self.kill(engine)
                self.timeline.after(1.0, self._boot_again)

        process.spawn(engine.start(Code(self.plans, process, self.safety)), started)
        if isinstance(engine, DaemonEngine):
            for _ in range(self.workers - 1):
                process.spawn(self._second_worker(engine), begun=engine.asked.add)
        return engine

    def _boot_again(self) -> None:
        self.boot()

    async def _second_worker(self, engine: DaemonEngine) -> None:
        while not (engine.up or engine.closing):
            await asyncio.sleep(0.01)
        if not engine.closing:
            engine.add()

    def _hire(self) -> tuple[Process, Code]:
        process = self._process("worker")
        return process, Code(self.plans, process, self.safety)

    def _wire_latency(self) -> float:
        return self.wire.choice(self.wire_latencies)

    def kill(self, engine: Engine) -> None:
        """An engine is gone, with its workers."""
        for worker in list(getattr(engine, "workers", ())):
            if worker.process.alive:
                worker.process.kill()
            self.safety.forget(worker.process)
        if engine.process.alive:
            engine.process.kill()
        self.safety.forget(engine.process)
        if not self.one_process:
            self.disk.drop(engine.store.inner)
        if engine in self.engines:
            self.engines.remove(engine)

    def live(self) -> list[Engine]:
        """Returns the engines that take requests."""
        return [engine for engine in self.engines if engine.up and engine.process.alive and not engine.process.stopped]

    # ---- requests

    def ask(
        self, what: str, engine: Engine, work: Coroutine[Any, Any, Any], then: Callable[[Any], None] | None = None
    ) -> None:
        """Asks an engine for something; what it answers may be that it cannot."""
        self.tell(f"{what} → {engine.process}")

        def answered(task: asyncio.Task[Any]) -> None:
            if task.cancelled():
                return
            error = task.exception()
            if error is None:
                if then is not None:
                    then(task.result())
            elif not isinstance(error, NOT_TAKEN):
                self._on_error(engine.process, {"message": f"a request failed: {what.split()[0]}", "exception": error})

        engine.process.spawn(work, answered, engine.asked.add)

    def trigger(self, job: str, n: int, delay: float | None = None, after: Sequence[Awaited] = ()) -> None:
        """Triggers a job."""
        if not (live := self.live()):
            return
        engine = self._rng.choice(live)
        late = "" if delay is None else f" in {delay:g} s"
        late += "".join(f" after{'-any' if one.any else ''} {one.run}" for one in after)
        self.ask(
            f"start {job} n={n}{late}",
            engine,
            engine.trigger(job, json.dumps({"n": n}), delay, after),
            lambda run_id: self._acknowledged(engine, job, run_id),
        )

    def _acknowledged(self, engine: Engine, job: str, run_id: str) -> None:
        self.tell(f"{job} is run {run_id}")
        if self.disk.peek().run(run_id) is None:
            self.safety.fail(f"an acknowledged trigger is not in the journal: {run_id}")
        self.runs.append(run_id)
        if engine.process.alive:
            self._promise(engine, run_id, engine.wait(run_id))
            if self._rng.random() < 0.2:
                self._promise(engine, run_id, engine.follow(run_id, self._rng.choice((0.0, 0.01, 2.0))))

    def _promise(self, engine: Engine, run_id: str, work: Coroutine[Any, Any, Any]) -> None:
        def begun(task: asyncio.Task[Any]) -> None:
            engine.asked.add(task)
            self.promises.append((engine, run_id, task))

        engine.process.spawn(work, begun=begun)

    def order(self, verb: str, argument: str | None = None) -> None:
        """Cancels, pauses, resumes or retries a run."""
        if self.runs and (live := self.live()):
            run_id = self._rng.choice(self.runs[-6:])
            engine = self._rng.choice(live)
            self.ask(f"{verb} {run_id}", engine, engine.order(run_id, verb, argument))

    def send(self, pipe: str, n: int) -> None:
        """Sends an event."""
        if live := self.live():
            engine = self._rng.choice(live)
            self.ask(f"send {pipe} n={n}", engine, engine.send(pipe, json.dumps({"n": n})))

    def hold_job(self, held: bool) -> None:
        """Pauses or resumes a job."""
        if live := self.live():
            engine, job = self._rng.choice(live), self._rng.choice(self.plans).name
            self.ask(f"{'pause' if held else 'resume'} {job}", engine, engine.hold_job(job, held))

    # ---- running

    def wrong(self) -> bool:
        """Whether it is over."""
        return self.safety.wrong is not None

    def run_for(self, seconds: float, until: Callable[[], bool] = lambda: False) -> None:
        """Lets time pass."""
        end = self.timeline.now + seconds
        last = -1.0
        while not self.wrong() and self.timeline.step(end):
            if self.timeline.turns > MOST_TURNS + TURNS_A_SECOND * (self.timeline.now - START):
                self.safety.fail("it never becomes quiet")
            if self.timeline.now != last:
                last = self.timeline.now
                if until():
                    return

    def unfinished(self) -> list[Run]:
        """Returns the runs that have not ended."""
        return [run for run in self.disk.runs().values() if not run.ended]

    def describe(self, run: Run) -> list[str]:
        """Returns how a run stands, for the story."""
        extra = ", ".join(
            f"{name}={value}"
            for name in (
                "reason",
                "engine",
                "blocked",
                "placed",
                "wake_at",
                "cancel",
                "pause",
                "crashes",
                "lane",
                "parent",
            )
            if (value := getattr(run, name))
        )
        lines = [f"{run.id} {run.job} {run.status} attempt {run.attempt} {extra}"]
        for step in self.disk.peek().steps(run.id):
            extra = ", ".join(
                f"{n}={v}" for n in ("topic", "match", "wake_at", "child", "cursor") if (v := getattr(step, n))
            )
            lines.append(f"    {step.key} {step.kind} {step.status} attempt {step.attempt} {extra}")
        return lines

    def dispose(self) -> None:
        """Ends all processes quietly."""
        for process in list(self.timeline.processes):
            process.kill()
        for process in self.timeline.dead:
            process.loop.abandon()
        self.disk.close()
