"""What executors say to the core: one function per message, most of them one transaction.

The `Answerer` that a `Queue` or the daemon gives to every executor.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from functools import partial
from typing import Any

import msgspec

from taskrun.engine import messages as m
from taskrun.engine.core import run_lifecycle as ledger
from taskrun.engine.core import waits
from taskrun.engine.core.admit import start_child
from taskrun.engine.core.core import Core
from taskrun.model.records import LogLine, Run, Step
from taskrun.rules.policies import Prepared


class Reception:
    """The core, as executors reach it."""

    def __init__(self, core: Core) -> None:
        self._core = core
        self._ledgers = core.ledgers
        self._dispatch = core.dispatch

    async def answer(self, peer: m.Peer, message: m.Asked) -> Any:
        """Answers an executor."""
        return await _ANSWERS[type(message)](self, message)

    def hear(self, peer: m.Peer, message: m.Told) -> None:
        """Takes what an executor tells."""
        _HEARS[type(message)](self, message)

    # ---- asked

    def _record(self, message: m.Record) -> asyncio.Future[None]:
        resident = self._dispatch.residents.get(message.step.run)
        suspect = resident is not None and resident.suspect
        return self._ledgers.do(lambda book: book.record(message.step, suspect))

    def _wait(self, message: m.Wait) -> asyncio.Future[Step]:
        begin = partial(waits.begin, step=message.step, since=message.since)
        return self._ledgers.do(begin, self._dispatch.expect)

    def _start_child(self, message: m.StartChild) -> asyncio.Future[Step]:
        start = partial(start_child, step=message.step, prepared=message.prepared, wait=message.wait)
        return self._ledgers.do(*self._dispatch.keep_place(start, self._dispatch.expect))

    def _send(self, message: m.Send) -> asyncio.Future[Step]:
        return self._ledgers.do(lambda book: waits.send(book, message.step, message.data))

    async def _activate(self, message: m.Activate) -> None:
        await self._dispatch.activate(message.run)

    async def _prepare(self, message: m.Prepare) -> Prepared:
        return await self._core.prepare(message.job, message.input)

    async def _cancel_runs(self, message: m.CancelRuns) -> int:
        return await self._core.cancel_runs(message.job, message.input)

    async def _look(self, message: m.Look) -> Run:
        return await (self._core.news(message.run) if message.next else self._core.get(message.run))

    async def _show(self, message: m.Show) -> str:
        return msgspec.json.encode(await self._core.show(message.run)).decode()

    async def _read_log(self, message: m.ReadLog) -> list[LogLine]:
        return await self._core.logs(message.run, message.after)

    async def _order(self, message: m.Order) -> m.Ordered:
        return await self._core.order(message.run, message.verb, message.argument)

    # ---- told

    def _noted(self, message: m.Noted) -> None:
        self._ledgers.ride(lambda book: ledger.note(book, message.step))

    def _parked(self, message: m.Parked) -> None:
        self._dispatch.parked(message)

    def _finished(self, message: m.Finished) -> None:
        self._dispatch.finished(message)

    def _logged(self, message: m.Logged) -> None:
        self._core.log.add(message.lines)

    def _progressed(self, message: m.Progressed) -> None:
        self._dispatch.progressed(message)

    def _blocked(self, message: m.Blocked) -> None:
        self._dispatch.hear_blocked(message)


_ANSWERS: dict[type[m.Message], Callable[[Reception, Any], Any]] = {
    m.Record: Reception._record,
    m.Wait: Reception._wait,
    m.StartChild: Reception._start_child,
    m.Send: Reception._send,
    m.Activate: Reception._activate,
    m.Prepare: Reception._prepare,
    m.CancelRuns: Reception._cancel_runs,
    m.Look: Reception._look,
    m.Show: Reception._show,
    m.ReadLog: Reception._read_log,
    m.Order: Reception._order,
}
_HEARS: dict[type[m.Message], Callable[[Reception, Any], None]] = {
    m.Noted: Reception._noted,
    m.Parked: Reception._parked,
    m.Finished: Reception._finished,
    m.Logged: Reception._logged,
    m.Progressed: Reception._progressed,
    m.Blocked: Reception._blocked,
}
