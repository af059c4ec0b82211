"""`Run`: the handle of a run that users hold, in their own process or inside a handler."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping
from typing import Any, Protocol

import msgspec

from taskrun.declarations.job import Event
from taskrun.engine.core.queries import views
from taskrun.engine.core.waits import end_of
from taskrun.engine.messages import Ordered
from taskrun.model import records
from taskrun.model.codec import decode, error_from, rebuild
from taskrun.model.durations import seconds
from taskrun.model.records import ErrorRecord, Failure, Status
from taskrun.model.stored_text import storable
from taskrun.rules.transitions import HOOKS

_ANY = 1 << 62  # lines of a log that are of no interest


class RunRequests(Protocol):
    """What a handle needs of the engine: the core itself, or, in a handler, the executor's way to it."""

    async def get(self, run_id: str) -> records.Run:
        """Returns a run."""
        ...

    async def wait(self, run_id: str) -> records.Run:
        """Returns a run once it has ended."""
        ...

    async def news(self, run_id: str, seen: records.Run | None, lines: int) -> records.Run:
        """Returns a run once it differs from `seen`, or its log has more than `lines` lines."""
        ...

    async def show(self, run_id: str) -> dict[str, Any]:
        """Returns everything about a run."""
        ...

    async def logs(self, run_id: str, after: int) -> list[records.LogLine]:
        """Returns log lines after a position."""
        ...

    async def request(self, run_id: str, verb: Any, argument: str | None = None) -> Ordered:
        """Cancels, pauses, resumes or retries a run."""
        ...


class Info(dict[str, Any]):
    """A JSON object whose fields are attributes as well: `info.status`, `info["status"]`."""

    def __getattr__(self, name: str) -> Any:
        try:
            return self[name]
        except KeyError:
            raise AttributeError(name) from None

    @classmethod
    def of(cls, value: Any) -> Any:
        """Returns plain data with every object in it as an `Info`."""
        if isinstance(value, Mapping):
            return cls({key: cls.of(item) for key, item in value.items()})
        return [cls.of(item) for item in value] if isinstance(value, list) else value


class Run:
    """One run: its id, job and input, and what can be done with it."""

    def __init__(self, requests: RunRequests, record: records.Run, read: Callable[[str], Any] = decode) -> None:
        self._requests = requests
        self._record = record
        self._read = read
        self.id = record.id
        self.job = record.job

    def __repr__(self) -> str:
        return f"<Run {self.id} {self.job}>"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Run) and other.id == self.id

    def __hash__(self) -> int:
        return hash(self.id)

    @property
    def input(self) -> Any:
        """The input as it was validated, defaults included, as plain data."""
        return decode(self._record.input)

    async def status(self) -> str:
        """Returns the state of the run now."""
        return (await self._requests.get(self.id)).status

    async def info(self) -> Any:
        """Returns everything that `taskrun show --json` shows; its fields are attributes and items."""
        return Info.of(await self._requests.show(self.id))

    async def steps(self) -> list[Any]:
        """Returns the steps in the order they began; their fields are attributes and items."""
        steps: list[Any] = Info.of(await self._requests.show(self.id)).steps
        return steps

    async def result(self, timeout: Any = None) -> Any:
        """Waits for the end and returns the output.

        Parameters:
            timeout: seconds, or a duration.

        Raises:
            RunFailed, RunTimeout, RunCancelled, RunDiscarded: how else it ended.
            TimeoutError: it had not ended by then.
        """
        if timeout is None:
            ended = await self._requests.wait(self.id)
        else:
            ended = await self._ended_within(seconds(timeout, "timeout"))
        return output_of(ended, self._read)

    async def _ended_within(self, limit: float) -> records.Run:
        try:
            async with asyncio.timeout(limit):
                return await self._requests.wait(self.id)
        except TimeoutError:
            ended = await self._requests.get(self.id)  # with a timeout of 0 it may have ended long ago
            if not ended.ended:
                raise
            return ended

    async def cancel(self, reason: str | None = None) -> bool:
        """Cancels the run; returns False when it had ended already."""
        told = None if reason is None else storable(str(reason))
        return (await self._requests.request(self.id, "cancel", told)).changed

    async def pause(self) -> None:
        """Holds the run before its next step. Raises RunEnded when it has ended."""
        await self._requests.request(self.id, "pause")

    async def resume(self) -> None:
        """Lets a paused run go on. Raises RunEnded when it has ended."""
        await self._requests.request(self.id, "resume")

    async def retry(self, from_step: str | None = None) -> Run:
        """Starts an ended run anew, keeping the finished steps before `from_step`; returns the new run.

        Raises:
            RunNotEnded: it has not ended.
            NotFound: it has no such step.
        """
        return Run(self._requests, (await self._requests.request(self.id, "retry", from_step)).run, self._read)

    async def log(self) -> AsyncIterator[Any]:
        """Yields the log lines (`seq at run step stream text`) from the first one on, until the run has ended."""
        seen, run = 0, await self._requests.get(self.id)
        while True:
            while lines := await self._requests.logs(self.id, seen):
                for line in lines:
                    yield Info.of(views.log_view(line))
                seen = lines[-1].seq
            if run.ended:
                return
            run = await self._requests.news(self.id, run, seen)

    async def events(self) -> AsyncIterator[Event]:
        """Yields what happened to the run so far and then as it happens, to its end."""
        told, run = 0, await self._requests.get(self.id)
        while True:
            story = _story(run)
            for kind, attempt, error in story[told:]:
                yield self._event(run, kind, attempt, error)
            told = len(story)
            if run.ended:
                return
            run = await self._requests.news(self.id, run, _ANY)

    def _event(self, run: records.Run, kind: str, attempt: int, error: ErrorRecord | None) -> Event:
        ending = kind in ("success", "failure", "cancel", "settled")
        return Event(
            kind=kind,
            run_id=run.id,
            job=run.job,
            input=self.input,
            output=decode(run.output) if ending and run.output is not None else None,
            error=None if error is None else rebuild(error, ""),
            reason=run.reason if ending else None,
            attempt=attempt,
        )


def output_of(ended: records.Run, read: Callable[[str], Any]) -> Any:
    """Returns the output of a run that has ended; raises what says how else it ended."""
    if ended.status is not Status.SUCCEEDED:
        raise end_of(ended)
    return read(ended.output or "null")


def _story(run: records.Run) -> list[tuple[str, int, ErrorRecord | None]]:
    """Returns the events that a run's record implies, in their order: (kind, attempt, error)."""
    story: list[tuple[str, int, ErrorRecord | None]] = [("trigger", 1, None)]
    if run.started_at is not None:
        story.append(("start", 1, None))
    failures = msgspec.json.decode(run.failures, type=list[Failure]) if run.failures else []
    for failure in failures:
        story += [("error", failure.attempt - back, None) for back in range(failure.left_out, 0, -1)]
        story.append(("error", failure.attempt, failure.error))
    if run.ended:
        error = error_from(run.error) if run.error else None
        if run.status is Status.FAILED and run.reason is None:
            story.append(("error", run.attempt, error))
        story += [(HOOKS[run.status], run.attempt, error), ("settled", run.attempt, error)]
    return story
