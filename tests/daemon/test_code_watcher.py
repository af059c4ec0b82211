"""`taskrun watch` within the daemon: it goes on watching whatever cannot be done at the moment."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from taskrun.daemon.watch import code_watcher
from taskrun.daemon.watch.code_watcher import CodeWatcher
from taskrun.daemon.watch.project_code import ProjectCode
from taskrun.daemon.watch.source_files import SourceFiles
from taskrun.daemon.workers.worker_pool import NO_JOBS
from taskrun.model.config import load
from taskrun.model.errors import DaemonError


class Workers:
    """Workers that become ready, and load the code, once `refusals` are used up."""

    description = NO_JOBS

    def __init__(self) -> None:
        self.refusals: list[Exception] = []

    async def ready(self) -> None:
        if self.refusals:
            raise self.refusals.pop(0)

    async def expect_changes(self, reload_grace: float) -> None: ...

    async def reload(self, patient: bool, meanwhile: Callable[[], None]) -> dict[str, Any]:
        return {"reloaded": True, "lost": False, "problems": []}


@asynccontextmanager
async def watched(root: Path, workers: Workers) -> AsyncIterator[Any]:
    """Watches a project; yields what is reported."""

    async def nothing(*_: Any) -> dict[Any, Any]:
        return {"problem": ""}

    async def no_runs(*_: Any) -> dict[Any, int]:
        return {}

    core = SimpleNamespace(read=no_runs)
    context = cast(Any, SimpleNamespace(workers=workers, stop=lambda: None))
    project = ProjectCode(cast(Any, core), cast(Any, workers), nothing, lambda: load(root / "taskrun.toml", {}))
    read, write = os.pipe()
    watcher = CodeWatcher(read)
    watching = asyncio.ensure_future(watcher.watch(context, project))
    try:
        async with asyncio.timeout(20):
            yield watcher.ops()["changes"].answer(context, cast(Any, None))
    finally:
        watching.cancel()
        with suppress(asyncio.CancelledError):
            await watching
        os.close(read)
        os.close(write)


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(code_watcher, "AGAIN", 0.0)
    (tmp_path / "jobs").mkdir()
    (tmp_path / "taskrun.toml").write_text('[taskrun]\njobs = ["jobs"]\n')
    return tmp_path


async def test_folders_that_cannot_be_looked_into_are_told_once_and_looked_into_again(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folders, refused = SourceFiles.folders, [PermissionError(13, "Permission denied", "jobs")] * 3

    def may_refuse(files: SourceFiles) -> set[Path]:
        if refused:
            raise refused.pop()
        return folders(files)

    monkeypatch.setattr(SourceFiles, "folders", may_refuse)
    async with watched(root, Workers()) as items:
        first, second = await anext(items), await anext(items)
        assert (first["kind"], second["kind"]) == ("watching", "kept")
        assert "Permission denied: 'jobs'" in second["problems"][0]["text"]
        (root / "jobs" / "new.py").write_text("")
        third = await anext(items)
        assert (third["kind"], third["files"]) == ("reloaded", [{"how": "+", "file": "jobs/new.py"}])


async def test_a_worker_that_is_not_ready_in_time_is_waited_for_again(root: Path) -> None:
    workers = Workers()
    workers.refusals.append(DaemonError("no worker is ready"))
    async with watched(root, workers) as items:
        assert [(await anext(items))["kind"] for _ in range(2)] == ["kept", "watching"]
