"""A terminal and a daemon made of plain objects, so that commands run without processes."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import msgspec

from taskrun.cli.app import execute
from taskrun.cli.session import Backend
from taskrun.cli.terminal import Facts
from taskrun.engine.core.queries.views import run_view, step_view
from taskrun.model.config import Config
from taskrun.model.records import ENDED, Run, Status, Step, StepKind, StepStatus

NOW = 1_800_000_000.0
SCHEMA = {
    "type": "object",
    "properties": {
        "path": {"type": "string"},
        "bitrate": {"type": "integer", "default": 128},
        "dry": {"type": "boolean", "default": False},
        "tags": {"type": "array", "items": {"type": "string"}, "default": []},
        "key": {"type": "string", "default": ""},
    },
    "required": ["path"],
    "additionalProperties": False,
}
JOB = {
    "name": "processFile",
    "file": "jobs/music.py",
    "line": 12,
    "input_schema": SCHEMA,
    "options": {"retry": 3},
    "triggers": ["pipe uploads"],
    "schedules": [],
    "paused": False,
}


def a_run(run_id: str = "7k3fq2aaaaaa", status: Status = Status.RUNNING, **fields: Any) -> dict[str, Any]:
    """Returns a run as JSON."""
    steps = fields.pop("steps", [])
    wanted = StepStatus.FAILED if status in ENDED else StepStatus.RUNNING
    at = [step for step in steps if step.status is wanted]
    named = {"job": "processFile", "created_at": NOW - 100, "input": '{"path":"song.mp3"}', **fields}
    return run_view(
        Run(id=run_id, status=status, **named), at[-1] if at else None, sum(step.finished for step in steps)
    )


def a_step(key: str, status: StepStatus = StepStatus.SUCCEEDED, **fields: Any) -> Step:
    """Returns a step's record."""
    named: dict[str, Any] = {"name": key, "kind": StepKind.RUN, "started_at": NOW - 50, **fields}
    if status is not StepStatus.RUNNING:
        named.setdefault("ended_at", NOW - 40)
    return Step(run="7k3fq2aaaaaa", key=key, status=status, **named)


def shown(run: dict[str, Any], steps: list[Step] = [], **fields: Any) -> dict[str, Any]:  # noqa: B006
    """Returns a run as `show` has it."""
    numbered = [{**step_view(step), "n": n} for n, step in enumerate(steps, 1)]
    return {**run, "steps": numbered, "steps_left_out": 0, "children": [], "log": [], "log_lines": 0, **fields}


class FakeTerminal:
    """Keeps what is written."""

    def __init__(self, cwd: Path, stdin: str = "", width: int = 80, height: int = 24, **facts: Any) -> None:
        self.facts = msgspec.structs.replace(Facts(cwd=cwd, env={}), **facts)
        self.written = ""
        self.chatter = ""
        self.width, self.height = width, height
        self.answers: list[str] = []
        self._stdin = stdin
        self.interrupt: Callable[[], None] = lambda: None

    def size(self) -> tuple[int, int]:
        return self.width, self.height

    def out(self, text: str) -> None:
        self.written += text

    def err(self, text: str) -> None:
        self.chatter += text

    async def read(self) -> bytes:
        return self._stdin.encode("utf-8", "surrogateescape")

    async def ask(self, question: str) -> str:
        self.chatter += question
        return self.answers.pop(0)

    def on_interrupt(self, heard: Callable[[], None]) -> None:
        self.interrupt = heard


class FakeDaemon:
    """Answers from a dict of ops: values, exceptions, functions of the parameters, or lists for streams."""

    live = True

    def __init__(self, **answers: Any) -> None:
        self.answers: dict[str, Any] = {"jobs": {"jobs": [JOB], "pipes": [], "problems": []}, "logs": [], "why": []}
        self.answers |= {"overview": {"counts": [], "children": 0, "defaults": {}}, "runs": []}
        self.answers |= {"config": {"problem": "", "inputs": {}}}
        self.answers |= {name: lambda name=name, **_: self.shown[name] for name in ("steps", "children")}
        self.answers |= answers
        self.asked: list[tuple[str, dict[str, Any]]] = []

    @property
    def shown(self) -> dict[str, Any]:
        """What `show` answers."""
        answer = self.answers["show"]
        found: dict[str, Any] = answer() if callable(answer) else answer
        return found

    async def call(self, op: str, **params: Any) -> Any:
        self.asked.append((op, params))
        answer = self.answers[op]
        if (op == "runs" and "before" in params) or (params.get("after") and op in ("steps", "children")):
            return []
        if callable(answer):
            answer = answer(**params)
        if isinstance(answer, Exception):
            raise answer
        return answer

    async def stream(self, op: str, **params: Any) -> AsyncIterator[Any]:
        self.asked.append((op, params))
        for item in self.answers[op]:
            if isinstance(item, Exception):
                raise item
            if item is FOREVER:
                await asyncio.Event().wait()
            await asyncio.sleep(0)
            yield item

    async def close(self) -> None:
        self.asked.append(("close", {}))

    def params(self, op: str) -> dict[str, Any]:
        """Returns the parameters of the one request of that op."""
        (found,) = [params for asked, params in self.asked if asked == op]
        return found


FOREVER = object()


class FakeGate:
    """Leads to one fake daemon."""

    def __init__(self, daemon: FakeDaemon) -> None:
        self.fake = daemon

    async def daemon(self, config: Config, autostart: bool) -> Backend:
        return self.fake

    async def reader(self, config: Config) -> Backend:
        return self.fake


async def typed(command: str | list[str], terminal: FakeTerminal, daemon: FakeDaemon) -> int:
    """Runs a command line and returns its exit code."""
    argv = command.split() if isinstance(command, str) else command
    return await execute(argv, terminal, FakeGate(daemon))
