"""Finds the function that answers a request, and says what such functions are given.

The parameters of an operation are a struct, read from the frame with unknown fields ignored; its answer is plain JSON, made by
the views. The operations are in `read_requests`, `change_requests` and `stream_requests`.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable
from difflib import get_close_matches
from typing import Any, NamedTuple, Protocol, TypeVar, cast

import msgspec

from taskrun.daemon.clients.command_connection import Answering
from taskrun.daemon.lock import Holder
from taskrun.engine.core.core import Core
from taskrun.engine.messages import Description
from taskrun.model.errors import DaemonError, JournalUnavailable

P = TypeVar("P")
COMMITTED_WITHIN = 7.0  # seconds; a client waits 10 for its answer


class JobSource(Protocol):
    """What knows the jobs: the worker processes."""

    description: Description

    async def ready(self) -> None:
        """Waits until a worker is ready; raises DaemonError when none becomes so in time."""
        ...


class Workers(JobSource, Protocol):
    """The worker processes, as far as requests need them."""

    async def reload(self, patient: bool = False, meanwhile: Callable[[], None] = lambda: None) -> dict[str, Any]:
        """Replaces the workers by new ones with the current code; returns what has changed.

        Parameters:
            patient: whether the old ones execute what they have until it ends or waits, however long that takes.
            meanwhile: called now and then while the code is loaded, however long that takes; what it raises ends that.
        """
        ...

    async def expect_changes(self, reload_grace: float) -> None:
        """Keeps a worker ready for the next reload; `reload_grace`: seconds for steps in flight to end by themselves then."""
        ...


class RequestContext(NamedTuple):
    """What the functions that answer requests work with."""

    core: Core
    workers: Workers
    journal: str
    holder: Callable[[], Holder]
    stop: Callable[[], None]
    config_problems: Callable[[], Awaitable[dict[str, Any]]]
    load_changes: Callable[[], Awaitable[list[dict[str, Any]]]]


class Operation(NamedTuple):
    """How one operation is answered. `writes`: whether it has to be committed before the answer."""

    params: type[Any]
    answer: Callable[[RequestContext, Any], Awaitable[Any] | AsyncGenerator[Any, None]]
    writes: bool = False


class RequestRouter:
    """Finds the function that answers a request."""

    def __init__(self, context: RequestContext, ops: dict[str, Operation]) -> None:
        self._context = context
        self._ops = ops

    def find(self, op: str) -> Answering:
        """Returns what answers an operation.

        Raises:
            DaemonError: there is no such operation.
        """
        found = self._ops.get(op)
        if found is None:
            close = get_close_matches(op, self._ops, 1)
            raise DaemonError(f'unknown request "{op[:100]}"' + (f": did you mean {close[0]}?" if close else ""))
        if found.writes:
            return lambda payload: _durably(self._context, found, payload)
        return lambda payload: found.answer(self._context, _params(payload, found.params))


async def _durably(context: RequestContext, op: Operation, payload: bytes) -> Any:
    """Answers an operation that has to be committed, and fails in time when the disk refuses.

    Raises:
        JournalUnavailable: nothing was recorded; or it will be, as soon as the disk allows it.
    """
    if (fault := context.core.journal.fault) is not None:
        raise JournalUnavailable(f"nothing was recorded: {_refusal(fault)}")
    writing = asyncio.ensure_future(cast(Awaitable[Any], op.answer(context, _params(payload, op.params))))
    try:
        done, _ = await asyncio.wait([writing], timeout=COMMITTED_WITHIN)
        if not done and (fault := context.core.journal.fault) is not None:
            raise JournalUnavailable(f"not recorded yet, but as soon as the disk allows it: {_refusal(fault)}")
        return await writing
    except asyncio.CancelledError:
        writing.cancel()
        raise


def _refusal(fault: Exception) -> str:
    """Returns why the disk refuses, without the outcome of the batch that noticed it, which was another client's."""
    return f"the journal cannot be written: {fault.__cause__ or fault}"


def _params(payload: bytes, kind: type[P]) -> P:
    try:
        return msgspec.json.decode(payload, type=kind)
    except msgspec.DecodeError as error:
        raise DaemonError(f"bad request: {error}") from error


class Nothing(msgspec.Struct, frozen=True):
    """No parameters."""
