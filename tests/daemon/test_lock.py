"""One daemon per project: a lock that only its holder's life ends."""

from __future__ import annotations

import errno
import os
import signal
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from taskrun.daemon.lock import Holder, Lock, holder
from taskrun.model.errors import DaemonError, FolderReadOnly

ROOT = Path(__file__).parents[2]
CONTENDER = """
import sys
from pathlib import Path
from taskrun.daemon.lock import Lock
sys.stdin.read()
lock = Lock.take(Path(sys.argv[1]))
print("won" if lock else "lost", flush=True)
sys.stdin.close()
import time
time.sleep(30 if lock else 0)
"""

PARENT = """
import subprocess, sys
from pathlib import Path
from taskrun.daemon.lock import Lock
lock = Lock.take(Path(sys.argv[1]))
child = subprocess.Popen(["sleep", "30"])
print(child.pid, flush=True)
child.wait()
"""


def contender(path: Path) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", CONTENDER, str(path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        cwd=ROOT,
    )


def test_of_twenty_that_start_at_once_one_wins(tmp_path: Path) -> None:
    path = tmp_path / "daemon.lock"
    starters = [contender(path) for _ in range(20)]
    try:
        for starter in starters:
            assert starter.stdin is not None
            starter.stdin.close()
        words = [starter.stdout.readline().strip() for starter in starters if starter.stdout is not None]
        assert sorted(words) == ["lost"] * 19 + ["won"]
    finally:
        end(starters)


def end(starters: list[subprocess.Popen[str]]) -> None:
    for starter in starters:
        starter.kill()
        starter.wait()
        assert starter.stdout is not None
        starter.stdout.close()


def test_those_who_only_ask_take_it_from_nobody(tmp_path: Path) -> None:
    path = tmp_path / "daemon.lock"
    path.touch(0o600)
    for _ in range(200):
        assert holder(path) is None
        lock = Lock.take(path)
        assert lock is not None
        assert holder(path) is not None
        lock.release()


def test_the_holder_is_named_and_forgotten(tmp_path: Path) -> None:
    path = tmp_path / "daemon.lock"
    assert holder(path) is None
    lock = Lock.take(path)
    assert lock is not None
    assert holder(path) == Holder()
    lock.write(Holder(pid=os.getpid(), version="1", socket="/s"))
    assert holder(path) == Holder(pid=os.getpid(), version="1", socket="/s")
    assert Lock.take(path, tries=1) is None
    lock.release()
    assert holder(path) is None
    assert path.exists()


def test_the_file_is_ours_alone(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        lock = Lock.take(tmp_path / "daemon.lock")
    finally:
        os.umask(before)
    assert lock is not None
    assert stat.S_IMODE(lock.path.stat().st_mode) == 0o600
    lock.release()


def test_a_killed_holder_leaves_it_free_even_with_a_child_alive(tmp_path: Path) -> None:
    path = tmp_path / "daemon.lock"
    command = [sys.executable, "-c", PARENT, str(path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=ROOT) as parent:
        assert parent.stdout is not None
        child = int(parent.stdout.readline())
        try:
            assert holder(path) is not None
            parent.kill()
            parent.wait()
            assert holder(path) is None
        finally:
            os.kill(child, signal.SIGKILL)


def test_a_lock_whose_file_was_removed_is_known_to_be_worth_nothing(tmp_path: Path) -> None:
    lock = Lock.take(tmp_path / "daemon.lock")
    assert lock is not None
    assert lock.in_place
    lock.path.unlink()
    assert not lock.in_place
    lock.release()


def test_a_link_in_place_of_the_file_is_not_followed(tmp_path: Path) -> None:
    precious = tmp_path / "precious"
    precious.write_text("precious")
    (tmp_path / "daemon.lock").symlink_to(precious)
    try:
        Lock.take(tmp_path / "daemon.lock")
    except DaemonError:
        assert precious.read_text() == "precious"
    else:
        raise AssertionError("the link was followed")


def test_a_folder_that_cannot_be_written_to_is_said_to_be_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(*_: object) -> int:
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(os, "open", refused)
    monkeypatch.setattr(os, "access", lambda *_: False)
    with pytest.raises(FolderReadOnly, match=f"no daemon can run here: {tmp_path} cannot be written to"):
        Lock.take(tmp_path / "daemon.lock")
