"""Where the socket lies: one safe folder, a path that fits, and nobody else at the other end."""

from __future__ import annotations

import os
import socket
import stat
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from taskrun.daemon import unix_socket
from taskrun.model.errors import DaemonError


@pytest.fixture
def tmp_path() -> Iterator[Path]:
    """A short folder: with pytest's own, a long `TMPDIR` would send these tests to the sockets of the user's real daemons."""
    with tempfile.TemporaryDirectory(prefix="tr", dir="/tmp") as name:
        yield Path(name).resolve()


@pytest.fixture
def runtime(tmp_path: Path) -> dict[str, str]:
    return {"XDG_RUNTIME_DIR": str(tmp_path)}


def test_the_folder_is_made_for_this_user_alone(tmp_path: Path, runtime: dict[str, str]) -> None:
    path = unix_socket.socket_path(tmp_path / "daemon.lock", runtime)
    assert path.parent == tmp_path / "taskrun"
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700


def test_the_path_fits_however_deep_the_project_is(tmp_path: Path, runtime: dict[str, str]) -> None:
    deep = tmp_path / "/".join(["x" * 50] * 10) / "daemon.lock"
    assert len(os.fsencode(unix_socket.socket_path(deep, runtime))) <= unix_socket.LONGEST


def test_a_runtime_folder_with_a_long_path_is_passed_over(tmp_path: Path) -> None:
    long = tmp_path / ("y" * 100)
    long.mkdir(0o700)
    path = unix_socket.socket_path(tmp_path / "daemon.lock", {"XDG_RUNTIME_DIR": str(long), "TMPDIR": str(tmp_path)})
    assert not path.is_relative_to(long)
    assert len(os.fsencode(path)) <= unix_socket.LONGEST


@pytest.mark.parametrize("env", [{}, {"XDG_RUNTIME_DIR": "/does/not/exist"}, {"XDG_RUNTIME_DIR": "relative"}])
def test_a_missing_runtime_folder_falls_back(tmp_path: Path, env: dict[str, str]) -> None:
    path = unix_socket.socket_path(tmp_path / "daemon.lock", {**env, "TMPDIR": str(tmp_path)})
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700


def test_two_projects_have_two_sockets_and_one_has_one(tmp_path: Path, runtime: dict[str, str]) -> None:
    first, second = (unix_socket.socket_path(tmp_path / name / "daemon.lock", runtime) for name in "ab")
    assert first != second
    (tmp_path / "a").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "a")
    assert unix_socket.socket_path(tmp_path / "link" / "daemon.lock", runtime) == first


def attack_by_link(folder: Path) -> None:
    elsewhere = folder.parent / "elsewhere"
    elsewhere.mkdir(0o700)
    folder.symlink_to(elsewhere)


def attack_by_mode(folder: Path) -> None:
    folder.mkdir()
    folder.chmod(0o770)


def attack_by_file(folder: Path) -> None:
    folder.touch()


@pytest.mark.parametrize(
    ("attack", "cause"),
    [(attack_by_link, "symbolic link"), (attack_by_mode, "mode 0770"), (attack_by_file, "in the way")],
)
def test_a_folder_that_is_not_ours_alone_is_refused_with_the_cause(
    tmp_path: Path, runtime: dict[str, str], attack: Callable[[Path], None], cause: str
) -> None:
    attack(tmp_path / "taskrun")
    with pytest.raises(DaemonError, match=cause):
        unix_socket.socket_path(tmp_path / "daemon.lock", runtime)


@pytest.mark.skipif(os.getuid() != 0, reason="only root can make another user's folder")
@pytest.mark.parametrize("foreign", ["", "taskrun"])
def test_another_users_folder_is_refused(tmp_path: Path, runtime: dict[str, str], foreign: str) -> None:
    folder = tmp_path / foreign
    folder.mkdir(0o700, exist_ok=True)
    os.chown(folder, 65534, 65534)
    with pytest.raises(DaemonError, match="belongs to uid 65534"):
        unix_socket.socket_path(tmp_path / "daemon.lock", runtime)


def test_a_runtime_folder_that_others_may_write_to_is_refused(tmp_path: Path, runtime: dict[str, str]) -> None:
    tmp_path.chmod(0o777)
    with pytest.raises(DaemonError, match="other users may write"):
        unix_socket.socket_path(tmp_path / "daemon.lock", runtime)


@pytest.mark.parametrize("mask", [0o000, 0o022, 0o177])
def test_the_socket_is_ours_alone_whatever_the_umask(tmp_path: Path, runtime: dict[str, str], mask: int) -> None:
    path = unix_socket.socket_path(tmp_path / "daemon.lock", runtime)
    before = os.umask(mask)
    try:
        with unix_socket.bind(path):
            assert stat.S_IMODE(path.stat().st_mode) == 0o600
    finally:
        assert os.umask(before) == mask


def test_a_stale_socket_is_replaced_and_anything_else_refused(tmp_path: Path, runtime: dict[str, str]) -> None:
    path = unix_socket.socket_path(tmp_path / "daemon.lock", runtime)
    unix_socket.bind(path).close()
    with unix_socket.bind(path), unix_socket.connect(path, 1) as connection:
        assert unix_socket.check_peer(connection) == os.getpid()
    path.unlink()
    path.write_text("precious")
    with pytest.raises(DaemonError, match="not a socket"):
        unix_socket.bind(path)
    assert path.read_text() == "precious"


def test_a_client_refuses_a_socket_in_a_folder_that_became_open(tmp_path: Path, runtime: dict[str, str]) -> None:
    path = unix_socket.socket_path(tmp_path / "daemon.lock", runtime)
    with unix_socket.bind(path):
        path.parent.chmod(0o777)
        with pytest.raises(DaemonError, match="open to other users"):
            unix_socket.connect(path, 1)


@pytest.fixture
def open_folder() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(dir="/tmp") as name:
        Path(name).chmod(0o711)
        yield Path(name)


@pytest.mark.skipif(os.getuid() != 0, reason="only root can become another user")
def test_a_peer_of_another_user_is_refused(open_folder: Path) -> None:
    path = open_folder / "s"
    with socket.socket(socket.AF_UNIX) as listener:
        listener.settimeout(20)
        listener.bind(str(path))
        path.chmod(0o777)
        listener.listen()
        code = f"import socket; s = socket.socket(socket.AF_UNIX); s.connect({str(path)!r}); s.recv(1)"
        with subprocess.Popen(["/usr/bin/python3", "-c", code], user=65534, group=65534, extra_groups=[]):
            connection, _ = listener.accept()
            with connection, pytest.raises(DaemonError, match="uid 65534"):
                unix_socket.check_peer(connection)


def test_a_client_waits_no_longer_than_it_said(tmp_path: Path, runtime: dict[str, str]) -> None:
    path = unix_socket.socket_path(tmp_path / "daemon.lock", runtime)
    with unix_socket.bind(path), unix_socket.connect(path, 0.05) as connection, pytest.raises(TimeoutError):
        connection.recv(1)
