"""Kills a process at every commit of a run that fails and of what tells it; reports what was told as JSON.

    python -m tests.crash.telling FOLDER sqlite|postgres

A fresh interpreter without threads, so that it may fork, as in `harness`.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
from pathlib import Path
from typing import Any

from taskrun import Queue, job
from taskrun.engine.core.facts import NOTICES
from taskrun.model.notify_config import NotifyTable, Way
from tests.crash.harness import Point, at_every_commit, in_fork, killed
from tests.crash.journals import KINDS, Storage

WAYS = (Way(desktop=True), Way(command="mail"))


@job(retry=0)
async def fails() -> None:
    raise ValueError("no luck")


@job(name="notify", input=dict[str, Any], retry=0)
async def notify(message: dict[str, Any]) -> str:
    return f"{message['event']} {message['run']} {message['to']}"


def execute(storage: Storage) -> None:
    """Has one run fail, and waits until everybody was told; goes on with what an earlier process has left."""

    async def main() -> None:
        queue = Queue([fails, notify], storage=storage, lease=1.0)
        new_core = queue._new_core

        def telling() -> Any:
            core = new_core()
            core.notify_runs.set([NotifyTable(("failed",), (), WAYS)])
            return core

        queue._new_core = telling  # type: ignore[assignment]
        async with queue, asyncio.timeout(30):
            if not [run async for run in queue.runs(job="fails")]:
                await queue.jobs.fails.start()
            while not await _is_told(queue):
                await asyncio.sleep(0.01)

    asyncio.run(main())


async def _is_told(queue: Queue) -> bool:
    runs = [await run.status() async for run in queue.runs()]
    untold = await queue.core.read(NOTICES.all)
    return len(runs) > 1 and not untold and all(status in ("succeeded", "failed") for status in runs)


def told(storage: Storage) -> list[str]:
    """Returns the outputs of the runs of `notify`."""

    async def main() -> list[str]:
        async with Queue([fails, notify], storage=storage) as queue:
            return sorted([await run.result() async for run in queue.runs(job="notify")])

    return asyncio.run(main())


def main(folder: Path, kind: str) -> None:
    """Kills it everywhere and prints what was told each time."""

    def play(point: Point, place: Path) -> dict[str, Any] | None:
        with KINDS[kind](place) as journal:
            if not os.WIFSIGNALED(in_fork(lambda: execute(killed(journal.storage(), point)))):
                return None
            again = in_fork(lambda: execute(journal.storage()))
            return {**point._asdict(), "again": again, "told": told(journal.storage())}

    print(json.dumps(at_every_commit(folder, play)))


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2])
