"""Runs the functions of `thread` steps in worker processes that can be killed. The executor owns one pool.

Why not a library: pebble (5.2) and loky (3.7) were read. pebble kills a running task, but only its process, not what
that started; a worker that spins in C code outlives a killed parent; no closures, no limits, and its workers share a
channel. loky takes closures, but kills the whole pool to stop one task. So: own processes, each under the shim that
`shell` has, a socket for each, cloudpickle for functions.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import pickle
import signal
import socket
import struct
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import cloudpickle

from taskrun.model.errors import WorkerCrashed
from taskrun.processes.output import Lines, OutputPipe
from taskrun.processes.process import Process

CHILD = Path(__file__).with_name("pool_worker.py")
HEADER = struct.Struct("!Q")
OVER_MEMORY = 66  # as in pool_worker.py, which shares no imports with the engine
CHUNK = 1024 * 1024
MOST_PER_CPU = 16  # processes at once; further calls wait. A thousand steps must not mean a thousand interpreters
SOON = 1.0  # the longest grace of a killed call
OnLine = Callable[[str, str], None]


def register_by_value(module: ModuleType) -> None:
    """Send the functions of `module` along whole, because a worker process could not import it by name."""
    cloudpickle.register_pickle_by_value(module)


class RemoteTraceback(Exception):
    """The traceback in the worker process, as the cause of an exception that came from there."""

    def __str__(self) -> str:
        return f"\n{self.args[0]}"


class ProcessPool:
    """Worker processes, started when needed, kept warm between calls. Belongs to the running event loop.

    Parameters:
        leash_fd: the engine's leash, if it has one; held by the shims.
        most: how many processes at once; further calls wait.
    """

    def __init__(self, leash_fd: int | None = None, most: int | None = None) -> None:
        cpus = os.cpu_count() or 1
        self._leash_fd = leash_fd
        self._warm = cpus
        self._places = asyncio.Semaphore(most or cpus * MOST_PER_CPU)
        self._workers: set[Worker] = set()
        self._idle: list[Worker] = []
        self._closed = False

    async def call(
        self,
        fn: Callable[..., Any],
        args: Sequence[Any] = (),
        *,
        memory: int | None = None,
        cpu_time: float | None = None,
        grace: float,
        on_line: OnLine,
    ) -> Any:
        """Return `fn(*args)`, or what it comes to if it is async, computed in a worker process.

        A cancel kills the process: TERM, then KILL after `grace`, but at most a second.

        Parameters:
            memory: bytes beyond what the process has already, of address space on Linux, resident elsewhere.
            cpu_time: seconds of CPU, rounded up to whole ones.
            on_line: gets what it prints, as stream and text.
        Raises:
            WorkerCrashed: the process died, or went over a limit.
            Exception: whatever `fn` raised; a `RuntimeError` with its text where it cannot be pickled.
        """
        payload = cloudpickle.dumps((fn, tuple(args)))
        request = pickle.dumps((payload, memory, cpu_time))
        async with self._places:
            worker = self._take()
            try:
                reply = await worker.ask(request, on_line)
            except asyncio.CancelledError:
                await self._drop(worker, min(grace, SOON))
                raise
            except Died as death:
                await self._drop(worker, 0)
                raise WorkerCrashed(obituary(death.code, memory, cpu_time)) from None
            kind, content, reusable = pickle.loads(reply)
            await self._put_back(worker, reusable)
        return opened(kind, content, memory)

    async def close(self) -> None:
        """Kill all worker processes; calls in flight raise WorkerCrashed."""
        self._closed = True
        while self._idle:
            await self._drop(self._idle.pop(), 0)
        for worker in list(self._workers):  # busy ones: their calls clean up
            await worker.kill(0)

    def _take(self) -> Worker:
        if self._closed:
            raise RuntimeError("the pool is closed")
        while self._idle:
            worker = self._idle.pop()
            if worker.alive:
                return worker
            worker.close()
            self._workers.discard(worker)
        worker = Worker(self._leash_fd)
        self._workers.add(worker)
        return worker

    async def _put_back(self, worker: Worker, reusable: bool) -> None:
        if reusable and not self._closed and len(self._idle) < self._warm:
            self._idle.append(worker)
        else:
            await self._drop(worker, 0)

    async def _drop(self, worker: Worker, grace: float) -> None:
        try:
            await worker.kill(grace)
        finally:
            worker.close()
            self._workers.discard(worker)


class Died(Exception):
    """The worker process ended instead of answering."""

    def __init__(self, code: int) -> None:
        super().__init__(code)
        self.code = code


class Worker:
    """One worker process, its socket, and the pipes of what it prints."""

    def __init__(self, leash_fd: int | None) -> None:
        with contextlib.ExitStack() as stack:
            self._channel, theirs = socket.socketpair()
            stack.callback(self._channel.close)
            self._outputs = [stack.enter_context(LinePipe(stream)) for stream in ("stdout", "stderr")]
            with theirs, Path(os.devnull).open("rb") as nothing:
                self._process = Process.start(
                    [sys.executable, "-P", str(CHILD), str(theirs.fileno()), json.dumps([str(p) for p in sys.path])],
                    stdio=(nothing.fileno(), self._outputs[0].write_fd, self._outputs[1].write_fd),
                    inherit=[theirs.fileno()],
                    leash_fd=leash_fd,
                )
            self._open = stack.pop_all()
        for output in self._outputs:
            output.release()
        self._channel.setblocking(False)
        self._process.ended.add_done_callback(lambda _: self._hang_up())

    @property
    def alive(self) -> bool:
        """Whether it can be asked."""
        return self._process.poll()

    async def ask(self, request: bytes, on_line: OnLine) -> bytearray:
        """Send a request, hand on what is printed until the answer, and return that.

        Raises:
            Died: the process ended instead.
        """
        for output in self._outputs:
            output.on_line = on_line
        try:
            reply = await self._exchange(request)
        except (OSError, EOFError):
            raise Died(await self._process.wait()) from None
        self._finish_output()
        return reply

    async def kill(self, grace: float) -> None:
        """Kill it and whatever it started."""
        await self._process.end(grace)

    def close(self) -> None:
        """Close what is open here, once it is dead and nobody asks it."""
        self._finish_output()
        self._open.close()

    async def _exchange(self, request: bytes) -> bytearray:
        loop = asyncio.get_running_loop()
        await loop.sock_sendall(self._channel, HEADER.pack(len(request)))
        await loop.sock_sendall(self._channel, request)
        (length,) = HEADER.unpack(await self._receive(HEADER.size))
        return await self._receive(length)

    async def _receive(self, length: int) -> bytearray:
        data = bytearray()
        while len(data) < length:
            chunk = await asyncio.get_running_loop().sock_recv(self._channel, min(CHUNK, length - len(data)))
            if not chunk:
                raise EOFError
            data += chunk
        return data

    def _finish_output(self) -> None:
        for output in self._outputs:
            output.finish()

    def _hang_up(self) -> None:
        """Wake who waits for an answer, even if a process that escaped still holds the other end."""
        with contextlib.suppress(OSError):
            self._channel.shutdown(socket.SHUT_RDWR)


class LinePipe(OutputPipe):
    """What a worker process prints, as lines for whoever calls it at the moment."""

    def __init__(self, stream: str) -> None:
        self.on_line: OnLine | None = None
        self._stream = stream
        self._lines = Lines(self._emit)
        super().__init__(self._lines.feed)

    def finish(self) -> None:
        """Hand on what is left at the end of a call."""
        self.drain()
        self._lines.flush()
        self.on_line = None

    def _emit(self, line: str) -> None:
        if self.on_line:
            self.on_line(self._stream, line)


def opened(kind: str, content: Any, memory: int | None) -> Any:
    """The value of an answer; raises if it holds an error."""
    if kind == "value":
        return pickle.loads(content)
    if kind == "memory":
        raise WorkerCrashed(f"the process went over its memory limit of {memory} bytes")
    pickled, name, message, trace = content
    raise rebuilt(pickled, name, message) from RemoteTraceback(trace)


def rebuilt(pickled: bytes | None, name: str, message: str) -> Exception:
    """The exception itself where that is possible, else one that says what it was."""
    try:
        error = pickle.loads(pickled) if pickled else None
    except Exception:
        error = None
    return error if isinstance(error, Exception) else RuntimeError(f"{name}: {message}")


def obituary(code: int, memory: int | None, cpu_time: float | None) -> str:
    """How the process died, in words."""
    limits = f" (its memory limit was {memory} bytes)" if memory is not None else ""
    if code == OVER_MEMORY and memory is not None:
        return f"the process went over its memory limit of {memory} bytes"
    if code == -signal.SIGXCPU and cpu_time is not None:
        return f"the process used more than its CPU time of {cpu_time:g} s"
    if code >= 0:
        return f"the process ended with exit code {code}{limits}"
    return f"the process was killed by {signal.Signals(-code).name}{limits}"
