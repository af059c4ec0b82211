"""What is kept of what a run says, whatever it says and however fast."""

from __future__ import annotations

import asyncio
import decimal
import fractions
import json
import logging
import sys
import threading
import time
from collections.abc import Callable
from typing import Any

import pytest

from taskrun import PostgresStorage, Queue, job, progress, run
from taskrun.engine import messages as m
from taskrun.engine.executor import run_log
from taskrun.engine.executor.backlog import Backlog, Pending, batches
from taskrun.engine.executor.run_log import RunLog
from taskrun.model.clock import SystemClock
from taskrun.model.records import LogLine
from taskrun.stores.base import Store
from taskrun.testing import TestQueue


class Host:
    """A core that only listens."""

    def __init__(self) -> None:
        self.lines: list[LogLine] = []
        self.progress: list[Any] = []
        self.messages = 0

    async def ask(self, message: m.Asked) -> Any:
        raise AssertionError("nothing is asked")

    def tell(self, message: m.Told) -> None:
        self.messages += 1
        if isinstance(message, m.Logged):
            self.lines += message.lines
        elif isinstance(message, m.Progressed):
            self.progress.append(json.loads(message.progress))

    @property
    def texts(self) -> list[str]:
        return [line.text for line in self.lines]


def log_for(host: Host, seq: int = 0, replaying: Callable[[], bool] = lambda: False) -> RunLog:
    return RunLog("r", seq, host, SystemClock(), replaying)


async def texts(handle: Any) -> list[str]:
    return [line.text async for line in handle.log()]


# ---- lines


async def test_lines_are_numbered_from_where_the_log_was_without_a_gap() -> None:
    log = log_for(host := Host(), seq=41)
    log.write("stdout", "a\nb\n")
    log.flush()
    log.write("stderr", "c")
    log.close()
    assert [(line.seq, line.text, line.stream) for line in host.lines] == [
        (42, "a", "stdout"),
        (43, "b", "stdout"),
        (44, "c", "stderr"),
    ]


async def test_nothing_is_taken_after_the_end() -> None:
    log = log_for(host := Host())
    log.write("stdout", "before\nhalf")
    log.close()
    log.write("stdout", "after\n")
    log.progress(1, 2, "")
    log.flush()
    assert host.texts == ["before", "half"]
    assert not host.progress


async def test_many_streams_leave_nothing_behind() -> None:
    log = log_for(Host())
    for step in range(10_000):
        log.write("stdout", "a", f"step-{step}")
        log.write("stdout", "b\n", f"step-{step}")
    assert not log._outputs


async def test_what_a_destructor_prints_in_the_middle_of_a_line_does_no_harm() -> None:
    log = log_for(host := Host())

    class Clock(SystemClock):  # asked in the middle of a write, where the garbage collector may come too
        def now(self) -> float:
            log._clock = SystemClock()
            log.write("stderr", "from a destructor\n")
            return super().now()

    log._clock = Clock()
    log.write("stdout", "a line\n")
    log.close()
    assert sorted(host.texts) == ["a line", "from a destructor"]


@pytest.mark.parametrize(
    ("text", "kept"),
    [
        ("\x1b[1;31mred\x1b[0m \x1b[38;2;1;2;3mtrue\x1b[m", "red true"),
        ("\x9b31mred\x9b0m é", "red é"),
        ("\x1b[2Kcleared\x07 \x1b]0;title\x07", "\x1b[2Kcleared\x07 \x1b]0;title\x07"),
        ("caf\udce9.wav", "caf\\udce9.wav"),
        ("a\x00b", "a\x00b"),
        ("\ufeffmark \U0001f600", "\ufeffmark \U0001f600"),
    ],
)
async def test_colours_go_and_everything_else_stays_what_can_be_stored(storage: Store, text: str, kept: str) -> None:
    @job
    async def handler() -> str:
        print(text)
        await run("step", print, text)
        return "done"

    async with TestQueue(jobs=[handler], storage=storage) as queue:
        handle = await queue.jobs.handler.start()
        assert await handle.result() == "done"
        if isinstance(storage, PostgresStorage):
            kept = kept.replace("\0", "\x1a")  # it knows no text with a NUL
        assert await texts(handle) == [kept, kept]


async def test_colours_that_come_in_pieces_go_too() -> None:
    log = log_for(host := Host())
    for piece in ("\x1b", "[3", "1m", "red", "\x1b[", "0m\n"):
        log.write("stdout", piece)
    log.close()
    assert host.texts == ["red"]


async def test_errors_are_stored_without_colours_and_halves_of_pairs() -> None:
    @job(retry=0)
    async def handler() -> None:
        raise ValueError("\x1b[31mred\x1b[0m \ud800 \x00")

    async with TestQueue(jobs=[handler]) as queue:
        handle = await queue.jobs.handler.start()
        await queue.settle()
        error = (await handle.info())["error"]
        assert error["message"] == "red \\ud800 \x00"
        assert "\x1b" not in error["traceback"].replace("\\x1b", "")


# ---- progress


class Wrong:
    def __float__(self) -> float:
        raise RuntimeError("no number today")

    def __str__(self) -> str:
        raise RuntimeError("no text today")


@pytest.mark.parametrize(
    ("given", "kept"),
    [
        ((1, 2, "note"), {"done": 1, "total": 2, "note": "note"}),
        ((1.5, None, ""), {"done": 1.5, "total": None, "note": ""}),
        ((decimal.Decimal("1.5"), fractions.Fraction(3, 1), ""), {"done": 1.5, "total": 3, "note": ""}),
        ((True, 2**60, ""), {"done": 1, "total": float(2**60), "note": ""}),
        ((1, 2, "caf\udce9"), {"done": 1, "total": 2, "note": "caf\\udce9"}),
        ((1, 2, "\x00\x1b[31mred\x1b[0m"), {"done": 1, "total": 2, "note": "\x00red"}),
        ((1, 2, 3), {"done": 1, "total": 2, "note": "3"}),
        ((1, 2, None), {"done": 1, "total": 2, "note": "None"}),
    ],
)
async def test_progress_takes_all_that_is_a_number_or_has_a_text(given: Any, kept: Any) -> None:
    log = log_for(host := Host())
    log.progress(*given)
    log.close()
    assert host.progress == [kept]
    assert not host.lines


@pytest.mark.parametrize(
    ("given", "kept", "says"),
    [
        ((float("nan"), 2, ""), None, "nan is not finite"),
        ((1, float("inf"), "x"), {"done": 1, "total": None, "note": "x"}, "inf is not finite"),
        (("many", 2, ""), None, "ValueError"),
        (([1], 2, ""), None, "TypeError"),
        ((1j, 2, ""), None, "TypeError"),
        ((10**400, 2, ""), None, "OverflowError"),
        ((Wrong(), 2, ""), None, "RuntimeError: no number today"),
        ((1, 2, Wrong()), {"done": 1, "total": 2, "note": ""}, "RuntimeError: no text today"),
    ],
)
async def test_what_is_no_progress_is_left_out_and_the_log_says_so_once(given: Any, kept: Any, says: str) -> None:
    log = log_for(host := Host())
    for _ in range(3):
        log.progress(*given)
        log.flush()
    log.close()
    assert host.progress == ([] if kept is None else [kept] * 3)
    (line,) = host.lines
    assert line.stream == "system"
    assert "progress()" in line.text
    assert says in line.text


async def test_a_million_progresses_are_a_few_messages() -> None:
    log = log_for(host := Host())
    for done in range(1_000_000):
        log.progress(done, 1_000_000, "")
    log.close()
    assert host.messages == 1
    assert host.progress[-1]["done"] == 999_999


# ---- floods


async def test_of_a_flood_that_lets_no_turn_of_the_loop_pass_head_and_tail_are_kept() -> None:
    log = log_for(host := Host())
    for number in range(200_000):
        log.write("stdout", f"line {number} {'x' * 100}\n")
    log.close()
    assert sum(map(len, host.texts)) < 8_000_000
    (marker,) = [line for line in host.lines if line.stream == "system"]
    assert host.texts[0].startswith("line 0 ")
    assert host.texts[-1].startswith("line 199999 ")
    dropped = 200_000 - (len(host.lines) - 1)
    assert f"{dropped:,} lines are left out here" in marker.text
    assert [line.seq for line in host.lines] == list(range(1, len(host.lines) + 1))


def test_a_backlog_is_handed_out_in_order_and_begins_anew() -> None:
    backlog = Backlog(most=2_000)
    for _ in range(2):
        for number in range(100):
            backlog.add([Pending(0.0, "stdout", str(number), None)])
        texts = [line.text for line in backlog.take()]
        assert texts[0] == "0"
        assert texts[-1] == "99"
        assert sum(text.isdecimal() for text in texts) == len(texts) - 1
        assert backlog.size == 0


def test_one_line_over_the_limit_is_kept() -> None:
    backlog = Backlog(most=100)
    backlog.add([Pending(0.0, "stdout", "x" * 1_000, None)])
    assert [line.text for line in backlog.take()] == ["x" * 1_000]


def test_batches_are_about_as_large_as_they_may_be() -> None:
    lines = [Pending(0.0, "stdout", "x" * 936, None) for _ in range(10)]
    assert [len(batch) for batch in batches(lines, 3_000)] == [3, 3, 3, 1]


async def test_a_thread_that_floods_waits_for_the_loop_and_loses_nothing() -> None:
    log = log_for(host := Host())
    most = 0

    def flood() -> None:
        nonlocal most
        for number in range(50_000):
            log.write("stdout", f"{number} {'x' * 100}\n")
            most = max(most, log._size)

    await asyncio.to_thread(flood)
    log.close()
    assert [int(text.partition(" ")[0]) for text in host.texts] == list(range(50_000))
    assert most < 2 * run_log.ROOM


async def test_a_thread_that_floods_does_not_wait_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    """The loop waits for the thread, as a handler does that joins one."""
    monkeypatch.setattr(run_log, "PATIENCE", 0.05)
    log = log_for(host := Host())

    def flood() -> None:
        for number in range(300_000):
            log.write("stdout", f"{number} {'x' * 100}\n")

    thread = threading.Thread(target=flood)
    thread.start()
    thread.join(30)
    assert not thread.is_alive()
    log.close()
    assert host.texts[-1].startswith("299999 ")
    assert "left out here" in " ".join(line.text for line in host.lines if line.stream == "system")


async def test_a_thread_that_floods_waits_longer_for_a_loop_that_has_much_to_do(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    looks = 0
    enough = threading.Event()

    def always_more(log: RunLog) -> float:
        nonlocal looks
        looks += 1
        if looks == 10:
            enough.set()
        return float(looks)

    monkeypatch.setattr(run_log, "PATIENCE", 0.001)
    monkeypatch.setattr(RunLog, "_loop_worked", always_more)
    log = log_for(host := Host())

    def flood() -> None:
        for number in range(100_000):
            log.write("stdout", f"{number} {'x' * 100}\n")

    thread = threading.Thread(target=flood)
    thread.start()
    enough.wait()
    monkeypatch.setattr(run_log, "PATIENCE", 30.0)
    await asyncio.to_thread(thread.join)
    log.close()
    assert [int(text.partition(" ")[0]) for text in host.texts] == list(range(100_000))


@pytest.mark.skipif(sys.platform == "darwin", reason="no thread can read how long another has had the processor")
async def test_another_thread_sees_that_the_loop_works() -> None:
    log = log_for(Host())
    before = await asyncio.to_thread(log._loop_worked)
    until = time.thread_time() + 0.01
    while time.thread_time() < until:
        pass
    assert await asyncio.to_thread(log._loop_worked) >= before + 0.01


async def test_a_thread_that_waits_is_let_go_by_the_end() -> None:
    log = log_for(Host())
    full = "x" * run_log.ROOM + "\n"
    log.write("stdout", full)
    thread = threading.Thread(target=log.write, args=("stdout", full))
    thread.start()
    while thread.is_alive() and log._room is None:
        time.sleep(0.001)
    log.close()
    thread.join(5)
    assert not thread.is_alive()


async def test_a_bar_is_seen_live_and_as_it_last_was() -> None:
    log = log_for(host := Host())
    log.write("stderr", "\r1%")
    log.flush()
    log.write("stderr", "\r2%\r3%")
    log.flush()  # too soon for another state
    assert host.texts == ["1%"]
    while len(host.texts) < 2:  # it comes by itself
        await asyncio.sleep(0.01)
    log.write("stderr", "\r100%\n")
    log.close()
    assert host.texts == ["1%", "3%", "100%"]


async def test_a_run_with_any_progress_ends() -> None:
    @job(retry=0)
    async def handler() -> int:
        for given in ((Wrong(), Wrong(), Wrong()), (float("nan"), None, "\ud800"), (1, 2, "\x00")):
            progress(*given)
            await asyncio.sleep(0)
        return 1

    async with Queue(jobs=[handler]) as queue:
        assert await (await queue.jobs.handler.start()).result(timeout=5) == 1


async def test_nothing_is_logged_after_the_end_of_a_run() -> None:
    left = []

    @job(retry=0)
    async def handler() -> None:
        async def chatter() -> None:
            while True:
                print("line")
                logging.getLogger("library").warning("line")
                progress(1)
                await asyncio.sleep(0)

        left.append(asyncio.create_task(chatter()))
        await asyncio.sleep(0)

    async with TestQueue(jobs=[handler]) as queue:
        handle = await queue.jobs.handler.start()
        await handle.result()
        before = await texts(handle)
        for _ in range(100):
            await asyncio.sleep(0)
        await queue.core.journal.flush()
        assert await texts(handle) == before
        left[0].cancel()
