"""What the handle of a run uses inside a handler: the core, through the executor's peer. Waiting for an end is a step there."""

from __future__ import annotations

from collections.abc import Coroutine
from typing import Any, Protocol

import msgspec

from taskrun.engine import messages as m
from taskrun.model.records import LogLine, Run


class Joiner(Protocol):
    """The step context, as a handle sees it."""

    def join(self, run_id: str) -> Coroutine[Any, Any, None]:
        """Waits for the end of a run as a step."""
        ...

    @property
    def inside_step(self) -> bool:
        """Whether the caller is in the body of a step, where nothing is recorded."""
        ...


class RunRequests:
    """Asks the core on behalf of a handle in a handler."""

    def __init__(self, core: m.Peer, joiner: Joiner) -> None:
        self._core = core
        self._joiner = joiner

    async def get(self, run_id: str) -> Run:
        """Returns a run."""
        run: Run = await self._core.ask(m.Look(run=run_id))
        return run

    async def wait(self, run_id: str) -> Run:
        """Returns a run once it has ended."""
        if not self._joiner.inside_step:
            await self._joiner.join(run_id)
        run = await self.get(run_id)
        while not run.ended:
            run = await self.news(run_id, run, 1 << 62)
        return run

    async def news(self, run_id: str, seen: Run | None, lines: int) -> Run:
        """Returns a run once it differs from `seen`, or its log has more than `lines` lines."""
        run: Run = await self._core.ask(m.Look(run=run_id, seen=seen, lines=lines))
        return run

    async def show(self, run_id: str) -> dict[str, Any]:
        """Returns everything about a run."""
        shown: dict[str, Any] = msgspec.json.decode(await self._core.ask(m.Show(run=run_id)))
        return shown

    async def logs(self, run_id: str, after: int) -> list[LogLine]:
        """Returns log lines after a position."""
        lines: list[LogLine] = await self._core.ask(m.ReadLog(run=run_id, after=after))
        return lines

    async def request(self, run_id: str, verb: Any, argument: str | None = None) -> m.Ordered:
        """Cancels, pauses, resumes or retries a run."""
        ordered: m.Ordered = await self._core.ask(m.Order(run=run_id, verb=verb, argument=argument))
        return ordered
