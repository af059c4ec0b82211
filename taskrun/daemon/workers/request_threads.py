"""What a worker is asked that needs no event loop, answered on threads: one question after the other, as long as none hangs.

These are evaluated by code of users: types that validate, options that are functions. One that hangs holds up neither other
questions nor who asked: it is answered with an error that says where it stands, and others go on beside it.
"""

from __future__ import annotations

import ctypes
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from queue import SimpleQueue
from typing import Any

from taskrun.daemon.workers.watchdog import where
from taskrun.daemon.workers.worker_rpc import Answer, Ask, Refusal
from taskrun.engine import messages as m
from taskrun.model.codec import encode_error
from taskrun.model.errors import DefinitionError

SLOW = 0.25  # seconds after which the next question is answered beside it
ANSWERED_WITHIN = 6.0  # seconds; a client waits 10 for its answer
MOST = 64  # threads


@dataclass(eq=False)
class Answering:
    """A question under way."""

    ask: Ask
    thread: int
    since: float
    given_up: bool = False


class RequestThreads:
    """The threads that answer.

    Parameters:
        answer: answers one question.
        send: sends the answer; may block.
        root: the project; its innermost frame is the one that is named when a question hangs.
    """

    def __init__(self, answer: Callable[[Ask], Answer | Refusal], send: Callable[[Any], None], root: str) -> None:
        self._answer = answer
        self._send = send
        self._root = root
        self._lock = threading.Lock()
        self._waiting: SimpleQueue[Ask] = SimpleQueue()
        self._under_way: set[Answering] = set()
        self._opened = False
        self._threads = 0  # those that will take another question
        self._hanging = 0

    def open(self) -> None:
        """Begins to answer: all that an answer needs has been loaded."""
        with self._lock:
            self._opened = True
            self._begin()

    def put(self, ask: Ask) -> None:
        """Takes a question."""
        self._waiting.put(ask)
        with self._lock:
            if self._opened and not self._threads:
                self._begin()

    @property
    def pending(self) -> bool:
        """Whether somebody waits for an answer, so that `look` is to be called now and then."""
        return bool(self._under_way) or not self._waiting.empty()

    def look(self) -> None:
        """Gives up what hangs, and sees to it that the others are answered."""
        with self._lock:
            now = time.monotonic()
            late = [one for one in self._under_way if now - one.since > ANSWERED_WITHIN]
            refusals = [Refusal(one.ask.id, encode_error(self._give_up(one))) for one in late]
            if self._opened and not self._waiting.empty() and all(now - one.since > SLOW for one in self._under_way):
                self._begin()
        for refusal in refusals:
            self._send(refusal)

    def _begin(self) -> None:
        if self._threads + self._hanging < MOST:
            self._threads += 1
            threading.Thread(target=self._work, name="taskrun-questions", daemon=True).start()

    def _give_up(self, one: Answering) -> DefinitionError:
        """Counts a thread out; what it executes is interrupted as soon as that is Python again."""
        one.given_up = True
        self._under_way.discard(one)
        self._threads -= 1
        self._hanging += 1
        frame = sys._current_frames().get(one.thread)
        at = "" if frame is None else f"; it stands at {where(frame, self._root)}"
        ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(one.thread), ctypes.py_object(SystemExit))
        return DefinitionError(
            f"{_subject(one.ask.message)}: what evaluates it gave no answer within {ANSWERED_WITHIN:g} seconds{at}"
        )

    # ---- on the threads

    def _work(self) -> None:
        try:
            while self._turn():
                pass
        except SystemExit:  # of the interruption, which came late
            pass

    def _turn(self) -> bool:
        """Answers a question; returns whether this thread is to take another."""
        one = Answering(self._waiting.get(), threading.get_ident(), time.monotonic())
        with self._lock:
            self._under_way.add(one)
        reply = self._reply(one.ask)
        with self._lock:
            if one.given_up:
                self._hanging -= 1
                return False
            self._under_way.discard(one)
            stays = self._threads - len(self._under_way) == 1  # the only one that is free
            self._threads -= not stays
        self._send(reply)
        return stays

    def _reply(self, ask: Ask) -> Answer | Refusal:
        try:
            return self._answer(ask)
        except BaseException as error:  # `sys.exit()` and the like: whatever code of users raises is an answer
            said = f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
            return Refusal(ask.id, encode_error(DefinitionError(f"{_subject(ask.message)}: its code raised {said}")))


def _subject(message: m.Asked) -> str:
    """Says what a question is about."""
    if isinstance(message, m.Prepare):
        return f"job {message.job}"
    if isinstance(message, m.PrepareEvent):
        return f"pipe {message.pipe}"
    if isinstance(message, m.Route):
        return f"a trigger by {message.topic}"
    return "the jobs"
