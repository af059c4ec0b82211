"""A process killed at any journal write goes on as if nothing had been: same result, no finished step executed twice."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.crash.corpus import CORPUS

ROOT = Path(__file__).parents[2]


def killed_everywhere(name: str, folder: Path, **environment: str) -> dict[str, Any]:
    """Returns the harness's report on a handler."""
    done = subprocess.run(
        [sys.executable, "-m", "tests.crash.harness", name, str(folder)],
        cwd=ROOT,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=110,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    report: dict[str, Any] = json.loads(done.stdout)
    return report


@pytest.mark.parametrize("name", sorted(CORPUS))
def test_killed_at_every_journal_write_it_ends_the_same(name: str, tmp_path: Path) -> None:
    report = killed_everywhere(name, tmp_path)
    assert len(report["points"]) >= 8, "the handler was not killed at its journal writes"
    for point in report["points"]:
        where = f"killed {'after' if point['after'] else 'before'} commit {point['at']}: {point}"
        assert point.get("result", point) == report["golden"]["result"], where
        assert point["repeated"] == [], where


def test_a_replay_that_forgets_the_journal_is_caught(tmp_path: Path) -> None:
    report = killed_everywhere("sequential", tmp_path, TASKRUN_TEST_BUG="forget")
    assert any(point["repeated"] for point in report["points"])
