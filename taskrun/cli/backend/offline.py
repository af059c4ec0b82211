"""Answers from the journal itself, for commands that only look while no daemon runs."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Callable
from typing import Any

from taskrun.cli.lazy_imports import (
    ADDRESSES,
    ENGINE_REPORTS,
    JOB_FILES,
    JOB_VIEWS,
    SCHEDULE_SLOTS,
    STORAGE,
    import_late,
)
from taskrun.engine.core.queries import views
from taskrun.model.config import Config, is_server
from taskrun.model.errors import DaemonError, RunNotFound
from taskrun.model.records import Status
from taskrun.processes.threads import in_thread
from taskrun.stores.base import Tx
from taskrun.stores.highwater import is_absent
from taskrun.stores.sqlite_reader import JournalReader, NeedsWriter


class JournalBackend:
    """The journal as a `Caller`; knows the requests that need no daemon. What has not ended there is `held`."""

    live = False

    def __init__(self, config: Config) -> None:
        self._config = config
        self._served = is_server(config.journal)  # workers elsewhere may go on with what has not ended
        if self._served:
            self._server = import_late(ADDRESSES).server_reader(config.journal)
        else:
            self._reader = JournalReader(config.journal)
        self._answers: dict[str, Callable[..., Any]] = {
            "runs": self._runs,
            "overview": self._overview,
            "find": self._find,
            "show": self._show,
            "steps": self._steps,
            "children": self._children,
            "failures": self._failures,
            "piece": self._piece,
            "logs": self._logs,
            "schedule": self._schedule,
            "slots": self._slots,
            "why": self._why,
            "workers": self._workers,
        }

    async def call(self, op: str, **params: Any) -> Any:
        """Returns the answer to one request."""
        if op == "jobs":
            return await self._jobs()
        return await self._answers[op](**params)

    async def stream(self, op: str, **params: Any) -> AsyncIterator[Any]:
        """Raises DaemonError: only a daemon streams."""
        raise DaemonError("no daemon runs; start it: taskrun daemon start")
        yield

    async def close(self) -> None:
        """Ends the connection to the journal."""
        await (self._server if self._served else self._reader).close()

    async def _runs(
        self,
        job: str | None = None,
        status: list[str] | None = None,
        since: float | None = None,
        limit: int | None = None,
        before: int | None = None,
        roots: bool = False,
        tags: list[tuple[str, str | None]] | None = None,
        parent: str | None = None,
        folds: bool = False,
    ) -> Any:
        states = [Status(one) for one in status or ()]

        def found(tx: Tx) -> Any:
            return views.list_runs(tx, job, states, since, limit, before, roots, tags or (), parent, folds)

        return self._marked_held(await self._read(found, []))

    async def _overview(self) -> Any:
        found = await self._read(views.counts, {"counts": [], "children": 0})
        if self._served:
            return {**found, "defaults": {}}
        counts = [(job, "interrupted" if state == Status.RUNNING else state, n) for job, state, n in found["counts"]]
        return {**found, "counts": counts, "defaults": {}}

    async def _find(self, ref: str) -> Any:
        return self._found(await self._read(lambda tx: views.resolve(tx, ref), None), ref)

    async def _show(self, run: str) -> Any:
        shown = self._found(await self._read(lambda tx: views.show(tx, run), None), run)
        (marked,) = self._marked_held([shown])
        return {**marked, **{name: self._marked_held(shown[name]) for name in ("steps", "children")}}

    async def _steps(self, run: str, after: int = 0, limit: int = views.PAGE) -> Any:
        return self._marked_held(await self._read(lambda tx: views.steps(tx, run, after, limit), []))

    async def _children(self, run: str, after: int = 0, limit: int = views.PAGE) -> Any:
        return self._marked_held(await self._read(lambda tx: views.children(tx, run, after, limit), []))

    async def _failures(self, run: str, step: str | None = None) -> Any:
        return await self._read(lambda tx: views.failures(tx, run, step), [])

    async def _piece(self, run: str, field: str, step: str | None = None, start: int = 0) -> Any:
        return await self._read(lambda tx: views.piece(tx, run, step, field, start), "")

    async def _logs(self, run: str, after: int = 0, limit: int = 1000) -> Any:
        return await self._read(lambda tx: views.page_logs(tx, run, after, limit), [])

    async def _why(self, runs: list[str]) -> Any:
        """Nothing goes on without a daemon, whatever else may hold it."""
        cause = {"kind": "no-daemon", "text": "no daemon runs; start it: taskrun daemon start"}
        return [{"id": run, "status": (await self._show(run))["status"], "causes": [cause]} for run in runs]

    async def _workers(self) -> Any:
        return await self._read(import_late(ENGINE_REPORTS).engine_views, []) if self._served else []

    async def _schedule(self) -> Any:
        return await self._read(lambda tx: import_late(SCHEDULE_SLOTS).schedule_views(tx, time.time()), [])

    async def _slots(self, job: str, limit: int = 20) -> Any:
        return await self._read(lambda tx: import_late(SCHEDULE_SLOTS).slot_views(tx, job, limit, time.time()), [])

    async def _jobs(self) -> Any:
        described = await in_thread(lambda: import_late(JOB_FILES).describe(self._config))
        jobs = described["jobs"]
        new = [{**job, "paused": False} for job in jobs]
        return {**described, "jobs": await self._read(lambda tx: import_late(JOB_VIEWS).job_views(tx, jobs), new)}

    def _found(self, value: Any, ref: str) -> Any:
        if value is None:
            raise RunNotFound(f'no run "{ref}": nothing has run here yet')
        return value

    async def _read(self, fn: Callable[[Tx], Any], empty: Any) -> Any:
        """Reads in one transaction; a journal that never was is not made."""
        if self._served:
            found = await self._server.read(fn)
            return empty if found is None else found
        if is_absent(self._config.journal):
            return empty
        try:
            return await self._reader.read(fn)
        except NeedsWriter:
            return self._written(fn)

    def _written(self, fn: Callable[[Tx], Any]) -> Any:
        """Reads on a connection that writes, and has the journal for itself for a moment."""
        store = import_late(STORAGE).SqliteStorage(self._config.journal, exclusive=True)
        store.open()
        try:
            ((value, error),) = store.apply([fn])
        finally:
            store.close()
        if error is not None:
            raise error
        return value

    def _marked_held(self, things: list[dict[str, Any]]) -> list[dict[str, Any]]:
        """Returns runs or steps, `held` those that have not ended: nobody is at them, whatever their status was."""
        return [thing if thing["ended_at"] or self._served else {**thing, "held": True} for thing in things]
