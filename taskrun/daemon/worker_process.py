"""One worker, as the daemon sees it: a process, its pipe, its leash, and what it prints outside of runs.

Made by the crew. The process ends when the pipe does; its runs may go on elsewhere when the leash is free, which is when the
last process that it started is gone too.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import secrets
import socket
from collections.abc import Callable
from itertools import chain, repeat
from pathlib import Path

import msgspec

from taskrun.daemon.frames import PIPE_CAP, frame
from taskrun.daemon.home import Home
from taskrun.daemon.launch import environment, python
from taskrun.daemon.pipe import PipePeer, PipeProtocol
from taskrun.daemon.worker import Setup
from taskrun.engine.messages import Answerer
from taskrun.model.config import Config
from taskrun.processes.liveness_lock import Leash

LINGER = 2.0  # seconds for a worker to end by itself once its pipe is closed
LOOKS = (0.002, 0.01, 0.05)  # seconds between looks at a leash
CHUNK = 65_536
REST = 0.02  # seconds after a full chunk of output: a flood holds up whoever makes it


class WorkerProcess:
    """A worker that was started."""

    def __init__(self, process: asyncio.subprocess.Process, protocol: PipeProtocol, leash: Path) -> None:
        self.retired = False  # it was told to go
        self._process = process
        self._protocol = protocol
        self._leash = leash
        self._output: asyncio.Task[None]

    @classmethod
    async def start(cls, config: Config, home: Home, core: Answerer, log: Callable[[bytes], None]) -> WorkerProcess:
        """Starts a worker; its peer can be asked at once, and answers when the jobs are loaded."""
        worker = await cls.spare(config, home, core, log)
        worker.begin(config)
        return worker

    @classmethod
    async def spare(cls, config: Config, home: Home, core: Answerer, log: Callable[[bytes], None]) -> WorkerProcess:
        """Starts a process that becomes a worker when it is told to begin; it has loaded all but the jobs by then."""
        loop = asyncio.get_running_loop()
        leash = home.leash(secrets.token_hex(4))
        ours, theirs = socket.socketpair()
        read, write = os.pipe()
        try:
            with theirs:
                process = await asyncio.create_subprocess_exec(
                    *python("taskrun.daemon.worker"),
                    *("--fd", str(theirs.fileno())),
                    stdin=asyncio.subprocess.DEVNULL,
                    stdout=write,
                    stderr=write,
                    cwd=config.root,
                    env=environment(config.env),
                    pass_fds=[theirs.fileno()],
                    start_new_session=True,
                )
        except BaseException:
            ours.close()
            os.close(read)
            raise
        finally:
            os.close(write)
        ours.setblocking(False)
        _, protocol = await loop.create_unix_connection(lambda: PipeProtocol(core), sock=ours)
        worker = cls(process, protocol, leash)
        worker._output = loop.create_task(_log_output(read, log))
        return worker

    def begin(self, config: Config) -> None:
        """Lets it load the jobs."""
        self._protocol.send(frame(msgspec.msgpack.encode(_setup(config, self._leash)), PIPE_CAP))

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
        return self._process.returncode

    async def ended(self) -> None:
        """Waits for the end of its pipe."""
        await asyncio.shield(self._protocol.ended)

    def kill(self) -> None:
        """Kills it."""
        with contextlib.suppress(ProcessLookupError):
            self._process.kill()

    async def bury(self) -> None:
        """Ends it, by force after a while, and returns when nothing of it is left."""
        self._protocol.close()
        try:
            async with asyncio.timeout(LINGER):
                await self._process.wait()
        except TimeoutError:
            self.kill()
            await self._process.wait()
        await leash_free(self._leash)
        self._leash.unlink(missing_ok=True)
        self._output.cancel()


async def leash_free(leash: Path) -> None:
    """Waits until no process holds a leash."""
    for pause in chain(LOOKS, repeat(LOOKS[-1])):
        if Leash.free(leash):
            return
        await asyncio.sleep(pause)


def _setup(config: Config, leash: Path) -> Setup:
    return Setup(
        root=str(config.root),
        jobs=config.jobs,
        leash=str(leash),
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
