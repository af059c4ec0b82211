"""A process killed at any journal write goes on as if nothing had been: same result, no finished step executed twice."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.crash.corpus import CORPUS

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize("name", sorted(CORPUS))
def test_killed_at_every_journal_write_it_ends_the_same(name: str, tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "tests.crash.harness", name, str(tmp_path)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=110,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    assert len(report["points"]) >= 8, "the handler was not killed at its journal writes"
    for point in report["points"]:
        where = f"killed {'after' if point['after'] else 'before'} commit {point['at']}: {point} {done.stderr}"
        assert point.get("result", point) == report["golden"]["result"], where
        assert point["repeated"] == [], where
