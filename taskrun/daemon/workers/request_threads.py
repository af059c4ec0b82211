"""Threads of a worker that answer requests which need no event loop, one after the other as long as none hangs.

User code takes part in the answers: types that validate, options that are functions. If it hangs, it holds up neither the other
requests nor the client: the request is answered with an error that says where the code is, and another thread goes on.
"""

from __future__ import annotations

import ctypes
import math
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from queue import SimpleQueue
from typing import Any

from taskrun.daemon.workers.blocked_loop import where
from taskrun.daemon.workers.worker_rpc import Answer, Ask, Refusal
from taskrun.engine import messages as m
from taskrun.model.codec import encode_error
from taskrun.model.errors import DefinitionError

SLOW = 0.25  # seconds after which other threads answer the next requests
ANSWERED_WITHIN = 6.0  # seconds; a client waits 10 for its answer
MAX_THREADS = 64


@dataclass(eq=False)
class Answering:
    """A request that is being answered."""

    ask: Ask
    thread: int
    since: float
    given_up: bool = False


class RequestThreads:
    """The threads that answer.

    Parameters:
        answer: answers one request.
        send: sends the answer; may block.
        root: the project's folder; when a request hangs, its innermost frame in there is named.
    """

    def __init__(self, answer: Callable[[Ask], Answer | Refusal], send: Callable[[Any], None], root: str) -> None:
        self._answer = answer
        self._send = send
        self._root = root
        self._lock = threading.Lock()
        self._waiting: SimpleQueue[Ask] = SimpleQueue()
        self._under_way: set[Answering] = set()
        self._opened = False
        self._threads = 0  # those that will take another request
        self._hanging = 0

    def open(self) -> None:
        """Begins to answer, once the jobs are loaded."""
        with self._lock:
            self._opened = True
            self._begin()

    def put(self, ask: Ask) -> None:
        """Takes a request."""
        self._waiting.put(ask)
        with self._lock:
            if self._opened and not self._threads:
                self._begin()

    def check(self) -> float:
        """Gives up requests that hang, and starts threads for the others where they are needed.

        Returns in how many seconds to check again; until a request comes there is no need to.
        """
        with self._lock:
            now = time.monotonic()
            late = [one for one in self._under_way if now - one.since > ANSWERED_WITHIN]
            refusals = [Refusal(one.ask.id, encode_error(self._give_up(one))) for one in late]
            waiting = self._waiting.qsize() if self._opened else 0
            if all(now - one.since > SLOW for one in self._under_way):
                for _ in range(min(waiting, max(1, len(self._under_way)))):  # twice as many each time
                    self._begin()
            pending = waiting or self._under_way
        for refusal in refusals:
            self._send(refusal)
        return SLOW if pending else math.inf

    def _begin(self) -> None:
        if self._threads + self._hanging < MAX_THREADS:
            self._threads += 1
            threading.Thread(target=self._work, name="taskrun-questions", daemon=True).start()

    def _give_up(self, one: Answering) -> DefinitionError:
        """Gives up a thread; what it executes is interrupted as soon as it is in Python code again."""
        one.given_up = True
        self._under_way.discard(one)
        self._threads -= 1
        self._hanging += 1
        frame = sys._current_frames().get(one.thread)
        at = "" if frame is None else f"; it is at {where(frame, self._root)}"
        ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(one.thread), ctypes.py_object(SystemExit))
        return DefinitionError(
            f"{_subject(one.ask.message)}: its code gave no answer within {ANSWERED_WITHIN:g} seconds{at}"
        )

    # ---- on the threads

    def _work(self) -> None:
        try:
            while self._turn():
                pass
        except SystemExit:  # the interruption, which came after the answer
            pass

    def _turn(self) -> bool:
        """Answers a request; returns whether this thread is to take another."""
        one = Answering(self._waiting.get(), threading.get_ident(), time.monotonic())
        with self._lock:
            self._under_way.add(one)
        reply = self._reply(one.ask)
        with self._lock:
            if one.given_up:
                self._hanging -= 1
                return False
            self._under_way.discard(one)
            stays = self._threads - len(self._under_way) == 1  # no other thread is free
            self._threads -= not stays
        self._send(reply)
        return stays

    def _reply(self, ask: Ask) -> Answer | Refusal:
        try:
            return self._answer(ask)
        except BaseException as error:  # whatever user code raises is an answer, `sys.exit()` included
            said = f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
            return Refusal(ask.id, encode_error(DefinitionError(f"{_subject(ask.message)}: its code raised {said}")))


def _subject(message: m.Asked) -> str:
    """Returns what a request is about."""
    if isinstance(message, m.Prepare):
        return f"job {message.job}"
    if isinstance(message, m.PrepareEvent):
        return f"pipe {message.pipe}"
    if isinstance(message, m.Route):
        return f"a trigger by {message.topic}"
    return "the jobs"
