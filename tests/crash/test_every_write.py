"""A process killed at any journal write goes on as if nothing had been: same result, no finished step executed twice."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests import postgres_server
from tests.crash.corpus import CORPUS
from tests.crash.journals import KINDS

ROOT = Path(__file__).parents[2]
ON_POSTGRES = {"caught_child", "parent", "sleeper"}  # with what differs between stores; the others are slow there


def killed_everywhere(module: str, *arguments: str, **environment: str) -> Any:
    """Returns the report of a module of this folder that kills its forks."""
    if "postgres" in arguments:
        environment["TASKRUN_TEST_POSTGRES"] = postgres_server.shared_dsn()
    done = subprocess.run(
        [sys.executable, "-m", f"tests.crash.{module}", *arguments],
        cwd=ROOT,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=110,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        pytest.param(name, kind, marks=[pytest.mark.slow] if kind == "postgres" and name not in ON_POSTGRES else [])
        for name in sorted(CORPUS)
        for kind in KINDS
    ],
)
def test_killed_at_every_journal_write_it_ends_the_same(name: str, kind: str, tmp_path: Path) -> None:
    report = killed_everywhere("harness", name, str(tmp_path), kind)
    assert len(report["points"]) >= 8, "the handler was not killed at its journal writes"
    for point in report["points"]:
        where = f"killed {'after' if point['after'] else 'before'} commit {point['at']}: {point}"
        assert point.get("result", point) == report["golden"]["result"], where
        assert point["repeated"] == [], where


@pytest.mark.parametrize("kind", KINDS)
def test_a_replay_that_forgets_the_journal_is_caught(kind: str, tmp_path: Path) -> None:
    report = killed_everywhere("harness", "sequential", str(tmp_path), kind, TASKRUN_TEST_BUG="forget")
    assert any(point["repeated"] for point in report["points"])
