"""What a daemon and a worker without one have in common: a core and its worker processes, opened and closed in order."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import threading
from collections.abc import AsyncIterator, Callable, Collection, Coroutine
from contextlib import asynccontextmanager, suppress
from typing import Any

from taskrun.daemon.paths import DaemonPaths
from taskrun.daemon.reaper import adopts_orphans, reap_orphans
from taskrun.daemon.workers.child_process import ChildProcess
from taskrun.daemon.workers.worker_pool import WorkerPool
from taskrun.engine.core.core import Core
from taskrun.model.config import Config, option_from_anywhere
from taskrun.stores.addresses import storage_at

logger = logging.getLogger(__name__)


def take_signals(stop: asyncio.Event) -> None:
    """Has TERM and Ctrl-C set `stop`, and reaps orphans if this process adopts them."""
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    if adopts_orphans():
        reap_orphans(ChildProcess.awaited)


@asynccontextmanager
async def running_core(
    config: Config, paths: DaemonPaths, grace: Callable[[], float], only: frozenset[str] | None = None
) -> AsyncIterator[Core]:
    """Lends a core that has started on the project's journal.

    Parameters:
        only: jobs whose runs it executes, None for all.
    """
    store = storage_at(config.journal)
    core = Core(
        store,
        concurrency=config.concurrency * config.workers,
        resident=config.resident,
        grace=config.grace,
        alone=not store.shared,
        blame=False,
        max_log=config.max_log,
        keep=config.keep,
        only=only if config.workers else frozenset(),
    )
    core.journal.state.project_option = option_from_anywhere(config, os.environ)
    core.notify_runs.set(config.notify)  # before anything can happen that is to be told
    core.commands.folder = paths.commands
    core.files.root = config.root
    core.files.own += (f"{paths.folder}/{paths.prefix}", str(config.path))
    await core.start()
    try:
        yield core
    finally:
        await core.close(grace())


@asynccontextmanager
async def running_pool(
    core: Core, pool: WorkerPool, grace: Callable[[], float], patience: Callable[[], float]
) -> AsyncIterator[WorkerPool]:
    """Lends a pool whose workers are being started.

    Parameters:
        patience: seconds for the workers to drain, before they are killed.
    """
    await pool.start()
    try:
        yield pool
    finally:
        pool.stop_replacing()
        force = asyncio.get_running_loop().call_later(patience(), pool.kill)
        await core.close(grace())  # drains the workers
        force.cancel()
        await pool.close()


@asynccontextmanager
async def in_background(work: Coroutine[Any, Any, None], begun: Collection[asyncio.Task[Any]]) -> AsyncIterator[None]:
    """Runs a coroutine meanwhile, in a task that is ended afterwards, with those that it has `begun`."""
    task = asyncio.get_running_loop().create_task(work)
    try:
        yield
    finally:
        tasks = [task, *begun]
        for each in tasks:
            each.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def end_by_force(seconds: float) -> None:
    """Ends this process after a while if it has not ended by itself, for example because a disk does not answer.

    The journal is then as after a crash, which loses nothing.
    """

    def end() -> None:
        logger.error("stopping takes too long: ending by force; unfinished runs go on at the next start")
        for pid in tuple(ChildProcess.awaited):
            with suppress(OSError):
                os.killpg(pid, signal.SIGKILL)
        os._exit(1)

    timer = threading.Timer(seconds, end)
    timer.daemon = True
    timer.start()
