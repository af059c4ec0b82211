"""A process killed at any journal write between an event and those who are told of it: each is told, by one run."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

from tests.crash.test_every_write import ROOT


def test_killed_at_every_journal_write_everybody_is_told_once(tmp_path: Path) -> None:
    line = [sys.executable, "-m", "tests.crash.telling", str(tmp_path)]
    done = subprocess.run(line, cwd=ROOT, capture_output=True, text=True, timeout=110, check=False)
    assert done.returncode == 0, done.stderr
    points = json.loads(done.stdout)
    assert len(points) >= 10, "it was not killed at its journal writes"
    for point in points:
        assert point["again"] == 0, point
        runs = {told.split()[1] for told in point["told"]}
        assert len(runs) == 1, point
        assert [told.split()[::2] for told in point["told"]] == [["failed", "command"], ["failed", "desktop"]], point
