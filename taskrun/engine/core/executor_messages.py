"""What executors say to the core: one function per message, most of them one transaction.

The `Answerer` that a `Queue` or the daemon gives to every executor.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any

import msgspec

from taskrun.engine import messages as m
from taskrun.engine.core import run_lifecycle, waits
from taskrun.engine.core.admit import start_child
from taskrun.engine.core.core import Core
from taskrun.engine.core.transaction import Transaction
from taskrun.model.records import LogLine, Run, Step
from taskrun.rules.policies import Prepared


class ExecutorMessages:
    """The core, as executors reach it."""

    def __init__(self, core: Core) -> None:
        self._core = core
        self._journal = core.journal
        self._attempts = core.attempts

    def answer(self, peer: m.Peer, message: m.Asked) -> asyncio.Future[Any]:
        """Answers an executor, by a future: the answer is not worked out in the task of the handler that asks."""
        answer = _ANSWERS[type(message)](self, message)
        return answer if isinstance(answer, asyncio.Future) else asyncio.ensure_future(answer)

    def hear(self, peer: m.Peer, message: m.Told) -> None:
        """Takes what an executor tells."""
        _HEARS[type(message)](self, peer, message)

    # ---- asked

    def _record(self, message: m.Record) -> asyncio.Future[None]:
        attempt = self._attempts.get(message.step.run)
        suspect = attempt is not None and attempt.suspect
        return self._journal.do(lambda t: t.record(message.step, suspect))

    def _record_values(self, message: m.RecordValues) -> asyncio.Future[None]:
        def act(t: Transaction) -> None:
            for step in message.steps:
                t.record(step, False)

        return self._journal.do(act)

    def _wait(self, message: m.Wait) -> asyncio.Future[Step]:
        begin = partial(waits.begin, step=message.step, since=message.since)
        return self._journal.do(begin)

    def _start_child(self, message: m.StartChild) -> asyncio.Future[Step]:
        start = partial(start_child, step=message.step, prepared=message.prepared, wait=message.wait)
        return self._core.claims.with_slot(start)

    def _send(self, message: m.Send) -> asyncio.Future[Step]:
        return self._journal.do(lambda t: waits.send(t, message.step, message.data))

    async def _prepare(self, message: m.Prepare) -> Prepared:
        return await self._core.prepare(message.job, message.input)

    async def _cancel_runs(self, message: m.CancelRuns) -> int:
        return await self._core.cancel_runs(message.job, message.input)

    async def _look(self, message: m.Look) -> Run:
        if message.seen is None:
            return await self._core.get(message.run)
        return await self._core.news(message.run, message.seen, message.lines)

    async def _show(self, message: m.Show) -> str:
        return msgspec.json.encode(await self._core.show(message.run)).decode()

    async def _read_log(self, message: m.ReadLog) -> list[LogLine]:
        return await self._core.logs(message.run, message.after)

    async def _order(self, message: m.Order) -> m.Ordered:
        return await self._core.request(message.run, message.verb, message.argument)

    # ---- told

    def _noted(self, peer: m.Peer, message: m.Noted) -> None:
        self._journal.defer(lambda t: run_lifecycle.note(t, message.step))

    def _forget(self, peer: m.Peer, message: m.Forget) -> None:
        def act(t: Transaction) -> None:
            step = t.tx.step(message.run, message.key)
            if step is not None and t.tx.holds(t.engine, message.run):
                t.free(step)
                t.tx.drop_steps(message.run, [message.key])

        self._journal.post(act)

    def _park(self, peer: m.Peer, message: m.Park) -> None:
        self._attempts.park(peer, message)

    def _activate(self, peer: m.Peer, message: m.Activate) -> None:
        self._attempts.activate(peer, message.run)

    def _stay(self, peer: m.Peer, message: m.Stay) -> None:
        self._attempts.stay(peer, message.run)

    def _finished(self, peer: m.Peer, message: m.Finished) -> None:
        self._attempts.finished(peer, message)

    def _logged(self, peer: m.Peer, message: m.Logged) -> None:
        self._core.log.add(message.lines, message.steps)

    def _progressed(self, peer: m.Peer, message: m.Progressed) -> None:
        self._attempts.progressed(peer, message)

    def _blocked(self, peer: m.Peer, message: m.Blocked) -> None:
        self._attempts.hear_blocked(message)


_ANSWERS: dict[type[m.Message], Callable[[ExecutorMessages, Any], Awaitable[Any]]] = {
    m.Record: ExecutorMessages._record,
    m.RecordValues: ExecutorMessages._record_values,
    m.Wait: ExecutorMessages._wait,
    m.StartChild: ExecutorMessages._start_child,
    m.Send: ExecutorMessages._send,
    m.Prepare: ExecutorMessages._prepare,
    m.CancelRuns: ExecutorMessages._cancel_runs,
    m.Look: ExecutorMessages._look,
    m.Show: ExecutorMessages._show,
    m.ReadLog: ExecutorMessages._read_log,
    m.Order: ExecutorMessages._order,
}
_HEARS: dict[type[m.Message], Callable[[ExecutorMessages, m.Peer, Any], None]] = {
    m.Noted: ExecutorMessages._noted,
    m.Forget: ExecutorMessages._forget,
    m.Park: ExecutorMessages._park,
    m.Activate: ExecutorMessages._activate,
    m.Stay: ExecutorMessages._stay,
    m.Finished: ExecutorMessages._finished,
    m.Logged: ExecutorMessages._logged,
    m.Progressed: ExecutorMessages._progressed,
    m.Blocked: ExecutorMessages._blocked,
}
