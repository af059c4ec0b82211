"""Short ways to make records for the tests of the stores."""

from __future__ import annotations

from typing import Any

from taskrun.model.records import LogLine, PipeEvent, Run, Step, StepKind


def run(run_id: str, job: str = "job", **fields: Any) -> Run:
    return Run(id=run_id, job=job, **{"created_at": 100.0, **fields})


def step(run_id: str, key: str, kind: StepKind = StepKind.RUN, **fields: Any) -> Step:
    return Step(run=run_id, key=key, name=key, kind=kind, **fields)


def event(event_id: str, topic: str = "pipe:p", at: float = 100.0) -> PipeEvent:
    return PipeEvent(id=event_id, topic=topic, at=at, data="{}")


def line(run_id: str, seq: int, text: str = "hello") -> LogLine:
    return LogLine(run=run_id, seq=seq, at=100.0 + seq, text=text)


def ids(records: list[Any]) -> list[str]:
    return [record.id for record in records]


def keys(steps: list[Step]) -> list[str]:
    return [record.key for record in steps]
