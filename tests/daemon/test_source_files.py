"""Which files of a project have changed since the workers have loaded them."""

from __future__ import annotations

from pathlib import Path

import pytest

from taskrun.daemon.watch.source_files import SourceFiles


@pytest.fixture
def root(tmp_path: Path) -> Path:
    (tmp_path / "jobs").mkdir()
    (tmp_path / "jobs" / "old.py").write_text("")
    (tmp_path / "taskrun.toml").write_text("")
    return tmp_path


def test_what_changes_while_it_is_loaded_has_changed(root: Path) -> None:
    files = SourceFiles(root / "taskrun.toml", root, ["jobs"])
    old, new = root / "jobs" / "old.py", root / "jobs" / "new.py"
    old.write_text("changed")
    new.write_text("")
    files.know([str(old)], [])
    assert [(change.file, change.how) for change in files.changes()] == [(new, "+"), (old, "~")]
    assert files.changes() == []


def test_a_file_that_is_imported_from_elsewhere_is_no_change(root: Path, tmp_path: Path) -> None:
    files = SourceFiles(root / "taskrun.toml", root, ["jobs"])
    (root / "helper.py").write_text("")
    files.know([str(root / "jobs" / "old.py"), str(root / "helper.py")], [])
    assert files.changes() == []
    (root / "other.py").write_text("")
    files.know([str(root / "helper.py")], [str(root / "jobs" / "old.py")])
    assert files.changes() == []
    (root / "other.py").write_text("it may mend it")
    assert [(change.file.name, change.how) for change in files.changes()] == [("other.py", "~")]


def test_a_look_that_was_held_up_once_does_not_count(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    files = SourceFiles(root / "taskrun.toml", root, ["jobs"])
    times = iter([0.0, 30.0, 30.0, 30.25, 31.0, 34.0, 34.0, 39.0])
    monkeypatch.setattr("taskrun.daemon.watch.source_files.time.monotonic", lambda: next(times))
    took = []
    for _ in range(4):
        files.changes()
        took.append(files.look_took)
    assert took[1:] == [0.25, 0.25, 3.0]
    assert took[0] < 1
