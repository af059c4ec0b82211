"""The laws of replay: from any prefix of its recorded steps a handler ends the same, and repeats no finished step."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from taskrun import MemoryStorage
from taskrun.model.records import Run, Status, Step
from taskrun.stores.base import Tx
from taskrun.testing import TestQueue
from tests.crash.corpus import CORPUS, HELPERS, TRACE

JOBS = [*CORPUS.values(), *HELPERS]


@pytest.fixture
def trace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    path = tmp_path / "trace"
    path.touch()
    monkeypatch.setenv(TRACE, str(path))
    return path


def executed(trace: Path) -> Counter[str]:
    return Counter(line.split(" ", 1)[1] for line in trace.read_text().splitlines())


async def finish(queue: TestQueue, handle: Any) -> Any:
    await queue.advance("1h")
    return await handle.result(timeout=5)


async def record(name: str) -> tuple[Any, Run, list[Step]]:
    """Executes a handler once; returns its output, its run and its finished steps in the order that it was given them."""
    async with TestQueue(jobs=JOBS) as queue:
        handle = await queue.jobs[name].start()
        output = await finish(queue, handle)
        run = await queue.core.get(handle.id)
        steps = await queue.core.read(lambda tx: tx.steps(handle.id))
    return output, run, sorted(steps, key=lambda step: step.order or 0)


def as_it_was(run: Run, steps: list[Step]) -> MemoryStorage:
    """Returns a journal with a run that was let go after these steps."""

    def write(tx: Tx) -> None:
        began = replace(run, status=Status.QUEUED, output=None, ended_at=None, attempt=1, failures=None)
        tx.save_run(replace(tx.add_run(began), started_at=run.started_at))
        for step in steps:
            tx.put_step(step)

    storage = MemoryStorage()
    storage.open()
    storage.apply([write])
    storage.close()
    return storage


@pytest.mark.parametrize("name", sorted(set(CORPUS) - {"parent", "caught_child"}))
async def test_every_prefix_of_the_recorded_steps_leads_to_the_same_end(name: str, trace: Path) -> None:
    output, run, steps = await record(name)
    assert steps, "there is nothing to cut off"
    all_of_it = executed(trace)
    for length in range(len(steps) + 1):
        trace.write_text("")
        kept = steps[:length]
        async with TestQueue(jobs=JOBS, storage=as_it_was(run, kept), start=run.created_at) as queue:
            assert await finish(queue, await queue.get(run.id)) == output, f"after {[step.key for step in kept]}"
        again = executed(trace)
        finished = {step.key for step in kept if step.kind == "run"}
        assert not finished & set(again), f"{finished & set(again)} were finished after {length} steps"
        assert set(again) <= set(all_of_it)


@pytest.mark.parametrize("name", sorted(CORPUS))
async def test_a_whole_replay_executes_nothing_at_all(name: str, trace: Path) -> None:
    storage = MemoryStorage()
    async with TestQueue(jobs=JOBS, storage=storage) as queue:
        handle = await queue.jobs[name].start()
        output = await finish(queue, handle)
        trace.write_text("")
        repeated = await handle.retry()
        assert await finish(queue, repeated) == output or name in ("raced", "values")
        mine = {step.key for step in await queue.core.read(lambda tx: tx.steps(handle.id)) if step.error is None}
        assert not mine & set(executed(trace))
