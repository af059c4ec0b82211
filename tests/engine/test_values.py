"""A step's live value equals its replayed value, since both go through the journal's encoding."""

from __future__ import annotations

import asyncio
import threading
import uuid
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from enum import Enum
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from taskrun import RunFailed, job, run, sleep
from taskrun.stores.base import Store
from taskrun.testing import TestQueue


class Mood(Enum):
    GOOD = "good"


class Point(NamedTuple):
    x: int
    y: int


@dataclass
class Song:
    title: str
    length: timedelta
    tags: set[str]


def a_song() -> Song:
    return Song("Help!", timedelta(seconds=139), {"a", "b"})


def moment() -> datetime:
    return datetime(2026, 1, 1, 12, 30, tzinfo=UTC)


def day() -> date:
    return date(2026, 1, 1)


def raw() -> bytes:
    return b"\x00\xff"


def some() -> set[int]:
    return {1, 2}


def price() -> Decimal:
    return Decimal("0.10")


def key() -> uuid.UUID:
    return uuid.UUID(int=7)


def point() -> Point:
    return Point(1, 2)


def mood() -> Mood:
    return Mood.GOOD


def songs() -> list[Song]:
    return [a_song()]


def pair() -> tuple[int, str]:
    return (1, "a")


def numbered() -> dict[int, str]:
    return {1: "one"}


def perhaps() -> Song | None:
    return a_song()


def place() -> Path:
    return Path("/tmp/a")


def nothing() -> None:
    return None


ANNOTATED = [a_song, moment, day, raw, some, price, key, point, mood, songs, pair, numbered, perhaps, place, nothing]


async def live_and_replayed(fn: Any, storage: Store | None = None) -> list[Any]:
    """Returns what a step gave when it was executed, and what it gave on replay."""
    seen: list[Any] = []

    @job
    async def handler() -> None:
        seen.append(await run("value", fn))
        await sleep("1d")

    async with TestQueue(jobs=[handler], storage=storage, replay=True) as queue:
        handle = await queue.jobs.handler.start()
        await queue.advance("1d")
        await handle.result()
    assert len(seen) == 2
    return seen


@pytest.mark.parametrize("fn", ANNOTATED, ids=lambda fn: fn.__name__)
async def test_annotated_values_come_back_as_themselves(fn: Any) -> None:
    live, replayed = await live_and_replayed(fn)
    assert live == replayed == fn()
    assert type(live) is type(replayed) is type(fn())


@pytest.mark.parametrize(
    "value",
    [a_song(), moment(), raw(), some(), price(), key(), point(), {"a": [1, 2.5, None, True, "x"]}],
    ids=lambda value: type(value).__name__,
)
async def test_without_an_annotation_both_are_the_same_plain_data(value: Any) -> None:
    live, replayed = await live_and_replayed(lambda: value)
    assert live == replayed
    assert type(live) is type(replayed)


async def test_live_and_replayed_are_equal_on_disk_too(storage: Store) -> None:
    live, replayed = await live_and_replayed(a_song, storage)
    assert live == replayed == a_song()


@pytest.mark.parametrize(
    ("value", "named"),
    [(threading.Lock, "lock"), (lambda: object(), "object"), (lambda: {"a": [float("nan")]}, "NaN")],
    ids=["lock", "object", "nan"],
)
async def test_what_cannot_be_encoded_names_the_step_and_the_type(value: Any, named: str) -> None:
    calls: list[int] = []

    def make() -> Any:
        calls.append(1)
        return value()

    @job
    async def handler() -> None:
        await run("make it", make)

    async with TestQueue(jobs=[handler]) as queue:
        handle = await queue.jobs.handler.start()
        await queue.advance("1h")
        with pytest.raises(RunFailed) as caught:
            await handle.result()
    assert caught.value.error_type == "taskrun.NotEncodable"
    assert "make it" in caught.value.message
    assert named in caught.value.message
    assert len(calls) == 1, "another try would end the same"


async def test_an_output_that_cannot_be_encoded_names_the_job() -> None:
    @job
    async def handler() -> Any:
        return object()

    async with TestQueue(jobs=[handler]) as queue:
        with pytest.raises(RunFailed, match="output of handler"):
            await queue.jobs.handler.run()


async def test_a_value_over_the_limit_says_so_wherever_it_is() -> None:
    big = "x" * 2_000

    @job(retry=0)
    async def step_result() -> None:
        await run("big", lambda: big, retry=0)

    @job(retry=0)
    async def output() -> str:
        return big

    @job
    async def takes(text: str) -> None: ...

    @job(retry=0)
    async def child_input() -> None:
        await takes.run(text=big)

    async with TestQueue(jobs=[step_result, output, takes, child_input], max_payload=1_000) as queue:
        for name in ("step_result", "output", "child_input"):
            with pytest.raises(RunFailed, match="too large") as caught:
                await queue.jobs[name].run()
            assert caught.value.error_type == "taskrun.PayloadTooLarge"
        with pytest.raises(Exception, match="too large"):
            await queue.jobs.takes.run(text=big)


async def test_a_child_gives_its_parent_the_same_live_and_on_replay(storage: Store) -> None:
    seen: list[Any] = []

    @job
    async def child() -> Song:
        return a_song()

    @job
    async def parent() -> None:
        seen.append(await child.run())
        await sleep("1d")

    async with TestQueue(jobs=[parent, child], storage=storage, replay=True) as queue:
        handle = await queue.jobs.parent.start()
        await queue.advance("1d")
        await handle.result()
    assert seen == [a_song(), a_song()]


async def test_an_async_function_keeps_its_annotation() -> None:
    async def fetch() -> Decimal:
        await asyncio.sleep(0)
        return Decimal("1.5")

    live, replayed = await live_and_replayed(fetch)
    assert live == replayed == Decimal("1.5")
