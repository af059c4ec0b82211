"""Plays many seeds, in processes of their own, and gathers what was wrong."""

from __future__ import annotations

import gc
import os
import re
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from multiprocessing import get_context, parent_process

from tests.simulation import engine, holes, postgres_disk
from tests.simulation.script import simulate
from tests.simulation.world import Emphasis, Outcome

CHUNK = 25  # seeds that a process plays before it reports
FEW = 5  # the same where the first failures are enough


@dataclass
class Report:
    """How many seeds went, and what was wrong."""

    seeds: int = 0
    seconds: float = 0.0
    runs: int = 0
    bodies: int = 0
    failed: list[Outcome] = field(default_factory=list)
    seen: Counter[str] = field(default_factory=Counter)
    traces: dict[int, int] = field(default_factory=dict)  # the checksum of what happened in each seed

    def add(self, outcome: Outcome) -> None:
        """Takes an outcome."""
        self.seeds += 1
        self.runs += outcome.runs
        self.bodies += outcome.bodies
        self.seen.update(outcome.seen)
        self.traces[outcome.seed] = outcome.trace
        if outcome.wrong is not None:
            self.failed.append(outcome)

    def lines(self) -> list[str]:
        """Returns a line for each kind of failure, the most frequent first, and one for the whole."""
        kinds: dict[str, list[int]] = {}
        for outcome in self.failed:
            kinds.setdefault(signature(outcome.wrong or ""), []).append(outcome.seed)
        found = sorted(kinds.items(), key=lambda item: -len(item[1]))
        lines = [f"{len(seeds)} times, such as seed {min(seeds)}: {kind}" for kind, seeds in found]
        rate = self.seeds / self.seconds if self.seconds else 0.0
        seen = ", ".join(f"{what} {count}" for what, count in sorted(self.seen.items()))
        return [
            *lines,
            f"{self.seeds} seeds, {len(self.failed)} wrong, {self.runs} runs, {self.bodies} bodies,"
            f" {self.seconds:.0f} s, {rate:.0f} seeds/s",
            f"seen: {seen}",
        ]


def signature(wrong: str) -> str:
    """Returns what is wrong without ids and numbers, so that failures of one kind are alike."""
    return re.sub(r"\d+(\.\d+)?", "N", re.sub(r"\b[2-9a-hjkmnp-z]{12}\b", "RUN", wrong))


def story(outcome: Outcome) -> str:
    """Returns a failure as it is shown: what happened, what is wrong, and how to see it again."""
    again = f"pytest tests/simulation --seed {outcome.seed}"
    return "\n".join([f"seed {outcome.seed}: {outcome.wrong}", *outcome.story, f"again: {again}"])


def play(
    seeds: list[int],
    jobs: int,
    hole: str | None = None,
    told: Callable[[Outcome], None] = lambda outcome: None,
    enough: int | None = None,
    postgres: bool = False,
) -> Report:
    """Plays seeds in `jobs` processes.

    Parameters:
        hole: a known fault that is put back in.
        told: called for each outcome, in the order of the seeds.
        enough: ends after so many failures.
        postgres: on journals on the server that `TASKRUN_TEST_POSTGRES` names.
    """
    report, began = Report(), time.monotonic()
    size = CHUNK if enough is None else FEW
    chunks = [seeds[at : at + size] for at in range(0, len(seeds), size)]
    with (
        _same_hashes(),
        ProcessPoolExecutor(min(jobs, len(chunks)), get_context("spawn"), _prepare, (hole, postgres)) as pool,
    ):
        for outcomes in pool.map(_play_chunk, chunks):
            for outcome in outcomes:
                report.add(outcome)
                told(outcome)
            if enough is not None and len(report.failed) >= enough:
                pool.shutdown(wait=False, cancel_futures=True)
                break
    report.seconds = time.monotonic() - began
    return report


_emphasis = Emphasis()


def _prepare(hole: str | None, postgres: bool) -> None:
    global _emphasis
    threading.Thread(target=_end_with_parent, daemon=True).start()
    engine.install()
    if hole is not None:
        _emphasis = holes.HOLES[hole].emphasis
        holes.HOLES[hole].put_back()
    _emphasis = replace(_emphasis, postgres=postgres or _emphasis.postgres)
    if _emphasis.postgres:
        postgres_disk.install()


def _end_with_parent() -> None:
    """Leaves no process behind where the one that gathers is killed."""
    parent = parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)


def _play_chunk(seeds: list[int]) -> list[Outcome]:
    outcomes = [simulate(seed, _emphasis) for seed in seeds]
    gc.collect()
    return outcomes


@contextmanager
def _same_hashes() -> Iterator[None]:
    """New processes hash texts alike, so that no order of a set differs between two runs of a seed."""
    before = os.environ.get("PYTHONHASHSEED")
    os.environ["PYTHONHASHSEED"] = "0"
    try:
        yield
    finally:
        if before is None:
            del os.environ["PYTHONHASHSEED"]
        else:
            os.environ["PYTHONHASHSEED"] = before
