"""Tells executors which hooks and listeners to call, in the order trigger, start, (error), end, settled, after the commit."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from taskrun.engine import messages as m
from taskrun.engine.core.attempts import Attempts
from taskrun.engine.core.executors import Executors
from taskrun.engine.core.journal import Journal
from taskrun.engine.core.outbox import AttemptFailed, RunAdded, RunOver, RunStarted
from taskrun.model.codec import error_from
from taskrun.model.records import ErrorRecord, Run
from taskrun.rules.transitions import HOOKS


class HookCalls:
    """Notifies executors of what happened to runs, if they have hooks or listeners for the job."""

    hears: Callable[[str], bool] | None = None  # whether anybody listens for a job; None: their descriptions say so

    def __init__(self, journal: Journal, attempts: Attempts, executors: Executors) -> None:
        self._journal = journal
        self._attempts = attempts
        self._executors = executors
        for kind in (RunAdded, RunStarted, AttemptFailed, RunOver):
            journal.follow(kind, self._follow)

    async def drain(self, peer: m.Peer, grace: float) -> None:
        """Has an executor end or unwind its attempts, and call the hooks of those that have ended, within `grace` seconds."""
        over = asyncio.get_running_loop().time() + grace
        await peer.ask(m.Drain(grace))
        await self._journal.flush()  # so that it has been told of all ends
        await peer.ask(m.FinishHooks(max(0.0, over - asyncio.get_running_loop().time())))

    def _follow(self, event: RunAdded | RunStarted | AttemptFailed | RunOver) -> None:
        if self.hears is not None and not self.hears(event.run.job):
            return
        match event:
            case RunAdded(run):
                self._notify("trigger", run)
            case RunStarted(run):
                self._notify("start", run)
            case AttemptFailed(run, error):
                self._notify("error", run, error)
            case RunOver(run):
                self._ended(run)

    def _ended(self, run: Run) -> None:
        cause = error_from(run.error) if run.error is not None else None
        self._notify(HOOKS[run.status], run, cause)
        self._notify("settled", run, cause)

    def _notify(self, kind: str, run: Run, error: ErrorRecord | None = None) -> None:
        """Tells the executor that is to call the hooks for a run, if its job has any: its own, else any that has the job."""
        attempt = self._attempts.get(run.id)
        peer = attempt.peer if attempt is not None else None
        if peer is None or self._executors.description(peer) is None:  # a run may end after its executor has left
            peer = self._executors.with_job(run.job)
        if peer is None:
            return
        description = self._executors.description(peer)
        if description is not None and (description.hooked is None or run.job in description.hooked):
            peer.tell(m.Notify(kind=kind, run=run, error=error))
