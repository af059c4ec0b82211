"""What happens to a world: random input, random faults, then quiet, and the look whether everything came to its end."""

from __future__ import annotations

import gc
import json
import logging
from collections.abc import Callable
from random import Random
from typing import Any

from taskrun.engine.core.facts import NOTICES
from taskrun.model.names import NOTIFY
from taskrun.model.records import Awaited, Cause, Run, Status, Step, StepKind
from taskrun.rules.dependencies import awaited_by
from tests.simulation import engine as engines
from tests.simulation.engine import DaemonEngine, Engine
from tests.simulation.plans import Programmer, Scale
from tests.simulation.world import Emphasis, Outcome, World

PATIENCE = 2 * 3_600.0  # seconds after which a run that has not ended does not end
SHORT_PATIENCE = 1_200.0  # the same where keeping up the leases takes its time: on a server, or for several engines
LONG_PATIENCE = 30 * 3_600.0  # the same where handlers sleep for hours
SELDOM = 60.0  # seconds between two looks of an engine at what others wrote, where handlers sleep for hours
TELLING = 60.0  # seconds that the slowest follower of a run takes for what it has heard


class Script:
    """The input and the faults of one seed."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.rng = Random(world.seed + 4)
        self._awaits = Random(world.seed + 6)
        self._again: list[tuple[float, Callable[[], None]]] = []

    # ---- input

    def plan_input(self) -> float:
        """Schedules the input; returns when the last of it is."""
        rng, world = self.rng, self.world
        span = rng.choice((0.05, 0.5, 3.0, 20.0))
        for _ in range(rng.choice((2, 4, 6, 9))):
            self._at(rng.random() * span, self._trigger)
        for _ in range(rng.choice((0, 0, 2, 4))):
            self._at(rng.random() * span, lambda: world.send(rng.choice(("news", "news", "orders")), rng.randrange(3)))
        for _ in range(rng.choice((0, 0, 1, 3))):
            self._at(rng.random() * span * 1.5, self._order)
        if rng.random() < 0.1:
            self._at(rng.random() * span, lambda: world.hold_job(True))
            self._at(rng.random() * span * 2, lambda: world.hold_job(False))
        return span * 2

    def _at(self, moment: float, call: Callable[[], None]) -> None:
        self.world.timeline.after(moment, call)

    def _trigger(self) -> None:
        job = self.rng.choice(self.world.plans).name
        delay = self.rng.choice((0.0, 0.3, 5.0)) if self.rng.random() < 0.1 else None
        known = self.world.runs if self._awaits.random() < 0.3 else []
        awaited = self._awaits.sample(known, min(len(known), self._awaits.choice((1, 1, 2))))
        after = [Awaited(run, self._awaits.random() < 0.4) for run in awaited]
        self.world.trigger(job, self.rng.randrange(3), delay, after)

    def _order(self) -> None:
        verb = self.rng.choice(("cancel", "cancel", "pause", "resume", "retry"))
        self.world.order(verb, self.rng.choice(("explicit", "timeout", "parent")) if verb == "cancel" else None)

    # ---- faults

    def plan_faults(self) -> None:
        """Schedules the faults, some by time and some by turns, since most happens in few moments."""
        world, rng = self.world, self.rng
        kinds = [self._kill, self._kill, self._stop, self._stall, self._close, self._edit, self._evict]
        if world.daemon:
            kinds += [self._kill_worker] * 3 + [self._reload] * 2 + [self._stop_worker]
        if not world.instant:
            kinds += [self._refuse, self._unknown]
        if rng.random() < 0.1:
            kinds += [self._jump]
        self._turns: list[tuple[int, Callable[[], None]]] = []
        turn, count = 0, rng.choice((0, 1, 1, 2, 4))
        if world.emphasis.fault is not None:
            kinds, count = [getattr(self, f"_{world.emphasis.fault}")], 4
        for _ in range(count):
            fault = rng.choice(kinds)
            if rng.random() < 0.7:
                turn += int(rng.expovariate(1 / rng.choice((40, 150, 500))))
                self._turns.append((turn, fault))
            else:
                self._at(rng.random() * rng.choice((0.2, 3.0, 20.0)), self._if_faulty(fault))

    def _if_faulty(self, fault: Callable[[], None]) -> Callable[[], None]:
        return lambda: fault() if self.world.faulty else None

    def watch_turns(self) -> bool:
        """Does the faults whose turn has come."""
        while self._turns and self.world.timeline.turns >= self._turns[0][0]:
            self._turns.pop(0)[1]()
        return False

    def _victim(self) -> Engine | None:
        engines = [engine for engine in self.world.engines if engine.process.alive and not engine.closing]
        return self.rng.choice(engines) if engines else None

    def _after(self, seconds: float, call: Callable[[], Any]) -> None:
        self.world.timeline.after(seconds, lambda: call())

    def _kill(self) -> None:
        if (engine := self._victim()) is None:
            return
        self.world.tell(f"kill -9 {engine.process}")
        self.world.count_seen("kill")
        self.world.kill(engine)
        self._after(self.rng.choice((0.0, 0.01, 1.0, 5.0)), self.world.boot)

    def _stop(self) -> None:
        if (engine := self._victim()) is None or engine.process.stopped:
            return
        seconds = self.rng.choice((0.01, 1.0, self.world.settings.lease * 1.1, self.world.settings.lease * 2))
        self._halt(engine.process, seconds, "stop")

    def _halt(self, process: Any, seconds: float, how: str) -> None:
        self.world.tell(f"{how} {process} for {seconds:g} s")
        self.world.count_seen(how)
        self.world.safety.punctual = False
        if how == "stop":
            process.stop()
        else:
            process.stalled = True
        self._after(seconds, lambda: self._go_on(process))

    def _go_on(self, process: Any) -> None:
        if process.alive and (process.stopped or process.stalled):
            self.world.tell(f"{process} goes on")
            process.go_on()

    def _stall(self) -> None:
        if (engine := self._victim()) is not None:
            self._halt(engine.process, self.rng.choice((0.001, 0.1, 2.0, 20.0)), "stall")

    def _close(self) -> None:
        if (engine := self._victim()) is None or not engine.up:
            return
        world = self.world
        engine.closing = True
        grace = self.rng.choice((None, 0.0, 0.05))
        world.count_seen("close")

        def closed(_: Any) -> None:
            world.tell(f"{engine.process} is closed")
            if engine.slots():
                world.safety.fail(f"{engine.slots()} slots are left after close")
            if left := engine.left():
                world.safety.fail(f"tasks are left after close: {left[0]}")
            world.kill(engine)
            self._after(self.rng.choice((0.0, 1.0)), world.boot)

        world.ask(f"close (grace {grace})", engine, engine.close(grace), closed)

    def _refuse(self) -> None:
        seconds = self.rng.choice((0.01, 0.3, 3.0, 10.0))
        self.world.tell(f"the disk refuses for {seconds:g} s")
        self.world.count_seen("refuse")
        self.world.disk.refusing = True

        def over() -> None:
            self.world.disk.refusing = False

        self._after(seconds, over)

    def _unknown(self) -> None:
        self.world.tell("the next commit is written and reported as failed")
        self.world.count_seen("unknown")
        self.world.disk.unknown += self.rng.choice((1, 1, 2))

    def _evict(self) -> None:
        """Coroutines have no room any more: nothing to do here but to sleep past what is kept."""

    def _jump(self) -> None:
        seconds = self.rng.choice((-3_600.0, -1.0, 1.0, 60.0, 3_600.0))
        self.world.tell(f"the wall clock jumps by {seconds:g} s")
        self.world.count_seen("jump")
        self.world.safety.punctual = False
        self.world.timeline.jumped += seconds

    def _edit(self) -> None:
        """New code, for whoever starts from now on."""
        world, rng = self.world, self.rng
        n = rng.randrange(len(world.plans))
        programmer = Programmer(
            Scale(
                rng,
                jobs=1 + max(int(plan.name[3:]) for plan in world.plans),
                long=world.long,
                limits=rng.random() < 0.7,
            )
        )
        programmer._ids = 1_000 * (1 + world.seen.get("edit", 0))
        plan = world.plans[n]
        if rng.random() < 0.15 and len(world.plans) > 1:
            world.plans = [other for other in world.plans if other is not plan]
            world.tell(f"edit: {plan.name} is gone")
        else:
            edited = programmer.job(int(plan.name[3:]), rng.random() < 0.4)
            world.plans = [edited if other is plan else other for other in world.plans]
            world.all_plans.append(edited)
            world.tell(f"edit: {edited}")
        world.count_seen("edit")
        if world.daemon and rng.random() < 0.7:
            self._reload()

    def _workers(self, engine: Any) -> list[Any]:
        return [worker for worker in engine.workers if worker.process.alive and not worker.retired]

    def _kill_worker(self) -> None:
        engine = self._victim()
        if isinstance(engine, DaemonEngine) and (workers := self._workers(engine)):
            worker = self.rng.choice(workers)
            self.world.tell(f"kill -9 {worker.process}")
            self.world.count_seen("kill worker")
            worker.end()
            self.world.safety.forget(worker.process)

    def _stop_worker(self) -> None:
        engine = self._victim()
        if isinstance(engine, DaemonEngine) and (workers := self._workers(engine)):
            self._halt(self.rng.choice(workers).process, self.rng.choice((0.01, 1.0, 10.0)), "stop")

    def _reload(self) -> None:
        engine = self._victim()
        if isinstance(engine, DaemonEngine) and engine.up:
            self.world.count_seen("reload")
            self.world.ask("reload", engine, engine.reload(self.rng.choice((0.0, 0.05, 1.0))))

    # ---- the end

    def calm_down(self) -> None:
        """No faults any more, and every engine that there is to be."""
        world = self.world
        world.tell("calm: no more faults, no more input")
        world.faulty = False
        world.disk.refusing, world.disk.unknown = False, 0
        for process in world.timeline.processes:
            if process.stopped or process.stalled:
                process.go_on()
        world.run_for(6.0)
        for run in world.unfinished():
            if run.status is Status.PAUSED or run.pause is not None:
                self._resume(run)
        for engine in world.live():  # else new runs come for ever
            world.ask("end the schedules", engine, engine.end_schedules())
        for name in sorted({plan.name for plan in world.all_plans}):
            if live := world.live():
                world.ask(f"resume {name}", live[0], live[0].hold_job(name, False))

    def _resume(self, run: Run) -> None:
        if live := self.world.live():
            self.world.ask(f"resume {run.id}", live[0], live[0].order(run.id, "resume"))


def may_rest(world: World, run: Run, behind: frozenset[str] = frozenset()) -> bool:
    """Whether a run rightly does nothing: it is paused, waits for an event that nobody sent, or for a run that may rest.

    Parameters:
        behind: runs that wait for this one: it may wait for one of them itself, found by its key, and they rest for ever.
    """
    if run.id in behind:
        return True
    behind |= {run.id}
    if run.cause is Cause.AFTER:
        awaited = [world.disk.peek().run(one.run) for one in awaited_by(run) if one.ended is None]
        return any(other is not None and not other.ended and may_rest(world, other, behind) for other in awaited)
    if run.status is not Status.WAITING:
        return run.status is Status.PAUSED or run.job not in {NOTIFY, *(plan.name for plan in world.plans)}
    tx = world.disk.peek()
    for step in tx.open_steps(run.id):
        if step.kind is StepKind.WAIT and step.wake_at is None and (step.topic or "").startswith("pipe:"):
            return not missed(world, run, step)
        child = None if step.child is None else tx.run(step.child)
        if child is not None and not child.ended and may_rest(world, child, behind):
            return True
    return False


def missed(world: World, run: Run, wait: Step) -> bool:
    """Whether an event was sent that a wait is for, and that its run has not got."""
    tx = world.disk.peek()
    topic, n = (wait.topic or "").partition("#")[0], json.loads(run.input)["n"]
    got = {step.cursor for step in tx.steps(run.id) if step.finished and step.kind is StepKind.WAIT}
    for event in tx.events(topic, run.created_at, 0, 1_000):
        sent = json.loads(event.data)["n"]
        fits = sent >= n if wait.match is None else sent == json.loads(wait.match).get("n", sent)
        if fits and event.seq not in got:
            return True
    return False


def play(world: World) -> None:
    """Plays a seed to its end."""
    script = Script(world)
    for _ in range(world.count):
        world.boot()
    world.run_for(0.5, lambda: bool(world.live()))
    until = script.plan_input()
    script.plan_faults()
    world.run_for(until, script.watch_turns)
    if not world.wrong():
        script.calm_down()
        finish(world, script)


def patience_of(world: World) -> float:
    """Returns the seconds after which whatever has not ended does not end."""
    slow = world.on_server or world.emphasis.engines is not None
    return LONG_PATIENCE if world.long else SHORT_PATIENCE if slow else PATIENCE


def finish(world: World, script: Script) -> None:
    """Looks whether everything comes to its end."""
    patience = patience_of(world)

    def resting() -> bool:
        return all(may_rest(world, run) for run in world.unfinished())

    world.run_for(60.0, resting)
    engines.look_every(SELDOM if world.long else 5.0)
    world.run_for(patience, resting)
    if world.wrong():
        return
    if not world.live():
        world.safety.fail("no engine is up though nothing hinders it")
        return
    for run in world.unfinished():
        if run.status is Status.PAUSED:  # by itself, since it has used up its retries
            script._resume(run)
    world.run_for(1.0)
    world.run_for(patience, resting)
    for run in world.unfinished():
        if not may_rest(world, run):
            world.safety.fail(f"a run stands still: {run.status}{_lacks(run)}")
            return
    cancel_the_rest(world)
    check_the_end(world)


def _lacks(run: Run) -> str:
    said = [name for name in ("reason", "cancel", "pause", "placed", "blocked", "wake_at") if getattr(run, name)]
    return f" with {', '.join(said)}" if said else ""


def cancel_the_rest(world: World) -> None:
    """Every run can be cancelled."""
    live = world.live()[0]
    for _ in range(3):  # handlers that are cancelled may have started children meanwhile
        for run in world.unfinished():
            world.ask(f"cancel {run.id}", live, live.order(run.id, "cancel"))
        world.run_for(60.0, lambda: not world.unfinished())
    for run in world.unfinished():
        world.safety.fail(f"a run cannot be cancelled: {run.status}{_lacks(run)}")


def check_the_end(world: World) -> None:
    """After all runs have ended: nothing is held, nobody waits."""
    if world.wrong():
        return
    # the last ends are being told
    world.run_for(60.0, lambda: not (NOTICES.all(world.disk.peek()) or world.unfinished()))
    told = [task for engine, _, task in world.promises if engine.process.alive and not engine.closing]
    world.run_for(SELDOM + TELLING, lambda: all(task.done() for task in told))
    world.run_for(10.0, lambda: not any(engine.slots() for engine in world.live()))  # one may be looking for work
    for engine in world.live():
        if engine.slots():
            world.safety.fail(f"{engine.slots()} slots are held though nothing executes")
    for engine, run_id, task in world.promises:
        if not engine.process.alive or engine.closing:
            continue
        if not task.done():
            world.safety.fail("somebody waits for the end of a run that has ended")
        elif task.cancelled() or task.exception() is not None:
            world.safety.fail(f"who waits for the end of a run is told an error: {task!r:.200}")
        elif task.result() != "settled" and task.result() != world.disk.peek().run(run_id):
            world.safety.fail(f"who waited for a run was told another end: {task.result()!r:.200}")
    world.safety.at_the_end()


def simulate(seed: int, emphasis: Emphasis) -> Outcome:
    """Plays a seed and says how it went."""
    gc.disable()
    world = World(seed, emphasis)
    errors = _Errors(world)
    logger = logging.getLogger("taskrun")
    logger.addHandler(errors)
    logger.propagate = False
    try:
        play(world)
        wrong = world.safety.wrong
        story = tell(world) if wrong is not None else []
        return Outcome(
            seed,
            None if wrong is None else str(wrong),
            story,
            world.timeline.trace,
            world.timeline.turns,
            len(world.safety._seen),
            world.safety.begun,
            world.seen,
        )
    finally:
        logger.removeHandler(errors)
        world.dispose()


class _Errors(logging.Handler):
    """Takes an error that the engine logs for what it is: a fault."""

    def __init__(self, world: World) -> None:
        super().__init__(logging.ERROR)
        self._world = world

    def emit(self, record: logging.LogRecord) -> None:
        if "its trigger failed" not in record.getMessage():  # of edited code, rightly
            cause = record.exc_info[1] if record.exc_info else None
            text = f"logged: {record.getMessage()[:80]}: {type(cause).__name__}: {str(cause)[:100]}"
            self._world.safety.fail(text)


def tell(world: World) -> list[str]:
    """Returns the story of a seed: its world, what happened, and how it stood in the end."""
    kind = f"daemon with {world.workers} workers" if world.daemon else f"{world.count} engines"
    where = "server" if world.on_server else "file" if world.on_file else "memory"
    disk = f"{'instant ' if world.instant else ''}{where} {world.latencies}"
    lines = [f"{kind}, {world.settings}, disk {disk}", *map(str, world.all_plans)]
    lines += world.story[-80:]
    lines.append(f"{world.timeline.now - 1_000.0:10.4f}  wrong: {world.safety.wrong}")
    for run in world.unfinished()[:8]:
        lines += world.describe(run)
    return lines
