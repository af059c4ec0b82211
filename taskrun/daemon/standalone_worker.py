"""`taskrun worker`: a core with its worker processes and no socket, for containers; it shares its journal with others.

TERM drains it: it starts nothing any more, and ends once nothing executes, or the grace is over. What waits is released.
"""

from __future__ import annotations

import asyncio
import logging
import os
import shutil
import sys
import tempfile
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from pathlib import Path

import msgspec

from taskrun.daemon.garbage import collect_rarely
from taskrun.daemon.paths import DaemonPaths, daemon_paths
from taskrun.daemon.running import end_by_force, running_core, running_pool, take_signals
from taskrun.daemon.watch.schedule_file import ScheduleFile
from taskrun.daemon.workers.worker_pool import WorkerPool
from taskrun.engine.core.core import Core
from taskrun.engine.core.queries.views import rfc3339
from taskrun.model.config import Config
from taskrun.model.errors import DaemonError, JobNotFound

logger = logging.getLogger(__name__)
BEAT = 1.0  # seconds between two writes of the health file
LOOK = 0.05  # seconds between two looks whether anything executes still
LINGER = 2.0  # seconds beyond the grace for workers to drain
OVERDUE = 8.0  # seconds beyond that for everything to close


class StandaloneWorker:
    """One such process.

    Parameters:
        only: jobs whose runs it executes, None for all.
        health: a file that is there, and younger than some seconds, as long as it is well.
    """

    def __init__(self, config: Config, only: frozenset[str] | None, health: Path | None) -> None:
        self._config = config
        self._only = only
        self._health = health
        self._stop = asyncio.Event()
        self._grace = config.grace

    async def serve(self) -> bool:
        """Works until it is told to stop; returns whether nothing executed any more then.

        Raises:
            TaskrunError: it could not start, and why.
        """
        take_signals(self._stop)
        async with AsyncExitStack() as stack:
            folder = Path(tempfile.mkdtemp(prefix="taskrun-worker-"))
            stack.callback(shutil.rmtree, folder, ignore_errors=True)
            core = await stack.enter_async_context(
                running_core(self._config, daemon_paths(self._config), lambda: self._grace, self._only)
            )
            pool = WorkerPool(core, lambda: self._config, DaemonPaths(folder), _print)
            patience = lambda: self._grace + LINGER  # noqa: E731
            await stack.enter_async_context(running_pool(core, pool, lambda: self._grace, patience))
            await self._check_jobs(pool)
            schedules = ScheduleFile(core, pool, self._config.path, lambda: self._config)
            await schedules.begin()
            if self._config.schedules or self._config.files:  # else those of others in the journal are left alone
                await stack.enter_async_context(schedules.following())
            collect_rarely()
            async with self._healthy(core):
                logger.info("working, pid %d", os.getpid())
                await self._stop.wait()
            end_by_force(self._grace + LINGER + OVERDUE)
            return await self._drained(core)

    async def _check_jobs(self, pool: WorkerPool) -> None:
        """Raises JobNotFound when a job is asked for that there is not."""
        if self._only is None:
            return
        await pool.ready()
        missing = sorted(self._only - {str(job["name"]) for job in pool.description.jobs})
        if missing:
            raise JobNotFound(f'no job "{missing[0]}"')

    async def _drained(self, core: Core) -> bool:
        """Starts nothing more, and waits until nothing executes; returns False when the grace is over before."""
        for starter in (core.claims, *core.starters):
            starter.open = False
        logger.info("draining")
        loop = asyncio.get_running_loop()
        deadline = loop.time() + self._grace
        with suppress(TimeoutError, DaemonError):
            async with asyncio.timeout(self._grace):
                await core.lease.drain(core.journal)
        while True:
            busy = any(map(core.attempts.executing, core.executors.peers))
            if not busy or loop.time() >= deadline:
                break
            await asyncio.sleep(LOOK)
        self._grace = max(0.0, deadline - loop.time())
        logger.info("the grace is over" if busy else "drained")
        return not busy

    @asynccontextmanager
    async def _healthy(self, core: Core) -> AsyncIterator[None]:
        task = None if self._health is None else asyncio.create_task(_beat(self._health, core))
        try:
            yield
        finally:
            if task is not None and self._health is not None:
                task.cancel()
                await asyncio.gather(task, return_exceptions=True)
                self._health.unlink(missing_ok=True)


async def _beat(health: Path, core: Core) -> None:
    """Writes the health file now and then, as soon as that is possible; while the journal refuses there is none."""
    told = ""
    while True:
        try:
            if core.journal.fault is not None:
                health.unlink(missing_ok=True)
            else:
                fresh = health.with_name(f".{health.name}.{os.getpid()}")
                state = {"pid": os.getpid(), "load": core.slots.used, "at": rfc3339(core.clock.now())}
                fresh.write_bytes(msgspec.json.encode(state))
                fresh.replace(health)
            told = ""
        except OSError as error:
            if str(error) != told:
                told = str(error)
                logger.warning("the health file cannot be written: %s", error)
        await asyncio.sleep(BEAT)


def _print(data: bytes) -> None:
    sys.stderr.buffer.write(data)
    sys.stderr.buffer.flush()


def work(config: Config, only: frozenset[str] | None, health: Path | None) -> bool:
    """Works in this process until it is told to stop; returns whether it drained in time.

    Raises:
        TaskrunError: it could not start, and why.
    """
    logging.basicConfig(level=logging.INFO, stream=sys.stderr, format="%(asctime)s %(levelname)s %(message)s")
    return asyncio.run(StandaloneWorker(config, only, health).serve())
