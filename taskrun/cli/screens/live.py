"""Live screens: a snapshot that changes are applied to, and a frame that stays at the bottom of the screen.

`Sticky` draws with a few control sequences itself. `rich.live` does not take into account that a screen which was made narrower
wraps what was drawn before, and needs a thread. The last frame stays in the scrollback.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from typing import Any

from msgspec.structs import replace

from taskrun.cli.lazy_imports import Text, cell_len
from taskrun.cli.screens.look import Look, clipped, printed, stacked

HIDE, SHOW = "\x1b[?25l", "\x1b[?25h"
ENTER, LEAVE = "\x1b[?1049h", "\x1b[?1049l"  # the alternate screen, which has no scrollback
HOME = "\x1b[H"
BEGIN, END = "\x1b[?2026h", "\x1b[?2026l"  # draws a frame in one go, where the terminal supports that
REST_OF_LINE, REST_OF_SCREEN = "\x1b[K", "\x1b[J"
FRAME = 0.1  # seconds between frames
SHARE = 80  # times as long as a frame has kept the CPU busy is the pause after it
NEWEST = 200  # steps of a run that are kept
_OF_STEPS = ("step", "steps_ended", "steps_under_way")  # what a change of a run does not tell
SPARE = 100  # runs beyond those to be kept after which some are forgotten


def pause_after(begun: float) -> float:
    """Returns how many seconds to wait for the next frame: more where there is much to draw.

    Parameters:
        begun: `time.thread_time()` when the last one was begun.
    """
    return max(FRAME, SHARE * (time.thread_time() - begun))


@asynccontextmanager
async def drawing(tick: Coroutine[Any, Any, None]) -> AsyncIterator[None]:
    """Has frames drawn meanwhile. A fault in one ends the screen, instead of leaving it as it was for ever."""
    try:
        async with asyncio.TaskGroup() as group:
            frames = group.create_task(tick)
            try:
                yield
            finally:
                frames.cancel()
    except BaseExceptionGroup as errors:  # of a frame, or of what was done meanwhile
        raise errors.exceptions[0] from None


class Snapshot:
    """Runs as of the last change, and the newest steps of each.

    Parameters:
        most: ended runs that are kept, None for all.
    """

    def __init__(self, most: int | None = None) -> None:
        self.runs: dict[str, dict[str, Any]] = {}
        self.steps: dict[str, dict[str, dict[str, Any]]] = {}
        self._most = most

    def fold(self, change: dict[str, Any]) -> None:
        """Takes one message of a `watch` stream."""
        if change["kind"] == "run":
            self._run(change["run"])
        elif change["kind"] == "step":
            self._step(change["step"])

    def _run(self, run: dict[str, Any]) -> None:
        before = self.runs.get(run["id"]) or dict.fromkeys(_OF_STEPS)
        told = {name: item for name, item in run.items() if item is not None or name not in _OF_STEPS}
        self.runs[run["id"]] = {**before, **told}
        if "steps" in run:
            self.steps[run["id"]] = {step["key"]: step for step in run["steps"]}
        if self._most is not None and len(self.runs) > 2 * self._most + SPARE:
            self._forget(self._most)

    def _step(self, step: dict[str, Any]) -> None:
        steps = self.steps.setdefault(step["run"], {})
        run = self.runs.get(step["run"])
        known = [one for one in [steps.get(step["key"]), run and run.get("step")] if one and one["key"] == step["key"]]
        before = known[0] if known else None  # the run may have come with the step that it is at, and count it
        steps[step["key"]] = step
        if run is not None:
            ended = (step["status"] != "running") - (before is not None and before["status"] != "running")
            under_way = next((one for one in reversed(steps.values()) if one["status"] == "running"), None)
            began = (step["status"] == "running") - (before is not None and before["status"] == "running")
            now = {"step": under_way, "steps_ended": (run.get("steps_ended") or 0) + ended}
            now["steps_under_way"] = max(0, (run.get("steps_under_way") or 0) + began)
            self.runs[run["id"]] = {**run, **now}
        if len(steps) > NEWEST:
            del steps[next((key for key, one in steps.items() if one["status"] != "running"), step["key"])]

    def _forget(self, most: int) -> None:
        for run in [run for run in self.newest() if run["ended_at"]][most:]:
            del self.runs[run["id"]]
            self.steps.pop(run["id"], None)

    def newest(self) -> list[dict[str, Any]]:
        """Returns the runs, newest first."""
        return sorted(self.runs.values(), key=lambda run: run["created_at"], reverse=True)


class Sticky:
    """A frame of lines that is drawn again and again at the bottom, with other lines scrolling above it.

    Parameters:
        write: writes to the screen.
        size: called for every frame, so that a resize needs no signal.
        look: the look of that screen.
        tail: whether the last lines are kept when the screen has no room for all, instead of the first.
        full: whether the frame has the whole screen until it is closed, so that a resize leaves no remains; nothing can
            be printed above it then.
    """

    def __init__(
        self,
        write: Callable[[str], None],
        size: Callable[[], tuple[int, int]],
        look: Look,
        tail: bool = False,
        full: bool = False,
    ) -> None:
        self._write = write
        self._size = size
        self._look = look
        self._tail = tail
        self._full = full
        self._drawn: list[str] = []
        self._frame: list[Text] = []
        self._open = False

    def look(self, tick: int) -> Look:
        """Returns how the next frame may look."""
        return replace(self._look, width=self._size()[0], tick=tick)

    def paint(self, frame: Text) -> None:
        """Draws a frame over the previous one."""
        self._frame = list(frame.split("\n", allow_blank=True)) if frame.plain else []
        self._draw("")

    def above(self, text: str) -> None:
        """Prints whole lines above the frame, which scroll away with the rest."""
        self._draw(text if text.endswith("\n") else text + "\n")

    def close(self) -> None:
        """Prints the whole last frame and restores the terminal."""
        if not self._open:
            return
        start = LEAVE if self._full else self._erased()
        text = start + "".join(line + REST_OF_LINE + "\r\n" for line in self._printed(self._frame))
        self._write(BEGIN + text + REST_OF_SCREEN + END + SHOW)
        self._open, self._drawn = False, []

    def _draw(self, above: str) -> None:
        lines = self._visible()
        over = above.replace("\n", REST_OF_LINE + "\r\n")
        body = "\r\n".join(line + REST_OF_LINE for line in self._printed(lines))
        start = self._erased() if self._open else HIDE + (ENTER + HOME) * self._full
        self._write(BEGIN + start + over + body + REST_OF_SCREEN + END)
        self._drawn, self._open = [line.plain for line in lines], True

    def _visible(self) -> list[Text]:
        """Returns the lines for which there is room, and how many are left out."""
        width, height = self._size()
        room = max(1, height - 1)
        lines = [clipped(line, max(1, width - 1)) for line in self._frame]
        if len(lines) <= room:
            return lines
        more = Text(f"… {len(lines) - room + 1} more", "dim")
        return [more, *lines[len(lines) - room + 1 :]] if self._tail else [*lines[: room - 1], more]

    def _erased(self) -> str:
        """Returns what moves the cursor to the start of the last frame, as wrapped if the screen has become narrower."""
        if self._full:
            return HOME
        width = max(1, self._size()[0])
        rows = sum(max(1, -(-cell_len(line) // width)) for line in self._drawn)
        return "\r" + (f"\x1b[{rows - 1}A" if rows > 1 else "")

    def _printed(self, lines: list[Text]) -> list[str]:
        text = printed(stacked(lines), replace(self._look, width=10_000)) if lines else ""
        return text.removesuffix("\n").split("\n") if lines else []
