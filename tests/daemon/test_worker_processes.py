"""The pool with real workers, in the process of the test."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from taskrun.daemon.paths import daemon_paths
from taskrun.daemon.workers.worker_pool import WorkerPool
from taskrun.engine.core.admit import Trigger, new_id
from taskrun.engine.core.core import Core
from taskrun.model.records import Run
from taskrun.stores.memory import MemoryStorage

from .conftest import Project, processes


@pytest.fixture
async def pool(project: Project) -> AsyncIterator[WorkerPool]:
    config = project.config
    core = Core(MemoryStorage(), concurrency=10, grace=0.2, alone=True, blame=False)
    await core.start()
    made = WorkerPool(core, lambda: config, daemon_paths(config), lambda data: None)
    await made.start()
    try:
        yield made
    finally:
        made.stop_replacing()
        made.kill()
        await core.close(0)
        await made.close()
        assert not processes(project.root)


async def start(core: Core, job: str, data: str) -> Run:
    return await core.trigger(Trigger(prepared=await core.prepare(job, data), id=new_id(), source="test"))


async def test_a_worker_that_a_run_blocks_for_good_is_replaced_and_its_neighbours_go_on(
    pool: WorkerPool, tmp_path: Path
) -> None:
    core: Any = pool._core
    await pool.ready()
    (first,) = pool._workers
    neighbour = await start(core, "wait_for", f'{{"path": "{tmp_path}/seen"}}')
    blocking = await start(core, "block", f'{{"until": "{tmp_path}/free"}}')
    async with asyncio.timeout(20):
        while (await core.get(blocking.id)).status != "running":
            await asyncio.sleep(0.01)
        core.on_stuck(first.peer, blocking.id)
        while first in pool._workers or not pool._ready:
            await asyncio.sleep(0.01)
        (tmp_path / "seen").touch()
        (tmp_path / "free").touch()
        ended = await core.wait(neighbour.id)
    assert (ended.status, ended.attempt, ended.crashes) == ("succeeded", 1, 0)
