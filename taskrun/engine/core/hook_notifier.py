"""Tells executors which hooks and listeners to call, in the order trigger, start, (error), end, settled, after the commit."""

from __future__ import annotations

from taskrun.engine import messages as m
from taskrun.engine.core.executors import Dispatch
from taskrun.engine.core.transaction import Book
from taskrun.model.codec import error_from
from taskrun.model.records import ErrorRecord, Run, Status

KINDS = {
    Status.SUCCEEDED: "success",
    Status.FAILED: "failure",
    Status.CANCELLED: "cancel",
    Status.DISCARDED: "cancel",
}


class Hooks:
    """Notifies of what happened to runs, those executors that listen for their job."""

    def __init__(self, dispatch: Dispatch) -> None:
        self._dispatch = dispatch

    def follow(self, book: Book) -> None:
        """Notifies of a transaction's triggers, first starts, failed attempts and ends."""
        for run in book.fresh:
            self._notify("trigger", run)
        for run in book.begun.values():
            self._notify("start", run)
        for run, error in book.failed:
            self._notify("error", run, error)
        for run in book.ended:
            cause = error_from(run.error) if run.error is not None else None
            self._notify(KINDS[run.status], run, cause)
            self._notify("settled", run, cause)

    def _notify(self, kind: str, run: Run, error: ErrorRecord | None = None) -> None:
        peer = self._dispatch.listener(run)
        if peer is not None:
            peer.tell(m.Notify(kind=kind, run=run, error=error))
