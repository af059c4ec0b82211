"""A project whose `taskrun.toml` is a text, and a queue with its jobs on virtual time."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from taskrun.builtins.builtin_jobs import JOBS
from taskrun.builtins.project import load_project
from taskrun.declarations.registry import Discovery
from taskrun.model.config import load
from taskrun.testing import TestQueue

Project = Callable[..., Discovery]


@pytest.fixture
def project(tmp_path: Path) -> Iterator[Project]:
    """Loads a project with a `taskrun.toml`, and with a job file where one is given."""

    def loaded(text: str, code: str = "") -> Discovery:
        (tmp_path / "taskrun.toml").write_text(text)
        if code:
            (tmp_path / "jobs").mkdir(exist_ok=True)
            (tmp_path / "jobs" / "own.py").write_text(f"from taskrun import job, job_ref, pipe\n{code}")
        config = load(tmp_path / "taskrun.toml", {})
        return load_project(config.jobs, config.root, config.declared, builtin=JOBS)

    yield loaded
    load_project([], tmp_path)  # nothing of it is left in this process


def queue_of(found: Discovery) -> TestQueue:
    """Returns a queue with all jobs and pipes of a project, which has nothing wrong."""
    assert found.problems == []
    return TestQueue(found.registry.jobs, pipes=found.registry.pipes)
