"""Log lines and ended steps in the order of time, however they come."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from taskrun.cli import times
from taskrun.cli.backend.time_order import HELD, TimeOrder
from tests.cli.fakes import NOW


def line(text: str, at: float, step: str | None = None) -> dict[str, Any]:
    return {"run": "r", "at": times.rfc3339(NOW + at), "step": step, "text": text}


def ended(key: str, at: float, status: str = "succeeded", kind: str = "run") -> dict[str, Any]:
    step = {"run": "r", "key": key, "status": status, "kind": kind, "ended_at": times.rfc3339(NOW + at)}
    return {"kind": "step", "step": step}


class Collected:
    def __init__(self) -> None:
        self.seen: list[str] = []
        self.order = TimeOrder(
            lambda record: self.seen.append(record["text"]), lambda step: self.seen.append(step["key"])
        )


CASES = [
    ([line("in a", 1), line("in b", 3)], [ended("a", 2), ended("b", 4)], ["in a", "a", "in b", "b"]),
    ([line("in a", 1, "a"), line("after a", 1)], [ended("a", 1)], ["in a", "a", "after a"]),
    (
        [line("after a", 2), line("in b", 2, "b"), line("after b", 2)],
        [ended("b", 2)],
        ["after a", "in b", "b", "after b"],
    ),
    ([line("late", 9)], [ended("b", 2), ended("a", 1)], ["a", "b", "late"]),
    ([], [ended("a", 1), ended("a", 1)], ["a"]),
    ([line("again", 2)], [ended("a", 1, "failed"), ended("a", 3, "failed")], ["a", "again", "a"]),  # two attempts
    ([], [ended("a", 1, status="running"), ended("now", 1, kind="value")], []),
]


@pytest.mark.parametrize(("lines", "steps", "expected"), CASES)
async def test_lines_and_steps_come_in_the_order_of_time(
    lines: list[dict[str, Any]], steps: list[dict[str, Any]], expected: list[str]
) -> None:
    for messages_first in (True, False):
        found = Collected()
        for message in steps if messages_first else []:
            found.order.add_steps(message)
        for record in lines:
            found.order.add_line(record)
        for message in [] if messages_first else steps:
            found.order.add_steps(message)
        found.order.flush()
        assert found.seen == expected


async def test_an_item_waits_for_an_earlier_one_of_the_other_stream_but_not_for_ever() -> None:
    found = Collected()
    passing = asyncio.ensure_future(found.order.pass_on())
    found.order.add_line(line("after a", 2))
    await asyncio.sleep(0)
    found.order.add_steps(ended("a", 1))
    while len(found.seen) < 2:
        await asyncio.sleep(HELD / 10)
    passing.cancel()
    assert found.seen == ["a", "after a"]
