"""A project's folder, and terminals of several kinds in it."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.cli.fakes import FakeTerminal


@pytest.fixture(autouse=True)
def path_of_modules() -> Iterator[None]:
    """A command loads job files for good, as it ends its process: what it adds to `sys.path` is no concern of other tests."""
    before = sys.path[:]
    yield
    sys.path[:] = before


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A folder with a configuration."""
    (tmp_path / "taskrun.toml").write_text("")
    return tmp_path


@pytest.fixture
def pipe(project: Path) -> FakeTerminal:
    """Standard output and error are no terminals."""
    return FakeTerminal(project)


@pytest.fixture
def screen(project: Path) -> FakeTerminal:
    """Everything is a terminal, without colour."""
    facts: dict[str, Any] = {"in_tty": True, "out_tty": True, "err_tty": True}
    return FakeTerminal(project, **facts)
