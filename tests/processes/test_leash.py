from __future__ import annotations

import stat
import subprocess
from pathlib import Path

import pytest

from taskrun.processes.liveness_lock import Leash


def test_it_is_held_until_it_is_closed_and_its_file_goes_with_it(tmp_path: Path) -> None:
    path = tmp_path / "leash"
    leash = Leash(path)
    assert not Leash.free(path)
    leash.close()
    assert Leash.free(path)
    assert not path.exists()


def test_two_cannot_hold_it(tmp_path: Path) -> None:
    leash = Leash(tmp_path / "leash")
    with pytest.raises(BlockingIOError):
        Leash(tmp_path / "leash")
    leash.close()
    Leash(tmp_path / "leash").close()


def test_asking_whether_it_is_free_leaves_it_free(tmp_path: Path) -> None:
    path = tmp_path / "leash"
    path.touch()
    assert Leash.free(path)
    assert Leash.free(path)
    assert path.exists()


def test_only_the_owner_may_open_it(tmp_path: Path) -> None:
    leash = Leash(tmp_path / "leash")
    assert stat.S_IMODE((tmp_path / "leash").stat().st_mode) == 0o600
    leash.close()


def test_a_missing_folder_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        Leash(tmp_path / "nowhere" / "leash")


def test_a_child_that_got_it_holds_it_after_the_engine_let_go(tmp_path: Path) -> None:
    path = tmp_path / "leash"
    leash = Leash(path)
    with subprocess.Popen(["cat"], stdin=subprocess.PIPE, pass_fds=[leash.fd]) as child:
        leash.close()
        leash.close()
        assert not Leash.free(path)
    assert child.returncode == 0
    assert Leash.free(path)


def test_a_child_that_did_not_get_it_does_not_hold_it(tmp_path: Path) -> None:
    leash = Leash(tmp_path / "leash")
    with subprocess.Popen(["cat"], stdin=subprocess.PIPE):
        leash.close()
        assert not leash.path.exists()
