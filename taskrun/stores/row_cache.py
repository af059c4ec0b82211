"""What a connection knows of rows that it wrote or read itself, so that SQLite need not be asked for them again.

It holds only as long as nobody else writes and nothing is rolled back: its owner clears it then. Where it is not sure it says
None, and SQLite is to be asked.
"""

from __future__ import annotations

from typing import Final

from taskrun.model.records import Run, Step, StepStatus

MOST: Final = 4096  # of each kind; beyond that it begins anew
LARGE: Final = 16_384  # characters of an input or a fact that is not worth its memory


class KnownRun:
    """An unfinished run.

    Parameters:
        new: it was inserted by this connection, which therefore knows of all its steps.
    """

    __slots__ = ("open", "run")

    def __init__(self, run: Run, new: bool) -> None:
        self.run = run
        self.open: dict[str, Step] | None = {} if new else None  # its running steps


class RowCache:
    """Unfinished runs with their running steps.

    `quiet`: topics that no step is known to wait for. `facts`: small facts that are known; None where there is none.
    """

    def __init__(self) -> None:
        self._runs: dict[str, KnownRun] = {}
        self.quiet: set[str] = set()
        self.facts: dict[str, str | None] = {}

    def clear(self) -> None:
        """Forgets everything."""
        self._runs.clear()
        self.quiet.clear()
        self.facts.clear()

    # ---- runs

    def run(self, run_id: str) -> Run | None:
        """Returns an unfinished run."""
        known = self._runs.get(run_id)
        return None if known is None else known.run

    def keep_run(self, run: Run, new: bool = False) -> None:
        """Keeps a run that was read, or inserted just now: `new`."""
        if run.ended or run.output is not None or len(run.input) > LARGE or run.id in self._runs:
            return
        if len(self._runs) >= MOST:
            self._runs.clear()
        self._runs[run.id] = KnownRun(run, new)

    def save_run(self, run: Run) -> None:
        """Takes in what was written of a run.

        One with an output is not kept, which stays where none is written; nor one that was not read here, since only its changing
        fields were written.
        """
        known = self._runs.get(run.id)
        if known is None:
            return
        if run.ended or run.output is not None or run.seq != known.run.seq:
            del self._runs[run.id]
        else:
            known.run = run

    def drop_run(self, run_id: str) -> None:
        """Forgets a run."""
        self._runs.pop(run_id, None)

    # ---- steps

    def put_step(self, step: Step) -> None:
        """Takes in a step that was written."""
        known = self._runs.get(step.run)
        if known is not None and known.open is not None:
            if step.status is StepStatus.RUNNING:
                known.open[step.key] = step
            else:
                known.open.pop(step.key, None)
        if step.topic is not None:
            self.quiet.discard(step.topic)

    def drop_step(self, run_id: str, key: str) -> None:
        """Takes in that a step was deleted."""
        known = self._runs.get(run_id)
        if known is not None and known.open is not None:
            known.open.pop(key, None)

    def open_steps(self, run_id: str) -> list[Step] | None:
        """Returns the running steps of a run; None also for several, whose order the table alone knows."""
        known = self._runs.get(run_id)
        if known is None or known.open is None or len(known.open) > 1:
            return None
        return list(known.open.values())

    def keep_quiet(self, topic: str) -> None:
        """Keeps that no step waits for a topic."""
        if len(self.quiet) >= MOST:
            self.quiet.clear()
        self.quiet.add(topic)

    # ---- small facts

    def keep_fact(self, key: str, value: str | None) -> None:
        """Keeps a fact that was read or written; None where there is none."""
        if value is not None and len(value) > LARGE:
            self.facts.pop(key, None)
            return
        if len(self.facts) >= MOST:
            self.facts.clear()
        self.facts[key] = value
