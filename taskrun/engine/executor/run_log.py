"""One attempt's log: whole lines with their numbers, and the progress, sent to the core in batches.

Fed by the captured `print` and `logging`, by `log`, and by processes, from any thread. What the handler's own code says while
it replays was said before, and is left out.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable

import msgspec

from taskrun.engine import messages as m
from taskrun.engine.executor.inside import inside
from taskrun.model.clock import Clock
from taskrun.model.records import LogLine

PAUSE = 0.05  # seconds between two batches
LONGEST = 64 * 1024  # characters of a line; a longer one is cut into pieces


class Transcript:
    """Lines and progress of one attempt."""

    def __init__(self, run: str, seq: int, host: m.Peer, clock: Clock, replaying: Callable[[], bool]) -> None:
        self._run = run
        self._seq = seq
        self._host = host
        self._clock = clock
        self._replaying = replaying
        self._loop = asyncio.get_running_loop()
        self._lock = threading.Lock()
        self._partial: dict[tuple[str, str | None], str] = {}
        self._lines: list[tuple[float, str, str, str | None]] = []
        self._progress: tuple[float, float | None, str] | None = None
        self._due = False

    def write(self, stream: str, text: str, step: str | None = None) -> None:
        """Takes text; what follows the last line break waits for the rest of its line."""
        step = step or inside.get()
        if step is None and self._replaying():
            return
        with self._lock:
            whole = self._partial.pop((stream, step), "") + text
            *lines, rest = whole.split("\n")
            while len(rest) > LONGEST:
                lines.append(rest[:LONGEST])
                rest = rest[LONGEST:]
            if rest:
                self._partial[stream, step] = rest
            now = self._clock.now()
            self._lines += [(now, stream, line.removesuffix("\r"), step) for line in lines]
            self._schedule()

    def progress(self, done: float, total: float | None, note: str) -> None:
        """Takes the newest progress; the ones between two batches are dropped."""
        self._progress = (done, total, note)
        if not self._due:
            with self._lock:
                self._schedule()

    def flush(self) -> None:
        """Sends what is there."""
        with self._lock:
            lines, self._lines = self._lines, []
            progress, self._progress = self._progress, None
            self._due = False
        if lines:
            self._host.tell(m.Logged([self._line(*line) for line in lines]))
        if progress is not None:
            done, total, note = progress
            text = msgspec.json.encode({"done": done, "total": total, "note": note}).decode()
            self._host.tell(m.Progressed(run=self._run, progress=text))

    def close(self) -> None:
        """Sends what is there, half lines as well."""
        with self._lock:
            now = self._clock.now()
            self._lines += [(now, stream, text, step) for (stream, step), text in self._partial.items()]
            self._partial.clear()
        self.flush()

    def _line(self, at: float, stream: str, text: str, step: str | None) -> LogLine:
        self._seq += 1
        clean = text.encode("utf-8", "replace").decode()
        return LogLine(run=self._run, seq=self._seq, at=at, text=clean, stream=stream, step=step)

    def _schedule(self) -> None:
        if self._due:
            return
        self._due = True
        try:
            running = asyncio.get_running_loop()
        except RuntimeError:
            running = None
        if running is self._loop:
            self._loop.call_later(PAUSE, self.flush)
        else:
            self._loop.call_soon_threadsafe(self._loop.call_later, PAUSE, self.flush)
