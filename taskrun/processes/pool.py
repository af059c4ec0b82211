"""Runs the functions of `thread` steps in processes that can be killed. The executor owns one pool.

Why not a library: pebble (5.2) and loky (3.7) were read. pebble kills a running task, but only its process, not what
that started; a process that spins in C code outlives a killed parent; no closures, no limits, and its processes share a
channel. loky takes closures, but kills the whole pool to stop one task. So: own processes, each under the supervisor that
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
import sysconfig
from collections.abc import Callable, Sequence
from contextvars import Context
from pathlib import Path
from types import ModuleType
from typing import Any

import cloudpickle

from taskrun.model.codec import RecordedError
from taskrun.model.durations import human_size
from taskrun.model.errors import WorkerCrashed, signal_name
from taskrun.processes.output import REST, Decoder, OutputPipe
from taskrun.processes.process import Process

CHILD = Path(__file__).with_name("pool_program.py")
HEADER = struct.Struct("!Q")
OVER_MEMORY = 66  # as in pool_program.py, which shares no imports with the engine
CHUNK = 1024 * 1024
MOST_PER_CPU = 16  # processes at once; further calls wait. A thousand steps must not mean a thousand interpreters
SOON = 1.0  # the longest grace of a killed call
OnText = Callable[[str, str], bool | None]  # stream and text; whether that is enough for now
OnTold = Callable[[Any], bool | None]
Reply = tuple[str, Any, bool]  # kind, content, and whether the process can be used again


def register_by_value(module: ModuleType) -> None:
    """Sends the functions of `module` along whole, because a process of the pool could not import it by name."""
    cloudpickle.register_pickle_by_value(module)


class ProcessPool:
    """PoolProcess processes, started when needed, kept warm between calls. Belongs to the running event loop.

    Parameters:
        lock_fd: the engine's liveness lock, if it has one; held by the supervisors.
        most: how many processes at once; further calls wait.
        prepare: `module:function`, called in each process before it loads anything for a call.
    """

    def __init__(self, lock_fd: int | None = None, most: int | None = None, prepare: str = "") -> None:
        cpus = os.cpu_count() or 1
        self._lock_fd = lock_fd
        self._prepare = prepare
        self._warm = cpus
        self._places = asyncio.Semaphore(most or cpus * MOST_PER_CPU)
        self._processes: set[PoolProcess] = set()
        self._idle: list[PoolProcess] = []
        self._closed = False

    async def call(
        self,
        fn: Callable[..., Any],
        args: Sequence[Any] = (),
        *,
        memory: int | None = None,
        cpu_time: float | None = None,
        grace: float,
        on_text: OnText,
        on_told: OnTold | None = None,
    ) -> Any:
        """Returns `fn(*args)`, computed in a process of the pool.

        A cancel kills the process: TERM, then KILL after `grace`, but at most a second.

        Parameters:
            memory: bytes beyond what the process has already, of address space on Linux, resident elsewhere.
            cpu_time: seconds of CPU, rounded up to whole ones.
            on_text: gets what the process and its children print, as stream and text.
            on_told: gets what `fn` tells: its first argument is then a function that sends a message to it.
        Raises:
            WorkerCrashed: the process died, or went over a limit.
            RecordedError: what `fn` raised, where that cannot be rebuilt; else it is the cause.
            Exception: whatever `fn` raised.
        """
        payload = cloudpickle.dumps((fn, tuple(args), on_told is not None))
        request = pickle.dumps((payload, memory, cpu_time))
        async with self._places:
            reply: Reply | None = None
            while reply is None:
                process = self._take()
                try:
                    reply = await process.ask(request, on_text, on_told)
                except asyncio.CancelledError:
                    await self._drop(process, min(grace, SOON))
                    raise
                except Died as death:
                    await self._drop(process, 0)
                    if (
                        process.begun or not process.answers
                    ):  # else it died while it was idle, and that was not known yet
                        raise WorkerCrashed(cause_of_death(death.code, memory, cpu_time)) from None
            kind, content, reusable = reply
            await self._put_back(process, reusable)
        return opened(kind, content, memory)

    async def close(self) -> None:
        """Kills all processes; calls in flight raise WorkerCrashed."""
        self._closed = True
        while self._idle:
            await self._drop(self._idle.pop(), 0)
        for process in list(self._processes):  # busy ones: their calls clean up
            await process.kill(0)

    def _take(self) -> PoolProcess:
        if self._closed:
            raise RuntimeError("the pool is closed")
        while self._idle:
            process = self._idle.pop()
            if process.alive:
                return process
            process.close()
            self._processes.discard(process)
        process = Context().run(
            PoolProcess, self._lock_fd, self._prepare
        )  # it outlives the run that happens to start it
        self._processes.add(process)
        return process

    async def _put_back(self, process: PoolProcess, reusable: bool) -> None:
        if reusable and not self._closed and len(self._idle) < self._warm:
            self._idle.append(process)
        else:
            await self._drop(process, 0)

    async def _drop(self, process: PoolProcess, grace: float) -> None:
        try:
            await process.kill(grace)
        finally:
            process.close()
            self._processes.discard(process)


class Died(Exception):
    """The process ended instead of answering."""

    def __init__(self, code: int) -> None:
        super().__init__(code)
        self.code = code


class PoolProcess:
    """One process of a pool, its socket, and the pipes of what it prints."""

    def __init__(self, lock_fd: int | None, prepare: str) -> None:
        self._loop = asyncio.get_running_loop()
        self._received = bytearray()
        self._reply: asyncio.Future[Reply] | None = None
        self._on_told: OnTold | None = None
        self.answers = 0
        self.begun = False  # it has the whole of a request, and executes it
        self._rest: asyncio.TimerHandle | None = None
        with contextlib.ExitStack() as stack:
            self._channel, theirs = socket.socketpair()
            stack.callback(self._channel.close)
            self._outputs = [stack.enter_context(TextPipe(stream)) for stream in ("stdout", "stderr")]
            with theirs, Path(os.devnull).open("rb") as nothing:
                self._process = Process.start(
                    [
                        *(sys.executable, "-P", str(CHILD), str(theirs.fileno())),
                        *(json.dumps([str(entry) for entry in sys.path]), json.dumps(hidden()), prepare),
                    ],
                    stdio=(nothing.fileno(), self._outputs[0].write_fd, self._outputs[1].write_fd),
                    inherit=[theirs.fileno()],
                    lock_fd=lock_fd,
                )
            self._open = stack.pop_all()
        for output in self._outputs:
            output.release()
        self._channel.setblocking(False)
        self._loop.add_reader(self._channel, self._read)
        self._process.ended.add_done_callback(lambda _: self._hang_up())

    @property
    def alive(self) -> bool:
        """Whether it can be asked."""
        return self._process.poll()

    async def ask(self, request: bytes, on_text: OnText, on_told: OnTold | None) -> Reply:
        """Sends a request, hands on what is printed and told until the answer comes, and returns that.

        Raises:
            Died: the process ended instead.
        """
        for output in self._outputs:
            output.on_text = on_text
        self._on_told = on_told
        self._reply, self.begun = self._loop.create_future(), False
        try:
            await self._loop.sock_sendall(self._channel, HEADER.pack(len(request)))
            await self._loop.sock_sendall(self._channel, request)
            reply = await self._reply
        except (OSError, EOFError):
            raise Died(await self._process.wait()) from None
        self._finish_output()
        self.answers += 1
        return reply

    async def kill(self, grace: float) -> None:
        """Kills it and whatever it started."""
        await self._process.end(grace)

    def close(self) -> None:
        """Closes what is open here, once the process is dead and no call uses it."""
        self._finish_output()
        if self._rest is not None:
            self._rest.cancel()
        self._loop.remove_reader(self._channel)
        self._open.close()

    def _read(self) -> None:
        """Takes what has come; when whoever gets it has enough for now, the process has to wait."""
        try:
            data = self._channel.recv(CHUNK)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if not data:
            self._loop.remove_reader(self._channel)
            self._settle(EOFError())
        elif self._take(data):
            self._loop.remove_reader(self._channel)
            self._rest = self._loop.call_later(REST, self._loop.add_reader, self._channel, self._read)

    def _take(self, data: bytes) -> bool:
        """Cuts what has come into frames; returns whether that is enough for now."""
        self._received += data
        enough = False
        at = 0
        while len(self._received) - at >= HEADER.size:
            (length,) = HEADER.unpack_from(self._received, at)
            end = at + HEADER.size + length
            if len(self._received) < end:
                break
            enough |= self._hear(pickle.loads(memoryview(self._received)[at + HEADER.size : end]))
            at = end
        del self._received[:at]
        return enough

    def _hear(self, frame: Reply) -> bool:
        kind, content, _ = frame
        if kind == "begun":
            self.begun = True
            return False
        if kind == "told":
            return self._on_told is not None and bool(self._on_told(content))
        self._settle(frame)
        return False

    def _settle(self, outcome: Reply | EOFError) -> None:
        if self._reply is None or self._reply.done():
            return
        if isinstance(outcome, EOFError):
            self._reply.set_exception(outcome)
        else:
            self._reply.set_result(outcome)

    def _finish_output(self) -> None:
        for output in self._outputs:
            output.finish()
        self._on_told = None

    def _hang_up(self) -> None:
        """Wakes whoever waits for an answer, even if a process that escaped still holds the other end."""
        with contextlib.suppress(OSError):
            self._channel.shutdown(socket.SHUT_RDWR)


class TextPipe(OutputPipe):
    """What a process of the pool prints, for whoever calls it at the moment."""

    def __init__(self, stream: str) -> None:
        self.on_text: OnText | None = None
        self._stream = stream
        self._decoder = Decoder(self._emit)
        super().__init__(self._decoder.feed)

    def finish(self) -> None:
        """Hands on what is left at the end of a call."""
        self.drain()
        self._decoder.finish()
        self.on_text = None

    def _emit(self, text: str) -> bool | None:
        return self.on_text(self._stream, text) if self.on_text else None


def hidden() -> list[str]:
    """Returns modules of the standard library that are loaded here, though a file on `sys.path` has the same name.

    What is imported as `queue` must be the same in the process as it is here.
    """
    library = sysconfig.get_path("stdlib")
    names = {
        file.stem
        for entry in map(Path, sys.path)
        if str(entry) != library and entry.is_dir()
        for file in entry.iterdir()
        if file.stem in sys.stdlib_module_names
    }
    return [name for name in sorted(names) if name in sys.modules and of_library(sys.modules[name], library)]


def of_library(module: ModuleType, library: str) -> bool:
    file = getattr(module, "__file__", None)
    return file is None or (file.startswith(library) and "-packages" not in file)


def opened(kind: str, content: Any, memory: int | None) -> Any:
    """Returns the value of an answer; raises the error that it holds instead."""
    if kind == "value":
        return pickle.loads(content)
    if kind == "memory":
        raise WorkerCrashed(f"the process went over its memory limit of {human_size(memory or 0)}")
    pickled, record = content
    error = rebuilt(pickled)
    if error is None:
        raise RecordedError(record)
    raise error from RecordedError(record, error)


def rebuilt(pickled: bytes | None) -> Exception | None:
    """Returns the exception itself, if it can be unpickled here."""
    try:
        error = pickle.loads(pickled) if pickled else None
    except Exception:
        return None
    return error if isinstance(error, Exception) else None


def cause_of_death(code: int, memory: int | None, cpu_time: float | None) -> str:
    """Returns how the process died, for a message."""
    limits = f" (its memory limit was {human_size(memory)})" if memory is not None else ""
    if code == OVER_MEMORY and memory is not None:
        return f"the process went over its memory limit of {human_size(memory)}"
    if code == -signal.SIGXCPU and cpu_time is not None:
        return f"the process used more than its CPU time of {cpu_time:g} s"
    if code >= 0:
        return f"the process ended with exit code {code}{limits}"
    return f"the process was killed by {signal_name(-code)}{limits}"
