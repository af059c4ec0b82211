"""Reports the code that blocks a worker's event loop, from a thread that the loop cannot block.

The loop sets a timestamp again and again. When it is late, the stack of the loop's thread is looked at.
"""

from __future__ import annotations

import asyncio
import sys
import threading
import time
from collections.abc import Callable
from contextvars import Context
from pathlib import Path
from types import FrameType

from taskrun.declarations.calls import caller
from taskrun.engine.messages import Blocked

BEAT = 0.5  # seconds between two timestamps, and between two checks
LATE = 1.0  # seconds beyond that

Report = Callable[[Blocked], None]


class LoopWatch:
    """Watches the event loop of the thread that creates it.

    Parameters:
        root: the project's folder; the innermost frame in there is named.
        report: called from the watching thread when the loop is blocked, blocked elsewhere, or free again.
        each_time: called there at every check; returns after how many seconds the next one is to come, at the latest.
    """

    def __init__(self, root: Path, report: Report, each_time: Callable[[], float]) -> None:
        self._root = str(root)
        self._report = report
        self._each_time = each_time
        self._loop = asyncio.get_running_loop()
        self._thread = threading.get_ident()
        self._blocked: Blocked | None = None
        self._stop = threading.Event()
        self._beat()
        threading.Thread(target=self._watch, name="taskrun-loop-watch", daemon=True).start()

    def close(self) -> None:
        """Ends the watch."""
        self._stop.set()
        self._beating.cancel()

    def _beat(self) -> None:
        self._last = time.monotonic()
        self._beating = self._loop.call_later(BEAT, self._beat)

    def _watch(self) -> None:
        pause = BEAT
        while not self._stop.wait(pause):
            pause = min(BEAT, self._each_time())
            found = self._look() if time.monotonic() - self._last > LATE + BEAT else None
            if found == self._blocked:
                continue
            if self._blocked is not None and (found is None or found.run != self._blocked.run):
                self._report(Blocked(run=self._blocked.run, where=""))
            if found is not None:
                self._report(found)
            self._blocked = found

    def _look(self) -> Blocked | None:
        frame = sys._current_frames().get(self._thread)
        return None if frame is None else Blocked(run=run_of(frame), where=where(frame, self._root))


def where(frame: FrameType, root: str) -> str:
    """Returns `file:line in function` of the innermost frame of the project, or of the innermost one of all."""
    stack = list(_outward(frame))
    ours = next((f for f in stack if f.f_code.co_filename.startswith(root)), stack[0])
    return f"{ours.f_code.co_filename}:{ours.f_lineno} in {ours.f_code.co_qualname}"


def run_of(frame: FrameType) -> str:
    """Returns the run whose code the loop's thread executes, by the context of the loop's current callback."""
    for outer in _outward(frame):
        handle = outer.f_locals.get("self") if outer.f_code.co_name == "_run" else None
        context = getattr(handle, "_context", None)
        if isinstance(handle, asyncio.Handle) and isinstance(context, Context):
            attempt = context.get(caller)
            return "" if attempt is None else attempt.current.run_id
    return ""


def _outward(frame: FrameType | None) -> list[FrameType]:
    stack: list[FrameType] = []
    while frame is not None:
        stack.append(frame)
        frame = frame.f_back
    return stack
