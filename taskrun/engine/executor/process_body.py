"""The body of a `thread` step: wraps a function in the worker process, so that it behaves there as a `run` step does.

`in_process` is called by the step bodies; a `Body` is sent to the process, whose messages bring `print`, `logging` and
`progress` back to the run. What children of the process print comes through its pipes.
"""

from __future__ import annotations

import asyncio
import inspect
import threading
from collections.abc import Awaitable, Callable
from contextvars import Context, copy_context
from functools import partial
from typing import Any

import cloudpickle
import msgspec

from taskrun.declarations.calls import Current, StepCall, caller
from taskrun.declarations.plain import PlainCaller
from taskrun.engine.executor.capture import Capture
from taskrun.engine.executor.child_output import MOST, drain
from taskrun.engine.executor.progress_values import ProgressValues
from taskrun.engine.executor.run_context import inside, sink
from taskrun.processes.output_lines import LONGEST
from taskrun.processes.pool import ProcessPool

PAUSE = 0.05  # seconds between two states of the progress
PROGRESS = "progress"  # among the names of streams
Tell = Callable[[object], None]


def process_pool(lock_fd: int | None) -> ProcessPool:
    """Makes the pool for `in_process`."""
    return ProcessPool(lock_fd, prepare=f"{__name__}:{prepare.__name__}")


def prepare() -> None:
    """Makes a new worker process ready, before it loads anything of the user's."""
    Capture.install(echo=False)


async def in_process(pool: ProcessPool, call: StepCall, key: str, grace: float) -> Any:
    """Executes the body of a `thread` step in a worker process; raises what it raises."""
    here, log, context = caller.get(), sink.get(), copy_context()
    assert call.fn is not None and here is not None and log is not None

    def on_told(message: tuple[str, Any]) -> bool:
        kind, content = message
        if kind == PROGRESS:
            context.run(here.progress, *content)
        else:
            log.write(kind, content, key)
        return log.full

    return await pool.call(
        Body(call.fn, portable(here.current), key),
        call.args,
        memory=call.memory,
        cpu_time=call.cpu_time,
        grace=grace,
        on_text=to_log(key),
        on_told=on_told,
    )


def to_log(key: str) -> Callable[[str, str], bool]:
    """Returns a function that takes output of a process for the caller's run, and returns whether that is enough for now."""
    log = sink.get()

    def on_text(stream: str, text: str) -> bool:
        if log is None:
            return False
        log.write(stream, text, key)
        return log.full

    return on_text


def portable(current: Current) -> bytes:
    """Returns what `current()` gives, pickled; an input that cannot be pickled as plain data."""
    try:
        pickled: bytes = cloudpickle.dumps(current)
    except Exception:
        pickled = cloudpickle.dumps(msgspec.structs.replace(current, input=msgspec.to_builtins(current.input)))
    return pickled


class Body:
    """A function on its way to a worker process."""

    def __init__(self, fn: Callable[..., Any], current: bytes, key: str) -> None:
        self._fn = fn
        self._current = current
        self._key = key

    def __call__(self, tell: Tell, *args: Any) -> Any:
        """Calls the function as a step."""
        Capture.install(echo=False)
        output = ProcessOutput(tell)
        sink.set(output)
        inside.set(self._key)
        caller.set(ProcessCaller(cloudpickle.loads(self._current), output))
        try:
            value = self._fn(*args)
            return asyncio.run(_awaited(value)) if inspect.isawaitable(value) else value
        finally:
            output.close()
            Capture.refresh()  # what it has configured does not outlive it


async def _awaited(value: Awaitable[Any]) -> Any:
    return await value


class ProcessCaller(PlainCaller):
    """A step in a worker process: calls in it are plain, as in the body of any step."""

    inside_step = True

    def __init__(self, current: Current, output: ProcessOutput) -> None:
        super().__init__(current)
        self._output = output

    def progress(self, done: object, total: object, note: object) -> None:
        """Tells the run's progress."""
        self._output.progress(done, total, note)


class ProcessOutput:
    """What a function in a worker process prints, logs and says of its progress, told to the run."""

    full = False

    def __init__(self, tell: Tell) -> None:
        self.closed = False
        self._tell = tell
        self._lock = threading.RLock()  # the garbage collector may print at any moment
        self._parts: dict[str, str] = {}  # of lines that are not ended
        self._values = ProgressValues(partial(self.write, "system"))
        self._newest: tuple[object, object, object] | None = None
        self._timer: threading.Timer | None = None

    def write(self, stream: str, text: str, step: str | None = None) -> None:
        """Tells text, line by line."""
        with self._lock:
            if self.closed:
                return
            text = self._parts.pop(stream, "") + text
            if "\n" in text or "\r" in text or len(text) > LONGEST:
                self._tell((stream, text))
            else:
                self._parts[stream] = text

    def progress(self, done: object, total: object, note: object) -> None:
        """Tells the newest progress in a moment; the ones before it are dropped."""
        self._newest = (done, total, note)
        if self._timer is None and not self.closed:
            self._timer = threading.Timer(PAUSE, self._tell_progress)
            self._timer.daemon = True
            Context().run(self._timer.start)

    def close(self) -> None:
        """Tells what is left."""
        for _ in range(MOST):
            drain(self)
        if self._timer is not None:
            self._timer.cancel()
        self._tell_progress()
        with self._lock:
            for stream, text in self._parts.items():
                self._tell((stream, text))
            self.closed = True

    def _tell_progress(self) -> None:
        with self._lock:
            self._timer = None
            newest, self._newest = self._newest, None
            shown = None if newest is None or self.closed else self._values.plain(*newest)
            if shown is not None:
                self._tell((PROGRESS, (shown["done"], shown["total"], shown["note"])))
