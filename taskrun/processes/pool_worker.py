"""The program of a worker process of `pool.py`: answers calls that come over a socket, one after the other.

Run as `python -P pool_worker.py SOCKET SYS_PATH`, where SYS_PATH is the JSON of the parent's `sys.path`. A call is the
pickle of (payload, memory, cpu_time), a payload that of (fn, args). The answer is the pickle of (kind, content,
reusable): kind `value` with the pickled value; `error` with (pickled exception or None, type, message, traceback);
`memory`.
"""

from __future__ import annotations

import json
import sys

if __name__ == "__main__":
    sys.path[:] = json.loads(sys.argv[2])  # before the other imports: they may come from there

import asyncio
import inspect
import io
import math
import os
import pickle
import resource
import signal
import socket
import struct
import threading
import time
import traceback
from pathlib import Path
from typing import Any, NoReturn

import cloudpickle

HEADER = struct.Struct("!Q")
LOOK = 0.05  # seconds between two looks at the memory in use, where the kernel does not limit it
OVER_MEMORY = 66  # exit code of a process that ended itself for its memory


def main() -> None:
    """Answer until the parent closes the socket."""
    channel = socket.socket(fileno=int(sys.argv[1]))
    channel.set_inheritable(False)
    del sys.argv[1:]
    signal.signal(signal.SIGTERM, leave)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(encoding="utf-8", errors="backslashreplace", line_buffering=True)
    while (call := receive(channel)) is not None:
        reply = answer(*pickle.loads(call))
        sys.stdout.flush()
        sys.stderr.flush()
        channel.sendall(HEADER.pack(len(reply)))
        channel.sendall(reply)


def leave(*_: object) -> NoReturn:
    """End by an exception, so that `finally` blocks run."""
    sys.exit(128 + signal.SIGTERM)


def receive(channel: socket.socket) -> bytearray | None:
    """The next frame, None at the end."""
    header = channel.recv(HEADER.size, socket.MSG_WAITALL)
    if len(header) < HEADER.size:
        return None
    frame = bytearray(HEADER.unpack(header)[0])
    view = memoryview(frame)
    while view:
        count = channel.recv_into(view)
        if not count:
            return None
        view = view[count:]
    return frame


def answer(payload: bytes, memory: int | None, cpu_time: float | None) -> bytes:
    """Make one call. Only an `Exception` is an answer: what else `fn` raises ends the process."""
    kind, content = outcome(payload, memory, cpu_time)
    reusable = memory is None and cpu_time is None and quiet()
    return pickle.dumps((kind, content, reusable))


def outcome(payload: bytes, memory: int | None, cpu_time: float | None) -> tuple[str, Any]:
    """What the call came to: kind and content of the answer."""
    try:
        fn, args = pickle.loads(payload)
        limit(memory, cpu_time)
        value = fn(*args)
        if inspect.isawaitable(value):
            value = asyncio.run(finish(value))
        return "value", cloudpickle.dumps(value)
    except SystemExit:
        raise  # the end of this process, as `leave` wants it
    except BaseException as error:
        lift_memory_limit()
        if memory is not None and isinstance(error, MemoryError):
            return "memory", None
        return "error", described(error)


async def finish(awaitable: Any) -> Any:
    """The result of what an async `fn` returned."""
    return await awaitable


def described(error: BaseException) -> tuple[bytes | None, str, str, str]:
    """An exception for the parent: pickled where that works, and as text."""
    trace = error.__traceback__.tb_next if error.__traceback__ else None  # without the frame of this file
    lines = traceback.format_exception(type(error), error, trace)
    try:
        pickled = cloudpickle.dumps(error) if isinstance(error, Exception) else None
    except Exception:
        pickled = None
    return pickled, type(error).__qualname__, text(error), "".join(lines)


def text(error: BaseException) -> str:
    """What an exception says, if it can be had."""
    try:
        return str(error)
    except Exception as fault:
        return f"(its text cannot be had: {type(fault).__name__})"


def quiet() -> bool:
    """Whether the call left nothing running that would go on beside the next one."""
    threads = any(not thread.daemon for thread in threading.enumerate() if thread is not threading.main_thread())
    return not threads and not has_children()


def has_children() -> bool:
    try:
        os.waitpid(-1, os.WNOHANG)
    except ChildProcessError:
        return False
    return True


# ---- limits


def limit(memory: int | None, cpu_time: float | None) -> None:
    """Cap what this process may use from now on. CPU time counts in whole seconds, rounded up."""
    if memory is not None:
        limit_memory(memory)
    if cpu_time is not None:
        seconds = math.ceil(time.process_time() + cpu_time)
        lower(resource.RLIMIT_CPU, seconds, seconds + 2)


def limit_memory(memory: int) -> None:
    """Cap the address space at what is in use now and `memory` bytes more; where that means nothing, watch."""
    if sys.platform == "linux":
        pages = int(Path("/proc/self/statm").read_text().split()[0])
        lower(resource.RLIMIT_AS, pages * resource.getpagesize() + memory, None)
    else:
        threading.Thread(target=watch_memory, args=(peak() + memory,), daemon=True).start()


def lower(which: int, soft: int, hard: int | None) -> None:
    """Set a limit, never above the one that holds already."""
    ceiling = resource.getrlimit(which)[1]
    hard = ceiling if hard is None else hard
    if ceiling != resource.RLIM_INFINITY:
        soft, hard = min(soft, ceiling), min(hard, ceiling)
    resource.setrlimit(which, (soft, hard))


def lift_memory_limit() -> None:
    """Room for the answer."""
    hard = resource.getrlimit(resource.RLIMIT_AS)[1]
    resource.setrlimit(resource.RLIMIT_AS, (hard, hard))


def watch_memory(most: int) -> None:
    """End the process when it has used more than `most` bytes."""
    while peak() < most:
        time.sleep(LOOK)
    os._exit(OVER_MEMORY)


def peak() -> int:
    """The most memory that was in use so far, in bytes."""
    used = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return used if sys.platform == "darwin" else used * 1024


if __name__ == "__main__":
    main()
