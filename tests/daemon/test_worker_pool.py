"""The worker pool keeps its size, whatever goes wrong when one of it is replaced."""

from __future__ import annotations

import asyncio
import errno
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from taskrun.daemon.paths import DaemonPaths
from taskrun.daemon.workers import worker_pool as module
from taskrun.daemon.workers.worker_handle import WorkerHandle
from taskrun.daemon.workers.worker_pool import WorkerPool
from taskrun.daemon.workers.worker_rpc import WorkerGone
from taskrun.engine.messages import Description

FULL = OSError(errno.EAGAIN, os.strerror(errno.EAGAIN))


class Worker:
    """A worker without a process."""

    def __init__(self) -> None:
        self.retired, self.code, self.pid = False, None, 1
        self.given_up: set[str] = set()
        self.over = asyncio.Event()
        self.peer = SimpleNamespace(gone=False, ask=self._ask)

    async def _ask(self, message: Any) -> Description:
        return Description(jobs=[{"name": "job"}], pipes=[], problems=[])

    async def ended(self) -> None:
        await self.over.wait()
        self.peer.gone = True
        raise WorkerGone("gone")

    def kill(self) -> None:
        self.over.set()

    async def end(self) -> None:
        self.over.set()


class Core:
    """Takes workers on."""

    def __init__(self) -> None:
        self.refusals: list[Exception] = []
        self.left: list[bool] = []
        self.journal = SimpleNamespace(flush=None)
        self.commands = SimpleNamespace(folder=None)
        self.hooks = SimpleNamespace(drain=self.drain)
        self.on_stuck: Any = None

    async def join(self, peer: Any) -> Description:
        if self.refusals:
            raise self.refusals.pop()
        return Description(jobs=[{"name": "job"}], pipes=[], problems=[])

    def retire(self, peer: Any) -> None: ...

    async def drain(self, peer: Any, grace: float) -> None: ...

    async def leave(self, peer: Any, *, crashed: bool) -> None:
        self.left.append(crashed)


class StartedPool:
    """A pool of two and what it has started."""

    def __init__(self) -> None:
        self.started: list[Worker] = []
        self.failures: list[Exception] = []
        self.core = Core()
        config = SimpleNamespace(workers=2, env={}, root=Path("/"), grace=0.0)
        paths = DaemonPaths(Path("/nonexistent"))
        self.pool = WorkerPool(cast(Any, self.core), lambda: cast(Any, config), paths, lambda data: None)

    async def start(self, *args: Any) -> Any:
        if self.failures:
            raise self.failures.pop()
        self.started.append(Worker())
        return self.started[-1]

    async def comes_to(self, able: int, started: int) -> None:
        async with asyncio.timeout(10):
            while (len(self.pool._ready), len(self.started)) != (able, started):
                await asyncio.sleep(0)


@pytest.fixture
def made(monkeypatch: pytest.MonkeyPatch) -> Iterator[StartedPool]:
    monkeypatch.setattr(module, "PAUSES", (0.0, 0.01))
    monkeypatch.setattr(module, "ExecutorMessages", lambda core: core)
    made = StartedPool()
    monkeypatch.setattr(WorkerHandle, "start", made.start)
    yield made


async def test_a_worker_that_cannot_be_started_is_started_later(made: StartedPool) -> None:
    await made.pool.start()
    await made.comes_to(2, 2)
    made.failures += [FULL, FULL, FULL]
    made.started[0].over.set()
    await made.comes_to(2, 3)
    await made.pool.close()


async def test_a_worker_that_cannot_join_is_replaced(made: StartedPool) -> None:
    made.core.refusals.append(FULL)
    await made.pool.start()
    await made.comes_to(2, 3)
    await made.pool.close()


async def test_a_reload_while_a_dead_worker_is_waited_for_gives_no_worker_too_many(
    made: StartedPool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "PAUSES", (0.0, 0.2))
    await made.pool.start()
    await made.comes_to(2, 2)
    made.started[0].over.set()
    await made.comes_to(1, 2)
    assert (await made.pool.reload())["reloaded"]
    await asyncio.gather(*[task for task in made.pool._tasks if "_supervise_to_end" not in str(task.get_coro())])
    await asyncio.sleep(0.3)
    assert len(made.pool._workers) == 2
    await made.pool.close()


async def test_new_code_may_take_longer_to_be_loaded_than_a_request_waits(
    made: StartedPool, monkeypatch: pytest.MonkeyPatch
) -> None:
    loaded = asyncio.Event()

    async def slow(self: Worker, message: Any) -> Description:
        await loaded.wait()
        return Description(jobs=[{"name": "new"}], pipes=[], problems=[])

    await made.pool.start()
    await made.comes_to(2, 2)
    with monkeypatch.context() as patch:
        patch.setattr(module, "READY_WITHIN", 0.0)
        patch.setattr(Worker, "_ask", slow)
        reloading = asyncio.ensure_future(made.pool.reload())
        for _ in range(20):
            await asyncio.sleep(0)
    loaded.set()
    assert (await reloading)["added"] == ["new"]
    await made.pool.close()


async def test_loading_that_is_given_up_replaces_nothing(made: StartedPool, monkeypatch: pytest.MonkeyPatch) -> None:
    async def for_ever(self: Worker, message: Any) -> Description:
        await asyncio.Event().wait()
        raise AssertionError

    def give_up() -> None:
        raise LookupError

    await made.pool.start()
    await made.comes_to(2, 2)
    monkeypatch.setattr(module, "LOADING", 0.0)
    monkeypatch.setattr(Worker, "_ask", for_ever)
    with pytest.raises(LookupError):
        await made.pool.reload(meanwhile=give_up)
    assert [worker.over.is_set() for worker in made.started] == [False, False, True, True]
    await made.comes_to(2, 4)
    await made.pool.close()


async def test_a_worker_that_cannot_end_a_run_is_replaced_and_nobody_blamed(made: StartedPool) -> None:
    await made.pool.start()
    await made.comes_to(2, 2)
    made.core.on_stuck(made.started[0].peer, "run")
    await made.comes_to(2, 3)
    assert made.core.left == [False]
    assert not made.started[1].over.is_set()
    made.started[1].over.set()
    await made.comes_to(2, 4)
    assert made.core.left == [False, True]
    await made.pool.close()


async def test_a_worker_that_cannot_be_executed_leaves_no_descriptor_open(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*args: Any, **options: Any) -> Any:
        raise FULL

    monkeypatch.setattr(subprocess, "Popen", fail)
    paths = SimpleNamespace(worker_lock=lambda name: tmp_path / name)
    config = SimpleNamespace(root=tmp_path, cwd=tmp_path, env={})
    before = len(list(Path("/dev/fd").iterdir()))
    with pytest.raises(OSError, match=os.strerror(errno.EAGAIN)):
        await WorkerHandle.start_spare(cast(Any, config), cast(Any, SimpleNamespace(paths=paths)))
    assert len(list(Path("/dev/fd").iterdir())) == before
