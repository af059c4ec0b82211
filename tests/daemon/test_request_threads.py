"""Questions are answered one after the other, until one hangs."""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable, Iterator
from queue import SimpleQueue
from typing import Any

import pytest

from taskrun.daemon.workers import request_threads as module
from taskrun.daemon.workers.request_threads import RequestThreads
from taskrun.daemon.workers.worker_rpc import NOTHING, Answer, Ask, Refusal
from taskrun.engine import messages as m


class Asking:
    """Questions that are answered as their job's name says."""

    def __init__(self) -> None:
        self.answers: SimpleQueue[Answer | Refusal] = SimpleQueue()
        self.free = threading.Event()
        self.questions = RequestThreads(self._answer, self.answers.put, "/")
        self.at_once = self.most_at_once = 0
        self._lock = threading.Lock()

    def ask(self, *jobs: str) -> None:
        for number, job in enumerate(jobs, 1):
            self.questions.put(Ask(number, m.Prepare(job, "{}")))

    def next(self) -> Answer | Refusal:
        return self.answers.get(timeout=20)

    def look_until(self, holds: Callable[[], Any]) -> None:
        self.until(lambda: holds() or (self.questions.check() and None))

    def until(self, holds: Callable[[], Any]) -> None:
        deadline = time.monotonic() + 20
        while not holds():
            assert time.monotonic() < deadline
            time.sleep(0.001)

    def all_are_slow(self) -> bool:
        now = time.monotonic()
        return all(now - one.since > module.SLOW for one in self.questions._under_way)

    def _answer(self, ask: Ask) -> Answer:
        with self._lock:
            self.at_once += 1
            self.most_at_once = max(self.most_at_once, self.at_once)
        try:
            assert isinstance(ask.message, m.Prepare)
            self._do(ask.message.job)
        finally:
            with self._lock:
                self.at_once -= 1
        return Answer(ask.id, NOTHING)

    def _do(self, job: str) -> None:
        if job == "exit":
            raise SystemExit(3)
        if job == "wait":
            self.free.wait()
        while job == "spin":
            pass


@pytest.fixture
def asking(monkeypatch: pytest.MonkeyPatch) -> Iterator[Asking]:
    monkeypatch.setattr(module, "SLOW", 0.01)
    monkeypatch.setattr(module, "ANSWERED_WITHIN", 0.1)
    asking = Asking()
    yield asking
    asking.free.set()


def test_nothing_is_answered_before_it_is_opened(asking: Asking) -> None:
    asking.ask("fine")
    asking.questions.check()
    assert asking.answers.empty()
    asking.questions.open()
    assert asking.next() == Answer(1, NOTHING)


def test_they_are_answered_one_after_the_other(asking: Asking) -> None:
    asking.questions.open()
    asking.ask(*["fine"] * 200)
    assert [asking.next().id for _ in range(200)] == list(range(1, 201))
    assert asking.most_at_once == 1


def test_an_exit_is_an_answer(asking: Asking) -> None:
    asking.questions.open()
    asking.ask("exit", "fine")
    refusal = asking.next()
    assert isinstance(refusal, Refusal)
    assert refusal.error.message == "job exit: its code raised SystemExit: 3"
    assert asking.next() == Answer(2, NOTHING)


@pytest.mark.parametrize("how", ["wait", "spin"])
def test_what_hangs_is_given_up_and_holds_up_nobody(asking: Asking, how: str) -> None:
    asking.questions.open()
    asking.ask(how, "fine", how, "fine")
    asking.look_until(lambda: asking.answers.qsize() == 4)
    found = {reply.id: reply for reply in (asking.next() for _ in range(4))}
    assert found[2] == Answer(2, NOTHING)
    assert found[4] == Answer(4, NOTHING)
    for number in (1, 3):
        refusal = found[number]
        assert isinstance(refusal, Refusal)
        assert "gave no answer within 0.1 seconds; it is at" in refusal.error.message
    asking.free.set()
    asking.look_until(lambda: not asking.questions._hanging)
    asking.ask("fine")
    assert asking.next() == Answer(1, NOTHING)
    assert asking.answers.empty()


def test_one_that_is_only_slow_gets_its_answer(asking: Asking) -> None:
    asking.questions.open()
    asking.ask("wait", "fine")
    asking.look_until(lambda: not asking.answers.empty())
    assert asking.next() == Answer(2, NOTHING)
    asking.free.set()
    assert asking.next() == Answer(1, NOTHING)


def test_several_that_hang_hold_up_the_others_hardly_longer_than_one(
    asking: Asking, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each time that all hang there are twice as many threads."""
    monkeypatch.setattr(module, "ANSWERED_WITHIN", 60.0)
    asking.questions.open()
    asking.ask(*["wait"] * 7, "fine")
    for hanging in (1, 2, 4, 7):
        asking.until(lambda hanging=hanging: asking.at_once == hanging)  # type: ignore[misc]  # a default, not a parameter
        asking.until(asking.all_are_slow)
        assert asking.questions.check() == module.SLOW
    assert asking.next() == Answer(8, NOTHING)
    asking.free.set()
    assert {asking.next().id for _ in range(7)} == {*range(1, 8)}
    assert asking.questions.check() == math.inf
