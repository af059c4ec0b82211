"""A `Caller` that notes what it is asked, in place of an engine's."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

from taskrun.declarations.calls import Current, Match, StepCall, caller


@dataclass
class FakeCaller:
    """Answers every call with its own name."""

    inside_step: bool = False
    asked: list[tuple[Any, ...]] = field(default_factory=list)
    calls: list[StepCall] = field(default_factory=list)

    @property
    def current(self) -> Current:
        return Current(run_id="r1", job="outer", input={})

    async def _answer(self, what: str) -> Any:
        return what

    def step(self, call: StepCall) -> Any:
        self.calls.append(call)
        return self._answer(call.name)

    def sleep(self, until: float | None, seconds: float | None) -> Any:
        self.asked.append(("sleep", until, seconds))
        return self._answer("sleep")

    def find_job(self, name: str) -> Any:
        return SimpleNamespace(name=name, topic=f"job:{name}")

    def child(self, job: Any, input: object, wait: bool) -> Any:
        self.asked.append(("child", job.name, input, wait))
        return self._answer("child")

    def cancel_runs(self, job: Any, input: object) -> Any:
        self.asked.append(("cancel", job.name, input))
        return self._answer("cancel")

    def send(self, pipe: Any, data: object) -> Any:
        self.asked.append(("send", pipe.name, data))
        return self._answer("send")

    def wait(self, source: Any, match: Match, timeout: float | None) -> Any:
        self.asked.append(("wait", source.topic, match, timeout))
        return self._answer("wait")

    def value(self, name: str, make: Callable[[], Any], kind: Any) -> Any:
        self.asked.append(("value", name, kind))
        return name

    def progress(self, done: float, total: float | None, note: str) -> None:
        self.asked.append(("progress", done, total, note))

    def log(self, level: int, text: str) -> None:
        self.asked.append(("log", level, text))


@contextmanager
def handler(inside_step: bool = False) -> Iterator[FakeCaller]:
    """Makes the block a handler's code, as far as declarations can tell."""
    fake = FakeCaller(inside_step)
    token = caller.set(fake)
    try:
        yield fake
    finally:
        caller.reset(token)
