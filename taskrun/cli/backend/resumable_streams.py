"""Streams that go on with the next daemon when theirs is gone.

A daemon that was killed is started again. One that was told to stop is not, but it may be restarting, so it is waited for a
moment. By sequence numbers no line of a log is missed or repeated.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import aclosing
from typing import Any

from taskrun.cli.session import Backend, Session
from taskrun.model.errors import DaemonError, DaemonStopped

MOST_LOSSES = 5  # in a row, without a message between them
MOST_LOSSES_STOPPED = 12  # while a daemon that was told to stop may be restarting
PAUSE = 0.3


async def resumed(
    session: Session, op: str, params: Callable[[], dict[str, Any]], back: Callable[[], None]
) -> AsyncGenerator[dict[str, Any], None]:
    """Yields the messages of a stream, which is requested again with new `params` when the daemon was lost or has stopped.

    Raises:
        DaemonStopped: it was told to stop, and was not started again.
        DaemonError: it does not come back.
    """
    losses, lost, stopped = 0, False, False
    while True:
        backend: Backend | None = None
        try:
            backend = await session.daemon(start=not stopped)
            if lost:
                lost = False
                back()
            async for message in backend.stream(op, **params()):
                losses, stopped = 0, False
                yield message
            raise DaemonError("the daemon ended a stream")
        except DaemonError as error:
            stopped = stopped or isinstance(error, DaemonStopped)
            losses, lost = losses + 1, True
            if losses >= (MOST_LOSSES_STOPPED if stopped else MOST_LOSSES):
                raise DaemonStopped("the daemon was stopped") if stopped else error from None
            await asyncio.sleep(PAUSE)
        finally:
            await session.release(backend)


async def log_stream(
    session: Session, after: dict[str, int], back: Callable[[], None] = lambda: None
) -> AsyncIterator[dict[str, Any]]:
    """Yields log records of runs, and for each run that ends `{"kind":"end","run":RUN}` after its last line.

    Parameters:
        after: the last seq that is known of each run; kept up to date.
        back: called when the daemon is back after it was lost.
    """
    ended: set[str] = set()

    def params() -> dict[str, Any]:
        return {"runs": [run for run in after if run not in ended], "after": dict(after)}

    async with aclosing(resumed(session, "tail", params, back)) as messages:
        async for message in messages:
            if message["kind"] == "end":
                ended.add(message["run"]["id"])
                yield message
            elif message["seq"] > after.get(message["run"], 0):
                after[message["run"]] = message["seq"]
                yield message
            if len(ended) == len(after):
                return


async def change_stream(session: Session, **wanted: Any) -> AsyncIterator[dict[str, Any]]:
    """Yields the runs as they are, `{"kind":"ready"}`, then every change of a run or step."""
    async for message in resumed(session, "watch", lambda: wanted, lambda: None):
        yield message
