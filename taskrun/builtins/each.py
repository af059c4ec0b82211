"""The job `each`: one child run for each of many inputs. It is what `taskrun start JOB --each` starts.

The inputs are no part of its own input, which would be written again with every change of the run: they are recorded as
finished steps with which the run begins (`recorded`), so that a retry has them too. Which child an input has follows from its
position, whatever ends first: a replay finds every child again, and a retry starts those that failed or are missing.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from math import ceil
from typing import Any, TypedDict

import msgspec

from taskrun import Fatal, InputInvalid, RunCancelled, RunDiscarded, RunFailed, job, job_ref, progress, run
from taskrun.model.durations import human
from taskrun.model.records import Step, StepKind, StepStatus

INPUTS = "inputs"  # the name of the steps that have the inputs
PART = 500  # inputs that one step has
# seconds: a child that took less may have been answered from the journal, which says nothing of the pace
ANSWERED = 0.01


class Tally(TypedDict):
    """How many inputs there are, and what became of their runs; those `missing` were not started."""

    total: int
    succeeded: int
    failed: int
    cancelled: int
    missing: int


@job(retry=0)
async def each(job: str, total: int, max: int = 10, fail_after: int | None = None) -> Tally:
    """Runs a job once for each of many inputs.

    Parameters:
        max: children at once.
        fail_after: failed children after which no further one starts.
    """
    target, counts = job_ref(job), Counts(total, max)
    running: dict[asyncio.Future[Any], float] = {}  # a child → when it was started

    async def until_fewer(than: int) -> None:
        while len(running) >= than:
            ended, _ = await asyncio.wait(running, return_when=asyncio.FIRST_COMPLETED)
            for child in ended:
                counts.add(_end_of(child), time.monotonic() - running.pop(child))
            progress(counts.ended, total, counts.told())

    try:
        for _ in range(0, total, PART):
            for given in await run(INPUTS, _not_recorded):
                await until_fewer(max)
                if fail_after is None or counts.ends["failed"] < fail_after:
                    running[asyncio.ensure_future(target.run(given))] = time.monotonic()
            progress(counts.ended, total, counts.told())
        await until_fewer(1)
    except asyncio.CancelledError:
        progress(counts.ended, total, counts.counted())
        raise
    progress(counts.ended, total, counts.counted())
    if counts.ends["succeeded"] < total:
        raise Fatal(counts.failure(), output=counts.tally())
    return counts.tally()


def recorded(inputs: Sequence[msgspec.Raw], now: float) -> list[Step]:
    """Returns inputs (JSON) as the steps with which a run of `each` begins."""
    parts = [inputs[at : at + PART] for at in range(0, len(inputs), PART)]
    return [
        Step(
            run="",
            key=INPUTS if number == 1 else f"{INPUTS}#{number}",
            name=INPUTS,
            kind=StepKind.RUN,
            status=StepStatus.SUCCEEDED,
            started_at=now,
            ended_at=now,
            order=number,
            output=msgspec.json.encode(part).decode(),
        )
        for number, part in enumerate(parts, 1)
    ]


def _not_recorded() -> list[msgspec.Raw]:
    raise Fatal("the inputs of this run are not in the journal; start JOB --each records them")


def _end_of(child: asyncio.Future[Any]) -> str:
    """Returns how a child has ended; raises whatever else happened to the step that waited for it."""
    try:
        child.result()
    except (RunCancelled, RunDiscarded):
        return "cancelled"
    except (RunFailed, InputInvalid):  # the job may take other inputs by now
        return "failed"
    return "succeeded"


class Counts:
    """How the children have ended so far.

    Parameters:
        at_once: how many there are at a time.
    """

    def __init__(self, total: int, at_once: int) -> None:
        self._total = total
        self._at_once = at_once
        self.ends: Counter[str] = Counter()
        self._took: list[float] = []

    @property
    def ended(self) -> int:
        """How many have ended."""
        return self.ends.total()

    def add(self, end: str, seconds: float) -> None:
        """Takes the end of a child."""
        self.ends[end] += 1
        if seconds > ANSWERED:
            self._took = [*self._took[-99:], seconds]

    def told(self) -> str:
        """Returns what stands beside the bar: `17/40 · 2 failed · 1m left`."""
        left = self._total - self.ended
        if not (left and self._took):
            return self.counted()
        seconds = sum(self._took) / len(self._took) * left / min(self._at_once, left)
        return f"{self.counted()} · {human(ceil(seconds))} left"

    def counted(self) -> str:
        """Returns what stands there once no further child starts."""
        return " · ".join([f"{self.ended}/{self._total}", *self._bad()])

    def tally(self) -> Tally:
        """Returns the output."""
        succeeded, failed, cancelled = (self.ends[end] for end in ("succeeded", "failed", "cancelled"))
        missing = self._total - self.ended
        return Tally(total=self._total, succeeded=succeeded, failed=failed, cancelled=cancelled, missing=missing)

    def failure(self) -> str:
        """Returns in words why it did not succeed."""
        missing = self._total - self.ended
        first, *rest = [*self._bad(), *([f"{missing} not started"] if missing else [])]
        number, _, words = first.partition(" ")
        return ", ".join([f"{number} of {self._total} runs {words}", *rest])

    def _bad(self) -> Iterator[str]:
        return (f"{self.ends[end]} {end}" for end in ("failed", "cancelled") if self.ends[end])
