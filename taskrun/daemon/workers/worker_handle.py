"""One worker, as the daemon sees it: a process, its pipe, its liveness lock, and its output outside of runs.

The process ends when the pipe does. The pipe ends when the process does, even if another process holds the other end. The
worker's runs may go on elsewhere when its lock is free: then the last process that it started is gone too.
"""

from __future__ import annotations

import asyncio
import logging
import os
import secrets
import signal
import socket
import subprocess
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import msgspec

from taskrun.daemon.frames import PIPE_CAP, frame
from taskrun.daemon.launch import environment, python
from taskrun.daemon.paths import DaemonPaths
from taskrun.daemon.workers.child_process import ChildProcess
from taskrun.daemon.workers.last_good import LastGood
from taskrun.daemon.workers.worker_main import Setup
from taskrun.daemon.workers.worker_rpc import PipePeer, PipeProtocol
from taskrun.engine.messages import Answerer
from taskrun.model.config import Config
from taskrun.processes.liveness_lock import LivenessLock
from taskrun.processes.open_files import openers

LINGER = 2.0  # seconds for a worker to end by itself once its pipe is closed
KILLED_WITHIN = 5.0  # seconds for the kernel to end what was killed
DRAIN_WITHIN = 1.0  # seconds to read what a dead worker has sent
FREE_WITHIN = 3.0  # seconds for the processes that a worker started to end after it
PAUSES = (0.002, 0.01, 0.05)  # seconds between two checks of a lock
CHUNK = 65_536
REST = 0.02  # seconds of pause after a full chunk of output, which slow down a process that floods it

logger = logging.getLogger(__name__)


class PoolContext(msgspec.Struct, frozen=True):
    """What all workers of a pool share.

    Parameters:
        core: answers them.
        caught_up: waits until what they have sent is in the journal.
        log: takes what they print outside of runs.
        last_good: sources for job files that they cannot load.
        commands: the folder with the files of commands that survive.
    """

    paths: DaemonPaths
    core: Answerer
    caught_up: Callable[[], Awaitable[None]]
    log: Callable[[bytes], None]
    last_good: LastGood
    commands: Path | None


class WorkerHandle:
    """A worker that was started."""

    def __init__(
        self,
        process: ChildProcess,
        protocol: PipeProtocol,
        lock: Path,
        output: asyncio.Task[None],
        around: PoolContext,
    ) -> None:
        self.retired = False  # it gets no more work
        self.given_up: set[str] = set()  # runs that it could not end in time
        self._process = process
        self._protocol = protocol
        self._lock = lock
        self._output = output
        self._around = around
        self._ending = asyncio.get_running_loop().create_task(self._end_pipe())

    @classmethod
    async def start(cls, config: Config, around: PoolContext) -> WorkerHandle:
        """Starts a worker; its peer can be asked at once, and answers when the jobs are loaded."""
        worker = await cls.start_spare(config, around)
        worker.begin(config)
        return worker

    @classmethod
    async def start_spare(cls, config: Config, around: PoolContext) -> WorkerHandle:
        """Starts a process that has loaded everything but the jobs, and becomes a worker at `begin`."""
        loop = asyncio.get_running_loop()
        lock = around.paths.worker_lock(secrets.token_hex(4))
        ours, theirs = socket.socketpair()
        read, write = os.pipe()
        try:
            with theirs:
                process = _spawn(config, theirs.fileno(), write)
        except BaseException:
            ours.close()
            os.close(read)
            raise
        finally:
            os.close(write)
        child = ChildProcess(process)
        ours.setblocking(False)
        _, protocol = await loop.create_unix_connection(lambda: PipeProtocol(around.core, around.caught_up), sock=ours)
        return cls(child, protocol, lock, loop.create_task(_log_output(read, around.log)), around)

    def begin(self, config: Config) -> None:
        """Lets it load the jobs."""
        self._protocol.send(frame(msgspec.msgpack.encode(_setup(config, self._lock, self._around)), PIPE_CAP))

    @property
    def peer(self) -> PipePeer:
        """The executor in it."""
        return self._protocol.peer

    @property
    def pid(self) -> int:
        """Its process id."""
        return self._process.pid

    @property
    def code(self) -> int | None:
        """Its exit code, once it has ended."""
        return self._process.code

    async def ended(self) -> None:
        """Waits until its pipe has ended, which happens at the end of its process."""
        await asyncio.shield(self._protocol.ended)

    def kill(self) -> None:
        """Kills it, and what it has forked."""
        self._process.kill()

    async def end(self) -> None:
        """Ends it, by force after a while; returns when none of its processes is left that can be killed."""
        self._protocol.close()
        if not await _within(LINGER, self._process.ended):
            self.kill()
            if not await _within(KILLED_WITHIN, self._process.ended):
                logger.error("worker %d does not end although it was killed: it is stuck in the kernel", self.pid)
        self._protocol.abort()
        if await lock_freed(self._lock):
            self._lock.unlink(missing_ok=True)
        self._ending.cancel()
        self._output.cancel()

    async def _end_pipe(self) -> None:
        """Ends the pipe with the process: a process that it forked and that left its group may hold the other end."""
        await asyncio.shield(self._process.ended)
        await _within(DRAIN_WITHIN, self._protocol.ended)
        self._protocol.abort()


def _spawn(config: Config, pipe: int, output: int) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [*python("taskrun.daemon.workers.worker_main"), "--fd", str(pipe)],
        stdin=subprocess.DEVNULL,
        stdout=output,
        stderr=output,
        cwd=config.cwd,
        env=environment(config.env),
        pass_fds=[pipe],
        start_new_session=True,
    )


async def _within(seconds: float, future: asyncio.Future[Any]) -> bool:
    """Waits for a future for a while; returns whether it is done."""
    done, _ = await asyncio.wait([future], timeout=seconds)
    return bool(done)


async def lock_freed(lock: Path) -> bool:
    """Waits until no process holds a worker's lock, and kills those that still do after a while; returns whether it is free.

    Only processes that this worker has started can hold it.
    """
    if await _freed(lock, FREE_WITHIN):
        return True
    left = openers(lock)
    logger.warning("killing processes that a worker has left behind: %s", ", ".join(map(str, left)) or "none found")
    for pid in left:
        with suppress(OSError):
            os.kill(pid, signal.SIGKILL)
    return await _freed(lock, KILLED_WITHIN)


async def _freed(lock: Path, seconds: float) -> bool:
    deadline = time.monotonic() + seconds
    pauses = iter(PAUSES)
    while not LivenessLock.free(lock):
        if time.monotonic() > deadline:
            return False
        await asyncio.sleep(next(pauses, PAUSES[-1]))
    return True


def _setup(config: Config, lock: Path, around: PoolContext) -> Setup:
    return Setup(
        root=str(config.root),
        jobs=config.jobs,
        lock=str(lock),
        daemon=os.getpid(),
        grace=config.grace,
        max_payload=config.max_payload,
        last_good=dict(around.last_good.sources),
        declared=config.declared,
        commands=None if around.commands is None else str(around.commands),
    )


async def _log_output(read: int, log: Callable[[bytes], None]) -> None:
    """Logs what a worker prints, until it ends."""
    stream = asyncio.StreamReader(limit=CHUNK)
    with os.fdopen(read, "rb", 0) as pipe:
        transport, _ = await asyncio.get_running_loop().connect_read_pipe(
            lambda: asyncio.StreamReaderProtocol(stream), pipe
        )
        try:
            while data := await stream.read(CHUNK):
                log(data)
                await asyncio.sleep(REST if len(data) == CHUNK else 0)
        finally:
            transport.close()
