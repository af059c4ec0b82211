"""Short ways to see what has become of runs."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from taskrun import Run
from taskrun.engine.api.queue import Queue
from taskrun.model import records


async def outcomes(runs: Iterable[Run]) -> list[str]:
    """Returns the state of each run, with its reason where it has one."""
    infos = [await run.info() for run in runs]
    return [f"{info.status}/{info.reason}" if info.reason else str(info.status) for info in infos]


async def record(queue: Queue, run: Run) -> records.Run:
    """Returns the journal's record of a run."""
    return await queue.core.get(run.id)


async def counted(queue: Queue, **want: Any) -> dict[str, int]:
    """Returns how many runs are in each state."""
    counts: dict[str, int] = {}
    for run in await queue.core.read(lambda tx: tx.runs(records.RunFilter(**want))):
        counts[run.status.value] = counts.get(run.status.value, 0) + 1
    return counts


class Log:
    """What happened, with the seconds since it was made."""

    def __init__(self, queue: Queue) -> None:
        self._clock = queue.core.clock
        self._begun = self._clock.now()
        self.entries: list[tuple[float, Any]] = []

    def __call__(self, what: Any) -> None:
        self.entries.append((round(self._clock.now() - self._begun, 3), what))

    @property
    def what(self) -> list[Any]:
        """What happened, in order."""
        return [what for _, what in self.entries]

    @property
    def when(self) -> list[float]:
        """When it happened."""
        return [at for at, _ in self.entries]
