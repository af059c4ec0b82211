"""The program of a process of the pool of `pool.py`: makes calls that come over a socket, one after the other.

Run as `python -P pool_program.py SOCKET SYS_PATH MODULES PREPARE`:

- SYS_PATH is the JSON of the parent's `sys.path`.
- MODULES is the JSON of modules of the standard library that it would hide.
- PREPARE names a function as `module:function`, called before the first call; it may be empty.

A call is the pickle of (payload, memory, cpu_time), a payload that of (fn, args, talks). What comes back are pickles of (kind,
content, reusable): any number of kind `told`, with what a function that talks has told; then one of kind `value` with the
pickled value, `error` with (pickled exception or None, record), or `memory`.
"""

from __future__ import annotations

import contextlib
import importlib
import importlib.util
import io
import json
import math
import os
import pickle
import resource
import signal
import socket
import struct
import sys
import threading
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

# The imports below may be found only on the parent's path, but what they import must not come from a project's folder.
if __name__ == "__main__":
    THEIRS = json.loads(sys.argv[2])
    sys.path += [entry for entry in THEIRS if entry not in sys.path]
    package = Path(__file__).parents[1]  # the parent's taskrun, whichever else is installed
    spec = importlib.util.spec_from_file_location("taskrun", package / "__init__.py")
    assert spec is not None and spec.loader is not None
    sys.modules["taskrun"] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(sys.modules["taskrun"])

import cloudpickle

from taskrun.model.codec import encode_error
from taskrun.model.errors import Fatal, RetryAfter

if __name__ == "__main__":
    for name in json.loads(sys.argv[3]):
        importlib.import_module(name)
    module, _, function = sys.argv[4].partition(":")
    if module:
        getattr(importlib.import_module(module), function)()
    sys.path[:] = THEIRS

HEADER = struct.Struct("!Q")
LOOK = 0.05  # seconds between two looks at the memory in use, where the kernel does not limit it
OVER_MEMORY = 66  # exit code of a process that ended itself for its memory


leaving = False  # the end was ordered


def main() -> None:
    """Answers until the parent closes the socket."""
    channel = Channel(socket.socket(fileno=int(sys.argv[1])))
    del sys.argv[1:]
    signal.signal(signal.SIGTERM, partial(leave, channel))
    streams = [stream for stream in (sys.stdout, sys.stderr) if isinstance(stream, io.TextIOWrapper)]
    for stream in streams:
        stream.reconfigure(encoding="utf-8", errors="backslashreplace", line_buffering=True)
    while (call := channel.receive()) is not None:
        channel.send(("begun", None, False))
        reply = answer(channel.tell, *pickle.loads(call))
        for stream in streams:
            with contextlib.suppress(ValueError, OSError):  # the call may have closed it
                stream.flush()
        channel.send(reply)


def leave(channel: Channel, *_: object) -> None:
    """Ends by an exception, so that `finally` blocks run; not in the middle of a frame."""
    global leaving
    leaving = True
    if not channel.sending:
        sys.exit(128 + signal.SIGTERM)


class Channel:
    """The socket to the parent."""

    def __init__(self, connection: socket.socket) -> None:
        self.sending = False  # by the main thread
        self._connection = connection
        self._connection.set_inheritable(False)
        self._lock = threading.Lock()

    def receive(self) -> bytearray | None:
        """Returns the next frame, None at the end."""
        header = self._connection.recv(HEADER.size, socket.MSG_WAITALL)
        if len(header) < HEADER.size:
            return None
        frame = bytearray(HEADER.unpack(header)[0])
        view = memoryview(frame)
        while view:
            count = self._connection.recv_into(view)
            if not count:
                return None
            view = view[count:]
        return frame

    def send(self, reply: tuple[str, Any, bool]) -> None:
        """Sends one frame, from any thread."""
        data = pickle.dumps(reply)
        main = threading.current_thread() is threading.main_thread()
        with self._lock:
            self.sending = main
            self._connection.sendall(HEADER.pack(len(data)))
            self._connection.sendall(data)
            self.sending = False
        if leaving and main:
            sys.exit(128 + signal.SIGTERM)

    def tell(self, message: object) -> None:
        """Tells the parent something in the middle of a call."""
        self.send(("told", message, False))


def answer(
    tell: Callable[[object], None], payload: bytes, memory: int | None, cpu_time: float | None
) -> tuple[str, Any, bool]:
    """Makes one call; returns the answer."""
    kind, content = outcome(tell, payload, memory, cpu_time)
    return kind, content, memory is None and cpu_time is None and quiet()


def outcome(
    tell: Callable[[object], None], payload: bytes, memory: int | None, cpu_time: float | None
) -> tuple[str, Any]:
    """Returns what came of the call: kind and content of the answer."""
    try:
        fn, args, talks = pickle.loads(payload)
        limit(memory, cpu_time)
        return "value", cloudpickle.dumps(fn(tell, *args) if talks else fn(*args))
    except BaseException as error:
        if leaving:
            raise
        lift_memory_limit()
        if isinstance(error, SystemExit) and error.code in (None, 0):
            return "value", pickle.dumps(None)
        if memory is not None and isinstance(error, MemoryError):
            return "memory", None
        return "error", (pickled(error), encode_error(error))


def pickled(error: BaseException) -> bytes | None:
    """Returns an exception for the parent, or else what steers its retries, if that can be pickled and read back."""
    for make in (lambda: error, lambda: steering(error)):
        try:
            data: bytes = cloudpickle.dumps(make())
            if isinstance(pickle.loads(data), Exception):
                return data
        except Exception:
            continue
    return None


def steering(error: BaseException) -> Exception | None:
    """Returns an error of our own that means the same to retries, None if it means nothing to them."""
    if isinstance(error, RetryAfter):
        return RetryAfter(error.delay, str(error))
    return Fatal(str(error)) if isinstance(error, Fatal) else None


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
    """Caps what this process may use from now on. CPU time counts in whole seconds, rounded up."""
    if memory is not None:
        limit_memory(memory)
    if cpu_time is not None:
        seconds = math.ceil(time.process_time() + cpu_time)
        lower(resource.RLIMIT_CPU, seconds, seconds + 2)


def limit_memory(memory: int) -> None:
    """Caps the address space at what is in use now and `memory` bytes more; on systems that ignore that, watches."""
    if sys.platform == "linux":
        pages = int(Path("/proc/self/statm").read_text().split()[0])
        lower(resource.RLIMIT_AS, pages * resource.getpagesize() + memory, None)
    else:
        threading.Thread(target=watch_memory, args=(peak() + memory,), daemon=True).start()


def lower(which: int, soft: int, hard: int | None) -> None:
    """Sets a limit, never above the one that holds already."""
    ceiling = resource.getrlimit(which)[1]
    hard = ceiling if hard is None else hard
    if ceiling != resource.RLIM_INFINITY:
        soft, hard = min(soft, ceiling), min(hard, ceiling)
    resource.setrlimit(which, (soft, hard))


def lift_memory_limit() -> None:
    """Makes room for the answer."""
    hard = resource.getrlimit(resource.RLIMIT_AS)[1]
    resource.setrlimit(resource.RLIMIT_AS, (hard, hard))


def watch_memory(most: int) -> None:
    """Ends the process when it has used more than `most` bytes."""
    while peak() < most:
        time.sleep(LOOK)
    os._exit(OVER_MEMORY)


def peak() -> int:
    """Returns the most memory that was in use so far, in bytes."""
    used = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return used if sys.platform == "darwin" else used * 1024


if __name__ == "__main__":
    main()
