"""One worker, as the daemon sees it: a process, its pipe, its lock, and what it prints outside of runs.

Made by the worker pool. The process ends when the pipe does, and the pipe when the process does, whoever else still has an end of
it. The worker's runs may go on elsewhere when its lock is free, which is when the last process that it started is gone too.
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
from taskrun.daemon.workers.worker_main import Setup
from taskrun.daemon.workers.worker_rpc import PipePeer, PipeProtocol
from taskrun.engine.messages import Answerer
from taskrun.model.config import Config
from taskrun.processes.liveness_lock import LivenessLock
from taskrun.processes.open_files import openers

LINGER = 2.0  # seconds for a worker to end by itself once its pipe is closed
KILLED_WITHIN = 5.0  # seconds for the kernel to end what was killed
LAST_WORDS = 1.0  # seconds for what a dead worker has sent to be read
FREE_WITHIN = 3.0  # seconds for what a worker has started to end after it
LOOKS = (0.002, 0.01, 0.05)  # seconds between looks at a lock
CHUNK = 65_536
REST = 0.02  # seconds after a full chunk of output: a flood holds up whoever makes it

logger = logging.getLogger(__name__)


class PoolContext(msgspec.Struct, frozen=True):
    """What all workers of a pool have in common.

    Parameters:
        core: answers them.
        caught_up: waits until what they have said is in the journal.
        log: takes what they print outside of runs.
    """

    paths: DaemonPaths
    core: Answerer
    caught_up: Callable[[], Awaitable[None]]
    log: Callable[[bytes], None]


class WorkerHandle:
    """A worker that was started."""

    def __init__(self, process: ChildProcess, protocol: PipeProtocol, lock: Path, output: asyncio.Task[None]) -> None:
        self.retired = False  # it was told to go
        self.given_up: set[str] = set()  # runs that it could not end
        self._process = process
        self._protocol = protocol
        self._lock = lock
        self._output = output
        self._ending = asyncio.get_running_loop().create_task(self._end_pipe())

    @classmethod
    async def start(cls, config: Config, around: PoolContext) -> WorkerHandle:
        """Starts a worker; its peer can be asked at once, and answers when the jobs are loaded."""
        worker = await cls.spare(config, around)
        worker.begin(config)
        return worker

    @classmethod
    async def spare(cls, config: Config, around: PoolContext) -> WorkerHandle:
        """Starts a process that becomes a worker when it is told to begin; it has loaded all but the jobs by then."""
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
        return cls(child, protocol, lock, loop.create_task(_log_output(read, around.log)))

    def begin(self, config: Config) -> None:
        """Lets it load the jobs."""
        self._protocol.send(frame(msgspec.msgpack.encode(_setup(config, self._lock)), PIPE_CAP))

    @property
    def peer(self) -> PipePeer:
        """Its executor."""
        return self._protocol.peer

    @property
    def pid(self) -> int:
        """Its process."""
        return self._process.pid

    @property
    def code(self) -> int | None:
        """Its exit code, once it is gone."""
        return self._process.code

    async def ended(self) -> None:
        """Waits for its end: that of its pipe, which comes with that of its process."""
        await asyncio.shield(self._protocol.ended)

    def kill(self) -> None:
        """Kills it, and what it has forked."""
        self._process.kill()

    async def end(self) -> None:
        """Ends it, by force after a while; returns when nothing of it is left, or what is left cannot be killed."""
        self._protocol.close()
        if not await _within(LINGER, self._process.ended):
            self.kill()
            if not await _within(KILLED_WITHIN, self._process.ended):
                logger.error("worker %d does not end although it was killed: the kernel holds it", self.pid)
        self._protocol.abort()
        if await lock_freed(self._lock):
            self._lock.unlink(missing_ok=True)
        self._ending.cancel()
        self._output.cancel()

    async def _end_pipe(self) -> None:
        """Ends the pipe with the process: what was forked from it and has left its group may have the other end open."""
        await asyncio.shield(self._process.ended)
        await _within(LAST_WORDS, self._protocol.ended)
        self._protocol.abort()


def _spawn(config: Config, pipe: int, output: int) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [*python("taskrun.daemon.workers.worker_main"), "--fd", str(pipe)],
        stdin=subprocess.DEVNULL,
        stdout=output,
        stderr=output,
        cwd=config.root,
        env=environment(config.env),
        pass_fds=[pipe],
        start_new_session=True,
    )


async def _within(seconds: float, future: asyncio.Future[Any]) -> bool:
    """Waits for a future for a while; returns whether it is done."""
    done, _ = await asyncio.wait([future], timeout=seconds)
    return bool(done)


async def lock_freed(lock: Path) -> bool:
    """Waits until no process holds a worker's lock; kills those that still do after a while. Returns whether it is free.

    Who holds it was started by that worker and by nobody else.
    """
    if await _freed(lock, FREE_WITHIN):
        return True
    left = openers(lock)
    logger.warning(
        "processes that a worker has left behind are killed: %s", ", ".join(map(str, left)) or "none is found"
    )
    for pid in left:
        with suppress(OSError):
            os.kill(pid, signal.SIGKILL)
    return await _freed(lock, KILLED_WITHIN)


async def _freed(lock: Path, seconds: float) -> bool:
    deadline = time.monotonic() + seconds
    pauses = iter(LOOKS)
    while not LivenessLock.free(lock):
        if time.monotonic() > deadline:
            return False
        await asyncio.sleep(next(pauses, LOOKS[-1]))
    return True


def _setup(config: Config, lock: Path) -> Setup:
    return Setup(
        root=str(config.root),
        jobs=config.jobs,
        lock=str(lock),
        daemon=os.getpid(),
        grace=config.grace,
        max_payload=config.max_payload,
    )


async def _log_output(read: int, log: Callable[[bytes], None]) -> None:
    """Puts what a worker prints into the log, to the end of it."""
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
