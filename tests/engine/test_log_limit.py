"""A run's log stays within its limit, and its readers find neither a gap without a marker nor a line twice."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from taskrun import MemoryStorage, SqliteStorage
from taskrun.engine.core.journal import Journal
from taskrun.engine.core.logs import REMEMBERED, ROW, KeptLog, Logs, cost
from taskrun.engine.core.outbox import RunOver
from taskrun.engine.core.subscriptions import LogAdded, Subscriptions
from taskrun.engine.core.transaction import EngineState
from taskrun.model.clock import SystemClock
from taskrun.model.errors import EngineLost
from taskrun.model.records import LogLine, Run, Status
from taskrun.stores.base import Store, Tx

MAX = 100_000


def line(seq: int, text: str = "x" * 68, run: str = "r") -> LogLine:
    return LogLine(run=run, seq=seq, at=0.0, text=text)


class Log:
    """The log of a run that is being written, by one engine after the other."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self.seq = 0
        self.published: list[LogLine] = []

    async def __aenter__(self) -> Log:
        self.begin("e")
        self.journal.open()
        await self.write(lambda tx: tx.add_run(run_of("e")))
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.journal.close()

    def begin(self, engine: str) -> None:
        state = EngineState()
        state.id = engine
        self.journal = Journal(self.store, SystemClock(), state)
        bus = Subscriptions()
        bus.subscribe(self._hear)
        self.logs = Logs(self.journal, bus, MAX)

    def _hear(self, change: Any) -> bool:
        if isinstance(change, LogAdded):
            self.published += change.lines
        return False

    async def restart(self) -> None:
        await self.journal.close()
        self.begin("f")
        self.journal.open()
        await self.write(lambda tx: tx.save_run(run_of("f")))

    def write(self, fn: Callable[[Tx], Any]) -> asyncio.Future[Any]:
        return self.journal.do(lambda transaction: fn(transaction.tx))

    def say(self, count: int, text: str = "x" * 68) -> None:
        self.logs.add([line(self.seq + n, text) for n in range(1, count + 1)])
        self.seq += count

    async def read(self, after: int = 0) -> list[LogLine]:
        return list(await self.write(lambda tx: tx.logs("r", after, 1_000_000)))


def run_of(engine: str, **fields: Any) -> Run:
    return Run(id="r", job="j", created_at=0.0, status=fields.pop("status", Status.RUNNING), engine=engine, **fields)


@pytest.fixture(params=["memory", "sqlite"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Store:
    return MemoryStorage() if request.param == "memory" else SqliteStorage(tmp_path / "j.db", synchronous="normal")


def size(lines: list[LogLine]) -> int:
    return sum(map(cost, lines))


def check(lines: list[LogLine], last: int, limit: int = MAX) -> None:
    """Head and tail are there, one marker says how many lines are not."""
    assert size(lines) <= limit + 1_000
    assert lines[0].seq == 1
    assert lines[-1].seq == last
    for before, after in pairwise(lines):
        if after.stream == "system":
            assert f" {after.seq - before.seq:,} line" in after.text
        else:
            assert after.seq == before.seq + 1


async def test_a_burst_within_one_commit_never_holds_more_than_the_limit(store: Store, monkeypatch: Any) -> None:
    async with Log(store) as log:
        log.say(50)
        written = await log.read()
        added: list[int] = []
        for _ in range(1_000):  # a hundred times the limit
            log.say(100)
            (burst,) = log.logs._bursts.values()
            added.append(size(burst.lines()))
        assert max(added) <= MAX + 2 * size(burst.lines()[-100:])
        lines = await log.read()
        check(lines, log.seq)
        assert lines[:50] == written
        assert size(log.published) <= MAX + size(written) + 20_000
        log.say(2_000)
        log.say(100)
        check(await log.read(), log.seq)
    assert not log.logs._bursts


async def test_a_burst_after_a_full_log_leaves_one_gap(store: Store) -> None:
    async with Log(store) as log:
        log.say(2_000)
        await log.read()
        for _ in range(50):
            log.say(100)
        lines = await log.read()
        check(lines, log.seq)
        assert len([each for each in lines if each.stream == "system"]) == 1
        await log.restart()
        log.say(10)
        check(await log.read(), log.seq)


async def test_lines_after_a_lost_lease_are_not_kept_for_a_commit_that_is_over() -> None:
    async with Log(MemoryStorage()) as log:
        refused = True

        def guard(tx: Tx) -> None:
            if refused:
                raise EngineLost("on purpose")

        log.journal.guard = guard
        log.say(5)
        with pytest.raises(EngineLost):
            await log.read()
        refused = False
        assert not log.logs._bursts
        log.seq = 0
        log.say(3)
        assert len(await log.read()) == 3


async def test_a_log_under_its_limit_is_whole(store: Store) -> None:
    async with Log(store) as log:
        for _ in range(9):
            log.say(100)
        assert [each.seq for each in await log.read()] == list(range(1, 901))


@pytest.mark.parametrize("batch", [1, 7, 100, 3_000, 70_000])
async def test_the_limit_is_kept_however_the_lines_come(store: Store, batch: int) -> None:
    async with Log(store) as log:
        while log.seq < 3_000:
            log.say(batch)
        lines = await log.read()
        check(lines, log.seq)
        assert size(lines) > MAX * 0.9
        assert log.published[-1] == lines[-1]


async def test_bytes_count_and_not_characters(store: Store) -> None:
    async with Log(store) as log:
        for _ in range(40):
            log.say(50, "é" * 34)
        check(await log.read(), log.seq)


async def test_empty_lines_count_too(store: Store) -> None:
    async with Log(store) as log:
        log.say(100_000, "")
        lines = await log.read()
        check(lines, log.seq)
        assert len(lines) <= MAX / ROW + 1


async def test_one_line_over_the_limit_is_kept(store: Store) -> None:
    async with Log(store) as log:
        log.say(1, "x" * MAX)
        log.say(1, "y" * MAX)
        log.say(1, "z")
        assert [each.text[:1] for each in await log.read()] == ["…", "z"]


@pytest.mark.parametrize("before", [300, 900, 5_000])
async def test_the_limit_holds_across_restarts(store: Store, before: int) -> None:
    async with Log(store) as log:
        log.say(before)
        for _ in range(8):
            await log.restart()
            log.say(200)
        check(await log.read(), log.seq)


async def test_another_engine_may_have_written_meanwhile(store: Store) -> None:
    async with Log(store) as log:
        log.say(1_000)
        await log.write(lambda tx: tx.add_logs([line(seq) for seq in range(1_001, 1_501)]))
        log.seq = 1_500
        log.say(10)
        check(await log.read(), log.seq)


async def test_nothing_is_kept_or_published_after_the_end(store: Store) -> None:
    async with Log(store) as log:
        log.say(1)
        await log.read()
        over = run_of("e", status=Status.SUCCEEDED, ended_at=1.0)
        await log.write(lambda tx: tx.save_run(over))
        log.logs.follow(RunOver(over))
        log.say(1)
        assert [each.seq for each in await log.read()] == [1]
        assert [each.seq for each in log.published] == [1]
        assert not log.logs._kept


async def test_an_engine_that_has_the_run_no_more_adds_nothing(store: Store) -> None:
    async with Log(store) as log:
        await log.write(lambda tx: tx.save_run(run_of("other")))
        log.say(1)
        assert await log.read() == []
        assert log.published == []


async def test_what_is_applied_twice_is_there_once(store: Store) -> None:
    """After a COMMIT whose outcome is not known."""
    async with Log(store) as log:
        log.say(1_200)
        entry = log.journal._entries[-1]
        for _ in range(2):
            await log.write(entry)
        log.say(1)
        check(await log.read(), log.seq)


def adding(run: Run) -> Callable[[Tx], Any]:
    return lambda tx: tx.add_run(run)


async def test_the_sizes_of_few_logs_are_remembered() -> None:
    async with Log(MemoryStorage()) as log:
        for number in range(REMEMBERED + 50):
            run = Run(id=f"r{number}", job="j", created_at=0.0, status=Status.RUNNING, engine="e")
            await log.write(adding(run))
            log.logs.add([line(1, run=run.id)])
        await log.read()
        assert len(log.logs._kept) == REMEMBERED


async def test_a_reader_that_comes_back_finds_no_gap_without_a_marker_and_no_line_twice(store: Store) -> None:
    async with Log(store) as log:
        readers: dict[int, list[LogLine]] = {start: [] for start in range(30)}
        for turn in range(30):
            log.say(150)
            await asyncio.sleep(0)
            for start, seen in readers.items():
                if turn >= start and (turn + start) % 5 == 0:  # each reads now and then
                    seen += await log.read(seen[-1].seq if seen else 0)
        for seen in readers.values():
            seen += await log.read(seen[-1].seq if seen else 0)
            seqs = [each.seq for each in seen]
            assert seqs == sorted(set(seqs))
            for before, after in pairwise(seen):
                assert after.seq == before.seq + 1 or after.stream == "system"


@given(st.lists(st.tuples(st.integers(1, 80), st.integers(0, 200), st.booleans()), min_size=1, max_size=40))
def test_any_batches_and_restarts_keep_head_tail_and_a_true_marker(batches: list[tuple[int, int, bool]]) -> None:
    limit = 10_000
    store = MemoryStorage()
    store.open()
    kept, seq = KeptLog("e", limit // 2), 0

    def write(tx: Tx, lines: list[LogLine], again: bool) -> None:
        nonlocal kept
        if again:
            kept = KeptLog("e", limit // 2)
            kept.load(tx, "r")
        plan = kept.take(lines)
        if plan.gone is not None:
            tx.drop_logs("r", *plan.gone)
        tx.add_logs(plan.add)

    for count, length, again in batches:
        lines = [line(seq + n, "x" * length) for n in range(1, count + 1)]
        seq += count
        store.apply([lambda tx, lines=lines, again=again: write(tx, lines, again)])  # type: ignore[misc]
    [(lines, _)] = store.apply([lambda tx: tx.logs("r", 0, 1_000_000)])
    check(lines, seq, limit)
