"""Who waits in this process for a run to end."""

from __future__ import annotations

import asyncio

from taskrun.engine.core.transaction import Book
from taskrun.model.errors import JournalUnavailable
from taskrun.model.records import Run


class Waiters:
    """Futures of ends, by run id."""

    def __init__(self) -> None:
        self._futures: dict[str, list[asyncio.Future[Run]]] = {}

    def ids(self) -> list[str]:
        """Returns the runs that somebody waits for."""
        return list(self._futures)

    def add(self, run_id: str) -> asyncio.Future[Run]:
        """Returns a future that resolves with the run once it has ended."""
        future: asyncio.Future[Run] = asyncio.get_running_loop().create_future()
        self._futures.setdefault(run_id, []).append(future)
        return future

    def drop(self, run_id: str, future: asyncio.Future[Run]) -> None:
        """Forgets a future."""
        futures = self._futures.get(run_id)
        if futures is not None and future in futures:
            futures.remove(future)
            if not futures:
                del self._futures[run_id]

    def follow(self, book: Book) -> None:
        """Tells the ends of a transaction."""
        for run in book.ended:
            self.tell(run)

    def tell(self, run: Run) -> None:
        """Resolves the futures of a run that has ended."""
        for future in self._futures.pop(run.id, ()):
            if not future.done():
                future.set_result(run)

    def close(self) -> None:
        """Fails everybody who still waits: the queue is closed, the run goes on at the next start."""
        for futures in self._futures.values():
            for future in futures:
                if not future.done():
                    future.set_exception(JournalUnavailable("the queue was closed; the run goes on at its next start"))
        self._futures.clear()
