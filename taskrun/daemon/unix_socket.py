"""The daemon's Unix socket: its path, and the checks that nobody but this user is at the other end.

The socket is in a folder that belongs to this user alone; any other folder is refused, with the cause. The daemon binds, the
client connects, and each checks the uid of its peer. Import-light, because the client is.
"""

from __future__ import annotations

import errno
import hashlib
import os
import socket
import stat
from collections.abc import Iterator, Mapping
from pathlib import Path

from taskrun.daemon.command_protocol import credentials
from taskrun.model.errors import DaemonError

LONGEST = 100  # bytes of a socket's path: the kernel's limit is 104 on macOS, 108 on Linux
LOOSE = stat.S_IRWXG | stat.S_IRWXO
WRITABLE = stat.S_IWGRP | stat.S_IWOTH
BACKLOG = 128


def socket_path(lock: Path, env: Mapping[str, str] = os.environ) -> Path:
    """Returns the path of the socket of the daemon whose lock is `lock`; creates its folder if need be.

    Raises:
        DaemonError: no folder is safe; says why.
    """
    name = hashlib.sha256(os.fsencode(lock.resolve())).hexdigest()[:16] + ".sock"
    for base, folder in _candidates(env):
        path = base / folder / name
        if len(os.fsencode(path)) <= LONGEST and base.is_dir():
            secure_folder(path.parent)
            return path
    raise DaemonError(
        "no folder is suitable for the daemon's socket: set XDG_RUNTIME_DIR to one of yours with a short path"
    )


def _candidates(env: Mapping[str, str]) -> Iterator[tuple[Path, str]]:
    """Yields folders, and the name of ours in them. One that the user has named must be safe; others are skipped if not."""
    uid = os.getuid()
    if (runtime := env.get("XDG_RUNTIME_DIR", "")).startswith("/"):
        if Path(runtime).is_dir() and (fault := _fault_of_base(Path(runtime))):
            raise DaemonError(f"XDG_RUNTIME_DIR cannot be used: {fault}")
        yield Path(runtime), "taskrun"
    ours = f"taskrun-{uid}"
    for base, folder in ((f"/run/user/{uid}", "taskrun"), (env.get("TMPDIR", ""), ours), ("/tmp", ours)):
        if base.startswith("/") and Path(base).is_dir() and not _fault_of_base(Path(base)):
            yield Path(base), folder


def _fault_of_base(base: Path) -> str:
    """Says how other users could replace a folder of ours in `base`; empty if they cannot."""
    found = base.stat()
    if found.st_uid not in (0, os.getuid()):
        return f"{base} belongs to uid {found.st_uid}, not to you"
    if found.st_mode & WRITABLE and not found.st_mode & stat.S_ISVTX:
        return f"other users may write to {base} (mode {stat.S_IMODE(found.st_mode):04o})"
    return ""


def secure_folder(folder: Path) -> None:
    """Creates `folder` with mode 0700, or checks that it belongs to this user alone.

    Raises:
        DaemonError: it is not.
    """
    try:
        folder.mkdir(0o700)
    except FileExistsError:
        pass
    except OSError as error:
        raise DaemonError(f"cannot create the folder {folder} for the daemon's socket: {error.strerror}") from error
    check_folder(folder)


def check_folder(folder: Path) -> None:
    """Refuses a folder that does not belong to this user alone.

    Raises:
        DaemonError: it does not; says what to do about it.
        OSError: it does not exist.
    """
    found = folder.lstat()
    mode = stat.S_IMODE(found.st_mode)
    if stat.S_ISLNK(found.st_mode):
        raise DaemonError(f"{folder} is a symbolic link where the daemon's socket needs a folder: remove it")
    if not stat.S_ISDIR(found.st_mode):
        raise DaemonError(f"{folder} is in the way: the daemon's socket needs a folder there")
    if found.st_uid != os.getuid():
        raise DaemonError(f"{folder} belongs to uid {found.st_uid}, not to you: set XDG_RUNTIME_DIR to one of yours")
    if mode & LOOSE:
        raise DaemonError(f"{folder} is open to other users (mode {mode:04o}): chmod 700 {folder}")


def bind(path: Path) -> socket.socket:
    """Returns a socket that listens at `path`, mode 0600 from the moment it exists; for the holder of the lock only.

    Raises:
        DaemonError: something that is not a socket is there, or the folder cannot be written to.
    """
    _remove_stale(path)
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    before = os.umask(0o177)
    try:
        listener.bind(os.fspath(path))
        listener.listen(BACKLOG)
    except OSError as error:
        listener.close()
        raise DaemonError(f"cannot listen at {path}: {error.strerror}") from error
    finally:
        os.umask(before)
    listener.setblocking(False)
    return listener


def _remove_stale(path: Path) -> None:
    try:
        found = path.lstat()
    except FileNotFoundError:
        return
    if not stat.S_ISSOCK(found.st_mode):
        raise DaemonError(f"{path} is in the way and is not a socket: remove it")
    path.unlink(missing_ok=True)


def answers(path: Path) -> bool:
    """Whether somebody listens at `path`."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as trial:
        trial.setblocking(False)
        try:
            trial.connect(os.fspath(path))
        except OSError as error:
            return error.errno == errno.EAGAIN  # its queue is full
    return True


def connect(path: Path, timeout: float) -> socket.socket:
    """Returns a connection to the socket at `path`, whose other end belongs to this user.

    Raises:
        OSError: nobody listens there.
        DaemonError: another user does, or the folder is not safe.
    """
    check_folder(path.parent)
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    connection.settimeout(timeout)
    try:
        connection.connect(os.fspath(path))
        check_peer(connection)
    except BaseException:
        connection.close()
        raise
    return connection


def check_peer(connection: socket.socket) -> int:
    """Returns the pid of the process at the other end.

    Raises:
        DaemonError: it belongs to another user.
    """
    uid, pid = credentials(connection)
    if uid != os.getuid():
        raise DaemonError(f"the other end of the daemon's socket belongs to uid {uid}, not to you")
    return pid
