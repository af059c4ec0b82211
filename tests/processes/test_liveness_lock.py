from __future__ import annotations

import stat
import subprocess
from pathlib import Path

import pytest

from taskrun.processes.liveness_lock import LivenessLock


def test_it_is_held_until_it_is_closed_and_its_file_goes_with_it(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    lock = LivenessLock(path)
    assert not LivenessLock.free(path)
    lock.close()
    assert LivenessLock.free(path)
    assert not path.exists()


def test_two_cannot_hold_it(tmp_path: Path) -> None:
    lock = LivenessLock(tmp_path / "lock")
    with pytest.raises(BlockingIOError):
        LivenessLock(tmp_path / "lock")
    lock.close()
    LivenessLock(tmp_path / "lock").close()


def test_asking_whether_it_is_free_leaves_it_free(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    path.touch()
    assert LivenessLock.free(path)
    assert LivenessLock.free(path)
    assert path.exists()


def test_only_the_owner_may_open_it(tmp_path: Path) -> None:
    lock = LivenessLock(tmp_path / "lock")
    assert stat.S_IMODE((tmp_path / "lock").stat().st_mode) == 0o600
    lock.close()


def test_a_missing_folder_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        LivenessLock(tmp_path / "nowhere" / "lock")


def test_a_child_that_got_it_holds_it_after_the_engine_let_go(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    lock = LivenessLock(path)
    with subprocess.Popen(["cat"], stdin=subprocess.PIPE, pass_fds=[lock.fd]) as child:
        lock.close()
        lock.close()
        assert not LivenessLock.free(path)
    assert child.returncode == 0
    assert LivenessLock.free(path)


def test_a_child_that_did_not_get_it_does_not_hold_it(tmp_path: Path) -> None:
    lock = LivenessLock(tmp_path / "lock")
    with subprocess.Popen(["cat"], stdin=subprocess.PIPE):
        lock.close()
        assert not lock.path.exists()
