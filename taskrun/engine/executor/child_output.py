"""What programs print that a handler or step starts by itself, by `subprocess` or by asyncio, lands in the run's log.

They would inherit the standard streams of the process, which in a worker belong to no run. So `Popen` gives them a pipe instead,
and a thread hands on what comes. What C code and forks print goes to the worker's own streams.
"""

from __future__ import annotations

import contextlib
import os
import select
import subprocess
import sys
import threading
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextvars import Context
from typing import Any

from taskrun.engine.executor.run_context import Sink, inside, target
from taskrun.processes.output import Decoder

CHUNK = 64 * 1024
MOST = 16  # chunks that a pipe holds
BUSY = 0.05  # seconds to wait at most for the thread that reads a pipe
_popen: Callable[..., None] = subprocess.Popen.__init__
_system = os.system
_pipes: defaultdict[Sink, set[ChildPipe]] = defaultdict(set)  # of children that may still print


def begin() -> None:
    """Begins to hand on."""
    subprocess.Popen.__init__ = popen_in_run  # type: ignore[method-assign]
    os.system = system_in_run  # type: ignore[assignment]


def end() -> None:
    """Captures no more new children; what the running ones print is still handed on."""
    if subprocess.Popen.__init__ is popen_in_run:
        subprocess.Popen.__init__ = _popen  # type: ignore[method-assign]
    if os.system is system_in_run:
        os.system = _system


def drain(log: Sink) -> bool:
    """Hands on the next of what the children of a run have printed; returns whether there was anything."""
    pipes = _pipes.get(log)
    return pipes is not None and sum(pipe.drain() for pipe in tuple(pipes)) > 0


def popen_in_run(
    self: subprocess.Popen[Any],
    args: Any,
    bufsize: int = -1,
    executable: Any = None,
    stdin: Any = None,
    stdout: Any = None,
    stderr: Any = None,
    *rest: Any,
    **options: Any,
) -> None:
    """Starts a program. One that would inherit the standard streams of a worker prints to the log of the run."""
    log = target()
    with contextlib.ExitStack() as stack:
        if log is not None and (stdout is None or stdout is sys.stdout):
            stdout = stack.enter_context(_piped(log, "stdout"))
        if log is not None and (stderr is None or stderr is sys.stderr):
            stderr = stack.enter_context(_piped(log, "stderr"))
        _popen(self, args, bufsize, executable, stdin, stdout, stderr, *rest, **options)


def system_in_run(command: str | bytes) -> int:
    """Does what `os.system` does, by `Popen` inside of runs."""
    if target() is None:
        return _system(command)
    code = subprocess.Popen(command, shell=True).wait()
    return code << 8 if code >= 0 else -code


@contextlib.contextmanager
def _piped(log: Sink, stream: str) -> Iterator[int]:
    """Gives the write end of a pipe to a child that is started meanwhile."""
    read, write = os.pipe()
    try:
        yield write
    except BaseException:
        os.close(read)
        raise
    finally:
        os.close(write)
    pipe = ChildPipe(log, stream, read)
    Context().run(threading.Thread(target=pipe.follow, name="taskrun-child-output", daemon=True).start)


class ChildPipe:
    """The read end of a pipe that a child prints into."""

    def __init__(self, log: Sink, stream: str, fd: int) -> None:
        self._log = log
        self._stream = stream
        self._step = inside.get() or None
        self._fd = fd
        self._ended = False
        self._lock = threading.Lock()
        self._decoder = Decoder(self._emit)
        os.set_blocking(fd, False)
        _pipes[log].add(self)

    def follow(self) -> None:
        """Reads to the end, no faster than the log takes it."""
        ready = select.poll()
        ready.register(self._fd, select.POLLIN)
        while not self._ended:
            ready.poll()
            with self._lock:
                self._read()

    def drain(self) -> bool:
        """Hands on a chunk, unless the thread is busy reading."""
        if not self._lock.acquire(timeout=BUSY):
            return False
        try:
            return self._read()
        finally:
            self._lock.release()

    def _read(self) -> bool:
        """Hands on a chunk, if there is one."""
        if self._ended:
            return False
        try:
            data = os.read(self._fd, CHUNK)
        except BlockingIOError:
            return False
        if data:
            self._decoder.feed(data)
        else:
            self._end()
        return bool(data)

    def _end(self) -> None:
        self._ended = True
        self._decoder.finish()
        os.close(self._fd)
        _pipes[self._log].discard(self)
        if not _pipes[self._log]:
            _pipes.pop(self._log, None)

    def _emit(self, text: str) -> None:
        if self._log.closed:  # the child outlives its run
            with contextlib.suppress(OSError):
                os.write(1, text.encode())
        else:
            self._log.write(self._stream, text, self._step)
