"""Puts lines of a log and ended steps, which come on two streams, into the order of time."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from typing import Any

from taskrun.cli import times

HELD = 0.15  # seconds that an item waits for an earlier one on the other stream


class TimeOrder:
    """Passes on log records and ended steps, each held until an earlier one of the other stream has had time to come.

    Parameters:
        line: called with each log record.
        step: called with each step that has ended.
    """

    def __init__(self, line: Callable[[dict[str, Any]], None], step: Callable[[dict[str, Any]], None]) -> None:
        self._line = line
        self._step = step
        self._lines: deque[tuple[float, dict[str, Any]]] = deque()  # as they came, which is the order of each log
        self._steps: list[tuple[float, dict[str, Any]]] = []  # in the order of their ends
        self._told: set[tuple[str, str, str]] = set()
        self._came = asyncio.Event()

    def add_line(self, record: dict[str, Any]) -> None:
        """Takes a log record."""
        self._lines.append((asyncio.get_running_loop().time(), record))
        self._came.set()

    def add_steps(self, message: dict[str, Any]) -> None:
        """Takes the steps that have ended from a message of a `watch` stream, each of their ends once."""
        for step in [message["step"]] if message["kind"] == "step" else message.get("run", {}).get("steps") or ():
            end = step["run"], step["key"], step["ended_at"]  # the next attempt may do it again
            if step["status"] == "running" or step["kind"] == "value" or end in self._told:
                continue
            self._told.add(end)
            self._steps.append((asyncio.get_running_loop().time(), step))
            self._came.set()
        self._steps.sort(key=lambda item: _ended(item[1]))

    async def pass_on(self) -> None:
        """Passes items on as they become due, until cancelled."""
        while True:
            await self._came.wait()
            await asyncio.sleep(HELD / 3)
            self.flush(before=asyncio.get_running_loop().time() - HELD)
            if not self._lines and not self._steps:
                self._came.clear()

    def flush(self, before: float = float("inf")) -> None:
        """Passes on what came before a moment of the event loop's clock, by default everything."""
        while self._lines or self._steps:
            if self._steps and self._step_is_next():
                if self._steps[0][0] > before:
                    return
                self._step(self._steps.pop(0)[1])
            else:
                if self._lines[0][0] > before:
                    return
                self._line(self._lines.popleft()[1])

    def _step_is_next(self) -> bool:
        """Whether the first step ended before the first line was written. A step's own lines precede its end."""
        step = self._steps[0][1]
        end = _ended(step)
        if not self._lines or end < (first := _written(self._lines[0][1])):
            return True
        return end == first and not any(_is_of(record, step) for _, record in self._lines if _written(record) == end)


def _written(record: dict[str, Any]) -> float:
    return times.moment(record["at"]) or 0.0


def _ended(step: dict[str, Any]) -> float:
    return times.moment(step["ended_at"]) or 0.0


def _is_of(record: dict[str, Any], step: dict[str, Any]) -> bool:
    return bool(record["step"] == step["key"] and record["run"] == step["run"])
