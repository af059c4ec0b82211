"""A process killed at any journal write between an event and those who are told of it: each is told, by one run."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.crash.test_every_write import killed_everywhere


@pytest.mark.parametrize("kind", ["sqlite", pytest.param("postgres", marks=pytest.mark.slow)])
def test_killed_at_every_journal_write_everybody_is_told_once(kind: str, tmp_path: Path) -> None:
    points = killed_everywhere("telling", str(tmp_path), kind)
    assert len(points) >= 10, "it was not killed at its journal writes"
    for point in points:
        assert point["again"] == 0, point
        runs = {told.split()[1] for told in point["told"]}
        assert len(runs) == 1, point
        assert [told.split()[::2] for told in point["told"]] == [["failed", "command"], ["failed", "desktop"]], point
