"""One attempt's log: whole lines with their numbers, and the progress, sent to the core in batches.

Fed by the captured `print` and `logging`, by `log`, and by processes, from any thread. What the handler's own code prints while
it replays was logged before, and is left out. What waits to be sent is bounded: a thread that prints faster has to wait; of what
a handler prints without letting the event loop turn, head and tail are kept.
"""

from __future__ import annotations

import asyncio
import contextlib
import sys
import threading
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import msgspec
from msgspec.structs import replace

from taskrun.engine import messages as m
from taskrun.engine.executor.backlog import Backlog, Pending, batches
from taskrun.engine.executor.child_output import MOST, drain
from taskrun.engine.executor.progress_values import ProgressValues
from taskrun.engine.executor.run_context import inside
from taskrun.model.clock import Clock
from taskrun.model.records import LogLine, Step
from taskrun.model.stored_text import storable
from taskrun.processes.output_lines import OutputLines

PAUSE = 0.05  # seconds between two batches
BATCH = 1_000_000  # characters of one message to the core
ROOM = 1_000_000  # characters that may wait to be sent before a thread that prints has to wait
PATIENCE = 2.0  # seconds that it waits: the event loop may itself be waiting for that thread
WORKS = 0.01  # of that time on the processor, and the loop only has much to do: no loop that waits needs as much
MORE = 15  # times as long is waited for a loop that works


class RunLog:
    """Lines and progress of one attempt.

    Parameters:
        seq: number of the last line that the run's log has.
        replaying: whether the handler is still where an earlier execution got to; None if there was none.
    """

    def __init__(
        self, run: str, seq: int, host: m.Peer, clock: Clock, replaying: Callable[[], bool] | None = None
    ) -> None:
        self.closed = False
        self._run = run
        self._seq = seq
        self._host = host
        self._clock = clock
        self._replaying = replaying
        self._repeats = replaying is not None  # the handler may be where it has been before
        self._loop = asyncio.get_running_loop()
        self._loop_thread = threading.get_ident()
        self._loop_clock = _thread_clock()
        self._lock = threading.RLock()  # the garbage collector may print at any moment, inside `write` too
        self._room: threading.Condition | None = None  # for threads that wait; made when the first has to
        self._outputs: dict[tuple[str, str | None], OutputLines] = {}  # streams with a line that is not ended
        self._followed: dict[str, Step] = {}  # commands that survive, as they began
        self._backlog: Backlog | None = None  # made for the first line: most runs print none
        self._progress: tuple[object, object, object] | None = None
        self._values: ProgressValues | None = None
        self._stuck = False  # a thread has waited in vain for the event loop
        self._due = False  # a batch will be sent soon
        self._hurried = False  # and at once

    def write(self, stream: str, text: str, step: str | None = None) -> None:
        """Takes text; what follows the last line break waits for the rest of its line. After the end nothing is taken."""
        step = step or inside.get() or None
        if step is None and self._repeats and self._logged_before():
            return
        with self._lock:
            if self.closed:
                return
            output = self._outputs.get((stream, step))
            if output is None:
                output = self._outputs[stream, step] = OutputLines()
            if output.goes_on(text):
                return
            lines = output.feed(text)
            if not output.open:
                del self._outputs[stream, step]
            if lines:
                now = self._clock.now()
                self._keep([Pending(now, stream, line, step) for line in lines])
            self._schedule()
            if self.full and threading.get_ident() != self._loop_thread:
                self._wait_for_room()

    def take(self, lines: list[Pending], step: Step) -> None:
        """Takes whole lines of a command that survives, each with how far its output goes."""
        with self._lock:
            if not self.closed:
                self._followed[step.key] = step
                self._keep(lines)
                self._schedule()

    @property
    def full(self) -> bool:
        """Whether whoever can wait should wait before writing more."""
        return self._size > ROOM

    def progress(self, done: object, total: object, note: object) -> None:
        """Takes the newest progress; the ones between two batches are dropped."""
        if self.closed or (self._repeats and not inside.get() and self._logged_before()):
            return
        self._progress = (done, total, note)
        if not self._due:
            with self._lock:
                self._schedule()

    def flush(self) -> None:
        """Sends what is there, also of children that print."""
        progress, self._progress = self._progress, None
        shown = None if progress is None else self._plain(*progress)
        self._send_lines()
        for _ in range(MOST):
            if not drain(self):
                break
            self._send_lines()
        if shown is not None:
            self._host.tell(m.Progressed(run=self._run, progress=msgspec.json.encode(shown).decode()))

    def close(self) -> None:
        """Sends what is there, half lines as well; nothing is taken afterwards."""
        self.flush()
        with self._lock:
            for (stream, step), output in self._outputs.items():
                now = self._clock.now()
                self._keep([Pending(now, stream, line, step) for line in output.finish()])
            self._outputs.clear()
            self.closed = True
        self._send_lines()
        self._values = None  # it refers to this log

    def _send_lines(self) -> None:
        if not (self._size or self._outputs or self._stuck):
            return  # a line that comes now is sent with the next
        with self._lock:
            self._stuck = False
            self._take_states()
            lines = [] if self._backlog is None else self._backlog.take()
            if self._room is not None:
                self._room.notify_all()
        for batch in batches(lines, BATCH):
            self._host.tell(m.Logged([self._line(line) for line in batch], self._cursors(batch)))

    # ---- lines

    def _cursors(self, batch: list[Pending]) -> list[Step]:
        """Returns the commands that survive, each with how far its output goes with these lines."""
        if not self._followed:
            return []
        cursors = {line.step: line.cursor for line in batch if line.cursor is not None}
        return [replace(self._followed[step], cursor=cursor) for step, cursor in cursors.items() if step is not None]

    @property
    def _size(self) -> int:
        return 0 if self._backlog is None else self._backlog.size

    def _keep(self, lines: list[Pending]) -> None:
        if self._backlog is None:
            self._backlog = Backlog()
        self._backlog.add(lines)

    def _plain(self, *progress: object) -> dict[str, Any] | None:
        if self._values is None:
            self._values = ProgressValues(partial(self.write, "system"))
        return self._values.plain(*progress)

    def _logged_before(self) -> bool:
        """Whether the handler is where an earlier execution got to; once it is beyond, it stays so."""
        self._repeats = self._replaying is not None and self._replaying()
        return self._repeats

    def _take_states(self) -> None:
        """Takes the states of lines that are written again and again; what is too soon comes with a later batch."""
        moment, now = self._loop.time(), self._clock.now()
        for (stream, step), output in self._outputs.items():
            if (state := output.state(moment)) is not None:
                self._keep([Pending(now, stream, state, step)])
            elif output.restless:
                self._schedule()

    def _line(self, line: Pending) -> LogLine:
        self._seq += 1
        text = storable(line.text)
        return LogLine(run=self._run, seq=self._seq, at=line.at, text=text, stream=line.stream, step=line.step)

    # ---- batches

    def _schedule(self) -> None:
        """Has the event loop send what there is: soon, or at once if it is much."""
        if not self._due:
            self._due = True
            self._on_loop(lambda: self._loop.call_later(PAUSE, self._send))
        if self.full and not self._hurried:
            self._hurried = True
            self._on_loop(lambda: self._loop.call_soon(self._send_now))

    def _send(self) -> None:
        self._due = False
        self.flush()

    def _send_now(self) -> None:
        self._hurried = False
        self.flush()

    def _on_loop(self, act: Callable[[], object]) -> None:
        if threading.get_ident() == self._loop_thread:
            act()
        else:
            with contextlib.suppress(RuntimeError):  # the loop is closed, so nobody reads this log
                self._loop.call_soon_threadsafe(act)

    def _wait_for_room(self) -> None:
        if self._stuck:
            return
        if self._room is None:
            self._room = threading.Condition(self._lock)
        for _ in range(MORE):
            worked = self._loop_worked()
            if self._room.wait_for(lambda: self.closed or not self.full, PATIENCE):
                return
            if self._loop_worked() - worked < PATIENCE * WORKS:
                break
        self._stuck = True

    def _loop_worked(self) -> float:
        """Returns for how many seconds the event loop's thread has had the processor; 0 where nobody knows."""
        try:
            return 0.0 if self._loop_clock is None else time.clock_gettime(self._loop_clock)
        except OSError:  # the thread is gone
            return 0.0


def _thread_clock() -> int | None:
    """Returns the clock of this thread's time on the processor, if there is one that other threads can read."""
    if sys.platform == "darwin":
        return None
    return time.pthread_getcpuclockid(threading.get_ident())
