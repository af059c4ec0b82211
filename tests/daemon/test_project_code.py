"""What becomes of changed files that cannot be loaded, or that change again before they are."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from taskrun.daemon.watch.project_code import ProjectCode
from taskrun.daemon.workers.worker_pool import NO_JOBS
from taskrun.daemon.workers.worker_rpc import WorkerGone
from taskrun.model.config import load
from taskrun.model.errors import JournalUnavailable


class Workers:
    """Workers that load the code as `outcomes` say, in turn; then it is loaded."""

    description = NO_JOBS

    def __init__(self) -> None:
        self.loads = 0
        self.outcomes: list[Callable[[Callable[[], None]], None]] = []

    async def ready(self) -> None: ...

    async def reload(self, patient: bool, meanwhile: Callable[[], None]) -> dict[str, Any]:
        self.loads += 1
        if self.outcomes:
            self.outcomes.pop(0)(meanwhile)
        return {"reloaded": True, "lost": False, "problems": []}


def fails(error: Exception) -> Callable[[Callable[[], None]], None]:
    def fail(_: Callable[[], None]) -> None:
        raise error

    return fail


@pytest.fixture
def workers() -> Workers:
    return Workers()


@pytest.fixture
async def code(tmp_path: Path, workers: Workers) -> ProjectCode:
    (tmp_path / "jobs").mkdir()
    (tmp_path / "taskrun.toml").write_text('[taskrun]\njobs = ["jobs"]\n')

    async def nothing(*_: Any) -> dict[str, str]:
        return {"problem": ""}

    async def no_runs(*_: Any) -> dict[Any, int]:
        return {}

    core = cast(Any, SimpleNamespace(read=no_runs))
    code = ProjectCode(core, cast(Any, workers), nothing, lambda: load(tmp_path / "taskrun.toml", {}), patient=True)
    await code.begin()
    (tmp_path / "jobs" / "new.py").write_text("")
    return code


@pytest.mark.parametrize(
    "error", [OSError(errno.EAGAIN, os.strerror(errno.EAGAIN)), JournalUnavailable("the disk is full")]
)
async def test_what_is_not_the_fault_of_the_code_is_tried_again_and_logged_once(
    code: ProjectCode, workers: Workers, error: Exception, caplog: pytest.LogCaptureFixture
) -> None:
    workers.outcomes += [fails(error), fails(error)]
    kinds = [item["kind"] for _ in range(4) for item in await code.look()]
    assert kinds == ["kept", "kept", "reloaded"]
    assert caplog.text.count("could not be loaded") == 1


async def test_code_that_ends_its_worker_is_loaded_again_once_it_has_changed(
    code: ProjectCode, workers: Workers, tmp_path: Path
) -> None:
    workers.outcomes.append(fails(WorkerGone("the other end of the pipe is gone")))
    assert [item["kind"] for _ in range(2) for item in await code.look()] == ["kept"]
    (tmp_path / "jobs" / "new.py").write_text("# mended")
    assert [item["kind"] for item in await code.look()] == ["reloaded"]


async def test_code_that_hangs_is_loaded_anew_as_soon_as_it_has_changed(
    code: ProjectCode, workers: Workers, tmp_path: Path
) -> None:
    def hangs(meanwhile: Callable[[], None]) -> None:
        meanwhile()
        (tmp_path / "jobs" / "other.py").write_text("")
        meanwhile()
        raise AssertionError("it goes on")

    workers.outcomes.append(hangs)
    [item] = await code.look()
    assert (item["kind"], workers.loads) == ("reloaded", 2)
    assert [one["file"] for one in item["files"]] == ["jobs/new.py", "jobs/other.py"]
