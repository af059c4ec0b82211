"""The safety of a simulation, seen from outside: what bodies do, and what the journal says after each commit."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from taskrun.engine.core.schedule_kept import SLOTS, moment_of
from taskrun.model.names import NOTIFY
from taskrun.model.records import ENDED, Cause, Run, Status, StepStatus
from taskrun.model.tags import tags_of
from taskrun.rules.dependencies import awaited_by
from taskrun.stores.base import Tx
from tests.simulation.disk import Disk
from tests.simulation.engine import Engine
from tests.simulation.timeline import Process, Timeline

SLACK = 0.4  # seconds that a start may be late against the moment that was counted: messages and commits on their way


class Violation(Exception):
    """Something that must never be."""


@dataclass(eq=False)
class Body:
    """The body of a step, or a handler, that executes now."""

    process: Process
    engine: Engine
    engine_id: str
    run: str
    step: str
    attempt: int
    limit: tuple[str, int, float | None] | None = None


class Safety:
    """Watches bodies and commits; the first thing that is wrong is kept, and ends the simulation.

    Parameters:
        engine_of: the engine that a process belongs to.
    """

    def __init__(self, timeline: Timeline, disk: Disk, engine_of: Callable[[Process], Engine]) -> None:
        self.wrong: Violation | None = None
        self.punctual = True  # nothing was stopped, stalled or jumped so far: periods are what they seem
        self.tells = False  # people are told of each end
        self.bodies: dict[Body, None] = {}
        self.handlers: dict[Body, None] = {}
        self.ended: dict[str, Run] = {}
        self.begun = 0
        self._timeline = timeline
        self._disk = disk
        self._engine_of = engine_of
        self._tries: Counter[tuple[str, str]] = Counter()
        self._settled: Counter[str] = Counter()
        self._starts: dict[str, list[float]] = {}
        self._called: dict[tuple[str, str], tuple[int, Any]] = {}  # the newest call of each step
        self._given: dict[tuple[str, int, str], Any] = {}
        self._seen: dict[str, Run] = {}
        self._keyed: dict[tuple[str, str], set[str]] = {}  # unfinished runs by job and key
        disk.watch = self.committed

    def fail(self, what: str) -> None:
        """Keeps what is wrong."""
        if self.wrong is None:
            self.wrong = Violation(what)

    def forget(self, process: Process) -> None:
        """Nothing of a dead process executes."""
        for kept in (self.bodies, self.handlers):
            for body in [body for body in kept if body.process is process]:
                del kept[body]

    # ---- what user code does

    def tries(self, run: str, step: str) -> int:
        """Counts the tries of a step of a run, over all crashes."""
        self._tries[run, step] += 1
        return self._tries[run, step]

    def settled(self, run: str, kind: str) -> None:
        """Listeners hear of an end."""
        self._settled[run] += 1
        if self._settled[run] > 1:
            self.fail(f"listeners hear twice of the end of {run}")

    def entered(self, process: Process, run: str, attempt: int) -> object:
        """A handler begins."""
        engine = self._engine_of(process)
        handler = Body(process, engine, engine.id, run, "", attempt)
        self._timeline.note("enter", run, attempt)
        self.handlers[handler] = None
        return handler

    def left(self, token: object) -> None:
        """A handler ends."""
        self.handlers.pop(token, None)  # type: ignore[call-overload]

    def begins(
        self, process: Process, run: str, step: str, limit: Any, attempt: int, given: Any, exact: bool
    ) -> object:
        """A body begins; `exact`: a replay must come to the same steps, and give them the same."""
        engine = self._engine_of(process)
        body = Body(process, engine, engine.id, run, step, attempt, limit)
        self._timeline.note("begin", run, step, attempt)
        self.begun += 1
        self.bodies[body] = None
        if not self._fenced(body):
            self._check(body, given, exact)
            if exact:
                self._check_given(body, given)
        self._called[run, step] = (attempt, given)
        return body

    def ends(self, token: object) -> None:
        """A body ends, however."""
        if self.bodies.pop(token, self) is None:  # type: ignore[call-overload]
            self._timeline.note("end", token.run, token.step)  # type: ignore[attr-defined]

    def _fenced(self, body: Body) -> bool:
        """Whether what a body does can reach the journal no more: its engine was taken over."""
        return not body.process.alive or self._disk.peek().engine(body.engine_id) is None

    def _check(self, body: Body, given: Any, exact: bool) -> None:
        tx = self._disk.peek()
        recorded = any(step.name == body.step and step.status is StepStatus.SUCCEEDED for step in tx.steps(body.run))
        run = tx.run(body.run)
        before = self._called.get((body.run, body.step))
        if before is None and run is not None and run.retried_from is None:
            before = body.attempt, given
        if exact and recorded and before is not None and (before[0] == body.attempt or before[1] == given):
            # a later attempt, and a retry of an ended run, may make another call
            self.fail(f"a recorded step is executed again: {body.step} of {body.run}")
        if run is None:
            self.fail(f"a body of a run that is not in the journal: {body.step} of {body.run}")
            return
        if run.ended:
            self.fail(f"a body begins after the end of its run ({run.status}): {body.step} of {body.run}")
        elif run.cancel is None and run.status is not Status.RUNNING:
            self.fail(f"a body begins without a slot (its run is {run.status}): {body.step} of {body.run}")
        elif run.engine != body.engine_id:
            self.fail(f"a body begins in an engine that does not hold its run: {body.step} of {body.run}")
        others = [other for other in self.bodies if other is not body and not self._fenced(other)]
        for other in others:
            if other.run == body.run and (other.step == body.step or other.process is not body.process):
                self.fail(f"two attempts of a run execute at once: {body.step}, {other.step} of {body.run}")
        self._check_limits(body, run, others)
        self._check_step_limit(body, others)

    def _check_given(self, body: Body, given: Any) -> None:
        key = (body.run, body.attempt, body.step)
        if self._given.setdefault(key, given) != given:
            self.fail(f"a step got another value on replay: {body.step} of {body.run}: {self._given[key]!r}, {given!r}")

    def _holds(self, body: Body) -> Run | None:
        """Returns the run of a body if it must hold a slot."""
        run = self._disk.peek().run(body.run)
        return None if run is None or run.ended or run.cancel is not None else run

    def _check_limits(self, body: Body, run: Run, others: list[Body]) -> None:
        if run.ended or run.cancel is not None:
            return
        holding = {body.run: (run, body.engine)}
        for other in others:
            if (its := self._holds(other)) is not None:
                holding[other.run] = (its, other.engine)
        beside = sum(engine is body.engine for _, engine in holding.values())
        if (most := body.engine.settings.concurrency) is not None and beside > most:
            self.fail(f"{beside} runs execute in an engine of concurrency {most}: {', '.join(holding)}")
        if run.lane is not None and run.lane_period is None:
            lane = [its for its, _ in holding.values() if its.lane == run.lane and its.lane_period is None]
            if len(lane) > max(its.lane_limit or 1 for its in lane):
                self.fail(f"{len(lane)} runs execute under a limit of {run.lane_limit}: {', '.join(holding)}")

    def _check_step_limit(self, body: Body, others: list[Body]) -> None:
        if body.limit is None:
            return
        id, most, period = body.limit
        if period is None:
            beside = [other for other in others if other.limit is not None and other.limit[0] == id]
            if len(beside) >= most:
                self.fail(f"{len(beside) + 1} steps execute under a limit of {most}")
            return
        starts = self._starts.setdefault(id, [])
        starts.append(self._timeline.now)
        recent = [at for at in starts if at > self._timeline.now - period + SLACK]
        if self.punctual and len(recent) > most:
            self.fail(f"{len(recent)} steps start within {period:g} s under a limit of {most}")

    # ---- what the journal says

    def committed(self) -> None:
        """Looks at every run after a commit: an end is an end."""
        for run_id, run in self._disk.runs().items():
            was = self._seen.get(run_id)
            if was is run or was == run:
                continue
            self._seen[run_id] = run
            if was is None or was.status is not run.status:
                self._timeline.note(run_id, run.status, run.attempt)
            if was is None and run.slot is not None and run.cause is Cause.JOB:
                self.fail(f"a slot of a paused job is recorded as a run: {run_id}")
            if run.after is not None and (run.ended or run.started_at is not None):
                self._check_awaited(run)
            if (end := self.ended.get(run_id)) is not None:
                if run != end:
                    self.fail(f"an ended run is changed: {run_id} {_changed(end, run)}")
            elif run.ended:
                self.ended[run_id] = run
            if run.key is not None and run.retried_from is None:
                keyed = self._keyed.setdefault((run.job, run.key), set())
                (keyed.discard if run.ended else keyed.add)(run_id)
        for keyed in self._keyed.values():
            if len(keyed) > 1:
                self.fail(f"two runs of one key are there at once: {', '.join(sorted(keyed))}")

    def _check_awaited(self, run: Run) -> None:
        """Looks whether a run that starts after others has started, or ended, as their ends say."""
        ends = {one: self._disk.runs()[one.run].status for one in awaited_by(run)}
        failed = [one.run for one, end in ends.items() if end in ENDED - {Status.SUCCEEDED} and not one.any]
        if run.started_at is not None and (failed or not ENDED.issuperset(ends.values())):
            self.fail(f"a run has started before those that it starts after: {run.id}")
        if run.reason == Cause.DEPENDENCY and not failed:
            self.fail(f"a run was given up though all went well that it starts after: {run.id}")

    def at_the_end(self) -> None:
        """Looks at what needs no look before: gaps of logs, periods, bursts, slots of schedules."""
        tx = self._disk.peek()
        runs = list(self._seen.values())
        for run in runs:
            lines = tx.logs(run.id, 0, 10_000)
            if [line.seq for line in lines] != list(range(1, len(lines) + 1)):
                self.fail(f"the log of {run.id} has gaps: {[line.seq for line in lines]}")
            if run.ended and any(line.at > (run.ended_at or 0.0) + 1.0 for line in lines) and self.punctual:
                self.fail(f"a line was logged after the end of {run.id}")
            if run.ended and (left := [step.key for step in tx.steps(run.id) if not step.finished]):
                self.fail(f"an ended run has open steps: {run.id} {left}")
        slots = Counter((run.job, run.slot) for run in runs if run.slot is not None)
        if twice := [slot for slot, count in slots.items() if count > 1]:
            self.fail(f"a slot of a schedule fires twice: {twice}")
        self._check_slots(tx, runs)
        if self.tells:
            self._check_told(runs)
        if self.punctual:
            self._check_periods(runs)

    def _check_told(self, runs: list[Run]) -> None:
        """Each end of a run that is no child is told by one run, and that has ended."""
        telling = [run for run in runs if run.job == NOTIFY]
        told = Counter((tags_of(run)["run"], tags_of(run)["event"]) for run in telling)
        ends = (Status.FAILED, Status.SUCCEEDED)
        due = [run for run in runs if run.status in ends and run.parent is None and run.job != NOTIFY]
        wanted = Counter((run.id, run.status.value) for run in due)
        if told != wanted:
            self.fail(f"not told: {wanted - told}; told without a reason: {told - wanted}")
        if left := [run.id for run in telling if run.status is not Status.SUCCEEDED]:
            self.fail(f"what tells people did not end well: {left}")

    def _check_slots(self, tx: Tx, runs: list[Run]) -> None:
        """What the journal keeps of slots is what became of them."""
        kept = {id: slot for id, slot in SLOTS.all(tx).items() if slot.run is not None}
        told = Counter((id.split(":")[0], moment_of(id), slot.run or "") for id, slot in kept.items())
        ran = Counter((run.job, run.slot or 0.0, run.id) for run in runs if run.slot is not None)
        for job, slot, run in ran - told:
            self.fail(f"a run of a slot is not told: {run} of {job} at {slot}")
        known = {run.id: run for run in runs}
        for job, slot, run in told - ran:
            other = known.get(run)
            if other is None or other.job != job or other.key is None:
                self.fail(f"a slot is told to have a run that is not its own: {run} of {job} at {slot}")

    def _check_periods(self, runs: list[Run]) -> None:
        rolling: dict[tuple[str, int, float], list[float]] = {}
        for run in runs:
            if run.lane is not None and run.lane_period is not None and run.started_at is not None:
                rolling.setdefault((run.lane, run.lane_limit or 1, run.lane_period), []).append(run.started_at)
        for (id, most, period), starts in rolling.items():
            starts.sort()
            for first, last in zip(starts, starts[most:], strict=False):
                if last - first < period - 1e-6:
                    self.fail(f"{most + 1} starts within {period:g} s under a limit of {most} of {id}")
        throttled: dict[tuple[str, float], list[float]] = {}
        for run in runs:
            if run.throttle is not None and run.started_at is not None:
                throttled.setdefault((run.throttle, run.throttle_period or 0.0), []).append(run.started_at)
        for (id, period), starts in throttled.items():
            starts.sort()
            for first, last in itertools.pairwise(starts):
                if last - first < period - 1e-6:
                    self.fail(f"two starts within {period:g} s of the throttle {id}")


def _changed(was: Run, now: Run) -> str:
    return ", ".join(
        f"{name}: {getattr(was, name)!r} → {getattr(now, name)!r}"
        for name in now.__struct_fields__
        if getattr(was, name) != getattr(now, name)
    )
