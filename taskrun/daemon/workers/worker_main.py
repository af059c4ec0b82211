"""A worker: the process that executes user code. `python -m taskrun.daemon.workers.worker_main --fd N`.

The event loop reads the pipe; while a handler blocks the loop a thread does, so that the end of the daemon is noticed and the
requests in `ANYTIME` are answered. Everything else waits for the loop, in order. When the pipe ends, the process ends at once,
without unwinding anything: the runs go on elsewhere, and the supervisors end the children.
"""

from __future__ import annotations

import argparse
import asyncio
import ctypes
import faulthandler
import os
import select
import signal
import socket
import sys
import threading
import time
import traceback
from collections.abc import Coroutine, Iterable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, NoReturn

import msgspec
from msgspec.structs import asdict

from taskrun.builtins.builtin_jobs import JOBS
from taskrun.builtins.project import load_project
from taskrun.daemon.frames import PIPE_CAP, FrameReader, frame
from taskrun.daemon.garbage import collect_rarely
from taskrun.daemon.workers.blocked_loop import LoopWatch
from taskrun.daemon.workers.request_threads import RequestThreads
from taskrun.daemon.workers.worker_rpc import (
    CHUNK,
    DECODE,
    ENCODE,
    Answer,
    Ask,
    Envelope,
    PipePeer,
    Refusal,
    Tell,
    answer,
)
from taskrun.engine import messages as m
from taskrun.engine.api.run import Run
from taskrun.engine.executor.capture import Capture
from taskrun.engine.executor.executor import Executor
from taskrun.engine.executor.step_ids import order_tasks
from taskrun.model.command_config import CommandFile
from taskrun.processes.liveness_lock import LivenessLock

ANYTIME = (m.Describe, m.Prepare, m.PrepareEvent, m.Route)  # requests that need no event loop
PATIENCE = 0.05  # seconds after which the loop counts as blocked when something has come
LINGER = 2.0  # seconds for the event loop to end after it was drained
PR_SET_PDEATHSIG = 1


class Setup(msgspec.Struct, frozen=True):
    """The first frame on the pipe: what a worker must know before it imports the first job."""

    root: str
    jobs: list[str]
    lock: str  # the file of its liveness lock
    daemon: int  # its pid
    grace: float
    max_payload: int
    last_good: dict[str, str]  # sources for job files that cannot be loaded, by path
    declared: CommandFile  # in `taskrun.toml`
    commands: str | None  # the folder with the files of commands that survive


class SocketWriter:
    """The worker's end of the pipe for writing, from any thread, one frame or batch at a time.

    A write blocks while the daemon is slow to read, which holds back the code that floods it.
    """

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection
        self._lock = threading.Lock()

    def write(self, data: bytes) -> None:
        """Writes all of `data`; that the daemon is gone is noticed by the reader."""
        with self._lock, suppress(OSError):
            self._connection.sendall(data)


class Control:
    """What comes through the pipe: read on the event loop, or by a thread of its own while a handler blocks the loop.

    What the thread has read is kept, in order, for the loop; only requests that need no loop are answered meanwhile.
    """

    def __init__(self, connection: socket.socket, frames: FrameReader, early: list[bytes], root: str) -> None:
        self.writer = SocketWriter(connection)
        self.requests = RequestThreads(self._answer, self._send, root)
        self.drained = False  # whether the daemon has drained this worker, so that the end of the pipe is expected
        self.ended: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._connection = connection
        self._frames = frames
        self._loop = asyncio.get_running_loop()
        self._reading = threading.Lock()
        self._read: list[Envelope] = []  # what the loop has not taken yet
        self._turns = 0  # of the loop
        self._over = False
        self._half: DrainedExecutor
        self._peer: PipePeer
        self._sort(early)
        threading.Thread(target=self._stand_in, name="taskrun-pipe", daemon=True).start()

    def begin(self, executor_side: DrainedExecutor, peer: PipePeer) -> None:
        """Begins to answer, once the jobs are loaded."""
        self._half, self._peer = executor_side, peer
        self.requests.open()
        self._loop.add_reader(self._connection, self._turn)
        self._loop.call_soon(self._turn)

    def report(self, blocked: m.Blocked) -> None:
        """Tells the daemon without the event loop, which may be blocked."""
        self._send(Tell(blocked))

    def _turn(self) -> None:
        """Takes what has come, on the loop."""
        with self._reading:
            self._turns += 1
            self._receive()
            envelopes, self._read = self._read, []
        self._peer.receive(envelopes)
        if self._over and not self.ended.done():
            self._loop.remove_reader(self._connection)
            self.ended.set_result(None)

    def _stand_in(self) -> None:
        """Reads what the loop does not come to in time, until the pipe ends."""
        ready = select.poll()
        ready.register(self._connection, select.POLLIN)
        while not self._over:
            seen = self._turns
            ready.poll()
            time.sleep(PATIENCE)
            if self._turns == seen:
                with self._reading:
                    self._receive()
                self._loop.call_soon_threadsafe(self._turn)
        time.sleep(LINGER)
        os._exit(1)  # the event loop is blocked

    def _receive(self) -> None:
        """Reads what is there, unless nothing is; ends the process where nobody has drained it at the end of the pipe."""
        try:
            data = self._connection.recv(CHUNK, socket.MSG_DONTWAIT)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        try:
            self._sort(self._frames.feed(data))
        except Exception:
            traceback.print_exc()
            os._exit(1)
        if not data and not self.drained:
            os.killpg(0, signal.SIGKILL)  # and all processes that user code has forked
        self._over = not data

    def _sort(self, payloads: Iterable[bytes]) -> None:
        for envelope in map(DECODE, payloads):
            if isinstance(envelope, Ask) and isinstance(envelope.message, ANYTIME):
                self.requests.put(envelope)
            else:
                self._read.append(envelope)

    def _answer(self, ask: Ask) -> Answer | Refusal:
        reply: Answer | Refusal = finish(answer(self._half, self._peer, ask))
        return reply

    def _send(self, envelope: Envelope) -> None:
        self.writer.write(frame(ENCODE(envelope), PIPE_CAP))


class DrainedExecutor:
    """The executor; takes note when the daemon has drained it."""

    def __init__(self, executor: Executor, control: Control) -> None:
        self._executor = executor
        self._control = control

    async def answer(self, peer: m.Peer, message: m.Asked) -> Any:
        """Answers the core."""
        value = await self._executor.answer(peer, message)
        self._control.drained |= isinstance(message, m.Drain)
        return value

    def hear(self, peer: m.Peer, message: m.Told) -> None:
        """Takes a message of the core that wants no answer."""
        self._executor.hear(peer, message)


def finish(answering: Coroutine[Any, Any, Any]) -> Any:
    """Runs a coroutine that waits for nothing to its end, in this thread."""
    try:
        answering.send(None)
    except StopIteration as done:
        return done.value
    answering.close()
    raise RuntimeError("an answer that needs no event loop waited for one")


async def work(setup: Setup, connection: socket.socket, frames: FrameReader, early: list[bytes]) -> None:
    """Loads the jobs and executes what the daemon sends, until the pipe ends."""
    lock = LivenessLock(Path(setup.lock))
    control = Control(connection, frames, early, setup.root)
    watch = LoopWatch(Path(setup.root), control.report, control.requests.check)
    Capture.install(echo=False)  # before the jobs' code can keep a reference to a stream
    order_tasks()  # nor to what this replaces
    found = load_project(setup.jobs, Path(setup.root), setup.declared, setup.last_good, JOBS)
    executor = Executor(
        found.registry,
        problems=[asdict(problem) for problem in found.problems],
        files=[str(file) for file in found.files],
        sources=found.sources,
        grace=setup.grace,
        lock_fd=lock.fd,
        commands=None if setup.commands is None else Path(setup.commands),
        echo=False,
        max_payload=setup.max_payload,
        sealed=True,
        make_handle=Run,
    )
    peer = PipePeer(executor_side := DrainedExecutor(executor, control), control.writer.write)
    executor.connect(peer)
    control.begin(executor_side, peer)
    collect_rarely()
    await control.ended
    peer.lose()
    watch.close()
    await executor.close()
    lock.close()


def read_setup(connection: socket.socket) -> tuple[Setup, FrameReader, list[bytes]]:
    """Reads the setup, and the payloads that came with it."""
    frames = FrameReader(PIPE_CAP)
    payloads: list[bytes] = []
    while not payloads:
        data = connection.recv(CHUNK)
        if not data:
            sys.exit(1)
        payloads = [*frames.feed(data)]
    return msgspec.msgpack.decode(payloads[0], type=Setup), frames, payloads[1:]


def end_with(daemon: int) -> None:
    """Makes this process end with the daemon, and ignore signals that a terminal sends to all of its processes."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, lambda *_: None)  # not SIG_IGN, which the children would inherit
    if sys.platform == "linux":  # in case user code blocks even the thread that reads the pipe
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
        if os.getppid() != daemon:
            os._exit(1)
    faulthandler.enable()


def main(argv: Sequence[str] | None = None) -> NoReturn:
    """Runs a worker to its end."""
    parser = argparse.ArgumentParser(prog="taskrun.daemon.workers.worker_main")
    parser.add_argument("--fd", type=int, required=True)
    connection = socket.socket(fileno=parser.parse_args(argv).fd)
    connection.set_inheritable(False)
    os.register_at_fork(after_in_child=connection.close)  # a fork must not send in this process's name
    setup, frames, early = read_setup(connection)
    end_with(setup.daemon)
    asyncio.run(work(setup, connection, frames, early))
    sys.exit(0)


if __name__ == "__main__":
    main()
