"""After a mass death: suspects go one at a time, and hold up nobody else."""

from __future__ import annotations

import asyncio

from taskrun import Queue, job
from taskrun.engine.core.run_queue import SPARE
from taskrun.model.records import Run, Status
from taskrun.stores.base import Store, Tx

MANY = 10 * SPARE


def _fill(tx: Tx) -> None:
    for n in range(MANY):
        tx.add_run(Run(id=f"s{n}", job="suspect", created_at=0.0, status=Status.QUEUED, crashes=1, input="{}"))
    tx.add_run(Run(id="sound", job="sound", created_at=0.0, status=Status.QUEUED, input="{}"))


async def test_a_sound_run_starts_behind_many_suspects_of_which_one_executes(storage: Store) -> None:
    executing, most, commits = 0, 0, 0
    release = asyncio.Event()

    @job
    async def suspect() -> None:
        nonlocal executing, most
        executing += 1
        most = max(most, executing)
        await release.wait()
        executing -= 1

    @job
    async def sound() -> str:
        return "ran"

    storage.open()
    storage.apply([_fill])
    storage.close()
    async with Queue([suspect, sound], storage=storage, concurrency=4) as queue:
        assert await (await queue.get("sound")).result(timeout=10) == "ran"
        apply = storage.apply

        def counted(*args: object) -> object:
            nonlocal commits
            commits += 1
            return apply(*args)  # type: ignore[arg-type]

        storage.apply = counted  # type: ignore[assignment, method-assign]
        await asyncio.sleep(0.3)
        assert commits < 10, "it looks again and again"
        release.set()
        await asyncio.gather(*[(await queue.get(f"s{n}")).result(timeout=30) for n in range(MANY)])
    assert most == 1, "suspects are tried one at a time"
