"""The daemon: a core around the journal, worker processes that execute the jobs, and a socket for clients.

Started by `python -m taskrun.cli.daemon_main`. Everything is opened in this order: the lock, the journal, the core, the
workers, the socket; and closed in the reverse order. User code never runs in this process.
"""

from __future__ import annotations

import asyncio
import logging
import os
import resource
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager, suppress
from typing import Any, Protocol

import msgspec

from taskrun import __version__
from taskrun.daemon.clients.change_requests import CHANGES
from taskrun.daemon.clients.command_connection import CommandServer
from taskrun.daemon.clients.connection import Connection, Connections
from taskrun.daemon.clients.listener import Listener, reopened
from taskrun.daemon.clients.read_requests import READS
from taskrun.daemon.clients.router import Operation, RequestContext, RequestRouter
from taskrun.daemon.clients.stream_requests import STREAMS
from taskrun.daemon.frames import CLIENT_CAP
from taskrun.daemon.garbage import collect_rarely
from taskrun.daemon.lock import Holder, Lock, holder
from taskrun.daemon.log import DaemonLog
from taskrun.daemon.paths import DaemonPaths, daemon_paths
from taskrun.daemon.running import end_by_force, running_core, running_pool, take_signals
from taskrun.daemon.state_files import StateFiles
from taskrun.daemon.watch.auto_reload import AutoReload
from taskrun.daemon.watch.project_code import ProjectCode
from taskrun.daemon.watch.schedule_file import ScheduleFile
from taskrun.daemon.workers.worker_handle import lock_freed
from taskrun.daemon.workers.worker_pool import WorkerPool
from taskrun.engine.core.core import Core
from taskrun.model.config import Config, without_password
from taskrun.model.errors import DaemonError, DaemonStopped, TaskrunError
from taskrun.rules.schedule_tables import read_config

MOST_CLIENTS = 256
FILES = 8192  # descriptors that a daemon may need
LINGER = 2.0  # seconds beyond their grace for workers to drain
OVERDUE = 8.0  # seconds beyond the grace for everything to close; the command that stops a daemon waits 10
CHECK_EVERY = 1.0  # seconds between two checks that the daemon's files are still there

logger = logging.getLogger(__name__)


class Watcher(Protocol):
    """Reloads the code when it changes: what `taskrun watch` adds to a daemon."""

    def ops(self) -> dict[str, Operation]:
        """Returns the operations that it adds."""
        ...

    async def watch(self, context: RequestContext, project: ProjectCode) -> None:
        """Watches until it is cancelled."""
        ...


class Daemon:
    """One project's daemon.

    Parameters:
        command_server: executes command lines for thin clients; without one they do so themselves.
        watcher: reloads the code when it changes.
    """

    def __init__(
        self, config: Config, lock: Lock, log: DaemonLog, command_server: CommandServer | None, watcher: Watcher | None
    ) -> None:
        self._config = config
        self._watcher = watcher
        self._command_server = command_server
        self._paths = daemon_paths(config)
        self._lock = lock
        self._log = log
        self._stop = asyncio.Event()
        self._holder = Holder(os.getpid(), __version__, started_at=time.time())
        self._largest = CLIENT_CAP + 2 * config.max_payload  # bytes of a request, in which an input is JSON within JSON
        self._grace = config.grace
        self._files_lost = False
        self._state: StateFiles | None = None  # once the journal is open

    async def serve(self, ready: Callable[[], None]) -> None:
        """Runs until it is told to stop.

        Parameters:
            ready: called once clients are answered.

        Raises:
            TaskrunError: it could not start, and why.
        """
        take_signals(self._stop)
        async with AsyncExitStack() as stack:
            await self._await_former_workers()
            core = await stack.enter_async_context(self._running_core())
            pool = await stack.enter_async_context(self._running_pool(core))
            schedules = ScheduleFile(core, pool, self._config.path, self._read_config)
            code = ProjectCode(core, pool, schedules.problems, self._read_config, patient=self._watcher is None)
            await schedules.begin()
            await stack.enter_async_context(schedules.following())
            load_changes = await self._load_changes(stack, AutoReload(code))
            router = self._router(stack, core, pool, schedules, code, load_changes)
            self._open_command_server(stack, router)
            listener = await stack.enter_async_context(self._listening(router))
            collect_rarely()
            logger.info("started, pid %d, %s", self._holder.pid, self._holder.socket)
            ready()
            await self._until_stopped(listener, core)
            logger.info("stopping")
            end_by_force(self._grace + OVERDUE)
        if self._state is not None:
            self._state.set_aside()

    @asynccontextmanager
    async def _running_core(self) -> AsyncIterator[Core]:
        async with running_core(self._config, self._paths, lambda: self._grace) as core:
            self._state = StateFiles(self._lock, self._config.journal)
            yield core

    def _running_pool(self, core: Core) -> AbstractAsyncContextManager[WorkerPool]:
        pool = WorkerPool(core, self._read_config, self._paths, self._log.put)
        return running_pool(core, pool, lambda: self._grace, lambda: 0.0 if self._files_lost else self._grace + LINGER)

    def _open_command_server(self, stack: AsyncExitStack, router: RequestRouter) -> None:
        if self._command_server is not None:
            self._command_server.open(router, self._lock.path, self._largest)
            stack.callback(self._command_server.close)

    def _read_config(self) -> Config:
        return read_config(self._config.path, os.environ)

    async def _load_changes(self, stack: AsyncExitStack, auto: AutoReload) -> Callable[[], Awaitable[list[Any]]]:
        """Returns what loads changed job files before a run starts; nothing does where that is left to somebody else."""
        if self._watcher is not None or self._config.reload == "manual":
            return _nothing
        await stack.enter_async_context(auto.following())
        return auto.load_changes

    def _router(
        self,
        stack: AsyncExitStack,
        core: Core,
        pool: WorkerPool,
        schedules: ScheduleFile,
        code: ProjectCode,
        load_changes: Callable[[], Awaitable[list[Any]]],
    ) -> RequestRouter:
        journal, stop = without_password(self._config.journal), self._stop.set
        context = RequestContext(core, pool, journal, lambda: self._holder, stop, schedules.problems, load_changes)
        if self._watcher is None:
            return RequestRouter(context, {**READS, **CHANGES, **STREAMS})
        watching = asyncio.get_running_loop().create_task(self._watcher.watch(context, code))
        stack.callback(watching.cancel)
        return RequestRouter(context, {**READS, **CHANGES, **STREAMS, **self._watcher.ops()})

    @asynccontextmanager
    async def _listening(self, router: RequestRouter) -> AsyncIterator[Listener]:
        """Answers clients at a socket, which is bound while the lock is held."""
        connections = Connections(router, MOST_CLIENTS, self._largest, self._command_server, self._refusal)
        listener = Listener(self._lock.path, lambda: Connection(connections))
        listener.open()
        self._publish(listener)
        try:
            yield listener
        finally:
            listener.close()
            for connection in tuple(connections.open):
                connection.dismiss(DaemonStopped("the daemon was stopped"))

    def _publish(self, listener: Listener) -> None:
        holder = msgspec.structs.replace(self._holder, socket=str(listener.path))
        self._lock.write(holder)
        self._holder = holder

    def _refusal(self) -> Exception | None:
        """Returns why no client is accepted: its requests would be recorded in a journal that nobody ever sees."""
        if not self._intact():
            return DaemonStopped("the daemon was stopped, because its files were removed")
        return None

    async def _until_stopped(self, listener: Listener, core: Core) -> None:
        """Waits until it is told to stop or its files are gone; replaces a socket that was removed."""
        while not self._stop.is_set():
            with suppress(TimeoutError):
                async with asyncio.timeout(CHECK_EVERY):
                    await self._stop.wait()
            if not self._intact():
                return
            if core.journal.fault is None and self._state is not None and (loss := self._state.loss_of_log()):
                logger.error("%s: stopping, so that everything in it reaches the journal", loss)
                return
            if not self._stop.is_set() and (reopened(listener) or self._holder.socket != str(listener.path)):
                with suppress(OSError):  # a full disk: it is written down later
                    self._publish(listener)

    def _intact(self) -> bool:
        """Whether the files are still there. Without them it stops at once: nobody would ever see what it records."""
        loss = "" if self._state is None else self._state.loss()
        if loss and not self._files_lost:
            self._files_lost = True
            self._grace = 0.0
            self._stop.set()
            logger.error("%s while the daemon ran: stopping", loss)
        return not loss

    async def _await_former_workers(self) -> None:
        """Waits until nothing is left of the workers of a former daemon: none of it may run beside this one's workers."""
        for lock in self._paths.worker_locks():
            if not await lock_freed(lock):
                raise DaemonError(f"processes of an earlier daemon are still running and hold {lock}: end them first")
            lock.unlink(missing_ok=True)


async def _nothing() -> list[Any]:
    return []


# ---- the process


def serve(
    config: Config,
    *,
    foreground: bool,
    ready: Callable[[], None],
    command_server: CommandServer | None = None,
    watcher: Watcher | None = None,
) -> None:
    """Runs a project's daemon in this process until it is told to stop.

    Parameters:
        watcher: reloads the code when it changes.
        command_server: executes command lines for thin clients; without one they do so themselves.
        foreground: whether what it logs is also shown on standard error.
        ready: called once clients are answered.

    Raises:
        TaskrunError: it could not start, and why.
    """
    paths = daemon_paths(config)
    lock = Lock.take(paths.lock)
    if lock is None:
        raise _already_running(paths)
    log = DaemonLog(paths.log, echo=2 if foreground else None, stdio=() if foreground else (1, 2))
    with suppress(OSError):  # a full disk, which the journal reports
        lock.write(Holder(os.getpid(), __version__))
    root = logging.getLogger()
    root.addHandler(log)
    root.setLevel(logging.INFO)
    try:
        _raise_file_limit()
        asyncio.run(Daemon(config, lock, log, command_server, watcher).serve(ready))
    except Exception as error:
        logger.error("%s", error, exc_info=None if isinstance(error, TaskrunError) else error)
        raise
    finally:
        lock.release()
        root.removeHandler(log)
        log.close()


def _already_running(paths: DaemonPaths) -> DaemonError:
    held = holder(paths.lock)
    who = f" (pid {held.pid})" if held is not None and held.pid else ""
    return DaemonError(f"a daemon{who} already runs for this project")


def _raise_file_limit() -> None:
    """Raises the soft limit on descriptors, which is 256 on macOS."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard == resource.RLIM_INFINITY or soft < min(FILES, hard):
        with suppress(ValueError, OSError):
            resource.setrlimit(
                resource.RLIMIT_NOFILE, (FILES if hard == resource.RLIM_INFINITY else min(FILES, hard), hard)
            )
